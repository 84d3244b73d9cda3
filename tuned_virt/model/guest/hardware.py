# SPDX-License-Identifier: GPL-2.0-or-later
"""What of a guest's XML only its speed depends on: CPU model, devices, caches, limits.

`reader` refuses what placement could not trust; here what is absent or odd is None or "", so that a
document is audited as far as it can be. Names are those of libvirt's formatdomain.
"""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree.ElementTree import Element

from tuned_virt.frozen_dataclasses import dataclass, field
from tuned_virt.model import memory_units
from tuned_virt.model.guest import user_pins
from tuned_virt.model.guest.model import UserPins
from tuned_virt.model.xml import ElementError

AUDIT_NAMESPACE = "urn:tuned-virt-plus:audit:1"
"""XML namespace of what a guest's owner does not want to hear of:
<audit xmlns="…"><skip rule="ID" reason="why"/></audit> in <metadata>."""

OSINFO = "{http://libosinfo.org/xmlns/libvirt/domain/1.0}"


@dataclass(frozen=True)
class VirtualDisk:
    """A <disk>. Attributes of its <driver> are "" where the XML does not set them.

    chain       images below the top one, as far as the XML lists them
    iothreads   numbers of those that serve it
    """

    target: str
    bus: str
    device: str
    type: str
    source: str = ""
    format: str = ""
    cache: str = ""
    io: str = ""
    discard: str = ""
    detect_zeroes: str = ""
    iothreads: tuple[str, ...] = ()
    read_only: bool = False
    shareable: bool = False
    chain: int = 0

    @property
    def stores(self) -> bool:
        """Whether the guest keeps data on it: no CD-ROM, floppy, or passed-through LUN."""
        return self.device == "disk" and not self.read_only


@dataclass(frozen=True)
class VirtualNic:
    """An <interface>; `tap` is the host's device where the XML names one."""

    mac: str
    type: str
    model: str
    source: str = ""
    driver: str = ""
    queues: int = 0
    mtu: int = 0
    tap: str = ""


@dataclass(frozen=True)
class MemoryLimits:
    """<memtune> in KiB; None where it is not set."""

    hard: int | None = None
    soft: int | None = None
    swap_hard: int | None = None


@dataclass(frozen=True)
class PluggedMemory:
    """A memory device: its model, and its size in KiB."""

    model: str
    size: int


@dataclass(frozen=True)
class Hardware:
    """A guest's virtual hardware. (type, model), or what else identifies one, by kind of device.

    cpu_mode        of <cpu>, "" without; cpu_model: its <model>
    cpu_requires    features that <cpu> requires
    os_id           libosinfo's identifier of the guest's system
    blkio           weight of the guest, or of a disk by its path; "" is the guest
    pins            all that the XML says about places, by whomever
    skips           rule → reason, from AUDIT_NAMESPACE
    """

    cpu_mode: str = ""
    cpu_model: str = ""
    cpu_requires: tuple[str, ...] = ()
    os_id: str = ""
    disks: tuple[VirtualDisk, ...] = ()
    nics: tuple[VirtualNic, ...] = ()
    controllers: tuple[tuple[str, str], ...] = ()
    inputs: tuple[tuple[str, str], ...] = ()
    sounds: tuple[str, ...] = ()
    videos: tuple[str, ...] = ()
    graphics: tuple[str, ...] = ()
    serials: tuple[str, ...] = ()
    parallels: tuple[str, ...] = ()
    redirections: int = 0
    usb_passed: int = 0
    channels: tuple[str, ...] = ()
    limits: MemoryLimits = field(default_factory=MemoryLimits)
    blkio: Mapping[str, int] = field(default_factory=dict)
    plugged: tuple[PluggedMemory, ...] = ()
    slots: int = 0
    pins: UserPins = field(default_factory=UserPins)
    skips: Mapping[str, str] = field(default_factory=dict)


def read(root: Element, vcpus: int) -> Hardware:
    """The hardware of a <domain>. Raises ElementError for pins that are none."""
    cpu = root.find("cpu")
    return Hardware(
        cpu_mode="" if cpu is None else cpu.get("mode", "custom" if _text(cpu, "model") else ""),
        cpu_model="" if cpu is None else _text(cpu, "model"),
        cpu_requires=tuple(
            one.get("name", "")
            for one in root.iterfind("cpu/feature")
            if one.get("policy") in ("require", "force")
        ),
        os_id=_os(root),
        disks=tuple(map(_disk, root.iterfind("devices/disk"))),
        nics=tuple(map(_nic, root.iterfind("devices/interface"))),
        controllers=_pairs(root, "controller", "type", "model"),
        inputs=_pairs(root, "input", "type", "bus"),
        sounds=tuple(one for one, _ in _pairs(root, "sound", "model", "")),
        videos=tuple(one.get("type", "") for one in root.iterfind("devices/video/model")),
        graphics=tuple(one for one, _ in _pairs(root, "graphics", "type", "")),
        serials=tuple(one for one, _ in _pairs(root, "serial", "type", "")),
        parallels=tuple(one for one, _ in _pairs(root, "parallel", "type", "")),
        redirections=len(root.findall("devices/redirdev")),
        usb_passed=len(root.findall("devices/hostdev[@type='usb']")),
        channels=tuple(one.get("name", "") for one in root.iterfind("devices/channel/target")),
        limits=_limits(root),
        blkio=dict(_weights(root)),
        plugged=tuple(_plugged(root)),
        slots=_whole(_attribute(root, "maxMemory", "slots")),
        pins=user_pins.read(root, vcpus, {}),
        skips=dict(_skips(root)),
    )


