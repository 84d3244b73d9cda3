# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's XML without what tells whose it is. Pure: XML in, XML out.

What is kept is listed: attributes and texts that libvirt's schema (domaincommon.rng) bounds to its
own words and to numbers. All else is replaced or left out, also what a later libvirt adds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from tuned_virt.cli.replacements import IPV4, MAC, UUID, Replacements
from tuned_virt.cli.system_paths import DISK
from tuned_virt.libvirt_api.resource_tag import ResourceTag
from tuned_virt.model import xml
from tuned_virt.model.guest import GuestError
from tuned_virt.model.guest.devices import QEMU, holds_memory, named
from tuned_virt.model.guest.hardware import AUDIT_NAMESPACE, OSINFO
from tuned_virt.model.guest.model import PLACEMENT_NAMESPACE, POLICY_NAMESPACE
from tuned_virt.model.guest.reader import MANAGERS
from tuned_virt.placement.policy import WORDS as WISHES


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


WORDS = _words(
    """
    accel2d accel3d access accessmode action allow append arch associativity ats auto autodeflate
    autoport average bandwidth bar basis behavior bits burst bytes cache caching_mode cellid check
    cmd_per_lun compression connected copy_on_read copypaste core_id cores count csum current cyls
    default defaultMode deprecated detect_zeroes die_id dies discard discard_no_unref dmode driver
    dspPolicy dumpCore ecn eim enable enabled end engine eoi ephemeral error_policy event_idx
    exclude exclusive fallback firmware fixedSettings flock floor fmode format freePageReporting
    fullscreen grab grabToggle granularity gso guestReset heads hotplug hotpluggable initiator
    intremap io ioeventfd iommu iothread iotlb isolated job kernelHashes labelskip level limit
    logical_block_size managed match max maxGrantFrames max_sectors memAccess memory metric
    migratable min mixingEngine mode model mrg_rxbuf multidevs multifunction nativeMode node num
    offset order p2p packed page_per_vq peak period persistent_state physical_block_size placement
    policy ports posix powerControl prefix present primary priority proto protocol queue queue_size
    queues ram ramfb rawio readonly ready rebootTimeout relabel removable repeat rerror_policy
    resizing retries role rotation_rate rss rss_hash_report rx_queue_size scheduler seconds secs
    secure sgio shareBacking sharePolicy size slew slots snapshot socket_id sockets start
    startupPolicy state stateless support supported thread_pool_max thread_pool_min threads
    threshold tickpolicy timeout tls tlsPort to toggle track trans transport tray trunk
    trustGuestRxFilters tryMMap tryPoll tso4 tso6 tx_queue_size txmode type ufo unit units unknown
    usable useserial vcpu vectors verify vgamem vram vram64 websocket wrpolicy x xattr y
    machine discard_granularity clusters adjustment family
    """
)
"""Attributes whose values are words of libvirt's schema, or numbers."""

NUMBERS = _words(
    """
    aw_bits base bus busNr chassis chassisNr class controller cpus cpuset cssid device devno domain
    function id index iobase iothreads irq nodeset port product reg siblings slot ssid startport
    target uid fid vcpus vendor version
    """
)
"""Attributes with numbers, also hexadecimal ones, or sets of them; some are words elsewhere."""

WORD = re.compile(r"[\w.+-]{0,48}", re.ASCII)
NUMBER = re.compile(r"(?:0x)?[0-9a-fA-F]{1,8}|-?[\d.]{1,20}|[\d,^-]*", re.ASCII)
BOUNDED = {"bus": ("target", "input", "redirdev"), "device": ("disk",), "id": ()}
"""Attributes of NUMBERS that are words at these elements."""

VALUES = ("bandwidth", "latency", "line", "size", "sibling", "cfpc", "ibs", "sbbc")
"""Elements whose attribute `value` is a word or a number."""

OWN_NAMES = ("feature", "timer", "model", "event", "channel", "mode", "arch")
"""Elements whose attribute `name` is a word of libvirt's."""

DRIVERS = ("qemu", "vhost", "vfio", "kvm", "tap", "phy", "file", "loop", "xen", "nbd", "passt")

