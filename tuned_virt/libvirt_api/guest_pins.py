# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading and setting one running guest's pins through libvirt.

Each call takes about a millisecond. What libvirt refuses is collected, so that one vCPU's refusal
keeps no other from its place; that the guest has gone meanwhile is told apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tuned_virt.frozen_dataclasses import dataclass, field
from tuned_virt.kernel import cpuset
from tuned_virt.libvirt_api import binding, placement_tag
from tuned_virt.libvirt_api.connection import Connection, Domain
from tuned_virt.libvirt_api.errors import GuestGone, LibvirtError
from tuned_virt.model.guest import printable
from tuned_virt.model.pins import EMULATOR, MEMORY, Part, Pins

MODES = {"strict": 0, "preferred": 1, "interleave": 2, "restrictive": 3}
"""virDomainNumatuneMemMode."""

METADATA_ELEMENT = 2
"""VIR_DOMAIN_METADATA_ELEMENT."""

GONE = (42, 55)
"""VIR_ERR_NO_DOMAIN and VIR_ERR_OPERATION_INVALID (it does not run)."""


@dataclass
class CallBatch:
    """Calls for one guest, whose refusals are collected by what they were about."""

    link: Connection
    active: Domain
    refused: dict[str, str] = field(default_factory=dict)

    def __call__(self, what: str, call: Callable[..., Any], *arguments: Any) -> None:
        """Make one call. Raises GuestGone, and LibvirtError once the connection has ended."""
        try:
            with self.link.asking():
                call(*arguments)
        except LibvirtError as error:
            if not self.link.alive():
                raise
            if error.code in GONE and not self._runs():
                raise GuestGone(printable(self.active.name)) from error
            self.refused[what] = str(error)

    def _runs(self) -> bool:
        domain = self.active.domain
        try:
            with self.link.asking():
                return bool(domain.isActive() == 1 and domain.ID() == self.active.id)
        except LibvirtError:
            return False


def _mask(cpus: str) -> tuple[bool, ...]:
    numbers = cpuset.parse(cpus)
    return tuple(cpu in numbers for cpu in range(max(numbers, default=-1) + 1))


def apply(link: Connection, active: Domain, pins: Pins) -> dict[str, str]:
    """Set pins of a running guest; what was refused, and why. Raises GuestGone and LibvirtError."""
    for target, cpus in pins.items():
        if target != MEMORY:
            number = "" if target == EMULATOR else target.number
            link.own(active, f"cputune.{target.part.value.lower()}pin{number}", cpus)
    return _set(CallBatch(link, active), pins, binding.libvirt().VIR_DOMAIN_AFFECT_LIVE)


def _set(do: CallBatch, pins: Pins, flags: int) -> dict[str, str]:
    """libvirt's test driver takes no flag for vCPUs, so a running guest's are set without."""
    domain = do.active.domain
    for target, value in pins.items():
        if target == MEMORY:
            mode, _, nodes = value.partition("=")
            parameters = {"numa_nodeset": nodes, "numa_mode": MODES[mode]}
            do(f"memory {mode} on {nodes}", domain.setNumaParameters, parameters, flags)
        elif target == EMULATOR:
            do(f"{target} on {value}", domain.pinEmulator, _mask(value), flags)
        elif target.part is Part.VCPU and flags == binding.libvirt().VIR_DOMAIN_AFFECT_LIVE:
            do(f"{target} on {value}", domain.pinVcpu, target.number, _mask(value))
        else:
            pin = domain.pinVcpuFlags if target.part is Part.VCPU else domain.pinIOThread
            do(f"{target} on {value}", pin, target.number, _mask(value), flags)
    return do.refused


def tag(link: Connection, active: Domain, pins: Pins) -> dict[str, str]:
    """Say in the guest's metadata which pins are ours; what was refused. Raises as `apply`."""
    do = CallBatch(link, active)
    _tag(do, placement_tag.text(pins) if pins else None, binding.libvirt().VIR_DOMAIN_AFFECT_LIVE)
    return do.refused


def _tag(do: CallBatch, text: str | None, flags: int) -> None:
    key = placement_tag.KEY if text else None
    where = (METADATA_ELEMENT, text, key, placement_tag.NAMESPACE, flags)
    do("metadata", do.active.domain.setMetadata, *where)


def configure(link: Connection, active: Domain, pins: Pins, listed: bool) -> dict[str, str]:
    """Tag pins, then set them, in a guest's configuration alone; what was refused.

    listed: whether its owner has written <iothreadids>. Raises GuestGone and LibvirtError.
    """
    do, config = CallBatch(link, active), binding.libvirt().VIR_DOMAIN_AFFECT_CONFIG
    _tag(do, placement_tag.text(pins, listed) if pins else None, config)
    return do.refused or _set(do, pins, config)


@dataclass(frozen=True)
class Configuration:
    """What a guest is at its next start, as XML with its secrets; "" for a transient one."""

    uuid: str
    name: str
    xml: str


def configuration(link: Connection, active: Domain) -> Configuration:
    """A running guest's. Raises LibvirtError."""
    return _configuration(link, active.domain)


def _configuration(link: Connection, domain: Any) -> Configuration:
    flags = binding.libvirt().VIR_DOMAIN_XML_INACTIVE | binding.libvirt().VIR_DOMAIN_XML_SECURE
    with link.asking():
        xml = str(domain.XMLDesc(flags)) if domain.isPersistent() else ""
        return Configuration(domain.UUIDString(), domain.name(), xml)


def configurations(link: Connection) -> Iterator[Configuration]:
    """All persistent guests'. Raises LibvirtError."""
    with link.asking():
        domains = link.handle.listAllDomains(binding.libvirt().VIR_CONNECT_LIST_DOMAINS_PERSISTENT)
    for domain in domains:
        yield _configuration(link, domain)


def redefine(link: Connection, xml: str) -> None:
    """Replace a guest's configuration; one that runs goes on as it is. Raises LibvirtError."""
    with link.asking():
        link.handle.defineXML(xml)


def configured(link: Connection, active: Domain) -> Pins:
    """Where libvirt has the guest's threads, for those whose threads cannot be seen."""
    domain = active.domain
    with link.asking():
        vcpus = domain.vcpuPinInfo(0)
        emulator = domain.emulatorPinInfo(0)
    return Pins(
        {number: _text(mask) for number, mask in enumerate(vcpus)},
        _text(emulator) if emulator else None,
    )


def affinity(link: Connection, active: Domain) -> Mapping[int, str]:
    """Where each vCPU may run now, as libvirt tells: up to 8 ms for 64 vCPUs.

    Raises LibvirtError.
    """
    with link.asking():
        return {info[0]: _text(mask) for info, mask in zip(*active.domain.vcpus())}


def _text(mask: tuple[bool, ...]) -> str:
    return cpuset.text(number for number, allowed in enumerate(mask) if allowed)
