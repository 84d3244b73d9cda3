# SPDX-License-Identifier: GPL-2.0-or-later
"""What guests' disks lie on, as far as it is known."""

from __future__ import annotations

from collections.abc import Iterable

from tuned_virt.frozen_dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Storage:
    """What a path, a process's files or a guest lie on.

    devices     names of block devices of this machine
    network     what is on other machines: "rbd", "NFS filer:/export"
    unfollowed  what is not followed to a disk, with the reason
    unanswered  why it is not known now, and may be later
    """

    devices: frozenset[str] = field(default_factory=frozenset)
    network: frozenset[str] = field(default_factory=frozenset)
    unfollowed: frozenset[str] = field(default_factory=frozenset)
    unanswered: frozenset[str] = field(default_factory=frozenset)

    @property
    def elsewhere(self) -> Storage:
        """All but the block devices."""
        return replace(self, devices=frozenset())


NOWHERE = Storage()
"""On no disk at all, as what is in memory."""


def on_devices(names: Iterable[str]) -> Storage:
    """On block devices; names that are "" are left out."""
    return Storage(devices=frozenset(names) - {""})


def on_network(what: str) -> Storage:
    """On other machines."""
    return Storage(network=frozenset({what}))


def not_followed(why: str) -> Storage:
    """Nobody knows on what."""
    return Storage(unfollowed=frozenset({why}))


def not_answered(why: str) -> Storage:
    """Nobody knows on what as long as something hangs."""
    return Storage(unanswered=frozenset({why}))


def together(parts: Iterable[Storage]) -> Storage:
    """All of them in one."""
    known = list(parts)
    if len(known) == 1:
        return known[0]
    return Storage(
        frozenset().union(*(one.devices for one in known)),
        frozenset().union(*(one.network for one in known)),
        frozenset().union(*(one.unfollowed for one in known)),
        frozenset().union(*(one.unanswered for one in known)),
    )
