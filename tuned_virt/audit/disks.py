# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks: bus, cache, I/O mode, format, discard, IOThreads, weights: chapters 3.4 and 7."""

from __future__ import annotations

from collections.abc import Iterator

from tuned_virt.audit.rule import ByProfile, Found, Severity, guest_rule, host_rule
from tuned_virt.audit.scene import AuditedGuest, Scene
from tuned_virt.model.guest import VirtualDisk, printable

DISKS = "https://libvirt.org/formatdomain.html#hard-drives-floppy-disks-cdroms"
FORMATS = "https://www.qemu.org/docs/master/system/images.html"
EDIT = "virt-xml {guest} --edit target={target} --disk "

EMULATED = ("ide", "sata", "fdc", "usb", "sd")
UNCACHED = ("none", "directsync")
FOREIGN = {
    *("vmdk", "vdi", "vpc", "vhdx", "qed", "qcow", "cow", "bochs", "cloop", "dmg"),
    *("parallels", "ploop", "vhd"),
}
"""Formats that QEMU reads for conversion; its manual advises raw and qcow2 for running."""


def _own(one: AuditedGuest) -> Iterator[VirtualDisk]:
    """Disks that the guest writes to, which are files or block devices of this host."""
    for disk in one.hardware.disks:
        if disk.stores and disk.type in ("file", "block", "volume"):
            yield disk


