# SPDX-License-Identifier: GPL-2.0-or-later
"""What bench/benefit.py makes of what it reads in its machine."""

from __future__ import annotations

import os
import threading
from dataclasses import asdict, fields
from pathlib import Path

import pytest

from bench import benefit
from bench.benefit_guests import FULL, MORE, VCPUS, Figures, Sample, Spent, Turn, cpu_of, figures

CPUS = 8


def test_the_cpu_of_a_thread_is_the_kernels() -> None:
    before = os.sched_getaffinity(0)
    cpu = max(before)
    os.sched_setaffinity(0, {cpu})
    try:
        stat = Path(f"/proc/self/task/{threading.get_native_id()}/stat").read_text()
    finally:
        os.sched_setaffinity(0, before)
    assert cpu_of(stat) == cpu


def test_a_name_with_blanks_and_parentheses_moves_no_field() -> None:
    after = " ".join(["S", *map(str, range(4, 53))])
    assert cpu_of(f"17 (CPU 0) KVM) {after}") == 39


def test_local_is_where_each_vcpu_runs() -> None:
    memory = {0: 300, 2: 100}
    assert Turn((0,), memory).local == 0.75
    assert Turn((0, 2), memory).local == 0.5
    assert Turn((1,), memory).local == 0


def test_figures_of_an_interval() -> None:
    turns = {"a": [Turn((0,), {0: 1}), Turn((1,), {0: 1})], "b": [Turn((1,), {1: 1})]}
    threads = {"a": [1], "b": [2, 3]}
    before = Spent({1: 5, 2: 0, 3: 0}, {1: 7, 2: 0, 3: 0})
    second = 10**9
    after = Spent({1: 5 + 2 * second, 2: second, 3: second}, {1: 7, 2: second, 3: 2 * second})
    found = figures(turns, threads, before, after, 2)
    assert asdict(found) == {
        "local": 75,
        "least_local": 50,
        "waited": 50,
        "most_waited": 75,
        "cpus": 2,
    }


def test_loads_are_what_their_names_say() -> None:
    guests = FULL
    assert guests * VCPUS == CPUS
    for load, more in MORE.items():
        guests += more
        assert load == f"{100 * guests * VCPUS // CPUS} %"


def sample(number: int, way: str, step: str, local: float) -> dict[str, object]:
    return asdict(Sample(number, way, step, Figures(local, 0, 0, 0, 0), [2, 1, 0, number]))


def test_tables_have_medians_and_spread_and_each_figure() -> None:
    shares = (10, 70, 20)
    samples = [sample(number, "none", "start", local) for number, local in enumerate(shares)]
    samples += [sample(0, "numad", "start", 5), sample(0, "numad", "end", 6)]
    text = "\n".join(benefit.tables(samples))
    lines = [line.split() for line in text.splitlines()]
    assert ["none", "20.0", "(10.0-70.0)", "-"] in lines
    assert ["numad", *"2100", *"2100"] in lines
    assert all(heading in text for heading in benefit.FIGURES.values())
    assert text.endswith("Rounds: none 3, numad 1"), "the last round may have been cut short"


def test_each_figure_has_a_heading() -> None:
    assert list(benefit.FIGURES) == [one.name for one in fields(Figures)]


@pytest.mark.parametrize("exists", [True, False])
def test_only_what_this_boot_has_left_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    monkeypatch.setattr(benefit, "left", lambda: tmp_path / "samples")
    monkeypatch.setattr(benefit, "KEPT", tmp_path / "kept/benefit.jsonl")
    if exists:
        (tmp_path / "samples").write_text('{"way": "none"}\n')
    assert benefit.kept() == ([{"way": "none"}] if exists else [])
