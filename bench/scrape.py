# SPDX-License-Identifier: GPL-2.0-or-later
"""What Prometheus has to carry of one host: series and bytes of a scrape, by guests and nodes.

    build/venv/bin/python -m bench.scrape

Nothing is asked of this machine: a host with everything (KSM, huge pages of two sizes, libvirt, a
verification, an audit) is made up, each guest with memory on one node, and every tenth on two.
"""

from __future__ import annotations

import gzip
import sys
import uuid
from collections.abc import Iterator

from tuned_virt import __version__
from tuned_virt.cli import metrics_output
from tuned_virt.cli.metrics_input import COLLECTORS
from tuned_virt.metrics import collection, guests, memory, tuning
from tuned_virt.metrics.collection import CollectorState
from tuned_virt.metrics.family import FamilySamples
from tuned_virt.metrics.guests import GuestValues
from tuned_virt.model.topology.huge_pages import Pool
from tuned_virt.placement import PlacementKind

CASES = ((0, 1), (0, 2), (10, 2), (30, 2), (100, 4), (300, 8))
SIZES = {2048: "2M", 1 << 20: "1G"}
NOW = 1_790_000_000.25
HOSTS, INTERVAL = 1000, 60
"""Of a fleet, and seconds between its scrapes."""


def guest(number: int, nodes: int) -> GuestValues:
    """One of which everything is known."""
    node = number % nodes
    spread = number % 10 == 9 and nodes > 1
    where = {node: 4 << 30, (node + 1) % nodes: 123 << 20} if spread else {node: 4 << 30}
    return GuestValues(
        f"customer-{number:04}-web",
        str(uuid.UUID(int=number)),
        1000 + number,
        PlacementKind.SHARED,
        (node,),
        4,
        1234.567891 + number,
        where,
        0.9708 if spread else 1.0,
        0,
        False,
        123 << 20,
        120 << 20,
    )


def host(count: int, nodes: int) -> Iterator[FamilySamples]:
    """All families of a host."""
    yield from guests.samples([guest(number, nodes) for number in range(count)])
    yield from memory.of_ksm(memory.KsmValues(1, 5 << 30, 1 << 30, 4 << 30, 98765.43, 321))
    pools = [Pool(node, size, 512, 12, 0) for node in range(nodes) for size in SIZES]
    yield from memory.of_pools(pools, dict.fromkeys(SIZES, 3), lambda kib: SIZES[kib])
    profiles = ("virtual-host-plus",)
    yield from tuning.of_profile(tuning.ProfileValues(True, profiles, NOW, 0))
    yield from tuning.of_verify(True, ["passed"] * 80, [])
    yield from tuning.of_audit({"error": 0, "warning": 12, "info": 30}, 2, 1)
    yield from tuning.of_libvirt(count)
    states = {one.name: CollectorState(0, NOW, 0.0123) for one in COLLECTORS}
    yield from collection.samples(__version__, states)


def main() -> int:
    """The table, and a fleet's sum."""
    print(f"{'guests':>8}{'nodes':>7}{'series':>9}{'bytes':>9}{'gzip':>8}")
    for count, nodes in CASES:
        samples = list(host(count, nodes))
        series = sum(len(one.values) for one in samples)
        text = metrics_output.text(samples)
        print(f"{count:8}{nodes:7}{series:9}{len(text):9}{len(gzip.compress(text)):8}")
        if (count, nodes) == (30, 2):
            each = series, len(text), len(gzip.compress(text))
    print(f"\n{HOSTS} hosts of 30 guests on two nodes, a scrape each {INTERVAL} s:")
    print(f"{each[0] * HOSTS} series, {each[0] * HOSTS / INTERVAL:.0f} samples a second")
    for name, size in zip(("plain", "gzip"), each[1:]):
        print(f"{size * HOSTS * 8 / INTERVAL / 1e6:.2f} Mbit/s {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
