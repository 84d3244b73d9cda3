# SPDX-License-Identifier: GPL-2.0-or-later
"""All that this host tells, for a report or a snapshot. Each part is there, or says why not."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tuned_virt.cli import (
    audit_sources,
    disks,
    guests,
    host_role,
    hugepages,
    json_output,
    ksm_report,
    log,
    planning_input,
    settings_file,
    status,
)
from tuned_virt.cli.collected import Collected, Content, HostState, tried
from tuned_virt.cli.common import CouldNot
from tuned_virt.cli.guest_rows import GuestRow
from tuned_virt.core import active_profile, settings
from tuned_virt.kernel.files import KernelFS
from tuned_virt.model.host_facts import Fact

CHANGES = 100
"""Changes of the journal that are taken, the newest ones."""


def here(fs: KernelFS) -> Collected:
    """This host. What cannot be read does not stop the rest."""
    return Collected(
        host=os.uname().nodename,
        when=json_output.moment(time.time()),
        planning=tried(lambda: planning_input.here(fs)),
        audit=tried(lambda: audit_sources.read(fs)),
        role=host_role.read(fs),
        state=state(fs),
    )


def state(fs: KernelFS) -> HostState:
    """What commands say of this host."""
    return HostState(
        rows=tried(lambda: _rows(fs)),
        status=tried(lambda: status.gather(fs)),
        hugepages=tried(lambda: hugepages.gather(fs)),
        ksm=_ksm(fs),
        disks=tried(lambda: disks.look(fs).content()),
        changes=tried(lambda: log.gather(CHANGES)),
        settings=tried(_settings),
        switched=tried(_switched),
    )


def _rows(fs: KernelFS) -> list[GuestRow]:
    look = guests.Look(fs, None)
    look.take(guests.SAMPLE)
    return look.rows


def _ksm(fs: KernelFS) -> Fact[Content]:
    content = ksm_report.gather(fs)
    return Fact(None, ksm_report.ABSENT) if content is None else Fact(content, "")


def _settings() -> dict[str, str]:
    """The text of each settings file, by path, an image's before the machine's."""
    files = [one for file in settings_file.machines_files() for one in settings.layers(file)]
    return {file: planning_input.text_of(Path(file)) for file in files}


def _switched() -> str:
    """When TuneD last wrote down its profile. Raises CouldNot where none is written."""
    if not planning_input.text_of(Path(active_profile.NAMES)).strip():
        raise CouldNot("no profile is written down")
    return json_output.moment(os.stat(active_profile.NAMES).st_mtime)
