# SPDX-License-Identifier: GPL-2.0-or-later
"""What reads text of others: each reader as a function of bytes that raises only for a fault.

A reader may refuse what it is given, in its own words; any other exception is a fault, and so is a
property that does not hold.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

from tests import snapshots as saved
from tests.fuzz import texts
from tuned_virt.audit.check import check
from tuned_virt.audit.rule import all_rules
from tuned_virt.audit.scene import AuditedGuest, Scene
from tuned_virt.cli import import_, planning_input, snapshot_file
from tuned_virt.cli.common import CouldNot
from tuned_virt.cli.planning_input import DescribedGuest
from tuned_virt.core import active_profile, options, settings
from tuned_virt.core.installed_profiles import InstalledProfiles
from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Originals, OriginalsError
from tuned_virt.core.state_file import StateFile, UnusableStateError
from tuned_virt.core.system_root import SystemRoot
from tuned_virt.guests.originals import GuestOriginals, may_run
from tuned_virt.kernel import cgroups, cpuset, numa_maps, procfs, shell_writes
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.libvirt_api import hook as libvirt_hook
from tuned_virt.libvirt_api import placement_tag, resource_tag
from tuned_virt.libvirt_api.own_elements import NotXML
from tuned_virt.model import topology
from tuned_virt.model.guest import (
    GuestError,
    qemu_process,
    qemu_threads,
    read_guest,
    read_whole,
)
from tuned_virt.model.guest.disk_sources import read_disks
from tuned_virt.model.pins import Pins
from tuned_virt.model.topology import Host, HostError, overlay
from tuned_virt.plugins.blk_elevator_virt import conflicts, policy_in_force, state
from tuned_virt.plugins.hugepages_numa import boot, mounts, pools, progress
from tuned_virt.plugins.ksm import controller_state
from tuned_virt.plugins.vm_pinning import held_placements
from tuned_virt.registry import tuners

Reader = Callable[[bytes], None]

BOOT = texts.BOOT
PID = 100


@dataclass(frozen=True)
class Target:
    """A reader, what it is first given, and words that the fuzzer may put in."""

    read: Reader
    seeds: tuple[str, ...]
    words: tuple[str, ...] = ()


def text_of(data: bytes) -> str:
    """As text of others is decoded."""
    return data.decode(errors="replace")


@functools.lru_cache(maxsize=1)
def folder() -> Path:
    """A folder for files, which goes with the process."""
    made = tempfile.TemporaryDirectory(prefix="fuzz-")
    _kept.append(made)
    return Path(made.name)


_kept: list[tempfile.TemporaryDirectory[str]] = []


def written(name: str, data: bytes) -> Path:
    """A file with these bytes."""
    file = folder() / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


# --- text -----------------------------------------------------------------------------------------


def cpu_sets(data: bytes) -> None:
    """Lists and masks of CPUs; what is read is written as it was meant."""
    text = text_of(data)
    with contextlib.suppress(ValueError):
        numbers = cpuset.parse(text)
        assert cpuset.parse(cpuset.text(numbers)) == numbers
        assert len(numbers) <= cpuset.size(text)
    for parse in (cpuset.parse_excluding, cpuset.parse_mask):
        with contextlib.suppress(ValueError):
            parse(text)


HOSTS = Path(__file__).parents[1] / "data/hosts"
TWO_NODES = Host.from_xml((HOSTS / "two-nodes.xml").read_text())


def domain(data: bytes) -> None:
    """A guest's XML, and what the audit finds in it."""
    text = text_of(data)
    with contextlib.suppress(GuestError):
        read_guest(text)
        audited = AuditedGuest(*read_whole(text))
        for one in check(Scene(TWO_NODES, guests=(audited,)), all_rules().values()).findings:
            assert one.what.isprintable()
            assert one.command.isprintable()
    for tag in (placement_tag, resource_tag):
        with contextlib.suppress(NotXML):
            tag.read(text)
    with contextlib.suppress(ValueError):
        read_disks(text)


def capabilities(data: bytes) -> None:
    """libvirt's view of the host."""
    with contextlib.suppress(HostError):
        Host.from_xml(text_of(data))


def hook(data: bytes) -> None:
    """The hook's rule: no document without our tag is changed, and none is broken."""
    try:
        stripped = libvirt_hook.strip(data)
    except NotXML:
        return
    assert stripped is None or well_formed(stripped)
    try:
        before = ElementTree.fromstring(data)
    except ElementTree.ParseError:
        assert b"}" in data, "expat refuses ElementTree's own separator in a namespace"
        return
    tagged = list(_tags(before))
    assert (stripped is None) == (not tagged)
    if stripped is None:
        return
    after = ElementTree.fromstring(stripped)
    assert not list(_tags(after))
    assert libvirt_hook.strip(stripped) is None
    assert len(stripped) < len(data)
    allowed = {"metadata", "vcpupin", "emulatorpin", "iothreadpin", "memory"}
    allowed |= {"hard_limit", "soft_limit", "swap_hard_limit", "shares", "weight"}
    gone = _counted(before, allowed)
    assert gone == _counted(after, allowed), "what is none of ours is gone, or new"


