# SPDX-License-Identifier: GPL-2.0-or-later
"""Which profile TuneD will apply when it starts: read and written in files, with no daemon.

Works for the running system and for a tree that is being installed (an image, a kickstart's
/mnt/sysroot, an ostree commit): only files below the root are read and written, no bus is spoken
to. The files are those of `tuned-adm profile` without a daemon.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tuned_virt.cli.common import CouldNot
from tuned_virt.core import active_profile, profile_dirs
from tuned_virt.core.active_profile import ActiveProfile
from tuned_virt.core.installed_profiles import InstalledProfiles
from tuned_virt.core.state_file import UnusableStateError
from tuned_virt.core.system_root import OutsideRootError, SystemRoot

PPD = "/etc/tuned/ppd.conf"
PPD_WANTED = "etc/systemd/system/*.wants/tuned-ppd.service"
"""tuned-ppd sets the profile that is named there each time it starts."""

RECOMMENDED = "/usr/lib/tuned/recommend.d/20-virt-plus.conf"
"""With this file TuneD's own choice is one of ours."""


@contextlib.contextmanager
def file_errors() -> Iterator[None]:
    """What is wrong with TuneD's files, as CouldNot."""
    try:
        yield
    except OSError as error:
        raise CouldNot(f"{error.filename}: {error.strerror}") from error
    except OutsideRootError as error:
        raise CouldNot(str(error)) from error


class Machine:
    """The TuneD installed below a root. Raises CouldNot where there is none.

    All methods raise OutsideRootError and OSError.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        if not root.is_dir():
            raise CouldNot(f"'{root}' is not a folder: give the root of an installed system")
        self.system = SystemRoot(root)
        self.profiles = InstalledProfiles(self.system)
        if not os.path.isfile(self.system.path(profile_dirs.MAIN)):
            raise CouldNot(
                f"TuneD is not installed in {root}: there is no {root}{profile_dirs.MAIN}"
            )

    def active(self) -> ActiveProfile:
        """What TuneD applies when it starts."""
        return active_profile.read(self.system)

    def previous(self) -> ActiveProfile | None:
        """What was active before ours; None where that is not known, or the record is damaged."""
        try:
            found = active_profile.record_file(self.system).read()
        except UnusableStateError:
            return None
        return found if isinstance(found, ActiveProfile) else None

    def returns_to(
        self, active: ActiveProfile, off: Collection[str]
    ) -> tuple[ActiveProfile, list[str]]:
        """What is to be active once these profiles are off; and why that is not what was before."""
        if not any(name in off for name in active.names):
            return active_profile.returns_to(active, off, None), []
        saved = self.active()
        unsaved = not any(map(self.profiles.uses, saved.names))  # TuneD could not write its files
        previous = saved if unsaved else self.previous()
        if previous is None:
            notes = ["the profile that was active before is not known"]
            return active_profile.returns_to(active, off, None), notes
        reasons = {name: self._unusable(name) for name in previous.names}
        usable = replace(previous, names=tuple(name for name in reasons if not reasons[name]))
        return active_profile.returns_to(active, off, usable), list(filter(None, reasons.values()))

    def _unusable(self, name: str) -> str:
        if self.profiles.uses(name):
            return f"the profile '{name}', which was active before, uses tuned-virt-plus now"
        return self.profiles.wrong(name)

    def enable(self, names: list[str]) -> bool:
        """Have TuneD apply these profiles when it starts, and have it start at boot.

        Whether that changed anything. Raises CouldNot, with nothing changed.
        """
        from tuned_virt.cli.boot_service import BootService
        from tuned_virt.cli.file_changes import all_or_nothing, differing

        for name in names:
            reason = self.profiles.wrong(name)
            if reason:
                raise CouldNot(reason)
        service = BootService(self.system)
        service.check()
        now = self.active()
        changes = self._selection(replace(now, names=tuple(names), automatic=False))
        if any(map(self.profiles.uses, names)) and not any(map(self.profiles.uses, now.names)):
            record = active_profile.record_file(self.system)
            changes[Path(record.path)] = record.text(active_profile.content(now))
        changes = differing(changes)
        with all_or_nothing(changes):
            return service.enable() or bool(changes)

    def select(self, active: ActiveProfile) -> bool:
        """Have TuneD apply this when it starts; whether that changed anything."""
        from tuned_virt.cli.file_changes import all_or_nothing, differing

        changes = differing(self._selection(active))
        with all_or_nothing(changes):
            return bool(changes)

    def leaves_tuning(self) -> bool:
        """Whether TuneD is told to leave its tuning when it ends, which `off` counts as."""
        return profile_dirs.stays_applied(self.system.text(profile_dirs.MAIN))

    def chooses_ours(self) -> bool:
        """Whether TuneD's own choice is one of ours, as far as files tell."""
        return os.path.exists(self.system.path(RECOMMENDED))

    def ppd_names(self) -> set[str]:
        """The profiles that tuned-ppd may set."""
        values = re.findall(r"^[^#;\[\n]*=([^#\n]*)", self.system.text(PPD), re.MULTILINE)
        return {name for value in values for name in value.split()}

    def ppd_replaces(self, names: Collection[str]) -> bool:
        """Whether tuned-ppd will replace these profiles when it starts."""
        starts = glob.glob(os.path.join(glob.escape(self.system.root), PPD_WANTED))
        return bool(starts) and not self.ppd_names() & {*names}

    def forget(self) -> None:
        """None of ours is active any more."""
        record = active_profile.record_file(self.system)
        if os.path.exists(record.path):
            record.discard()

    def _selection(self, active: ActiveProfile) -> dict[Path, str]:
        files = {
            active_profile.MODE: f"{active_profile.mode(active)}\n",
            active_profile.NAMES: f"{' '.join(active.names)}\n" if active.names else "",
        }
        post_loaded = f"{active.post_loaded}\n" if active.post_loaded else ""
        if active.post_loaded or self.system.text(active_profile.POST_LOADED).strip():
            files[active_profile.POST_LOADED] = post_loaded
        return {Path(self.system.path(name)): text for name, text in files.items()}


def disabling(names: Sequence[str]) -> tuple[ActiveProfile, list[str]] | None:
    """What `disable` makes of these active profiles, with notes; None where none is ours."""
    try:
        machine = Machine()
        off = [name for name in names if machine.profiles.uses(name)]
        return machine.returns_to(ActiveProfile(tuple(names)), off) if off else None
    except (CouldNot, OSError, OutsideRootError):
        return None
