# SPDX-License-Identifier: GPL-2.0-or-later
"""A scene in which each rule of the topic finds something, and one in which it does not."""

from __future__ import annotations

from tests.unit.audit.scenes import Case, guest, scene
from tuned_virt.model.host_facts import BackingDisk

EDIT = "virt-xml vm1 --edit target={} --disk {}"
UNCACHED = EDIT.format("vda", "cache=none")


def disk(
    options: str = "type='raw' cache='none' io='native' discard='unmap' iothread='1'",
    target: str = "vda",
    bus: str = "virtio",
    type: str = "file",
    source: str = "file='/images/a.img'",
    device: str = "disk",
    more: str = "",
) -> str:
    driver = f"<driver name='qemu' {options}/>"
    return f"""<disk type='{type}' device='{device}'>{driver}<source {source}/>{more}
<target dev='{target}' bus='{bus}'/></disk>"""


def having(*disks: str, body: str = "") -> str:
    return guest(disks="".join(disks), body=body)


def without_threads(*disks: str) -> str:
    return having(*disks).replace("<iothreads>1</iothreads>", "")


PLAIN = "type='raw' cache='none' discard='unmap'"
BELOW = "<backingStore type='file'><source file='/b'/>{}</backingStore>"
CD = disk("type='raw'", "sda", "sata", device="cdrom", more="<readonly/>")
LV = {"type": "block", "source": "dev='/dev/vg/lv'"}


def weighted(inside: str) -> str:
    return guest(body=f"<blkiotune>{inside}</blkiotune>")