def well_formed(data: bytes) -> bool:
    """Whether it is XML."""
    try:
        return bool(expat.ParserCreate().Parse(data, True))
    except expat.ExpatError:
        return False


OUR_TAGS = (
    f"{{{placement_tag.NAMESPACE}}}{placement_tag.ROOT}",
    *(f"{{{tag.namespace}}}{tag.value}" for tag in resource_tag.ResourceTag),
)


def _tags(root: ElementTree.Element) -> list[ElementTree.Element]:
    if root.tag != "domain":
        return []
    return [one for metadata in root.findall("metadata") for one in metadata if one.tag in OUR_TAGS]


def _counted(root: ElementTree.Element, left_out: set[str]) -> list[tuple[str, str]]:
    """All elements in order with their attributes, but those that may be ours."""
    inside = {id(one) for tag in _tags(root) for one in tag.iter()}
    return [
        (one.tag, repr(sorted(one.attrib.items())))
        for one in root.iter()
        if id(one) not in inside and one.tag not in left_out
    ]


def settings_file(data: bytes) -> None:
    """A settings file, and each of its values as an option of each plugin."""
    file = written("settings.conf", data)
    found = settings.read(str(file))
    for one in found.settings.values():
        for tuner in tuners().values():
            tried = tuner.options if one.name in texts.ANY else {one.name} & {*tuner.options}
            for option in tried:
                with contextlib.suppress(options.BadOptions):
                    tuner.parse({option: one.value})


def ksmtuned(data: bytes) -> None:
    """ksmtuned's configuration."""
    with contextlib.suppress(CouldNot):
        import_.convert(Path("ksmtuned.conf"), text_of(data))


def journal(data: bytes) -> None:
    """The history of changes."""
    list(Journal(written("journal.jsonl", data)).entries())


def udev(data: bytes) -> None:
    """Rules of udev that set a scheduler, and all else that does at boot."""
    for path in ("etc/udev/rules.d/x.rules", "etc/tmpfiles.d/x.conf", "etc/sysfs.conf"):
        written(f"root/{path}", data)
    written("root/etc/systemd/system/x.service", data)
    written("root/etc/systemd/system/basic.target.wants/x.service", b"")
    fs = KernelFS(folder() / "root")
    disks = [state.Disk(name, state.UNKNOWN, offered=("none",)) for name in ("sda", "nvme0n1")]
    conflicts.by_disk(fs, conflicts.OthersReader(fs).read(), disks)
    list(shell_writes.writes(text_of(data), "queue/scheduler"))


def command_line(data: bytes) -> None:
    """The kernel's command line."""
    text = text_of(data)
    boot.parse(text)
    boot.in_the_way(text, 2048, "4")
    boot.version(text)


def profiles(data: bytes) -> None:
    """A profile's tuned.conf and what it includes, and the profile that is active."""
    written("root/usr/lib/tuned/a/tuned.conf", data)
    written("root/etc/tuned/active_profile", data[:200])
    found = InstalledProfiles(SystemRoot(folder() / "root"))
    found.uses("a")
    found.wrong("a")
    active_profile.read(found.system)


# --- state files ----------------------------------------------------------------------------------


def snapshots(data: bytes) -> None:
    """A host that somebody has saved."""
    with contextlib.suppress(CouldNot):
        known = snapshot_file.load(str(written("host.json", data)))
        known.planning()
        known.audit()
        known.state()


def originals(data: bytes) -> None:
    """What is put back, of every plugin."""
    where = folder() / "originals"
    for old in where.glob("*"):
        old.unlink()
    written("originals/baseline.json", data)
    kept = Originals(where, BOOT)
    with contextlib.suppress(OriginalsError):
        kept.all()
        kept.remarks()
        for name, tuner in tuners().items():
            kept.holder(name)
            if hasattr(tuner, "original"):
                GuestOriginals(name, tuner.original, kept).uris()


STATES: Mapping[str, Callable[[dict[str, Any]], object]] = {
    "guests": held_placements._guests,
    "loop": controller_state._state,
    "disks": policy_in_force._policy,
    "progress": progress._progress,
    "previous": active_profile._parse,
}


