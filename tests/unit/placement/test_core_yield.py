# SPDX-License-Identifier: GPL-2.0-or-later
"""What busy threads get of cores, counted by hand."""

from __future__ import annotations

import pytest

from tests.unit.machines import machine
from tuned_virt.placement.core_yield import CoreYield, of, of_core, of_node, together


def cores(number: int, threads: int = 2) -> CoreYield:
    return together(of_core(threads, 1024, threads) for _ in range(number))


@pytest.mark.parametrize(
    ("found", "threads", "total"),
    [
        (cores(8), 0, 0),
        (cores(8), 5, 5),
        (cores(8), 8, 8),
        (cores(8), 9, 8.3),
        (cores(8), 16, 10.4),
        (cores(8), 99, 10.4),
        (cores(8, threads=1), 9, 8),
        (cores(2, threads=4), 8, 2.6),
        (together([cores(1), of_core(1, 512, 1)]), 2, 1.5),
        (together([cores(1), of_core(1, 512, 1)]), 3, 1.8),
        (of_core(1, 1024, 2), 1, 0.65),
        (of_core(7, 1024, 8), 7, 1.1375),
        (of({}), 3, 0),
    ],
)
def test_two_busy_threads_of_a_core_do_as_much_as_1_3_cores(
    found: CoreYield, threads: float, total: float
) -> None:
    assert found.total(threads) == pytest.approx(total)
    assert found.share(threads) * threads == pytest.approx(total)


def test_the_most_threads_that_get_a_share_get_just_that() -> None:
    for found in (cores(8), cores(8, 1), together([cores(2), of_core(1, 512, 1)])):
        for share in (0.9, 0.7, 0.5, 0.1):
            assert found.share(found.most(share)) == pytest.approx(share)
    assert cores(8).most(1) == 8
    assert cores(8).most(1.1) == of({}).most(0.1) == of({}).share(0) == 0


def test_equal_cores_are_one_object_and_a_nodes_are_counted() -> None:
    node = machine(1, cores=4).grid.nodes[0]
    assert of_node(node, node.everything) is cores(4)
    assert of_node(node, 0b111).total(9) == pytest.approx(1.3 + 0.65)
    assert cores(4).capacity == pytest.approx(5.2)


def test_slow_cores_and_parts_of_cores() -> None:
    assert of({0.7: 3.0, 0.1: 2.0}).capacity == pytest.approx(2.3)
    assert of_core(1, 512, 1).share(0) == 0.5
    assert of_core(2, 512, 2).steps == ((0.5, 1.0), (0.15, 1.0))
    assert of_core(5, 1024, 6).steps == ((1.0, 1.0), (0.083333, 1.0)), "no noise: equal to others"