CHANNEL = re.compile(
    r"(?:org\.qemu\.(?:guest_agent|console\.serial)|com\.redhat\.(?:spice|rhevm\.vdsm)"
    r"|org\.libguestfs\.channel|org\.spice-space\.webdav)\.\d"
)
DISK_TARGET = re.compile(rf"{DISK}|fd[a-z]|ubd[a-z]", re.ASCII)

PATHS = _words(
    """
    file path dir socket evdev tty template logFile tap vhost rendernode volume
    """
)
LINKS = frozenset({"bridge", "network", "portgroup"})
UUIDS = frozenset({"uuid", "interfaceid", "instanceid", "portid", "switchid"})
PASSWORDS = frozenset({"passwd", "secret", "usage", "username", "passwdValidTo"})

TEXT_WORDS = _words(
    """
    type model on_crash on_poweroff on_reboot on_lockfailure os_type cbitpos reducedPhysBits
    """
)
TEXT_NUMBERS = _words(
    """
    alignsize current currentMemory emulator_period emulator_quota global_period global_quota
    hard_limit iothread_period iothread_quota iothreads maxMemory max_size maxpagesize memory
    min_guarantee node nodemask pagesize pcihole64 period quota read_bytes_sec read_bytes_sec_max
    read_bytes_sec_max_length read_iops_sec read_iops_sec_max read_iops_sec_max_length requested
    shares size size_iops_sec soft_limit swap_hard_limit space_hard_limit space_soft_limit
    tb-cache total_bytes_sec total_bytes_sec_max total_bytes_sec_max_length total_iops_sec
    total_iops_sec_max total_iops_sec_max_length tseg vcpu weight write_bytes_sec
    write_bytes_sec_max write_bytes_sec_max_length write_iops_sec write_iops_sec_max
    write_iops_sec_max_length
    """
)
TEXT_PATHS = _words(
    """
    block char dtb emulator initrd kernel loader nvram path table backend binary
    """
)
"""Elements by what their text is; of all others it is left out."""

OWN_VALUES = {
    POLICY_NAMESPACE: re.compile("|".join(one.value for words in WISHES.values() for one in words)),
    PLACEMENT_NAMESPACE: re.compile(r"(?:[a-z]{1,12}=)?[\d=,^ -]*|none", re.ASCII),
    ResourceTag.LIMITS.namespace: re.compile(r"\d{1,19}", re.ASCII),
    ResourceTag.WEIGHTS.namespace: re.compile(r"\d{1,19}", re.ASCII),
}
"""What our metadata may say: words of a guest's policy, and CPUs."""


def redact(text: str, using: Replacements) -> str:
    """A <domain> without what tells whose it is. Raises GuestError for what is no XML of one."""
    root: Element = xml.read(text, "domain", lambda found: found, GuestError)
    _element(root, "", using)
    return ElementTree.tostring(root, encoding="unicode")


def _element(element: Element, parent: str, using: Replacements) -> None:
    tag = element.tag
    element.tail = None
    if tag.startswith("{"):
        _foreign(element, using)
        return
    element.text = _text(tag, parent, (element.text or "").strip(), using)
    for name, value in element.attrib.items():
        element.set(name, _attribute(tag, parent, name, value, using))
    if tag == "metadata":
        _metadata(element, using)
        return
    for child in element:
        _element(child, tag, using)


# --- attributes -----------------------------------------------------------------------------------


def _attribute(tag: str, parent: str, name: str, value: str, using: Replacements) -> str:
    """What stands for an attribute's value."""
    if name == "name":
        return _name(tag, parent, value, using)
    if name == "dev":
        return _device(tag, parent, value, using)
    if name in ("address", "listen", "local", "gateway", "peer", "netmask") and not value.isdigit():
        return using.mac(value) if tag == "mac" else using.address(value)
    for names, made in REPLACED.items():
        if name in names:
            return made(using, value)
    if name == "value" and tag in VALUES and WORD.fullmatch(value):
        return value
    return value if _is_own(tag, name, value) else using.left_out(_kind(name), value)


def _is_own(tag: str, name: str, value: str) -> bool:
    """Whether a value is a word of libvirt's, or a number."""
    if re.search(f"{MAC}|{UUID}|{IPV4}", value):
        return False
    if name in NUMBERS and tag not in BOUNDED.get(name, ()):
        return NUMBER.fullmatch(value) is not None
    return (name in WORDS or name in NUMBERS) and WORD.fullmatch(value) is not None


