# SPDX-License-Identifier: GPL-2.0-or-later
"""What an advice depends on: the nodes now, guests that vm_pinning has placed, earlier advice."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from tuned_virt.core.state_file import FOLDER, NOT_THERE, PLACEMENTS, StateFile, UnusableStateError
from tuned_virt.kernel import cpuset
from tuned_virt.kernel.files import KernelFS
from tuned_virt.model.topology import CACHE, memory_nodes, node_meminfo, nodes
from tuned_virt.numad.advice import LASTS, Advised, Node

ADVISED = os.path.join(FOLDER, "numad.json")
HELD = os.path.join(FOLDER, PLACEMENTS)
ISOLATED = "/sys/devices/system/cpu/isolated"


def read(fs: KernelFS, held: str = HELD) -> list[Node]:
    """The nodes with CPUs that guests may use, and memory. Raises KernelFileError."""
    isolated = cpuset.parse(fs.read_optional(ISOLATED) or "")
    with_memory = memory_nodes(fs)
    found = []
    of_cpu: dict[int, int] = {}
    known = nodes(fs)
    numbers = [node.id for node in known]
    for node in known:
        cpus = cpuset.parse(node.cpus) - isolated
        if not cpus or (with_memory and node.id not in with_memory):
            continue
        of_cpu.update(dict.fromkeys(cpus, node.id))
        memory = node_meminfo(fs, node.id)
        available = node.free + sum(memory.get(name, 0) for name in CACHE)
        distances = dict(zip(numbers, node.distances))
        found.append(Node(node.id, len(cpus), available // 1024, 0.0, distances))
    load = vcpus(_placements(held), of_cpu)
    return [node._replace(vcpus=load.get(node.id, 0.0)) for node in found]


def vcpus(placements: Iterator[Mapping[str, Any]], of_cpu: Mapping[int, int]) -> dict[int, float]:
    """Node → vCPUs of placed guests; one that floats over several counts in part on each."""
    texts: Counter[str] = Counter()
    for placement in placements:
        texts.update(placement["vcpus"].values())
    load: dict[int, float] = {}
    for text, number in texts.items():
        here = Counter(of_cpu[cpu] for cpu in cpuset.parse(text) if cpu in of_cpu)
        for node, cpus in here.items():
            load[node] = load.get(node, 0.0) + number * cpus / sum(here.values())
    return load


def _placements(held: str) -> Iterator[Mapping[str, Any]]:
    """What vm_pinning holds, as it is written; nothing where that cannot be used."""
    with contextlib.suppress(OSError, UnusableStateError):
        guests = StateFile(held, lambda content: list(content["guests"].values())).read()
        if guests is not NOT_THERE:
            yield from (guest["placement"] for some in guests for guest in some)


class AdviceRecord:
    """The advice of the last minutes, on tmpfs."""

    def __init__(self, path: str = ADVISED) -> None:
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
