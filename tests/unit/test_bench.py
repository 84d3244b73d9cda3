# SPDX-License-Identifier: GPL-2.0-or-later
"""What benches print, and the page that `make bench` writes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from bench import disks, ksm, schedulers
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


def test_the_kept_figures_of_two_tenants() -> None:
    """Shares of both, and how long the quiet one waits: medians, lowest and highest."""
    busy = [{"five": (80.0, 9.0), "one": (20.0, 9.0)}, {"five": (50.0, 9.0), "one": (50.0, 9.0)}]
    assert schedulers.told("shares", busy[:1]) == '"five" has 80.0 (80.0-80.0) % of 100 IOPS'
    assert schedulers.told("shares", busy) == '"five" has 65.0 (50.0-80.0) % of 100 IOPS'
    quiet = [{"five": (50.0, wait), "one": (900.0, 4.0)} for wait in (0.3, 0.2, 3.0)]
    told = schedulers.told("quiet", quiet)
    assert told == "99 % of its reads end within 0.3 (0.2-3.0) ms, 50 IOPS"


def test_of_each_case_the_rivals_that_its_targets_name() -> None:
    assert ksm.named_by_targets("converge") == ["auto", "ksmtuned"]
    assert ksm.named_by_targets("unshareable") == ["auto", "1250/10"]


def test_a_log_that_was_begun_anew(tmp_path: Path) -> None:
    file = tmp_path / "tuned.log"
    file.write_text("one\n")
    with file.open() as log:
        assert not disks.begun_anew(log)
        file.rename(tmp_path / "tuned.log.1")
        assert not disks.begun_anew(log), "not yet"
        file.write_text("two\n")
        assert disks.begun_anew(log)
