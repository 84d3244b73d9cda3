# SPDX-License-Identifier: GPL-2.0-or-later
"""What is audited: a host, what is known of it, and its guests."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from functools import cached_property

from tuned_virt.frozen_dataclasses import dataclass, field
from tuned_virt.model.guest import Guest, Hardware, UserPins, printable
from tuned_virt.model.host_facts import Fact, HostFacts, NotKnown
from tuned_virt.model.topology import Host

X86 = ("x86_64", "i686")

AGENT = "org.qemu.guest_agent.0"
"""The channel of QEMU's guest agent."""

NO_HOST = "no host is given (--host CAPABILITIES.xml)"


@dataclass(frozen=True)
class AuditedGuest:
    """A guest, as its XML has it.

    file       where the XML comes from, "" on this host
    running    whether it runs now; guests from files count as such
    placed     vm_pinning has placed it, as it runs
    profile    TuneD's profile inside it, by the guest agent
    """

    guest: Guest
    hardware: Hardware
    file: str = ""
    running: bool = True
    placed: bool = False
    profile: Fact[str] = field(default_factory=Fact)

    @property
    def name(self) -> str:
        """Its name, harmless for a terminal."""
        return printable(self.guest.name)

    @property
    def handle(self) -> str:
        """How a command line names it: a name that looks like an option or a number does not do."""
        name = self.guest.name
        odd = name.startswith("-") or name.isdigit() or not name.isprintable()
        return self.guest.uuid if odd and self.guest.uuid else shlex.quote(name)

    @property
    def pins(self) -> UserPins:
        """All that its XML says about places."""
        return self.hardware.pins

    @property
    def is_x86(self) -> bool:
        """Where the XML does not say, it is."""
        return (self.guest.arch or "x86_64") in X86

    @property
    def has_agent(self) -> bool:
        """Whether it has the channel of a guest agent."""
        return AGENT in self.hardware.channels

    @property
    def allowed(self) -> frozenset[int]:
        """pCPUs that its vCPUs are pinned to, all together."""
        return frozenset().union(*self.pins.vcpus.values())

    @property
    def dedicated(self) -> bool:
        """Whether each of its vCPUs has one pCPU that it may run on."""
        pins = self.pins.vcpus
        return all(len(pins.get(vcpu, ())) == 1 for vcpu in range(self.guest.vcpus))


@dataclass(frozen=True)
class Scene:
    """A host (None where only guests are given), facts of it, and the guests that can be read.

    without_guests   why there are none, where libvirt does not tell
    """

    host: Host | None = None
    facts: HostFacts = field(default_factory=HostFacts)
    guests: tuple[AuditedGuest, ...] = ()
    without_guests: str = ""

    @property
    def topology(self) -> Host:
        """The host's. Raises NotKnown."""
        if self.host is None:
            raise NotKnown(NO_HOST)
        return self.host

    def nodes_of(self, cpus: Iterable[int]) -> frozenset[int]:
        """NUMA nodes of pCPUs. Raises NotKnown."""
        known = self.topology.cpus
        return frozenset(known[cpu].node for cpu in cpus if cpu in known)

    @cached_property
    def holders(self) -> Mapping[int, tuple[AuditedGuest, int]]:
        """pCPU → the first guest, and its vCPU, that is pinned to it alone."""
        found: dict[int, tuple[AuditedGuest, int]] = {}
        for guest in self.guests:
            for vcpu, cpus in sorted(guest.pins.vcpus.items()):
                if len(cpus) == 1 and vcpu < guest.guest.vcpus:
                    found.setdefault(min(cpus), (guest, vcpu))
        return found

    @cached_property
    def pinned(self) -> frozenset[int]:
        """pCPUs that vCPUs of any guest are pinned to."""
        return frozenset().union(*(guest.allowed for guest in self.guests))

    @property
    def several_nodes(self) -> bool:
        """Whether more than one node has CPUs. Raises NotKnown."""
        return sum(bool(node.cpus) for node in self.topology.nodes) > 1

    @property
    def running(self) -> tuple[AuditedGuest, ...]:
        """The guests that run. Raises NotKnown."""
        if self.without_guests:
            raise NotKnown(self.without_guests)
        return tuple(one for one in self.guests if one.running)