def _pairs(root: Element, tag: str, one: str, other: str) -> tuple[tuple[str, str], ...]:
    found = root.iterfind(f"devices/{tag}")
    return tuple((element.get(one, ""), element.get(other, "")) for element in found)


def _text(element: Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _attribute(element: Element, path: str, name: str) -> str:
    found = element.find(path)
    return "" if found is None else found.get(name, "")


def _whole(text: str) -> int:
    """0 for what is no number."""
    try:
        return memory_units.number(text)
    except ValueError:
        return 0


def _kib(root: Element, path: str) -> int | None:
    element = root.find(path)
    if element is None:
        return None
    try:
        return memory_units.element_kib(element)
    except ElementError:
        return None


def _os(root: Element) -> str:
    found = root.find(f"metadata/{OSINFO}libosinfo/{OSINFO}os")
    return "" if found is None else found.get("id", "")


def _disk(element: Element) -> VirtualDisk:
    driver = element.find("driver")
    options = {} if driver is None else driver.attrib
    served = [options["iothread"]] if "iothread" in options else []
    served += [one.get("id", "") for one in element.iterfind("driver/iothreads/iothread")]
    source = element.find("source")
    names = {} if source is None else source.attrib
    return VirtualDisk(
        target=_attribute(element, "target", "dev"),
        bus=_attribute(element, "target", "bus")
        or _usual_bus(_attribute(element, "target", "dev")),
        device=element.get("device", "disk"),
        type=element.get("type", ""),
        source=next((names[one] for one in ("file", "dev", "dir", "name") if one in names), ""),
        format=options.get("type", ""),
        cache=options.get("cache", ""),
        io=options.get("io", ""),
        discard=options.get("discard", ""),
        detect_zeroes=options.get("detect_zeroes", ""),
        iothreads=tuple(served),
        read_only=element.find("readonly") is not None,
        shareable=element.find("shareable") is not None,
        chain=sum(1 for one in element.iter("backingStore") if one.find("source") is not None),
    )


def _usual_bus(target: str) -> str:
    """What libvirt takes where none is written (virDiskNameToBusDeviceIndex)."""
    names = {"hd": "ide", "sd": "scsi", "fd": "fdc", "vd": "virtio", "xvd": "xen", "ubd": "uml"}
    return next((bus for name, bus in names.items() if target.startswith(name)), "")


def _nic(element: Element) -> VirtualNic:
    source = element.find("source")
    names = {} if source is None else source.attrib
    queues = _attribute(element, "driver", "queues")
    return VirtualNic(
        mac=_attribute(element, "mac", "address"),
        type=element.get("type", ""),
        model=_attribute(element, "model", "type"),
        source=next((names[one] for one in ("network", "bridge", "dev") if one in names), ""),
        driver=_attribute(element, "driver", "name"),
        queues=_whole(queues),
        mtu=_whole(_attribute(element, "mtu", "size")),
        tap=_attribute(element, "target", "dev"),
    )


def _limits(root: Element) -> MemoryLimits:
    names = ("hard_limit", "soft_limit", "swap_hard_limit")
    return MemoryLimits(*(_kib(root, f"memtune/{name}") for name in names))


def _weights(root: Element) -> list[tuple[str, int]]:
    own = _text(root, "blkiotune/weight")
    found = [("", _whole(own))] if own else []
    for one in root.iterfind("blkiotune/device"):
        if one.find("weight") is not None:
            found.append((_text(one, "path"), _whole(_text(one, "weight"))))
    return found


def _plugged(root: Element) -> list[PluggedMemory]:
    found = root.iterfind("devices/memory")
    return [PluggedMemory(one.get("model", ""), _kib(one, "target/size") or 0) for one in found]


def _skips(root: Element) -> list[tuple[str, str]]:
    """libvirt writes the namespace at <audit> alone, others repeat it on <skip>."""
    found = []
    for own in root.iterfind(f"metadata/{{{AUDIT_NAMESPACE}}}audit"):
        for one in own:
            if one.tag.rpartition("}")[2] == "skip":
                found.append((one.get("rule", "").strip(), one.get("reason", "").strip()))
    return found
