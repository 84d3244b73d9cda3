# SPDX-License-Identifier: GPL-2.0-or-later
"""`tuned-virt guests NAME` for people."""

from __future__ import annotations

from typing import Any

from tests.unit.cli.test_guest_text import DRIFTED
from tuned_virt.cli import guest_detail_text
from tuned_virt.cli.guest_rows import NodePages
from tuned_virt.frozen_dataclasses import replace

CONTENT: dict[str, Any] = {
    "threads": [
        {"what": "vCPU 0", "thread": 13, "cpus": "0-15", "last_cpu": 9, "delay_percent": 0.0},
        {"what": "emulator", "thread": 12, "cpus": "6", "last_cpu": None, "delay_percent": None},
    ],
    "shares_cpus": [],
    "swap_mib": None,
    "swap_error": "cannot read s: Permission denied",
    "mergeable_mib": None,
    "merged_mib": 2.0,
    "profit_mib": None,
    "ksm_error": "",
    "cgroup": "/machine.slice/a.scope",
    "pressure": [{"resource": "cpu", "share": "some", "avg10": 1.5, "avg60": 2.0, "avg300": 0.1}],
    "pressure_error": "",
    "throttling": [{"cgroup": "/a/vcpu0", "periods": 4, "throttled": 3, "throttled_s": 1.5}],
    "throttling_error": "",
    "disks": [],
    "disks_error": "libvirt does not answer",
}

SHOWN = """\
db, process 12, UUID u2
placement: dedicated on node 0-1, decided by tuned-virt: x
delays: in the last 1 s
hurts most: drift
    vCPU 0 on 0-15, not 4
    to mend: virsh vcpupin db 0 4 --live

Threads:
thread    number  may run on  ran last on  delay %
vCPU 0        13  0-15                  9      0.0
emulator      12  6                     -        -

Guests whose vCPUs may run on the same CPUs: none

Memory (100.0 % on its nodes):
node  page KiB    MiB
   0      2048  65536
in swap: cannot read s: Permission denied
KSM: merged 2.0 MiB, mergeable not told by this kernel, profit not told by this kernel

Pressure of /machine.slice/a.scope:
resource  tasks  10 s %  60 s %  300 s %
cpu       some      1.5     2.0      0.1

Throttling by a CPU quota:
cgroup    periods  throttled  seconds
/a/vcpu0        4          3      1.5

Disks: libvirt does not answer
"""


def test_all_of_it_at_eighty_columns() -> None:
    row = replace(DRIFTED, pages=(NodePages(0, 2048, 65536),))
    lines = guest_detail_text.lines(row, CONTENT, 80)
    assert "".join(f"{line.rstrip()}\n" for line in lines) == SHOWN


def test_all_drifted_threads_and_commands_are_told() -> None:
    many = tuple(f"vCPU {n} on 0-15, not {n}" for n in range(9))
    row = replace(DRIFTED, drift=many, mend=many, threads_error="cannot read t: no")
    lines = guest_detail_text.lines(row, {**CONTENT, "threads": []}, None)
    assert sum(line.startswith("    vCPU") for line in lines) == 9
    assert sum(line.startswith("    to mend:") for line in lines) == 9
    assert "Threads: cannot read t: no" in lines
