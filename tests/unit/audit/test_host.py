# SPDX-License-Identifier: GPL-2.0-or-later
"""A scene in which each rule of the topic finds something, and one in which it does not."""

from __future__ import annotations

from tests.unit.audit.scenes import Case, guest, host, numatune, pinned, scene
from tuned_virt.model.host_facts import CpuFrequency

TWO = host(nodes=2, cpus=4, gib=8)
KEPT = guest(body=pinned("0", "1") + numatune("strict", "0"))
WANTS_VMX = guest(cpu="<cpu mode='host-model'><feature policy='require' name='vmx'/></cpu>")
HOST_PLUS = "tuned-adm profile virtual-host-plus"


def runs(governor: str, driver: str) -> CpuFrequency:
    return CpuFrequency(frozenset({governor}), driver)


CASES = {
    "host-profile": Case(
        fails=scene(guest(), profiles=()),
        found="no profile is active",
        command=HOST_PLUS,
        passes=scene(guest(), profiles=("virtual-host",)),
        also={"the active profile is mine": scene(guest(), profiles=("mine",))},
        fine=(scene(profiles=()),),
    ),
    "host-governor": Case(
        fails=scene(guest(), frequency=runs("powersave", "acpi-cpufreq")),
        found="powersave of acpi-cpufreq",
        command="cpupower frequency-set --governor performance",
        passes=scene(guest()),
        also={
            "powersave of intel_pstate": scene(guest(), frequency=runs("powersave", "intel_pstate"))
        },
        fine=(scene(frequency=runs("powersave", "acpi-cpufreq")),),
    ),
    "host-c-states": Case(
        fails=scene(guest(), profiles=(), idle_states={"C1": 2, "C6": 133}),
        found="C6 takes 133 µs",
        command=HOST_PLUS,
        passes=scene(guest(), idle_states={"C6": 133}),
        fine=(scene(guest(), profiles=(), idle_states={"C1": 2}),),
    ),
    "host-halt-poll": Case(
        fails=scene(guest(), halt_poll_ns=0),
        found="halt_poll_ns is 0",
        command="echo 200000 > /sys/module/kvm/parameters/halt_poll_ns",
        passes=scene(guest()),
        also={
            "halt_poll_ns is 200000, with 18 vCPUs on 8 CPUs": scene(
                *(guest(name=f"vm{n}") for n in range(9))
            )
        },
        fine=(scene(halt_poll_ns=0),),
    ),
    "host-nested-off": Case(
        fails=scene(WANTS_VMX, nested=False),
        found="it requires vmx, and nested is off",
        command="echo 'options kvm_intel nested=1' > /etc/modprobe.d/kvm-nested.conf",
        passes=scene(WANTS_VMX),
        fine=(scene(guest(), nested=False),),
    ),
    "host-numa-balancing": Case(
        fails=scene(KEPT, on=TWO, numa_balancing=True),
        found="numa_balancing is on, and all 1 guests are pinned",
        command="sysctl -w kernel.numa_balancing=0",
        passes=scene(KEPT, on=TWO),
        fine=(
            scene(KEPT, guest(name="vm2"), on=TWO, numa_balancing=True),
            scene(KEPT, numa_balancing=True),
        ),
    ),
}
