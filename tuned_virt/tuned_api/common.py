# SPDX-License-Identifier: GPL-2.0-or-later
"""What all kinds of plugins share: exceptions kept in, verify's lines, what TuneD does next."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from types import FrameType
from typing import Any, ClassVar, TypeVar

from tuned import consts

from tuned_virt.core import active_profile, section_settings, settings
from tuned_virt.core.active_profile import ActiveProfile
from tuned_virt.core.engine import Finding, Result
from tuned_virt.core.installed_profiles import InstalledProfiles
from tuned_virt.core.next_profile import NextProfile
from tuned_virt.core.options import OptionError, OptionSpec, no_such, template
from tuned_virt.core.section_settings import DEFAULTS, FILE, SectionSettings, combined
from tuned_virt.core.system_root import OutsideRootError, SystemRoot
from tuned_virt.kernel import systemd
from tuned_virt.tuned_api import stock_values

log = logging.getLogger("tuned")

T = TypeVar("T")

VARIABLE = re.compile(r"\$\{(\w+)\}")

FOLLOWED_BY_APPLY = frozenset({"_switch_profile", "reload"})
"""Methods of TuneD's controller that unapply only to apply again at once."""


def next_profile() -> NextProfile | None:
    """What a switch, a reload or a restart under way applies next; None where nothing is.

    TuneD does not tell a plugin why it unapplies, but the thread that asked for it waits in one of
    the controller's methods.
    """
    for thread_frame in sys._current_frames().values():
        frame: FrameType | None = thread_frame
        while frame is not None:
            if (
                frame.f_code.co_name in FOLLOWED_BY_APPLY
                and frame.f_globals.get("__name__") == "tuned.daemon.controller"
            ):
                return _of_controller(frame.f_locals)
            frame = frame.f_back
    return NextProfile(_named_by_files().all) if systemd.restarting() else None


def _of_controller(found: Mapping[str, Any]) -> NextProfile:
    """From the variables of the method that switches (its argument) or reloads (TuneD's files)."""
    daemon = getattr(found.get("self"), "_daemon", None)
    settled = getattr(daemon, "_profile_applied", None) or threading.Event()
    files = _named_by_files()
    names = found.get("profile_name")
    if names is None:
        return NextProfile(files.all, settled)
    return NextProfile(replace(files, names=tuple(str(names).split())).all, settled)


def _named_by_files() -> ActiveProfile:
    try:
        return active_profile.read(SystemRoot())
    except (OSError, OutsideRootError):
        return ActiveProfile()


def drop_from_repository(plugin: Any) -> None:
    """Have TuneD let go of a plugin object that it cleans up, as TuneD 2.25 and later do.

    Before, its repository kept each that it had ever made; nothing leads there but who cleans up.
    """
    manager = stock_values.caller("tuned.units.manager")
    repository = getattr(manager, "plugins_repository", None)
    if repository is not None:
        repository.plugins.discard(plugin)


@contextlib.contextmanager
def contained(plugin: str) -> Iterator[None]:
    """Say an exception instead of letting it into TuneD."""
    try:
        yield
    except Exception:
        log.exception("%s: internal error, please report it", plugin)


def expanded(variables: Any, options: Mapping[str, str | None]) -> dict[str, str]:
    """Options with TuneD's variables replaced.

    One that is a variable and nothing else is looked up, for TuneD searches each text for every
    variable that there is, at each of its characters; the rest are expanded in one go.
    """
    texts = {name: text or "" for name, text in options.items()}
    if not any("${" in text for text in texts.values()):
        return texts
    defined: Mapping[str, str] = variables.get_env()
    for name, text in texts.items():
        found = VARIABLE.fullmatch(text)
        texts[name] = defined.get(f"{consts.ENV_PREFIX}{found[1]}", text) if found else text
    rest = [name for name, text in texts.items() if "${" in text]
    if rest:
        joined = str(variables.expand("\0".join(texts[name] for name in rest)))
        texts.update(zip(rest, joined.split("\0")))
    return texts


def log_findings(findings: list[Finding]) -> bool:
    """Log the findings as TuneD logs its own; whether none failed."""
    for finding in findings:
        log.log(logging.ERROR if finding.result is Result.FAILED else logging.INFO, "%s", finding)
    return not any(finding.result is Result.FAILED for finding in findings)


