# SPDX-License-Identifier: GPL-2.0-or-later
"""What guests that a real libvirt has defined ask for in huge pages; nothing is allocated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.libvirtd import Libvirtd
from tuned_virt.core.guest_source import FixedGuests
from tuned_virt.core.plan import Plan
from tuned_virt.kernel.files import KernelFS
from tuned_virt.libvirt_api.guest_pages import GuestPageReader
from tuned_virt.plugins import hugepages_numa
from tuned_virt.plugins.hugepages_numa import HugepagesTuner

XML = """
<domain type='qemu'><name>elastic</name><maxMemory slots='4' unit='MiB'>8192</maxMemory>
<memory unit='MiB'>{memory}</memory><vcpu>1</vcpu><memoryBacking>{pages}</memoryBacking>
<os><type arch='x86_64' machine='q35'>hvm</type></os>
<cpu><numa><cell id='0' cpus='0' memory='64' unit='MiB'/></numa></cpu>
<devices><memory model='{model}'>{source}<target><size unit='MiB'>{size}</size>
<node>0</node>{more}</target></memory></devices></domain>
"""
HUGE = "<hugepages/>"
OWN = "<source><pagesize unit='MiB'>2</pagesize></source>"
ELSEWHERE = "<source><pagesize unit='MiB'>2</pagesize><nodemask>7</nodemask></source>"


def device(size: int, model: str, requested: int | None, source: str, pages: str) -> str:
    more = "<block unit='KiB'>2048</block>"
    more += f"<requested unit='MiB'>{requested}</requested>"
    return XML.format(
        memory=64 + size,
        pages=pages,
        model=model,
        source=source,
        size=size,
        more="" if requested is None else more,
    )


@pytest.mark.parametrize(
    ("xml", "mib", "refused"),
    [
        (device(4096, "virtio-mem", 0, "", HUGE), 64, ""),
        (device(4096, "virtio-mem", 128, "", HUGE), 192, ""),
        (device(128, "dimm", None, OWN, ""), 128, ""),
        (device(128, "dimm", None, ELSEWHERE, ""), 0, "nodes with memory here are 0, not 7"),
    ],
)
def test_what_libvirt_will_ask_for(
    connection: Any, libvirtd: Libvirtd, tmp_path: Path, xml: str, mib: int, refused: str
) -> None:
    connection.defineXML(xml)
    made = planned(libvirtd, tmp_path)
    now = planned(libvirtd, tmp_path, guests=False)
    before = int(now.originals["pages_2M node0"])
    assert int(made.wanted["pages_2M node0"]) == max(before, mib // 2)
    assert refused in "".join(made.refused.values())
    assert bool(made.refused) == bool(refused)


def planned(libvirtd: Libvirtd, folder: Path, guests: bool = True) -> Plan:
    known = GuestPageReader().once(libvirtd.uri) if guests else {}
    tuner = HugepagesTuner(FixedGuests(known), folder)
    policy = hugepages_numa.parse({"pages_2M": "guests"})
    return tuner.decide(policy, tuner.read(KernelFS(), policy, {}), {})