def _kind(name: str) -> str:
    return "passwords and secrets" if name in PASSWORDS else "other values"


REPLACED: Mapping[frozenset[str], Callable[[Replacements, str], str]] = {
    PATHS: Replacements.path,
    LINKS: Replacements.link,
    UUIDS: Replacements.uuid,
    frozenset({"pool"}): lambda using, value: using.named("storage pools", value, "pool-{}"),
}


def _name(tag: str, parent: str, value: str, using: Replacements) -> str:
    if tag in OWN_NAMES and WORD.fullmatch(value):
        return value
    if tag == "driver" and value in DRIVERS:
        return value
    if tag == "target" and (not value or CHANNEL.fullmatch(value)):
        return value
    if tag == "host":
        return using.host(value)
    if tag == "source" and parent == "disk":
        return using.path(value)
    return using.left_out("other values", value)


def _device(tag: str, parent: str, value: str, using: Replacements) -> str:
    """A disk's name in the guest, an interface, or a device of the host."""
    if tag == "boot" and WORD.fullmatch(value):
        return value
    if tag == "target" and DISK_TARGET.fullmatch(value):
        return value
    return using.path(value) if value.startswith("/") else using.link(value)


# --- text and metadata ----------------------------------------------------------------------------


def _text(tag: str, parent: str, text: str, using: Replacements) -> str:
    """What stands for an element's text."""
    if (tag, parent) == ("name", "domain"):
        return using.guest(text)
    if tag in TEXTS:
        return TEXTS[tag](using, text) if text else text
    own = tag in TEXT_WORDS or (tag, parent) == ("vendor", "cpu")
    form = WORD if own else NUMBER if tag in TEXT_NUMBERS else None
    kept = form is not None and form.fullmatch(text)
    return text if kept else using.left_out("texts", text)


TEXTS: Mapping[str, Callable[[Replacements, str], str]] = {
    "uuid": Replacements.uuid,
    "genid": Replacements.uuid,
    "partition": Replacements.partition,
    **dict.fromkeys(TEXT_PATHS, Replacements.path),
}


def _metadata(element: Element, using: Replacements) -> None:
    """Ours, the guest's system, and who manages it; the rest is left out."""
    for child in list(element):
        namespace = child.tag.partition("}")[0].lstrip("{")
        child.tail = None
        if namespace in OWN_VALUES:
            _own(child, OWN_VALUES[namespace], using)
        elif namespace == AUDIT_NAMESPACE:
            _accepted(child, using)
        elif child.tag.startswith(OSINFO):
            _system(child)
        elif any(known in child.tag for known in MANAGERS):
            _foreign(child, using, "metadata")
            child[:] = []
        else:
            element.remove(child)
            using.left_out("metadata")


def _own(element: Element, form: re.Pattern[str], using: Replacements) -> None:
    element.text = None
    element[:] = []
    for name, value in element.attrib.items():
        if not form.fullmatch(value):
            element.set(name, using.left_out("metadata", value))


def _accepted(element: Element, using: Replacements) -> None:
    """Findings that the owner accepts; the reasons are theirs."""
    element.text = None
    for one in element:
        one.text = one.tail = None
        for name, value in one.attrib.items():
            if name != "rule" or not WORD.fullmatch(value.strip()):
                one.set(name, using.left_out("metadata", value))


def _system(element: Element) -> None:
    """libosinfo's name of the guest's system."""
    for one in element.iter():
        one.text = one.tail = None
        for name, value in list(one.attrib.items()):
            if not re.fullmatch(r"https?://[a-z.]+/[\w./-]+", value, re.ASCII):
                del one.attrib[name]


def _foreign(element: Element, using: Replacements, kind: str = "QEMU's arguments") -> None:
    """Another namespace: that it is there, and which devices of VFIO and vDPA are passed."""
    for one in element.iter():
        one.tail = None
        one.text = using.left_out(kind, (one.text or "").strip())
        for name, value in one.attrib.items():
            if one.tag == f"{{{QEMU}}}arg" and holds_memory(value):
                driver = "vhost-vdpa" if "vhost-vdpa" in value else "vfio-pci"
                hosts = [f"host={using.device(device)}" for device in named(value)]
                one.set(name, ",".join([driver, *hosts]))
            else:
                one.set(name, using.left_out(kind, value))
