# SPDX-License-Identifier: GPL-2.0-or-later
"""Paths that tell nothing of whose host it is, as a redacted snapshot may show them.

What the kernel, packages, libvirt, systemd, TuneD or this project name is the same on every host
(hier(7), file-hierarchy(7)). In some of these paths one part is a name that somebody gave: an
interface, a ZFS pool, a profile, a file in a folder of configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

DISK = r"(?:sd|vd|hd|xvd)[a-z]{1,3}\d*|nvme\d+n\d+(?:p\d+)?|(?:dm-|md|loop|sr|nbd|zram|pmem)\d+"
"""Names that the kernel gives."""

_TOP = (
    r"/(?:bin|boot|dev|etc|home|media|mnt|opt|root|run|sbin|srv|tmp|usr|var)",
    r"/var/(?:cache|lib|log|run|spool|tmp)",
)

_DEVICES = (
    rf"/dev/(?:{DISK}|kvm|hugepages\w*|shm|null|zero|u?random|hwrng|vhost-[\w-]+|tpm\w*|pts/\d+"
    r"|ttyS\d+|dri/\w+|vfio/\d+|disk|cpu_dma_latency)",
)

_KERNEL = (
    r"/sys/(?:class|devices(?:/.+)?)/net/(?P<interface>[^/]+)(?!/brif/|/lower_|/upper_)(?:/.*)?",
    r"/proc/sys/net/ipv[46]/(?:conf|neigh)/(?P<interface>[^/]+)(?:/.*)?",
    r"/proc/net/(?:bonding|dev_snmp6|vlan)/(?P<interface>[^/]+)",
    r"/proc/spl/kstat/zfs/(?P<pool>[^/]+)/.*",
    r"/sys(?!.*/net/|/fs/cgroup/|/fs/bpf/|/kernel/config/)(?:/.*)?",
    r"/proc(?!/net/(?:bonding|dev_snmp6|vlan)/|/[^/]+/(?:root|cwd)/)(?:/.*)?",
)
"""Below configfs, BPF's file system, root and cwd are names that others gave."""

_PACKAGED = (
    r"/(?:usr/)?(?:bin|include|lib|lib32|lib64|libexec|sbin|share|src)(?:/.*)?",
    r"/usr/local/s?bin/qemu-[\w.-]+",
)

_RUN = r"(?:/var)?/run"
_SOCKET = r"[a-z-]*sock[a-z-]*"

_RUNNING = (
    rf"{_RUN}/libvirt(?:/{_SOCKET}|/qemu|/common(?:/system\.token)?)?",
    rf"{_RUN}/user/\d+(?:/libvirt(?:/{_SOCKET})?)?",
    rf"{_RUN}/dbus(?:/system_bus_socket)?",
    rf"{_RUN}/systemd(?:/notify|/private)?",
    rf"{_RUN}/udev(?:/control|/data)?",
    rf"{_RUN}/(?:irqbalance|kubevirt|log|openvswitch)",
)

_STATE = (
    rf"{_RUN}/tuned(?:-virt)?(?:/.*)?",
    r"/var/(?:lib|log)/tuned(?:-virt)?(?:/.*)?",
    r"/var/(?:lib|log|cache)/libvirt(?:/qemu|/images|/boot)?",
)

_SUFFIXES = "conf|json|link|mount|path|py|rules|scope|service|sh|slice|socket|target|timer"
_FILE = rf"(?P<file>[^/:]+?)(?:\.(?:{_SUFFIXES}))?(?::\d+)?"
"""A file that an administrator may name; its suffix and the number of a line stay."""

_PROFILE = r"(?P<profile>(?!profiles/|recommend\.d/)[^/]+)"

_TUNED = (
    r"/etc/tuned(?:/(?:active_profile|bootcmdline|post_loaded_profile|ppd\.conf|ppd_base_profile"
    r"|profile_mode|profiles|recommend\.d|tuned-main\.conf|tuned-virt-audit\.conf"
    r"|virt_plus_previous\.json)(?::\d+)?)?",
    rf"/etc/tuned/{_PROFILE}-variables\.conf(?::\d+)?",
    rf"/etc/tuned/(?:profiles/)?{_PROFILE}(?:/tuned\.conf(?::\d+)?)?",
    rf"/etc/tuned/(?:profiles/)?{_PROFILE}/{_FILE}",
    rf"/usr/lib/tuned/(?:profiles/)?{_PROFILE}/.*",
)

_DROP_INS = r"(?:(?:sysctl|sysfs|tmpfiles|modprobe|modules-load)\.d|udev/rules\.d)"
_UNITS = r"systemd/(?:system|system\.control|transient)"
_CONFIGURED = rf"(?:/etc|{_RUN}|/usr/local/lib)"

_CONFIGURATION = (
    r"/etc/(?:fstab|init\.d/boot\.local|ksmtuned\.conf|numad\.conf|os-release|rc\.local"
    r"|rc\.d/rc\.local|sysctl\.conf|sysfs\.conf|nova/nova(?:-compute)?\.conf|vdsm/vdsm\.conf"
    r"|kolla/nova-compute|pve|(?:default|sysconfig)/(?:grub|irqbalance|ksm|ksmtuned|qemu-kvm)"
    r"|libvirt(?:/hooks(?:/qemu)?|/qemu|/(?:qemu|libvirtd?|virt[a-z]+d)\.conf)?)(?::\d+)?",
    rf"{_CONFIGURED}/{_DROP_INS}(?:/{_FILE})?",
    rf"{_CONFIGURED}/{_UNITS}(?:/{_FILE})?",
    rf"{_CONFIGURED}/{_UNITS}/(?P<unit>[^/:]+?)\.(?:{_SUFFIXES})\.(?:d|requires|wants)(?:/{_FILE})?",
    rf"/etc/tuned/recommend\.d/{_FILE}",
    rf"/etc/libvirt/hooks/qemu\.d/{_FILE}",
)

SYSTEM = tuple(
    re.compile(one, re.ASCII)
    for one in (
        *_TOP, *_DEVICES, *_KERNEL, *_TUNED, *_PACKAGED, *_RUNNING, *_STATE, *_CONFIGURATION
    )
)  # fmt: skip

OURS = re.compile(
    r"\d\d-tuned-virt(?:-[a-z]+)*|tuned(?:-virt(?:-[a-z]+)*|-ppd)?|libvirtd|virtqemud|ksm|ksmtuned"
    r"|irqbalance|numad|machine|system|user"
)
"""Files and units in folders of configuration that are not an administrator's to name."""


def parts(path: str) -> Iterator[tuple[str, str]]:
    """A path in pieces, each with what it is the name of, "" for what is the same everywhere.

    Of a path that is none of the system's: nothing.
    """
    found = next(filter(None, (one.fullmatch(path) for one in SYSTEM)), None)
    if found is None or "/../" in path:
        return
    at = 0
    for kind in sorted((one for one in found.groupdict() if found[one]), key=found.start):
        if not OURS.fullmatch(found[kind]):
            yield "", path[at : found.start(kind)]
            yield kind, found[kind]
            at = found.end(kind)
    yield "", path[at:]
