# SPDX-License-Identifier: GPL-2.0-or-later
"""What the audit reads of a guest's XML, beside what placement needs."""

from __future__ import annotations

from tuned_virt.model.guest import VirtualDisk, VirtualNic, read_whole
from tuned_virt.model.guest.hardware import MemoryLimits, PluggedMemory

DOMAIN = """<domain type='kvm'><name>vm1</name><memory unit='GiB'>1</memory><vcpu>2</vcpu>
<metadata><audit xmlns='urn:tuned-virt-plus:audit:1'><skip rule='a-b' reason='c'/><other/></audit>
<o:libosinfo xmlns:o='http://libosinfo.org/xmlns/libvirt/domain/1.0'><o:os id='x'/></o:libosinfo>
</metadata><maxMemory slots='4' unit='GiB'>4</maxMemory>
<memtune><hard_limit unit='MiB'>2</hard_limit><soft_limit>x</soft_limit></memtune>
<blkiotune><weight>500</weight><device><path>/dev/sda</path><weight>x</weight></device>
<device><path>/dev/sdb</path></device></blkiotune>
<cputune><vcpupin vcpu='0' cpuset='3'/></cputune>
<cpu><model>Opteron_G3</model><feature policy='require' name='svm'/>
<feature policy='disable' name='aes'/></cpu>
<devices>
<disk type='block'><driver name='qemu' type='raw' cache='none' iothread='1'/>
<source dev='/dev/sdb'/><target dev='sda'/><readonly/></disk>
<disk type='file' device='cdrom'><target dev='hdc' bus='sata'/></disk>
<interface type='direct'><source dev='eth0' mode='vepa'/><model type='virtio'/>
<driver name='vhost' queues='x'/><mtu size='9000'/><target dev='tap0'/></interface>
<memory model='dimm'><target><size unit='MiB'>1</size></target></memory>
<controller type='usb'/><input type='tablet' bus='usb'/><video><model type='vga'/></video>
<hostdev type='usb'/><redirdev bus='usb'/><channel><target name='agent'/></channel>
</devices></domain>"""


def test_all_that_is_read_and_what_is_odd_is_nothing() -> None:
    guest, found = read_whole(DOMAIN)
    assert guest.name == "vm1"
    assert (found.cpu_mode, found.cpu_model, found.cpu_requires) == (
        "custom",
        "Opteron_G3",
        ("svm",),
    )
    assert found.disks == (
        VirtualDisk(
            "sda", "scsi", "disk", "block", "/dev/sdb", "raw", "none", iothreads=("1",),
            read_only=True,
        ),
        VirtualDisk("hdc", "sata", "cdrom", "file"),
    )  # fmt: skip
    assert not [disk for disk in found.disks if disk.stores]
    assert found.nics == (VirtualNic("", "direct", "virtio", "eth0", "vhost", 0, 9000, "tap0"),)
    assert found.limits == MemoryLimits(2048, None, None)
    assert found.blkio == {"": 500, "/dev/sda": 0}
    assert found.plugged == (PluggedMemory("dimm", 1024),)
    assert (found.slots, found.usb_passed, found.redirections) == (4, 1, 1)
    assert (found.os_id, found.skips) == ("x", {"a-b": "c"})
    assert found.pins.vcpus == {0: frozenset({3})}
    assert (found.controllers, found.inputs) == ((("usb", ""),), (("tablet", "usb"),))
    assert (found.videos, found.channels) == (("vga",), ("agent",))
