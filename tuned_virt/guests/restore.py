# SPDX-License-Identifier: GPL-2.0-or-later
"""`tuned-virt restore` for guest plugins: guests put back without TuneD."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Generic, TypeVar

from tuned_virt.core.plan import Change, Plan, Values
from tuned_virt.core.tuner import P, Tuner, Writer
from tuned_virt.guests.originals import SEPARATOR, GuestOriginal, may_run
from tuned_virt.kernel.files import KernelFS, NotDone
from tuned_virt.model.guest import printable

if TYPE_CHECKING:  # libvirt's binding takes time to import
    from tuned_virt.libvirt_api.worker import GuestsView, OneShotClient

CHANGED, AS_FOUND = "changed", "as found"

O = TypeVar("O", bound=GuestOriginal)  # noqa: E741


class _GuestWriter(Writer, Generic[O]):
    """Puts guests back in libvirt's worker, and the kernel's settings by their files."""

    def __init__(
        self,
        kept: Mapping[str, O],
        put_back: Callable[[GuestsView, KernelFS, O], str],
        without_libvirt: Callable[[KernelFS, O], str],
    ) -> None:
        self._kept = kept
        self._put_back = put_back
        self._without_libvirt = without_libvirt
        self._done: set[str] = set()
        self._visitors: dict[str, OneShotClient] = {}

    def current(self, fs: KernelFS, change: Change) -> object:
        """Whether a guest has been put back by this process."""
        if change.setting not in self._kept:
            return super().current(fs, change)
        return AS_FOUND if change.setting in self._done else CHANGED

    def write(self, fs: KernelFS, change: Change, abandoned: threading.Event) -> str:
        """Put one guest back. Raises KernelFileError where that is not, or not wholly, done."""
        from tuned_virt.libvirt_api.errors import Unanswered
        from tuned_virt.libvirt_api.worker import OneShotClient, libvirt_worker

        kept = self._kept.get(change.setting)
        if kept is None:
            return super().write(fs, change, abandoned)
        if kept.uri not in self._visitors:
            self._visitors[kept.uri] = OneShotClient(libvirt_worker(kept.uri))
        one = kept
        try:
            why = self._visitors[kept.uri].ask(lambda view: self._put_back(view, fs, one))
        except Unanswered as error:
            why = "; ".join(filter(None, [str(error), self._without_libvirt(fs, kept)]))
        if why:
            raise NotDone(change.path, why, AS_FOUND)
        self._done.add(change.setting)
        return ""


class GuestRestore(Tuner[P, Values], Generic[P, O]):
    """Puts back every guest that is kept. Its state are the kernel settings that are kept too."""

    def __init__(self) -> None:
        self._kept: dict[str, O] = {}
        self.writer = _GuestWriter(self._kept, self.put_back, self.without_libvirt)

    @abstractmethod
    def original(self, text: str) -> O:
        """What is kept of one guest. Raises ValueError."""

    @abstractmethod
    def put_back(self, view: GuestsView, fs: KernelFS, kept: O) -> str:
        """In libvirt's worker: put one guest back; why it is not, or ""."""

    def without_libvirt(self, fs: KernelFS, kept: O) -> str:
        """What could be done although libvirt does not answer, in words."""
        return ""

    def read(self, fs: KernelFS, policy: P, originals: Values) -> Values:
        """What is kept of guests is taken in; returns the kernel's values."""
        self._kept.clear()
        self._kept.update(
            (key, self.original(text)) for key, text in originals.items() if SEPARATOR in key
        )
        return self.kernel(fs)

    def kernel(self, fs: KernelFS) -> Values:
        """The kernel's settings that the plugin has too."""
        return {}

    def decide(self, policy: P, state: Values, originals: Values) -> Plan:
        """Everything goes back; of a guest that runs no more there is nothing to put back."""
        changes = [
            Change(key, f"guest {printable(kept.name)}", CHANGED, AS_FOUND, "nobody holds it")
            for key, kept in self._kept.items()
            if may_run(kept)
        ]
        return Plan((*changes, *self.kernel_changes(state, originals)))

    def kernel_changes(self, state: Values, originals: Values) -> list[Change]:
        """The way back of the kernel's settings."""
        return []

    def values(self, state: Values) -> Values:
        """The kernel's own."""
        return state
