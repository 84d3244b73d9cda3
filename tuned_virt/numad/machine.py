# SPDX-License-Identifier: GPL-2.0-or-later
"""What an advice depends on: the nodes now, guests that vm_pinning has placed, earlier advice."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from typing import Any

from tuned_virt.core.state_file import (
    NOT_THERE,
    PLACEMENTS,
    OfEarlierBoot,
    StateFile,
    UnusableStateError,
)
from tuned_virt.kernel import cpuset
from tuned_virt.kernel.files import KernelFS
from tuned_virt.model.topology import memory_nodes, nodes
from tuned_virt.numad.advice import LASTS, Advised, Node

ADVISED = "numad.json"
"""In the folder of state, beside what vm_pinning holds."""

ISOLATED = "/sys/devices/system/cpu/isolated"


def read(fs: KernelFS) -> list[Node]:
    """The nodes with CPUs that guests may use, and memory, without any guests.

    Raises KernelFileError.
    """
    isolated = cpuset.parse(fs.read_optional(ISOLATED) or "")
    with_memory = memory_nodes(fs)
    found = []
    known = nodes(fs)
    numbers = [node.id for node in known]
    for node in known:
        cpus = cpuset.parse(node.cpus) - isolated
        if not cpus or (with_memory and node.id not in with_memory):
            continue
        distances = dict(zip(numbers, node.distances))
        found.append(Node(node.id, cpus, (node.free + node.cache) // 1024, 0.0, distances))
    return found


def with_guests(nodes_of: list[Node], folder: str) -> list[Node]:
    """The nodes with the vCPUs of the guests that vm_pinning has placed, as it has written it; one
    that floats over several counts in part on each.

    Raises OSError, and UnusableStateError for a record that is none.
    """
    node_of = {cpu: node.id for node in nodes_of for cpu in node.cpus}
    load: dict[int, float] = {}
    for cpus, number in _placed(os.path.join(folder, PLACEMENTS)):
        here = Counter(node_of[cpu] for cpu in cpus if cpu in node_of)
        for node, share in here.items():
            load[node] = load.get(node, 0.0) + number * share / sum(here.values())
    return [node._replace(vcpus=load.get(node.id, 0.0)) for node in nodes_of]


def _placed(held: str) -> list[tuple[frozenset[int], int]]:
    """CPUs on which vCPUs are held, each set with their number."""
    try:
        found = StateFile(held, _vcpus).read()
    except OfEarlierBoot:
        return []
    return [] if found is NOT_THERE else found


def _vcpus(content: dict[str, Any]) -> list[tuple[frozenset[int], int]]:
    texts = Counter(
        text
        for guests in content["guests"].values()
        for guest in guests
        for text in guest["placement"]["vcpus"].values()
    )
    return [(cpuset.parse(text), number) for text, number in texts.items()]


class AdviceRecord:
    """The advice of the last minutes, on tmpfs."""

    def __init__(self, folder: str) -> None:
        path = os.path.join(folder, ADVISED)
        self._file = StateFile(path, lambda content: list(map(_advised, content["advised"])))

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Nobody else advises meanwhile. Raises OSError."""
        return self._file.locked()

    def read(self, now: float) -> list[Advised]:
        """What still counts; one that cannot be used counts as none. Raises OSError."""
        try:
            found = self._file.read()
        except UnusableStateError:
            return []
        known = [] if found is NOT_THERE else found
        return [one for one in known if 0 <= now - one.time < LASTS]

    def write(self, advised: list[Advised]) -> None:
        """Replace it. Raises OSError."""
        self._file.write({"advised": [one._asdict() for one in advised]})


def _advised(content: dict[str, Any]) -> Advised:
    available = {int(node): int(mib) for node, mib in content["available"].items()}
    placed = {int(node): float(number) for node, number in content["placed"].items()}
    time, nodes_of = float(content["time"]), tuple(map(int, content["nodes"]))
    if not nodes_of:
        raise ValueError("an advice without nodes")
    return Advised(nodes_of, int(content["vcpus"]), int(content["mib"]), available, placed, time)
