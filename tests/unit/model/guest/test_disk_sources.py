# SPDX-License-Identifier: GPL-2.0-or-later
"""Where guests' disks come from, in XML as libvirt's documentation and public reports have it."""

from __future__ import annotations

import pytest

from tuned_virt.model.guest.disk_sources import (
    VHOST_USER,
    DiskSource,
    GuestDisk,
    VolumeFormat,
    place,
    read_disks,
    read_pool_type,
    read_volume,
)
from tuned_virt.model.xml import XmlError

LIVE = """
<domain type='kvm' id='3'><devices>
  <disk type='file' device='disk'>
    <driver name='qemu' type='qcow2'/>
    <source file='/srv/web.snap1' index='3'/>
    <backingStore type='file' index='2'>
      <format type='qcow2'/><source file='/var/lib/libvirt/images/web.qcow2'/>
      <backingStore type='block' index='1'>
        <format type='raw'/><source dev='/dev/vg/base'/><backingStore/>
      </backingStore>
    </backingStore>
    <mirror type='file' job='copy'><format type='qcow2'/><source file='/new/web.qcow2'/></mirror>
  </disk>
  <disk type='block' device='lun'>
    <driver name='qemu' type='raw'/><source dev='/dev/vg/lv'/><backingStore/>
  </disk>
</devices></domain>
"""

DEFINED = """
<domain type='kvm'><devices>
  <disk type='volume' device='disk'><driver type='qcow2'/><source pool='images' volume='b'/></disk>
  <disk type='network' device='disk'><driver name='qemu' type='raw' cache='writeback'/>
    <auth username='nebula-public'><secret type='ceph' uuid='81058c7f'/></auth>
    <source protocol='rbd' name='nebula-public/one-76-382-0'><host name='10.8.11.1'/></source>
  </disk>
  <disk type='vhostuser' device='disk'><driver name='qemu' type='raw'/>
    <source type='unix' path='/var/tmp/vhost.0'/></disk>
  <disk type='nvme' device='disk'><source type='pci' managed='yes' namespace='1'/></disk>
  <disk type='file' device='cdrom'/>
  <disk type='dir' device='disk'><source dir='/vvfat'/></disk>
  <disk type='file' device='disk'><source file='relative'/></disk>
  <disk type='file' device='disk'><driver type='qcow2'/>
    <source file='/data.qcow2'><dataStore><source file='/data.raw'/></dataStore></source>
    <backingStore type='network'><format type='raw'/><source protocol='nbd'/></backingStore>
  </disk>
</devices></domain>
"""


def test_a_running_guest() -> None:
    base = (DiskSource("/var/lib/libvirt/images/web.qcow2"), DiskSource("/dev/vg/base"))
    assert read_disks(LIVE) == [
        GuestDisk(
            DiskSource("/srv/web.snap1"), "qcow2", base, True, (DiskSource("/new/web.qcow2"),)
        ),
        GuestDisk(DiskSource("/dev/vg/lv"), "raw", (), True),
    ]


def test_a_defined_guest() -> None:
    assert read_disks(DEFINED) == [
        GuestDisk(DiskSource(pool="images", volume="b"), "qcow2"),
        GuestDisk(DiskSource(network="rbd"), "raw"),
        GuestDisk(DiskSource(other=VHOST_USER), "raw"),
        GuestDisk(None),
        GuestDisk(None),
        GuestDisk(DiskSource("/vvfat")),
        GuestDisk(None),
        GuestDisk(
            DiskSource("/data.qcow2"), "qcow2", (DiskSource(network="nbd"), DiskSource("/data.raw"))
        ),
    ]


@pytest.mark.parametrize(
    "xml", ["", "<domain", "<!DOCTYPE d [<!ENTITY e 'x'>]><domain>&e;</domain>"]
)
def test_xml_that_is_none_or_brings_entities(xml: str) -> None:
    for read in (read_disks, read_volume, read_pool_type):
        with pytest.raises(XmlError, match=r".+"):
            read(xml)


def test_a_volume() -> None:
    """As in subuk/vmango issue 70."""
    xml = """
    <volume type='file'><name>server-logs-root</name>
      <target><path>/images/server-logs-root</path><format type='qcow2'/></target>
      <backingStore><path>/images/server-base.qcow2</path><format type='qcow2'/></backingStore>
    </volume>
    """
    assert read_volume(xml) == VolumeFormat("qcow2", "/images/server-base.qcow2", "qcow2")
    plain = "<volume><target><format type='raw'/></target></volume>"
    assert read_volume(plain) == VolumeFormat("raw")
    assert read_pool_type("<pool type='rbd'><name>ceph</name></pool>") == "rbd"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("/images/base", DiskSource("/images/base")),
        ("rbd:pool/image", DiskSource(network="rbd")),
        ("nbd://filer/base", DiskSource(network="nbd")),
        ('json:{"file": {"driver": "https", "url": "x"}}', DiskSource(network="https")),
        ("json:{}", None),
        ("", None),
        ("base.qcow2", None),
    ],
)
def test_where_a_backing_image_is(text: str, found: DiskSource | None) -> None:
    assert place(text) == found