def states(data: bytes) -> None:
    """All other files of state, whose reader is named in the first line."""
    name, _, rest = data.partition(b"\n")
    parse = STATES.get(text_of(name))
    if parse is not None:
        with contextlib.suppress(UnusableStateError):
            found = StateFile(written("state.json", rest), parse, BOOT).read()
            for one in _held_in(found):
                assert one.placed in (True, False)
                assert one.placement.pins() == one.placement.pins(0)
                cpuset.text(one.placement.nodes)


def _held_in(found: object) -> Iterable[held_placements.HeldPlacement]:
    return chain(*found.values()) if isinstance(found, dict) else ()


def guest_originals(data: bytes) -> None:
    """What is kept of one guest, as JSON in the originals."""
    text = text_of(data)
    for parse in (getattr(one, "original", None) for one in tuners().values()):
        if parse is not None:
            with contextlib.suppress(ValueError):
                one = parse(text)
                assert isinstance(one.key, str)
                may_run(one)
                assert parse(one.text()) == one


# --- the kernel -----------------------------------------------------------------------------------


def kernel(data: bytes) -> None:
    """Files of /proc and /sys, each after a line that names it."""
    root = folder() / "kernel"
    names = set()
    for part in data.split(texts.PART.encode()):
        name, _, text = part.partition(b"\n")
        if name.decode(errors="replace") in texts.KERNEL_FILES:
            names.add(name.decode())
            written(f"kernel{name.decode()}", text)
    fs = KernelFS(root)
    for reader in KERNEL:
        with contextlib.suppress(KernelFileError, HostError):
            reader(fs)
    for file in names:
        (root / file.lstrip("/")).unlink()


def _process(fs: KernelFS) -> None:
    numa_maps.by_node(numa_maps.read(fs, PID))
    numa_maps.locked(fs, PID)
    pools.used(fs.read_optional(f"/proc/{PID}/numa_maps") or "")
    pools.mapped(fs, PID)
    qemu_process.identify(fs, PID)
    qemu_threads.pins(qemu_threads.affinity(fs, PID))
    qemu_threads.run_delay(fs, PID, PID)
    cgroups.pressures(fs, PID)
    cgroups.throttling(fs, PID, [PID])
    cgroups.own_path(fs, PID)
    procfs.by_name(fs, {"kvm"})


@functools.lru_cache(maxsize=1)
def host() -> Host:
    """One that libvirt has described."""
    return Host.from_xml(texts.CAPABILITIES[0])


def _memory(fs: KernelFS) -> None:
    topology.meminfo(fs)
    topology.node_meminfo(fs, 0)
    pools.read(fs)
    pools.transparent(fs)


KERNEL: tuple[Callable[[KernelFS], object], ...] = (
    _process,
    _memory,
    topology.read,
    lambda fs: overlay(host(), fs),
    lambda fs: mounts.read(fs, 2048),
    lambda fs: qemu_threads.ThreadFinder(fs).find({texts.UUID: "web1"}),
    lambda fs: fs.read_number("/sys/kernel/mm/ksm/run"),
)


def quietly(read: Reader) -> Reader:
    """A reader whose words to people are not shown."""

    def reader(data: bytes) -> None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            read(data)

    return reader


def saved_host() -> str:
    """A snapshot as `tuned-virt snapshot` writes one."""
    guests = [("web1", DescribedGuest(texts.DOMAINS[0], Pins({0: "0-3"}), {0: 4096}))]
    return json.dumps(saved.content(planning_input.of(host(), guests, ("a note",))))


TARGETS: Mapping[str, Target] = {
    "cpuset": Target(cpu_sets, texts.CPUSETS, texts.NUMBERS),
    "domain": Target(domain, texts.DOMAINS, texts.XML),
    "hook": Target(hook, texts.DOMAINS, texts.XML),
    "capabilities": Target(capabilities, texts.CAPABILITIES, texts.XML),
    "settings": Target(settings_file, texts.SETTINGS, texts.SETTING_WORDS),
    "ksmtuned": Target(ksmtuned, texts.KSMTUNED, texts.SETTING_WORDS),
    "journal": Target(journal, texts.JOURNAL, texts.JSON),
    "snapshot": Target(snapshots, (saved_host(),), texts.JSON),
    "originals": Target(originals, texts.ORIGINALS, texts.JSON),
    "guest-originals": Target(guest_originals, texts.GUEST_ORIGINALS, texts.JSON),
    "states": Target(states, texts.STATES, texts.JSON),
    "kernel": Target(kernel, texts.KERNEL, texts.KERNEL_WORDS),
    "udev": Target(udev, texts.UDEV, texts.SETTING_WORDS),
    "cmdline": Target(command_line, texts.COMMAND_LINES, texts.KERNEL_WORDS),
    "profile": Target(profiles, texts.PROFILES, texts.SETTING_WORDS),
}
