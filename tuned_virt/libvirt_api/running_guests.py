# SPDX-License-Identifier: GPL-2.0-or-later
"""Running guests as libvirt describes them, and what has changed between two listings, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tuned_virt.libvirt_api import binding
from tuned_virt.model.guest import printable

NAMED = 3
"""Most guests that one reason names."""


@dataclass(frozen=True)
class RunningGuest:
    """A running guest as libvirt knows it.

    `memory` is what it may use now (balloon.current), in KiB. `shares_pages` is False with
    <memoryBacking><nosharepages/>. The name is another's text: see `printable`.
    """

    uuid: str
    name: str
    memory: int
    shares_pages: bool


def shares_pages(xml: str) -> bool:
    """Whether a guest's XML lets the kernel merge its pages.

    Raises ValueError for XML that is none, or that brings a DTD or entities.
    """
    try:
        root = binding.SafeTree.fromstring(xml, forbid_dtd=True)
    except binding.SafeTree.ParseError as error:
        raise ValueError(str(error)) from error
    return root.find("memoryBacking/nosharepages") is None


def difference(
    before: Mapping[str, RunningGuest], after: Mapping[str, RunningGuest], named: int = NAMED
) -> str:
    """What happened between two listings, in words; "" for nothing.

    Another object for the same guest, with nothing else changed, is a restart.
    """
    changes = [*_differences(before, after)]
    more = f" and {len(changes) - named} more changes" if len(changes) > named else ""
    return ", ".join(changes[:named]) + more


def _differences(
    before: Mapping[str, RunningGuest], after: Mapping[str, RunningGuest]
) -> Iterator[str]:
    for uuid in before.keys() - after.keys():
        yield f"guest {printable(before[uuid].name)} stopped"
    for uuid, guest in after.items():
        old, name = before.get(uuid), printable(guest.name)
        if old is None:
            yield f"guest {name} started"
        elif old is not guest and old.memory == guest.memory:
            yield f"guest {name} restarted"
        elif old.memory != guest.memory:
            yield f"guest {name} has {guest.memory >> 10} MiB"
