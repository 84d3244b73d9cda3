# SPDX-License-Identifier: GPL-2.0-or-later
"""Facts of a host: what files say, and why a fact is not known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tuned_virt.frozen_dataclasses import fields
from tuned_virt.kernel.files import KernelFS
from tuned_virt.model import host_facts
from tuned_virt.model.host_facts import (
    CpuFrequency,
    Fact,
    HostFacts,
    KsmSettings,
    NetworkLink,
    NotKnown,
)

CPU = "sys/devices/system/cpu"
FILES = {
    "dev/kvm": "",
    "dev/vhost-net": "",
    "etc/tuned/active_profile": "virtual-host-plus mine\n",
    "proc/meminfo": "SwapTotal: 2048 kB\nHugepagesize: 2048 kB\n",
    "proc/mounts": "hugetlbfs /dev/hugepages hugetlbfs rw,pagesize=2M 0 0\n"
    "none /dev/g hugetlbfs rw,relatime,pagesize=1024M 0 0\nnone /o hugetlbfs rw 0 0\n",
    "proc/net/route": "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n"
    "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\n"
    "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\n"
    "eth1\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\n",
    "proc/sys/kernel/numa_balancing": "1",
    "proc/sys/net/ipv4/conf/all/arp_filter": "1",
    "sys/block/sda/queue/scheduler": "none [mq-deadline] bfq",
    "sys/kernel/mm/ksm/run": "1",
    "sys/kernel/mm/ksm/merge_across_nodes": "1",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never",
    "sys/module/kvm/parameters/halt_poll_ns": "200000",
    "sys/module/kvm_amd/parameters/nested": "1",
    "sys/class/net/br0/mtu": "9000",
    "sys/class/net/eth0/mtu": "1500",
    f"{CPU}/cpufreq/policy0/scaling_governor": "powersave",
    f"{CPU}/cpufreq/policy0/scaling_driver": "intel_pstate",
    f"{CPU}/cpu0/cpuidle/state0/name": "C6",
    f"{CPU}/cpu0/cpuidle/state0/latency": "133",
    f"{CPU}/cpu0/cpuidle/state1/name": "C10",
    f"{CPU}/cpu0/cpuidle/state1/latency": "890",
    f"{CPU}/cpu0/cpuidle/state1/disable": "1",
}
READ: dict[str, Any] = {
    "kvm": True,
    "swap": 2048,
    "thp": "madvise",
    "ksm": KsmSettings(run=True, across_nodes=True),
    "mounted": frozenset({2048, 1 << 20}),
    "vhost_net": True,
    "nested": True,
    "halt_poll_ns": 200_000,
    "numa_balancing": True,
    "arp_filter": True,
    "subnets": {"192.0.2.0/24": ("eth0", "eth1")},
    "links": {"br0": NetworkLink(9000), "eth0": NetworkLink(1500, "br0")},
    "frequency": CpuFrequency(frozenset({"powersave"}), "intel_pstate"),
    "schedulers": {"sda": "mq-deadline"},
    "idle_states": {"C6": 133},
    "profiles": ("virtual-host-plus", "mine"),
}


def test_what_files_say(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "sys/class/net/eth0/master").symlink_to("../br0")
    facts = host_facts.read(KernelFS(tmp_path))
    assert {name: getattr(facts, name).get() for name in READ} == READ
    assert isinstance(facts.numad.get(), bool)


def test_what_is_absent_is_not_known_and_why_is_said(tmp_path: Path) -> None:
    facts = host_facts.read(KernelFS(tmp_path))
    assert {*host_facts.READERS, "backing"} == {one.name for one in fields(HostFacts)}
    for name in ("thp", "ksm", "halt_poll_ns", "arp_filter", "subnets", "nested"):
        with pytest.raises(NotKnown, match=r"No such file|is loaded"):
            getattr(facts, name).get()
    assert facts.kvm.get() is False
    assert facts.profiles.get() == ()
    with pytest.raises(NotKnown, match="files were given"):
        Fact[bool]().get()
