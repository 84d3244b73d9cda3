# SPDX-License-Identifier: GPL-2.0-or-later
"""`numad -w VCPUS[:MIB]` prints nodes, as libvirt's virNumaGetAutoPlacementAdvice reads them.

Whatever goes wrong, the answer is one that a guest can start with: numad's own neutral one, all
nodes; why is one line on standard error.
"""

from __future__ import annotations

import re
import sys
import time

from tuned_virt import __version__
from tuned_virt.core.state_file import FOLDER
from tuned_virt.kernel import cpuset
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.model.topology import node_numbers
from tuned_virt.numad import machine, running_guests
from tuned_virt.numad.advice import (
    Advice,
    Asked,
    Guests,
    Node,
    advise,
    counted,
    followed,
    noted,
)
from tuned_virt.numad.advice_record import AdviceRecord

USAGE = """Usage: numad -w VCPUS[:MIB]   NUMA nodes for a guest that is to start
       numad -V               the version
This is tuned-virt-plus-numad: it advises libvirt and is no daemon. Guests that run are kept on
their nodes by the profile virtual-host-plus, see tuned-plugin-vm_pinning(7)."""

FINE, WRONG = 0, 1
"""Exit statuses, as numad has them."""


def run(arguments: list[str], fs: KernelFS, folder: str, now: float) -> int:
    """Answer one call at a moment, with the state in a folder; 1 for one that is not understood."""
    first, *rest = arguments or [""]
    if first.startswith("-w"):
        asked = re.fullmatch(r"(\d{1,6})(?::(\d{1,12}))?", "".join([first[2:], *rest]))
        if asked and int(asked[1]):
            print(cpuset.text(_answer(int(asked[1]), int(asked[2] or 0), fs, folder, now)))
            return FINE
        print(
            f"numad: {' '.join(arguments)}: give -w VCPUS[:MIB], such as -w 4:8192", file=sys.stderr
        )
        return WRONG
    if first == "-V":
        print(f"numad of tuned-virt-plus {__version__}")
        return FINE
    print(USAGE, file=sys.stdout if first == "-h" else sys.stderr)
    return FINE if first == "-h" else WRONG


def _answer(vcpus: int, mib: int, fs: KernelFS, folder: str, now: float) -> tuple[int, ...]:
    """The nodes, noted as advised; where they cannot be told all, with the reason."""
    guests, missing = running_guests.read(fs)
    if missing:
        print(f"numad: not all guests that run are counted: {missing}", file=sys.stderr)
    try:
        nodes, floating = machine.with_guests(machine.read(fs), guests.running)
        asked = Asked(vcpus, mib, floating)
        return _noted(asked, nodes, guests, AdviceRecord(folder), now).nodes
    except (KernelFileError, ValueError) as error:
        return _neutral(fs, str(error))


def _noted(
    asked: Asked, nodes: list[Node], guests: Guests, record: AdviceRecord, now: float
) -> Advice:
    """The advice with earlier advice counted, itself noted. Raises ValueError without any node."""
    try:
        with record.locked():
            earlier, known = record.read(now)
            lately = followed(earlier, guests, known, nodes, now)
            advice = advise(counted(nodes, lately), asked)
            ids = [one.id for one in guests.running]
            record.write([*lately, noted(advice, nodes, asked, now)], ids)
    except OSError as error:
        print(f"numad: earlier advice is not counted: {error}", file=sys.stderr)
        advice = advise(nodes, asked)
    return advice


def _neutral(fs: KernelFS, why: str) -> tuple[int, ...]:
    print(f"numad: all nodes are advised: {why}", file=sys.stderr)
    try:
        return tuple(node_numbers(fs)) or (0,)
    except KernelFileError:
        return (0,)


def main() -> int:
    """The program."""
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    return run(sys.argv[1:], KernelFS(), FOLDER, now)
