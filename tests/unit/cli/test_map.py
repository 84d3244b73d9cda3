# SPDX-License-Identifier: GPL-2.0-or-later
"""The picture says what is dedicated, and no more."""

from __future__ import annotations

from tests.unit.machines import guest, machine
from tuned_virt.cli import map as drawn
from tuned_virt.placement import for_guests, parse, plan


def test_only_the_cpus_that_a_guest_has_are_called_dedicated() -> None:
    """One guest of eight vCPUs on a desktop's CPU, whose cores share one cache."""
    host = machine(nodes=1, cores=8, threads=2, llcs=1)
    guests = [guest("gaming", 8), guest("db", 2)]
    made = plan(for_guests(host, guests), guests, parse({"policy": "dedicated"}), {})
    [line] = [line for line in drawn.text(host, made) if "LLC" in line]
    cpus = {one.guest: sorted(map(int, one.vcpus.values())) for one in made.placements}
    assert len(cpus["gaming"]) == 8
    ends = {name: f"{min(own)}-{max(own)} dedicated to {name}" for name, own in cpus.items()}
    assert line == f"  LLC 0: CPUs 0-15 ({ends['db']}, {ends['gaming']})"
