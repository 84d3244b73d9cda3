# SPDX-License-Identifier: GPL-2.0-or-later
"""A scene in which each rule of the topic finds something, and one in which it does not."""

from __future__ import annotations

from tests.unit.audit.scenes import Case, guest, scene, told_by_agent

NOVA = "<metadata><i xmlns='http://openstack.org/xmlns/libvirt/nova/1.1'/></metadata>"

CASES = {
    "os-unknown": Case(
        fails=scene(guest(metadata="")),
        found="no libosinfo metadata; linux2022 stands for any Linux",
        command="virt-xml vm1 --edit --metadata os_name=linux2022",
        passes=scene(guest()),
        fine=(scene(guest(metadata=NOVA)),),
    ),
    "machine-outdated": Case(
        fails=scene(guest(machine="pc-i440fx-2.5")),
        found="its machine type is pc-i440fx-2.5",
        command="virt-xml vm1 --edit --boot machine=pc",
        passes=scene(guest()),
        also={
            "its machine type is pc-q35-rhel7.6.0": scene(guest(machine="pc-q35-rhel7.6.0")),
            "its machine type is rhel6.5.0": scene(guest(machine="rhel6.5.0")),
            "its machine type is pc-i440fx-bionic": scene(guest(machine="pc-i440fx-bionic")),
            "its machine type is virt-4.2": scene(guest(machine="virt-4.2", arch="aarch64")),
        },
        fine=tuple(
            scene(guest(machine=name))
            for name in ("pc", "q35", "pc-i440fx-10.0", "pc-q35-rhel9.4.0", "pc-i440fx-jammy", "")
        ),
    ),
    "machine-i440fx": Case(
        fails=scene(guest(machine="pc")),
        found="its machine type is pc",
        passes=scene(guest(machine="q35")),
        also={"its machine type is pc-i440fx-9.2": scene(guest(machine="pc-i440fx-9.2"))},
        fine=(scene(guest(machine="pc-q35-9.2")), scene(guest(machine="microvm"))),
    ),
    "guest-agent-missing": Case(
        fails=scene(guest(devices="")),
        found="no channel org.qemu.guest_agent.0",
        command="virt-xml vm1 --add-device --channel"
        " unix,target.type=virtio,target.name=org.qemu.guest_agent.0",
        passes=scene(guest()),
        fine=(scene(guest(devices="", metadata=NOVA)),),
    ),
    "guest-managed": Case(
        fails=scene(guest(metadata=NOVA)),
        found="OpenStack Nova manages it",
        passes=scene(guest()),
    ),
    "guest-profile": Case(
        fails=told_by_agent(scene(guest()), "balanced"),
        found="the profile in it is balanced",
        passes=told_by_agent(scene(guest()), "virtual-guest-plus"),
        also={"the profile in it is none": told_by_agent(scene(guest()), "")},
        fine=(scene(guest(devices="")),),
    ),
}