@guest_rule(
    "disk-bus",
    Severity.WARNING,
    checks="a disk on an emulated IDE, SATA or USB controller where virtio serves",
    advice="virtio; in Windows install the virtio driver first",
    why="each request takes several exits to QEMU, and IDE has one request at a time",
    guide="3.4",
    page="https://wiki.libvirt.org/Virtio.html",
    mends=EDIT + "bus=virtio,target.dev={new},"
    "address.type=,address.controller=,address.bus=,address.target=,address.unit=",
)
def bus(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """CD-ROMs and floppies have no choice."""
    names = {disk.target for disk in one.hardware.disks}
    free = (name for name in (f"vd{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"))
    for disk in one.hardware.disks:
        if disk.device == "disk" and disk.bus in EMULATED:
            new = next((name for name in free if name not in names), None)
            values = {"target": disk.target, "new": new} if new else None
            yield Found(f"{_named(disk)} is on {disk.bus}", values)


def _named(disk: VirtualDisk) -> str:
    return printable(disk.target) or "a disk"


@guest_rule(
    "disk-cache-unsafe",
    Severity.ERROR,
    checks="cache='unsafe': flushes of the guest are ignored",
    advice="cache='none'; unsafe is for guests that are thrown away",
    why="what the guest has written is lost, or its file systems break, when the host goes down",
    guide="7.3",
    page=DISKS,
    mends=EDIT + "cache=none",
)
def cache_unsafe(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """A disk that is lost anyway (transient) is none of these."""
    for disk in _own(one):
        if disk.cache == "unsafe":
            yield Found(f"{_named(disk)} has cache=unsafe", {"target": disk.target})


@guest_rule(
    "disk-cache-writethrough",
    Severity.WARNING,
    checks="a disk whose every write waits for the medium (writethrough, directsync)",
    advice="cache='none', which is the only one to support migration",
    why="it is slower and scales badly; guests that cannot flush a cache are older than RHEL 5.6",
    guide="7.3",
    page=DISKS,
    mends=EDIT + "cache=none",
)
def cache_writethrough(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """Table 7.3."""
    for disk in _own(one):
        if disk.cache in ("writethrough", "directsync"):
            yield Found(f"{_named(disk)} has cache={disk.cache}", {"target": disk.target})


@guest_rule(
    "disk-cache-host",
    Severity.INFO,
    checks="a disk that is cached by the host too (writeback, which is QEMU's default)",
    advice="cache='none', which is the only one to support migration",
    why="data is in memory twice, and libvirt takes migration with it for unsafe",
    guide="7.3",
    page=DISKS,
    mends=EDIT + "cache=none",
)
def cache_host(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """libvirt takes none for a shareable disk."""
    for disk in _own(one):
        if disk.cache in ("", "default", "writeback") and not disk.shareable:
            cache = disk.cache or "not set, which is writeback"
            yield Found(f"{_named(disk)}: cache is {cache}", {"target": disk.target})


@guest_rule(
    "disk-native-cached",
    Severity.ERROR,
    checks="io='native' with a cache of the host",
    advice="cache none or directsync with native",
    why="Linux AIO needs O_DIRECT: QEMU refuses to open the disk, so the guest does not start",
    guide="7.4",
    page=DISKS,
    mends=EDIT + "cache=none",
)
def native_cached(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """QEMU 2.3 and later refuses it; before, it was silently threads."""
    for disk in one.hardware.disks:
        if disk.io == "native" and disk.cache not in UNCACHED and not disk.shareable:
            cache = disk.cache or "default"
            yield Found(f"{_named(disk)} has io=native and cache={cache}", {"target": disk.target})


@guest_rule(
    "disk-threads-block",
    Severity.WARNING,
    checks="io='threads' on a block device",
    advice="native with cache none",
    why="a thread per request costs switches between threads that the kernel's AIO does without",
    guide="7.4",
    page=DISKS,
    mends=EDIT + "cache=none,io=native",
)
def threads_block(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """Sparse files are another matter: there native blocks while space is allocated."""
    for disk in _own(one):
        if disk.type == "block" and disk.io == "threads":
            yield Found(f"{_named(disk)} has io=threads", {"target": disk.target})


@guest_rule(
    "disk-format-foreign",
    Severity.WARNING,
    checks="an image in a format that QEMU only has for conversion",
    advice="convert it, with the guest off: qemu-img convert -p -O raw OLD NEW, or qcow2",
    why="these formats are slow, are not tested for running guests, and have no discard",
    guide="7.1",
    page=FORMATS,
)
def format_foreign(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """All but raw, qcow2, and names of protocols."""
    for disk in one.hardware.disks:
        if disk.stores and disk.format in FOREIGN:
            yield Found(f"{_named(disk)} is {disk.format}")


@guest_rule(
    "disk-format-qcow2",
    Severity.INFO,
    checks="a qcow2 image, which costs a lookup per request and an allocation at first writes",
    advice="raw for the last share of speed; or qemu-img create -o preallocation=metadata",
    why="clusters are allocated as the guest writes; what is gained is snapshots and thin images",
    guide="7.1",
    page=FORMATS,
)
def format_qcow2(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """On a block device it is twice the work of LVM's."""
    found = [_named(disk) for disk in _own(one) if disk.format == "qcow2"]
    if found:
        yield Found(f"{', '.join(found)}")


@guest_rule(
    "disk-backing-chain",
    Severity.WARNING,
    checks="an image with several images below it",
    advice="merge them, when the snapshots are not needed any more",
    why="a block that was not written since is looked up in one image after the other",
    guide="7.1",
    page="https://libvirt.org/kbase/backing_chains.html",
    mends="virsh blockpull {guest} {target} --wait",
)
def backing_chain(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """One is a template."""
    for disk in _own(one):
        if disk.chain > 1:
            told = f"{_named(disk)} has {disk.chain} images below it"
            yield Found(told, {"target": disk.target})


@guest_rule(
    "disk-discard",
    Severity.INFO,
    checks="an image that does not shrink when the guest frees space",
    advice="discard='unmap', and fstrim.timer in the guest",
    why="what the guest deletes stays allocated on the host, and is copied by each backup",
    guide="7.1",
    page=DISKS,
    mends=EDIT + "driver.discard=unmap",
)
def discard(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """Image files on a bus that passes discards on."""
    for disk in _own(one):
        passing = disk.bus in ("virtio", "scsi", "sata", "ide")
        if disk.type == "file" and passing and disk.discard in ("", "ignore"):
            yield Found(f"{_named(disk)}: discard is ignored", {"target": disk.target})


@guest_rule(
    "disk-detect-zeroes",
    Severity.INFO,
    checks="detect_zeroes, which reads through every write, or has no effect without discard",
    advice="off; unmap with discard='unmap' where guests overwrite with zeroes",
    why="each write is searched for zeroes; unmap without discard='unmap' only does what on does",
    guide="7.1",
    page=DISKS,
    mends=EDIT + "driver.detect_zeroes=off",
)
def detect_zeroes(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """unmap with discard is a choice."""
    for disk in _own(one):
        vain = disk.detect_zeroes == "unmap" and disk.discard != "unmap"
        if disk.detect_zeroes == "on" or vain:
            more = " without discard=unmap" if vain else ""
            told = f"{_named(disk)} has detect_zeroes={disk.detect_zeroes}{more}"
            yield Found(told, {"target": disk.target})


@guest_rule(
    "disk-iothread-missing",
    Severity.INFO,
    checks="a guest with several virtio disks and no IOThread",
    advice="an IOThread for each busy disk",
    why="QEMU's one main loop serves all disks, and the monitor and the display beside",
    guide="7.1",
    page="https://libvirt.org/formatdomain.html#iothreads-allocation",
    mends="virsh iothreadadd {guest} 1 --config"
    " && virt-xml {guest} --edit target={target} --disk driver.iothread=1",
)
def iothread_missing(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """How busy they are is not known from the XML."""
    disks = [disk for disk in one.hardware.disks if disk.stores and disk.bus == "virtio"]
    if len(disks) > 1 and not one.guest.iothreads:
        yield Found(f"{len(disks)} virtio disks", {"target": disks[0].target})


@guest_rule(
    "disk-iothread-undefined",
    Severity.ERROR,
    checks="a disk served by an IOThread that the guest does not have",
    advice="<iothreads> with at least that number",
    why="libvirt refuses the guest",
    guide="7.1",
    page="https://libvirt.org/formatdomain.html#iothreads-allocation",
    mends="virsh iothreadadd {guest} {number} --config",
)
def iothread_undefined(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """By number."""
    known = {str(number) for number in one.guest.iothreads}
    for disk in one.hardware.disks:
        for number in disk.iothreads:
            if number not in known:
                told = f"{_named(disk)} names IOThread {printable(number[:20])}"
                yield Found(told, {"number": number} if number.isdecimal() else None)


@guest_rule(
    "disk-iothread-unused",
    Severity.INFO,
    checks="a guest with IOThreads that serve no disk",
    advice="assign its virtio disks to them, or remove them",
    why="QEMU's main loop serves the disks, and the IOThreads wait",
    guide="7.1",
    page="https://libvirt.org/formatdomain.html#iothreads-allocation",
    mends=EDIT + "driver.iothread={number}",
)
def iothread_unused(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """A virtio-scsi controller may have one, which serves its disks."""
    served = any(disk.iothreads for disk in one.hardware.disks)
    disks = [disk for disk in one.hardware.disks if disk.stores and disk.bus == "virtio"]
    scsi = any(disk.bus == "scsi" for disk in one.hardware.disks)
    if one.guest.iothreads and disks and not served and not scsi:
        values = {"target": disks[0].target, "number": min(one.guest.iothreads)}
        yield Found(f"{len(one.guest.iothreads)} IOThreads, {len(disks)} disks", values)


LEAST, MOST = 10, 1000
"""Weights that libvirt and the kernel's BFQ take; the guide says 100 to 1000."""
GUIDES_LEAST = 100


@guest_rule(
    "blkio-weight-range",
    Severity.ERROR,
    checks="an I/O weight out of range",
    advice=f"{GUIDES_LEAST} to {MOST}; 0 removes the weight of a device",
    why="libvirt refuses the weight, and with it the guest's start",
    guide="7.2",
    page="https://libvirt.org/formatdomain.html#block-i-o-tuning",
    mends="virsh blkiotune {guest} {option} {value} --config",
    profile=ByProfile("vm_blkio_weight"),
)
def weight_range(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """Of the guest, and of disks by path."""
    for path, weight in one.hardware.blkio.items():
        if GUIDES_LEAST <= weight <= MOST or (path and weight == 0):
            continue
        small = LEAST <= weight < GUIDES_LEAST
        severity = Severity.WARNING if small else None
        near = GUIDES_LEAST if weight < GUIDES_LEAST else MOST
        option, value = ("--device-weights", f"{path},{near}") if path else ("--weight", near)
        what = f"the weight of {printable(path)}" if path else "its weight"
        yield Found(f"{what} is {weight}", {"option": option, "value": value}, severity)


@guest_rule(
    "blkio-without-scheduler",
    Severity.WARNING,
    checks="I/O weights on a host where no disk has a scheduler that honours them",
    advice="bfq on the disks that the guest's images are on",
    why="of the kernel's schedulers only BFQ divides a disk by weight",
    guide="7.2",
    page="https://docs.kernel.org/block/bfq-iosched.html",
    mends="echo bfq > /sys/block/{disk}/queue/scheduler",
    profile=ByProfile("disk_host_backing=bfq"),
)
def weight_without_scheduler(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """cfq honoured them, before kernel 5.0."""
    if not one.hardware.blkio:
        return
    schedulers = scene.facts.schedulers.get()
    choices = sorted(disk for disk, name in schedulers.items() if name != "none")
    if not {"bfq", "cfq"} & set(schedulers.values()):
        told = ", ".join(f"{disk} {schedulers[disk]}" for disk in choices[:4]) or "none has one"
        yield Found(f"it has weights; {told}", {"disk": choices[0]} if choices else None)


@host_rule(
    "disk-scheduler",
    Severity.WARNING,
    checks="a disk that guests are on, with another I/O scheduler than for its attachment",
    advice="mq-deadline on SCSI and SATA disks (deadline before kernel 5.0); tuned-virt disks",
    why="without a scheduler one guest's writes keep the reads of the others waiting",
    guide="6.2",
    page="https://docs.kernel.org/block/deadline-iosched.html",
    mends="echo {wanted} > /sys/block/{disk}/queue/scheduler",
    profile=ByProfile("disk_host_backing=mq-deadline", by_itself=True),
)
def scheduler(scene: Scene) -> Iterator[Found]:
    """As blk_elevator_virt classifies disks; bfq is a choice where guests have weights."""
    weights = any(one.hardware.blkio for one in scene.guests)
    for name, disk in sorted(scene.facts.backing.get().items()):
        chosen = disk.scheduler == "bfq" and weights
        if disk.wanted and disk.scheduler != disk.wanted and not chosen:
            told = f"{name} has {disk.scheduler}: {disk.why}"
            yield Found(told, {"disk": name, "wanted": disk.wanted})
