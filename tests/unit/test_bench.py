# SPDX-License-Identifier: GPL-2.0-or-later
"""The page that `make bench` writes."""

from __future__ import annotations

import importlib.util

from bench.page import BENCHES, Bench, Result, page

ONE = Bench("one", "One thing", "What it tells.", ("bench.one", "--fast"))
OTHER = Bench("other", "Another", "More.", ("bench.other",))


def result(name: str, status: int) -> Result:
    """What a bench has printed."""
    return Result(name, status, 12.3, f"{name}: 5 ms\n", "abc1234", "2026-11-29")


def test_the_page_has_each_bench_and_how_to_repeat_it() -> None:
    text = page([(ONE, result("one", 0)), (OTHER, result("other", 0))], "2 CPUs, Linux 6.1")
    assert "Every figure is within its limit." in text
    assert "Measured on 2 CPUs, Linux 6.1" in text
    assert "## One thing\n\nWhat it tells.\n\n`python -m bench.one --fast`" in text
    assert "(2026-11-29, commit abc1234, 12 s)\n\n```\none: 5 ms\n```" in text
    assert text.index("One thing") < text.index("Another")


def test_what_misses_a_limit_comes_first() -> None:
    text = page([(ONE, result("one", 0)), (OTHER, result("other", 1))], "this machine")
    assert text.index("**Over a limit**: Another.") < text.index("## One thing")


def test_a_page_of_some_benches_says_so() -> None:
    some = [(bench, result(bench.name, 0)) for bench in BENCHES[1:]]
    assert f"**Not run** at these commits: {BENCHES[0].heading}." in page(some, "this machine")
    every = [(bench, result(bench.name, 0)) for bench in BENCHES]
    assert "Not run" not in page(every, "this machine")


def test_each_bench_can_be_run() -> None:
    for bench in BENCHES:
        assert importlib.util.find_spec(bench.arguments[0]), bench.name
    assert len({bench.name for bench in BENCHES}) == len(BENCHES)