CASES = {
    "disk-bus": Case(
        fails=scene(having(disk(PLAIN, "sda", "sata"), disk())),
        found="sda is on sata",
        command=EDIT.format(
            "sda",
            "bus=virtio,target.dev=vdb,"
            "address.type=,address.controller=,address.bus=,address.target=,address.unit=",
        ),
        passes=scene(having(disk(target="sda", bus="scsi"), CD.replace("sda", "sdb"))),
        also={"hda is on ide": scene(having(disk(target="hda", bus="")))},
        fine=(scene(having(disk("type='raw'", "fda", "fdc", device="floppy"))),),
    ),
    "disk-cache-unsafe": Case(
        fails=scene(having(disk("type='raw' cache='unsafe'"))),
        found="vda has cache=unsafe",
        command=UNCACHED,
        passes=scene(having(disk())),
    ),
    "disk-cache-writethrough": Case(
        fails=scene(having(disk("type='raw' cache='writethrough'"))),
        found="vda has cache=writethrough",
        command=UNCACHED,
        passes=scene(having(disk("type='raw' cache='writeback'"))),
        also={"vda has cache=directsync": scene(having(disk("cache='directsync'")))},
    ),
    "disk-cache-host": Case(
        fails=scene(having(disk("type='raw' cache='writeback'"))),
        found="vda: cache is writeback",
        command=UNCACHED,
        passes=scene(having(disk(), CD)),
        also={"vda: cache is not set, which is writeback": scene(having(disk("type='raw'")))},
        fine=(
            scene(having(disk("type='raw'", more="<shareable/>"))),
            scene(having(disk("type='raw'", type="network", source="protocol='rbd' name='a'"))),
        ),
    ),
    "disk-native-cached": Case(
        fails=scene(having(disk("type='raw' io='native' cache='writeback'"))),
        found="vda has io=native and cache=writeback",
        command=UNCACHED,
        passes=scene(having(disk("type='raw' io='native' cache='directsync'"))),
        also={"vda has io=native and cache=default": scene(having(disk("io='native'")))},
        fine=(scene(having(disk("type='raw' io='io_uring'"))),),
    ),
    "disk-threads-block": Case(
        fails=scene(having(disk("type='raw' io='threads' cache='none'", **LV))),
        found="vda has io=threads",
        command=EDIT.format("vda", "cache=none,io=native"),
        passes=scene(having(disk("type='raw' io='native' cache='none'", **LV))),
        fine=(scene(having(disk("type='raw' io='threads' cache='none'"))),),
    ),
    "disk-format-foreign": Case(
        fails=scene(having(disk("type='vmdk'"))),
        found="vda is vmdk",
        passes=scene(having(disk("type='qcow2'"))),
    ),
    "disk-format-qcow2": Case(
        fails=scene(having(disk("type='qcow2'"), disk("type='qcow2'", "vdb"))),
        found="vda, vdb",
        passes=scene(having(disk())),
    ),
    "disk-backing-chain": Case(
        fails=scene(having(disk(more=BELOW.format(BELOW.format("<backingStore/>"))))),
        found="vda has 2 images below it",
        command="virsh blockpull vm1 vda --wait",
        passes=scene(having(disk(more=BELOW.format("<backingStore/>")))),
    ),
    "disk-discard": Case(
        fails=scene(having(disk("type='qcow2'"))),
        found="vda: discard is ignored",
        command=EDIT.format("vda", "driver.discard=unmap"),
        passes=scene(having(disk())),
        fine=(scene(having(disk("type='raw'", **LV))), scene(having(CD))),
    ),
    "disk-detect-zeroes": Case(
        fails=scene(having(disk("type='raw' detect_zeroes='on' discard='unmap'"))),
        found="vda has detect_zeroes=on",
        command=EDIT.format("vda", "driver.detect_zeroes=off"),
        passes=scene(having(disk("type='raw' detect_zeroes='unmap' discard='unmap'"))),
        also={
            "vda has detect_zeroes=unmap without discard=unmap": scene(
                having(disk("type='raw' detect_zeroes='unmap'"))
            )
        },
        fine=(scene(having(disk("type='raw' detect_zeroes='off'"))),),
    ),
    "disk-iothread-missing": Case(
        fails=scene(without_threads(disk(PLAIN), disk(PLAIN, "vdb"))),
        found="2 virtio disks",
        command="virsh iothreadadd vm1 1 --config"
        " && virt-xml vm1 --edit target=vda --disk driver.iothread=1",
        passes=scene(without_threads(disk(PLAIN), CD)),
        fine=(scene(having(disk(), disk(PLAIN, "vdb"))),),
    ),
    "disk-iothread-undefined": Case(
        fails=scene(having(disk("type='raw' iothread='2'"))),
        found="vda names IOThread 2",
        command="virsh iothreadadd vm1 2 --config",
        passes=scene(having(disk())),
        also={
            "vda names IOThread 3": scene(
                having(
                    disk(PLAIN).replace(
                        "discard='unmap'/>",
                        "><iothreads><iothread id='1'/><iothread id='3'/></iothreads></driver>",
                    )
                )
            )
        },
    ),
    "disk-iothread-unused": Case(
        fails=scene(having(disk(PLAIN))),
        found="1 IOThreads, 1 disks",
        command=EDIT.format("vda", "driver.iothread=1"),
        passes=scene(having(disk())),
        fine=(scene(without_threads(disk(PLAIN))), scene(having(disk(PLAIN, "sda", "scsi")))),
    ),
    "blkio-weight-range": Case(
        fails=scene(weighted("<weight>2000</weight>")),
        found="its weight is 2000",
        command="virsh blkiotune vm1 --weight 1000 --config",
        passes=scene(weighted("<weight>100</weight>")),
        also={
            "its weight is 50": scene(weighted("<weight>50</weight>")),
            "the weight of /dev/sda is 1001": scene(
                weighted("<device><path>/dev/sda</path><weight>1001</weight></device>")
            ),
        },
        fine=(scene(weighted("<device><path>/dev/sda</path><weight>0</weight></device>")),),
    ),
    "blkio-without-scheduler": Case(
        fails=scene(weighted("<weight>500</weight>"), schedulers={"sda": "mq-deadline"}),
        found="it has weights; sda mq-deadline",
        command="echo bfq > /sys/block/sda/queue/scheduler",
        passes=scene(weighted("<weight>500</weight>")),
        fine=(scene(guest(), schedulers={"sda": "none"}),),
    ),
    "disk-scheduler": Case(
        fails=scene(guest(), backing={"sdb": BackingDisk(("vm1",), "none", "mq-deadline", "SATA")}),
        found="sdb has none: SATA",
        command="echo mq-deadline > /sys/block/sdb/queue/scheduler",
        passes=scene(
            guest(), backing={"sdb": BackingDisk(("vm1",), "mq-deadline", "mq-deadline", "SATA")}
        ),
        fine=(
            scene(guest(), backing={"nvme0n1": BackingDisk(("vm1",), "none", "", "NVMe")}),
            scene(
                weighted("<weight>500</weight>"),
                backing={"sdb": BackingDisk(("vm1",), "bfq", "mq-deadline", "SATA")},
            ),
        ),
    ),
}
