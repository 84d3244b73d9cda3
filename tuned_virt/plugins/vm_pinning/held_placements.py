# SPDX-License-Identifier: GPL-2.0-or-later
"""What vm_pinning holds, on tmpfs: for `tuned-virt guests`, and for a restarted TuneD to go on.

It survives the daemon's `kill -9`. One JSON file, replaced atomically; what is of an earlier boot,
or damaged, counts as nothing; what cannot be read does not. One that cannot be written stops
nobody.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from typing import Any

from tuned_virt.core.state_file import (
    FOLDER,
    NOT_THERE,
    PLACEMENTS,
    StateFile,
    UnusableStateError,
)
from tuned_virt.frozen_dataclasses import asdict, dataclass, field, typed
from tuned_virt.kernel.files import AnyPath, KernelFileError
from tuned_virt.model.pins import Pins, numbered
from tuned_virt.placement import MemoryPlacement, Placement, PlacementKind

log = logging.getLogger("tuned")

FILE = os.path.join(FOLDER, PLACEMENTS)

_writing = threading.Lock()


@dataclass(frozen=True)
class HeldPlacement:
    """One guest as vm_pinning sees it.

    key        its run, see `original.key`; pid: its process, 0 where that is not to be seen
    device     what TuneD calls it
    placement  what the planner said
    pins       what is set because of that; nothing where it is left alone
    failed     what libvirt refused, and why
    remark     what else an administrator should know: memory that stayed, that it was left, …
    configuration  the same of its configuration, where that is to be written
    later      it is placed when it starts again (persist=config)
    follows    its memory is to follow, and has not yet
    """

    key: str
    uuid: str
    device: str
    name: str
    pid: int
    placement: Placement
    pins: Pins = field(default_factory=Pins)
    failed: Mapping[str, str] = field(default_factory=dict)
    remark: str = ""
    observed: bool = False
    configuration: str = ""
    later: bool = False
    follows: bool = False

    @property
    def placed(self) -> bool:
        """Whether it is where its placement says; pins are empty where it was there already."""
        return self.planned and not self.later

    @property
    def ungranted(self) -> str:
        """What was asked for and is not so, where more than to observe was asked."""
        return "" if self.observed else self.placement.ungranted

    @property
    def planned(self) -> bool:
        """Whether we have it there, or will when it starts again: an owner's guest is not ours."""
        ours = self.placement.kind is not PlacementKind.OWNER and bool(self.placement.vcpus)
        return ours and not self.failed and not self.observed


def load(uri: str, file: AnyPath = FILE) -> dict[str, HeldPlacement]:
    """What is held on a libvirt, by key; nothing where the record is not of ours, or damaged.

    Raises KernelFileError where it is there and cannot be read: nothing may be taken for not held.
    """
    state = StateFile(file, _guests)
    try:
        found = state.read()
    except OSError as error:
        raise KernelFileError(str(file), error.strerror or str(error), code=error.errno) from error
    except UnusableStateError:
        found = state.load() or {}  # which says it
    held = {} if found is NOT_THERE else found
    return {one.key: one for one in held.get(uri, [])}


def everything(file: AnyPath = FILE) -> dict[str, list[HeldPlacement]]:
    """What is held, by URI, to be shown; nothing where there is no record that can be used."""
    return StateFile(file, _guests).load() or {}


def save(uri: str, held: Mapping[str, HeldPlacement], file: AnyPath = FILE) -> bool:
    """Replace what is held on a libvirt; what is held on others stays. False, and said, if not."""
    state = StateFile(file, lambda content: dict(content["guests"]))
    with _writing:
        try:
            guests: dict[str, Any] = _known(state)
            guests.pop(uri, None)
            if held:
                guests[uri] = [_content(one) for one in held.values()]
            if guests:
                state.write({"guests": guests})
            else:
                state.remove()
        except OSError as error:
            log.warning("vm_pinning: %s is not written: %s", file, error)
            return False
    return True


def remove(file: AnyPath = FILE) -> None:
    """Nothing is held on any."""
    StateFile(file, dict).discard()


def _known(state: StateFile[dict[str, Any]]) -> dict[str, Any]:
    """What is to stay in the file. Raises OSError."""
    try:
        found = state.read()
    except UnusableStateError:
        return {}
    return {} if found is NOT_THERE else found


def _guests(content: Mapping[str, Any]) -> dict[str, list[HeldPlacement]]:
    return {uri: list(map(_held, held)) for uri, held in content["guests"].items()}


def placement_of(content: dict[str, Any]) -> Placement:
    """A placement that was kept as JSON. Raises KeyError, TypeError or ValueError."""
    memory = content["memory"]
    found = Placement(
        **{
            **content,
            "kind": PlacementKind(content["kind"]),
            "nodes": tuple(content["nodes"]),
            "vcpus": numbered(content["vcpus"]),
            "iothreads": numbered(content["iothreads"]),
            "memory": MemoryPlacement(memory["mode"], memory["nodeset"], _cells(memory))
            if memory
            else None,
        }
    )
    if not all(type(node) is int for node in found.nodes):
        raise TypeError("a node is not a number")
    return typed(found)


def _cells(memory: Mapping[str, Any]) -> dict[int, int]:
    return {int(cell): int(node) for cell, node in memory["cells"].items()}


def _held(content: dict[str, Any]) -> HeldPlacement:
    placed, pins = placement_of(content["placement"]), Pins.from_json(content["pins"])
    return typed(HeldPlacement(**{**content, "placement": placed, "pins": pins}))


def _content(held: HeldPlacement) -> dict[str, Any]:
    content = {**asdict(held), "pins": held.pins.to_json()}
    for name in ("ungranted", "ignored"):
        if not getattr(held.placement, name):
            del content["placement"][name]  # older versions do not know it
    return content
