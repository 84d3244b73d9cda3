# SPDX-License-Identifier: GPL-2.0-or-later
"""A scene in which each rule of the topic finds something, and one in which it does not."""

from __future__ import annotations

from tests.unit.audit.scenes import Case, guest, host, pinned, scene
from tuned_virt.model.host_facts import KsmSettings

TWO = host(nodes=2, cpus=4, gib=8)
MERGES = KsmSettings(run=True, across_nodes=True)
WITHIN = KsmSettings(run=True, across_nodes=False)
OUT = "<memoryBacking><nosharepages/></memoryBacking>"
DEDICATED = pinned("0", "1", emulator="2")

CASES = {
    "ksm-across-nodes": Case(
        fails=scene(guest(body=pinned("0", "1")), on=TWO, ksm=MERGES),
        found="merge_across_nodes is 1, and 1 guests are kept on nodes",
        command="virsh node-memory-tune --shm-merge-across-nodes 0",
        passes=scene(guest(body=pinned("0", "1")), on=TWO, ksm=WITHIN),
        fine=(
            scene(guest(), on=TWO, ksm=MERGES),
            scene(guest(body=pinned("0", "1")), ksm=MERGES),
        ),
    ),
    "ksm-off-overcommitted": Case(
        fails=scene(guest(gib=17), profiles=()),
        found="guests have 17408 MiB, the host 16384",
        command="tuned-adm profile virtual-host-plus",
        passes=scene(guest(gib=17), ksm=WITHIN, profiles=()),
        fine=(scene(guest(gib=17)), scene(guest(gib=17, body=OUT), profiles=())),
    ),
    "ksm-merges-dedicated": Case(
        fails=scene(guest(body=DEDICATED), ksm=WITHIN),
        found="KSM runs, and the guest has CPUs or memory of its own",
        command="virt-xml vm1 --edit --memorybacking nosharepages=yes",
        passes=scene(guest(body=DEDICATED + OUT), ksm=WITHIN),
        fine=(scene(guest(body=DEDICATED)), scene(guest(), ksm=WITHIN)),
    ),
    "ksm-opted-out": Case(
        fails=scene(guest(body=OUT), ksm=WITHIN),
        found="KSM runs, and the guest has <nosharepages/>",
        command="virt-xml vm1 --edit --xml xpath.delete=./memoryBacking/nosharepages",
        passes=scene(guest(), ksm=WITHIN),
        fine=(scene(guest(body=OUT)), scene(guest(body=DEDICATED + OUT), ksm=WITHIN)),
    ),
}
