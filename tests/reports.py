# SPDX-License-Identifier: GPL-2.0-or-later
"""Reports to test: a host of 256 CPUs with as many guests as asked, some of them badly named."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from tests import snapshots
from tests.unit.machines import GIB, machine
from tuned_virt.cli import json_output, planning_input
from tuned_virt.cli.guest_rows import GuestRow
from tuned_virt.cli.planning_input import DescribedGuest
from tuned_virt.cli.report_input import ReportInput
from tuned_virt.frozen_dataclasses import replace
from tuned_virt.model.host_facts import Fact
from tuned_virt.model.pins import Pins

OLD = (Path(__file__).parent / "data/audit/legacy-rhel5.xml").read_text()

NAMES = (
    "</script><img src=x onerror=alert(1)>",
    "</style><style>*{display:none}</style>",
    "\"><svg onload=alert(1)>' onmouseover='x",
    "{{ 7 * 7 }}{% raw %}",
    "--></title><base href=//example.org>",
    "a&lt;b&amp;c",
    "\u202etxt.exe",
    "w" * 200,
)
"""What a guest may be called by whoever may define one."""


def document(name: str, number: int) -> str:
    """A guest's XML, with much to find in it, and an address of its own in what is found."""
    own = f"<name>{escape(name)}</name><uuid>00000000-0000-4000-8000-{number:012}</uuid>"
    text = re.sub("<uuid>.*?</uuid>", "", OLD)
    text = re.sub("<name>.*?</name>", lambda _: own, text)
    address = f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}"
    return re.sub("52:54:00:[0-9a-f:]+", address, text)


def guest_names(number: int) -> list[str]:
    """Of so many guests."""
    return [*NAMES, *(f"web-{at}" for at in range(number))][:number]


def write_snapshot(file: Path, number: int) -> None:
    """A snapshot of so many guests on a host of 256 CPUs, every eighth with CPUs of its own."""
    host = machine(nodes=4, cores=32, threads=2, llcs=4, gib=512)
    described = []
    for at, name in enumerate(guest_names(number)):
        node = at % 4
        all_of = f"{node * 64 + 32}-{node * 64 + 63}"
        own = {vcpu: str(node * 64 + at // 32 * 2 % 32 + vcpu) for vcpu in range(2)}
        vcpus = own if at % 8 < 4 and at < 512 else dict.fromkeys(range(2), all_of)
        now = Pins(vcpus, all_of)
        resident = {node: GIB, (node + 1) % 4: GIB * (at % 3) // 2}
        described.append((name, DescribedGuest(document(name, at), now, resident)))
    gathered = planning_input.of(host, described)
    content = json_output.document("snapshot", snapshots.content(gathered))
    file.write_text(json.dumps(content), encoding="utf-8")


def delayed(given: ReportInput) -> ReportInput:
    """The same with delays, drift and commands, as a live host has them."""
    rows = [_delayed(row, at) for at, row in enumerate(given.rows.get())]
    return replace(given, rows=Fact(rows, ""))


def _delayed(row: GuestRow, at: int) -> GuestRow:
    bad = at % 7 == 3
    return replace(
        row,
        pid=1000 + at,
        delay_percent=at * 37 % 101 / 2 if at % 5 == 0 else 0.3,
        interval_s=1.0,
        owner="tuned-virt" if at % 2 else "nobody",
        kind="shared" if at % 2 else "unplaced",
        drift=("vCPU 1 on 3, not 4",) if bad else (),
        mend=(f"virsh vcpupin 'guest {at}' 1 4",) if bad else (),
    )


def whole(given: ReportInput) -> ReportInput:
    """The same with every section."""
    return replace(
        delayed(given),
        status=Fact(STATUS, ""),
        hugepages=Fact(PAGES, ""),
        ksm=Fact(KSM, ""),
        disks=Fact(DISKS, ""),
        changes=Fact(CHANGES, ""),
        settings=Fact({"/etc/tuned/virtual-host-plus-variables.conf": SETTINGS}, ""),
        switched=Fact("2026-11-28T02:11:09.000+01:00", ""),
    )


SETTINGS = "ksm_mode=auto\nvm_policy=node\nswappiness=<b>1</b>\nnot a setting\n"

STATUS: dict[str, Any] = {
    "tuned": "running",
    "profile": "virtual-host-plus",
    "verified": False,
    "unverified": "",
    "differing": ["scheduler of sda"],
    "notes": ["vm_blkio: no guest has weights"],
    "pending": {"ksm run": "16 pages cannot be unmerged"},
    "originals": [],
    "ungranted": [],
    "returns_to": {"profiles": ["virtual-host"], "mode": "manual", "notes": []},
}

PAGES: dict[str, Any] = {
    "pools": [
        {
            "size": size,
            "size_kib": kib,
            "node": node,
            "total": total,
            "persistent": total,
            "free": total // 4,
            "surplus": 0,
            "mib": total * kib // 1024,
        }
        for node in range(4)
        for size, kib, total in (("2M", 2048, 4096), ("1G", 1 << 20, 16))
    ],
    "reserved": {},
    "guests": [
        {
            "guest": NAMES[0],
            "uuid": "",
            "pid": 7,
            "mapped_mib": 2,
            "used": [{"node": 0, "size": "2M", "size_kib": 2048, "pages": 1, "mib": 2}],
        }
    ],
    "others": [],
    "guests_remark": "",
    "mounts": [],
    "transparent": {"enabled": "madvise", "defrag": "madvise", "anonymous_mib": 12},
}

WHEN = "2026-11-28T03:0{}:00.000+01:00"

KSM: dict[str, Any] = {
    "variables": [{"name": "run", "value": "1", "meaning": "1: merging"}],
    "saved_mib": 12345.6,
    "general_profit_mib": 12000.1,
    "ksmd_cpu_seconds": 321.5,
    "conflicts": {"services": {}, "masked": [], "disabled": "", "other": "", "on_request": ""},
    "processes": [],
    "loop": {
        "mode": "auto",
        "phase": "burst",
        "since": WHEN.format(1),
        "when": WHEN.format(1),
        "why": "memory is short",
        "held": True,
        "decisions": [
            {
                "when": WHEN.format(at),
                "phase": "burst",
                "why": "memory is short",
                "changes": {"pages_to_scan": "2000"},
            }
            for at in range(3)
        ],
    },
}

DISKS: dict[str, Any] = {
    "active": True,
    "role": "host",
    "disks": [
        {
            "disk": f"sd{letter}",
            "class": "ssd",
            "emulated": False,
            "fact": "rotational=0",
            "backs": [NAMES[2]],
            "made_of": [],
            "queues": 1,
            "offered": ["none", "mq-deadline"],
            "scheduler": "none",
            "wanted": "mq-deadline" if letter == "a" else "none",
            "option": "",
            "why": "ssd: many queues",
            "remark": "",
            "before": None,
        }
        for letter in "abc"
    ],
    "notes": [],
}

CHANGES: dict[str, Any] = {
    "changes": [
        {
            "when": WHEN.format(at),
            "plugin": "ksm" if at % 2 else "vm_pinning",
            "setting": f"{NAMES[1]} vCPU {at}",
            "path": "",
            "before": "0-255",
            "after": str(at),
            "why": "placed",
        }
        for at in range(10)
    ]
}
