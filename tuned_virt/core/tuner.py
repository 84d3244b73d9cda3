# SPDX-License-Identifier: GPL-2.0-or-later
"""What a plugin is made of: how it reads and decides, how it writes, and its sections."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from tuned_virt.core.journal import Journal
from tuned_virt.core.options import OptionSpec, Section
from tuned_virt.core.overridden import TunedChoice, TunedSetting
from tuned_virt.core.plan import Change, Plan, Values
from tuned_virt.core.section_settings import SettingNames
from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.kernel import timeouts
from tuned_virt.kernel.files import KernelFS, active_word

if TYPE_CHECKING:
    from tuned_virt.core.engine import Controller

P = TypeVar("P")
S = TypeVar("S")
R = TypeVar("R", bound="Registered")

Replan = Callable[[], None]
"""Has a policy planned and applied once more, for a machine that has changed."""


class Writer:
    """How a plugin's changes are made and read back: by kernel files, where it has no other way."""

    threads: int = 64
    timeout: float = timeouts.QUEUE_DRAINS
    timeout_reason: str = "not done yet"
    """Of `worker_key`: how many at a time, how long one may do nothing, and what is said then."""

    def worker_key(self, setting: str) -> str:
        """Changes of one key are made in order, those of several side by side, after those of "".

        A change that hangs keeps its key busy until it ends, and keeps nobody waiting.
        """
        return ""

    def current(self, fs: KernelFS, change: Change) -> object:
        """The value to compare before and after writing. Raises KernelFileError."""
        return active_word(fs.read(change.path))

    def write(self, fs: KernelFS, change: Change, abandoned: threading.Event) -> str:
        """Make one change; what it came out short of, in words, where that is known.

        A slow one ends early once it is abandoned. Raises KernelFileError.
        """
        fs.write(change.path, str(change.after))
        return ""

    def took(self, change: Change, now: object) -> bool:
        """Whether what is read after a change is what was written."""
        return now == change.after


@dataclass(frozen=True)
class Sections(Generic[P]):
    """Sections of a profile that stay apart, each with its devices, in one policy.

    parse               from the sections, and those of TuneD's own plugin that set the same. Raises
                        BadOptions
    conflicting_plugin  that plugin of TuneD's, and its option
    """

    parse: Callable[[Sequence[Section], Sequence[Section]], P]
    conflicting_plugin: tuple[str, str] = ("", "")


class Registered(ABC):
    """What `tuned-virt restore` and the plugins find by name: a class with one registers itself."""

    classes: ClassVar[dict[str, type[Registered]]] = {}

    name: str
    options: Mapping[str, OptionSpec]
    setting_names: SettingNames = SettingNames()
    """What the options are called in a profile's settings file."""
    part_of: str = ""
    """The plugin whose second record this is, where `name` is not a plugin."""
    restore_order: int = 0
    """Kernel settings are restored first (0); then weights (1), which the disks' scheduler (2) has
    to know; what TuneD's own plugins set (3); guests last (4), for which libvirt is waited."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "name" in cls.__dict__:
            Registered.classes[cls.name] = cls

    @classmethod
    def on_host(cls: type[R]) -> R:
        """One that tunes this machine."""
        return cls()

    @classmethod
    def kernel_files(cls, originals: Values) -> Values:
        """Of the kept originals those of single kernel files, by path: what was there before."""
        return {}


class Tuner(Registered, Generic[P, S]):
    """What one plugin tunes: its options, how to read the machine, and the pure decision."""

    restore_is_deferred: bool = True
    """At a profile switch, undoing waits for the next apply, which may want the same."""
    writer: Writer = Writer()
    tuned_settings: Mapping[str, TunedSetting] = {}
    tuned_choices: Mapping[str, TunedChoice] = {}
    """Settings of the file that TuneD's own plugins apply: verify asks whether they hold."""
    sections: Sections[P] | None = None
    """None where a profile's sections are merged into one."""

    @abstractmethod
    def parse(self, options: Mapping[str, str]) -> P:
        """The policy that options ask for. Raises BadOptions, naming all that is wrong."""

    @abstractmethod
    def read(self, fs: KernelFS, policy: P, originals: Values) -> S:
        """The machine as it is, as far as this policy and the kept originals need to know."""

    @abstractmethod
    def decide(self, policy: P, state: S, originals: Values) -> Plan:
        """The changes towards the policy; kept originals it does not claim are put back. Pure."""

    @abstractmethod
    def values(self, state: S) -> Values:
        """The settings' values in a state, by name."""

    def look(self, fs: KernelFS, policy: P, originals: Values) -> S:
        """The machine as far as verify compares it; cheaper than `read` where that is possible."""
        return self.read(fs, policy, originals)

    def undoing(self, policy: P) -> P:
        """The policy that asks for nothing, with the permissions of the one it undoes."""
        return self.parse({})

    def controller(
        self, policy: P, plan: Plan, fs: KernelFS, journal: Journal, replan: Replan
    ) -> Controller | None:
        """What goes on tuning once the plan is carried out; None for a plan that is all."""
        return None

    def files(self, policy: P, settings: Values) -> Values:
        """Kernel files that TuneD's own plugins may set too, with the policy's value ("" where that
        is decided later). For a policy that names no files: those of settings, with their values,
        be they planned or kept."""
        return {}

    def restored(self) -> None:
        """Everything is back: what else says that something is in force goes."""

    def gone(self, state: S, setting: str) -> str:
        """Why a setting that was applied is no more, "" where nothing explains it."""
        return ""