class PreviousProfile:
    """The profile before this one. TuneD makes all plugins, replaces its files, then applies."""

    _before: ActiveProfile | None = None
    _unread: OSError | OutsideRootError | None = None

    @classmethod
    def read(cls) -> None:
        """Read TuneD's files, while the first of the plugins is made."""
        if cls._before is not None:
            return
        cls._unread = None
        try:
            cls._before = active_profile.read(SystemRoot())
        except (OSError, OutsideRootError) as error:
            cls._unread = error

    @classmethod
    def forget(cls) -> None:
        """TuneD is done with its plugins: those that it makes next have another one before."""
        cls._before = cls._unread = None

    @classmethod
    def remember(cls) -> None:
        """Record what was read, or say that it could not be, when the first plugin is applied."""
        before, unread = cls._before, cls._unread
        cls._before = cls._unread = None
        if before is not None:
            active_profile.remember(before, InstalledProfiles(SystemRoot()))
        if unread is not None:
            active_profile.say_not_recorded(unread)


def log_stock(plugin: str, instance: Any) -> bool:
    """Log what TuneD's own verify has no line for, once a verify; whether none failed."""
    with contained(plugin):
        return log_findings(stock_values.findings(instance))
    return False


class TunerOptions:
    """What TuneD asks a plugin about its options, for one whose tuner has them."""

    tuner: Any
    _variables: Any
    _answers: ClassVar[dict[str, tuple[Any, Any]]]

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        cls._answers = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._unknown: list[OptionError] = []
        super().__init__(*args, **kwargs)

    @classmethod
    def _there_are(cls) -> Mapping[str, OptionSpec]:
        return {**cls.tuner.options, "settings": FILE, "defaults": DEFAULTS}

    @classmethod
    def _get_config_options(cls) -> dict[str, str | None]:
        return {name: option.default for name, option in cls._there_are().items()}

    @classmethod
    def get_config_options_hints(cls) -> dict[str, str]:
        """What each option means, for TuneD's GUI and D-Bus."""
        return {name: option.hint for name, option in cls._there_are().items()}

    def _get_effective_options(self, options: Mapping[str, str]) -> dict[str, str | None]:
        """Those that the section has; None for others, which its settings file may have."""
        there_are, manual = self._there_are(), f"tuned-plugin-{self.tuner.name}(7)"
        self._unknown += [
            no_such(name, str(value), there_are, manual)
            for name, value in options.items()
            if template(name) not in there_are
        ]
        known = {name: value for name, value in options.items() if template(name) in there_are}
        return {**dict.fromkeys(there_are), **known}

    def _written(self, instance: Any) -> dict[str, str]:
        """The options that a section sets itself."""
        there = {name: text for name, text in instance.options.items() if text is not None}
        return expanded(self._variables, there)

    @classmethod
    def _once(cls, what: str, question: Any, answer: Callable[[], T]) -> T:
        """An answer that holds while the question is the same; TuneD makes new objects of this
        class at every switch, and most ask what the one before has asked."""
        known = cls._answers.get(what)
        if known is None or known[0] != question:
            known = cls._answers[what] = (question, answer())
        found: T = known[1]
        return found

    def _settings(self, written: Iterable[Mapping[str, str]]) -> SectionSettings:
        """What a section's settings file has for it; the first one's that names a file."""
        for one in written:
            if one.get("settings") and one.get("defaults"):
                found = self._of_files(one["settings"], one["defaults"])
                texts = expanded(self._variables, found.texts)
                return found if texts == found.texts else replace(found, texts=texts)
        return SectionSettings()

    def _combined(
        self, section: str, found: SectionSettings, written: Mapping[str, str]
    ) -> Mapping[str, str]:
        """See `section_settings.combined`."""
        options = self.tuner.options
        asked = (found, written)
        return self._once(f"options of {section}", asked, lambda: combined(options, *asked))

    def _of_files(self, file: str, defaults: str) -> SectionSettings:
        """What a settings file and the profile's defaults have. What is wrong is looked at anew:
        whether a name is unknown depends on other profiles, too."""
        tuner = self.tuner

        def load() -> SectionSettings:
            used = InstalledProfiles().using
            return section_settings.load(tuner.setting_names, tuner.options, file, defaults, used)

        try:
            versions = [(one, settings.version(one)) for one in (*settings.layers(file), defaults)]
        except OSError:
            return load()
        found = self._once("settings", versions, load)
        if found.errors:
            del self._answers["settings"]
        return found

    def cleanup(self) -> None:
        """TuneD is done with this object."""
        PreviousProfile.forget()
        super().cleanup()  # type: ignore[misc]
        drop_from_repository(self)

    def _instance_init(self, instance: Any) -> None:
        instance._has_static_tuning = True
        instance._has_dynamic_tuning = False
        with contained(self.tuner.name):
            PreviousProfile.read()

    def instance_apply_tuning(self, instance: Any) -> None:
        """As TuneD's, once the profile before this one is recorded."""
        with contained(self.tuner.name):
            PreviousProfile.remember()
        super().instance_apply_tuning(instance)  # type: ignore[misc]

    def _instance_cleanup(self, instance: Any) -> None:
        pass
