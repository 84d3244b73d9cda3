# SPDX-License-Identifier: GPL-2.0-or-later
"""A scene in which each rule of the topic finds something, and one in which it does not."""

from __future__ import annotations

from tests.unit.audit.scenes import Case, guest, scene, told_by_agent

LOCKED = "<memoryBacking><locked/></memoryBacking>"
HUGE = "<memoryBacking><hugepages/></memoryBacking>"
PLUGGABLE = "<maxMemory slots='16' unit='GiB'>8</maxMemory>"
NO_LIMIT = "virsh memtune vm1 --hard-limit -1 --swap-hard-limit -1 --config"


def limited(more: str = "", **mib: int) -> str:
    tags = "".join(f"<{name} unit='MiB'>{value}</{name}>" for name, value in mib.items())
    return guest(body=f"<memtune>{tags}</memtune>{more}")


CASES = {
    "memory-over-host": Case(
        fails=scene(guest(gib=17)),
        found="17408 MiB on a host with 16384",
        command="virt-xml vm1 --edit --memory memory=8192,currentMemory=8192",
        passes=scene(guest(gib=16)),
    ),
    "memory-overcommit": Case(
        fails=scene(guest(gib=12), guest(name="vm2", gib=12)),
        found="2 guests have 24576 MiB, the host 16384",
        passes=scene(guest(gib=8), guest(name="vm2", gib=8)),
    ),
    "memory-hard-limit-low": Case(
        fails=scene(limited(hard_limit=2048)),
        found="hard_limit is 2048 MiB, its memory 2048",
        command=NO_LIMIT,
        passes=scene(limited(hard_limit=4096)),
        fine=(scene(limited(soft_limit=1024)),),
    ),
    "memory-hard-limit": Case(
        fails=scene(limited(hard_limit=4096)),
        found="hard_limit is 4096 MiB, its memory 2048",
        command=NO_LIMIT,
        passes=scene(limited(LOCKED, hard_limit=4096)),
        fine=(scene(limited(hard_limit=1024)),),
    ),
    "memory-swap-limit": Case(
        fails=scene(limited(hard_limit=4096, swap_hard_limit=4096)),
        found="swap_hard_limit is 4096 MiB, hard_limit 4096",
        command="virsh memtune vm1 --swap-hard-limit -1 --config",
        passes=scene(limited(hard_limit=4096, swap_hard_limit=4097)),
        also={
            "swap_hard_limit is 3072 MiB, hard_limit 4096": scene(
                limited(hard_limit=4096, swap_hard_limit=3072)
            )
        },
        fine=(scene(limited(swap_hard_limit=1024)),),
    ),
    "memory-locked-unlimited": Case(
        fails=scene(guest(body=LOCKED)),
        found="<locked/>, 2048 MiB, no hard_limit",
        command="virsh memtune vm1 --hard-limit 3145728 --config",
        passes=scene(limited(LOCKED, hard_limit=4096)),
    ),
    "memory-hotplug": Case(
        fails=scene(guest(body=PLUGGABLE)),
        found="16 slots, up to 8192 MiB",
        passes=told_by_agent(scene(guest(body=PLUGGABLE)), "virtual-guest-plus"),
        also={
            "0 slots, up to 2048 MiB": scene(
                guest(devices="<memory model='virtio-mem'><target><size>1</size></target></memory>")
            )
        },
        fine=(scene(guest()),),
    ),
    "memory-thp-off": Case(
        fails=scene(guest(), guest(name="vm2", body=HUGE), thp="never"),
        found="never, and 1 guests have ordinary pages",
        command="echo always > /sys/kernel/mm/transparent_hugepage/enabled",
        passes=scene(guest(), thp="madvise"),
        fine=(scene(guest(body=HUGE), thp="never"), scene(thp="never")),
    ),
}
