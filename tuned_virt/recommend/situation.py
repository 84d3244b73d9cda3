# SPDX-License-Identifier: GPL-2.0-or-later
"""What recommendations are made from: a host, its facts, its guests and their use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cached_property

from tuned_virt.audit.scene import AuditedGuest, Scene
from tuned_virt.frozen_dataclasses import dataclass, field
from tuned_virt.model.host_facts import Fact
from tuned_virt.model.topology import Host

GIB = 1 << 20
"""KiB."""

PLAIN_NAME = re.compile(r"[A-Za-z_][\w.+-]*", re.ASCII)
"""A guest's name that a settings file can have: no space, no character of a pattern."""

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


@dataclass(frozen=True)
class Situation:
    """A host and its guests.

    manager       what places the guests of this host itself, "" for nothing of the kind
    in_guest      this machine is a guest, and has none of its own
    swap_in_ram   the swap that is used first is in memory: zram, zswap
    delays        guest's key → percent of the time that its vCPU that waits most waited for a CPU
    """

    scene: Scene
    manager: str = ""
    in_guest: bool = False
    swap_in_ram: Fact[bool] = field(default_factory=Fact)
    delays: Mapping[str, float] = field(default_factory=dict)

    @property
    def host(self) -> Host:
        """The host. Raises NotKnown."""
        return self.scene.topology

    @property
    def guests(self) -> tuple[AuditedGuest, ...]:
        """All guests, running or not."""
        return self.scene.guests

    @cached_property
    def busy(self) -> tuple[AuditedGuest, ...]:
        """Those that run; all of them where none does."""
        return tuple(one for one in self.guests if one.running) or self.guests

    @cached_property
    def memory(self) -> int:
        """The host's, in KiB."""
        return sum(node.memory for node in self.host.nodes)

    @cached_property
    def huge(self) -> tuple[AuditedGuest, ...]:
        """Guests with huge pages."""
        return tuple(one for one in self.guests if one.guest.huge_pages)

    @cached_property
    def huge_memory(self) -> int:
        """KiB of guests with huge pages."""
        return sum(one.guest.memory for one in self.huge)

    @cached_property
    def mergeable(self) -> tuple[AuditedGuest, ...]:
        """Guests whose pages KSM can merge: none huge, or held by a device that reads them."""
        return tuple(one for one in self.guests if one.guest.shares_pages and one.guest.movable)


def setting_name(one: AuditedGuest) -> str:
    """How a settings file names a guest: by its name, else its UUID; "" where neither does."""
    name, uuid = one.guest.name, one.guest.uuid.lower()
    if PLAIN_NAME.fullmatch(name) and len(name) <= 100:
        return name
    return uuid if UUID.fullmatch(uuid) else ""


def size(kib: int) -> str:
    """An amount of memory in words."""
    return f"{kib / GIB:.4g} GiB" if kib >= GIB else f"{kib >> 10} MiB"


def count(number: int, what: str) -> str:
    """ "1 guest", "2 guests"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def named(some: Iterable[AuditedGuest], most: int = 5) -> str:
    """Guests by name, not too many."""
    names = [one.name[:60] for one in some]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
