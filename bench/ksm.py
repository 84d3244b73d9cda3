# SPDX-License-Identifier: GPL-2.0-or-later
"""Who merges guests' memory sooner and for less CPU: our controller, ksmtuned, the kernel itself.

    python -m bench.ksm [--runs N] [--only CASE,…] [--rivals NAME,…|targets]

All are measured on this kernel's real ksmd, in one run and by turns, each from the same state.
Printed are medians, and the targets whose rivals were run. Every single run is also appended to
build/bench-ksm.jsonl as it ends.

converge     four guests of 768 MiB, 60 % alike, at once: seconds until 90 % of the gain is merged,
             ksmd's CPU to there, and its share of a CPU a while after
arrivals     the same guests one after another: GiB·s merged, CPU
unshareable  four guests without a page in common: CPU
round        CPU of one round of the controller among 500 guests
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NoReturn

from bench.ksm_cases import CASES, Figures, NotYet
from bench.ksm_machine import settings_kept
from bench.ksm_rivals import RIVALS, USUAL, RivalFailed
from tests import debian
from tests.debian import CACHE

RECORD = CACHE / "bench-ksm.jsonl"
RUNS = 3


@dataclass(frozen=True)
class Column:
    """A figure as tables show it: its heading, factor and format."""

    heading: str
    unit: str = " s"
    factor: float = 1
    digits: int = 1

    def text(self, value: float | None) -> str:
        """A figure in its unit; "-" where there is none."""
        if value is None:
            return "-"
        if math.isinf(value):
            return "never"
        return f"{value * self.factor:.{self.digits}f}{self.unit}"


COLUMNS: Mapping[str, Column] = MappingProxyType(
    {
        "seconds": Column("90 % after"),
        "to_there": Column("ksmd to there"),
        "gib_seconds": Column("GiB·s", ""),
        "ksmd": Column("ksmd in all"),
        "percent": Column("at the end", " %", digits=2),
        "gib": Column("merged", " GiB", digits=2),
        "controller": Column("controller", digits=3),
        "others": Column("all others", " %"),
        "round": Column("a round", " ms", 1000, 2),
    }
)

SHOWN: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "converge": ("seconds", "to_there", "percent", "ksmd", "gib", "controller", "others"),
        "arrivals": ("gib_seconds", "ksmd", "percent", "gib", "controller", "others"),
        "unshareable": ("ksmd", "percent", "controller", "others"),
        "round": ("round",),
    }
)


@dataclass(frozen=True)
class Target:
    """Our figure over a rival's: at most a limit, or at least."""

    case: str
    what: str
    figure: str
    rival: str
    limit: float
    at_least: bool = False

    def line(self, medians: Mapping[tuple[str, str], Figures]) -> tuple[str, bool] | None:
        """What to print and whether it is met; None where a side was not measured."""
        ours = medians.get((self.case, "auto"), {}).get(self.figure)
        theirs = medians.get((self.case, self.rival), {}).get(self.figure)
        if ours is None or theirs is None:
            return None
        ratio = _ratio(ours, theirs)
        met = ratio >= self.limit if self.at_least else ratio <= self.limit
        return (
            f"target: {self.case}: auto / {self.rival} {self.what} {'≥' if self.at_least else '≤'} "
            f"{self.limit:.3g}: {ratio:.3g} {'ok' if met else 'MISSED'}",
            met,
        )


def _ratio(ours: float, theirs: float) -> float:
    if math.isinf(ours) or not theirs:
        return math.inf
    return ours / theirs


TARGETS = (
    Target("converge", "time to 90 %", "seconds", "ksmtuned", 0.2),
    Target("converge", "ksmd CPU to 90 %", "to_there", "ksmtuned", 1.0),
    Target("converge", "ksmd CPU when all is merged", "percent", "ksmtuned", 1 / 12),
    Target("arrivals", "GiB·s", "gib_seconds", "ksmtuned", 1.1, at_least=True),
    Target("arrivals", "ksmd CPU", "ksmd", "ksmtuned", 1.0),
    Target("unshareable", "ksmd CPU", "ksmd", "1250/10", 1 / 6),
    Target("round", "CPU", "round", "ksmtuned", 1 / 20),
)


class Bench:
    """All runs, and what failed."""

    def __init__(self) -> None:
        self._runs: dict[tuple[str, str], list[Figures]] = {}
        self.failures: list[str] = []

    def run(self, case: str, rival: str, turn: int) -> None:
        """One run of one rival, kept and recorded; a rival that does not start is noted."""
        try:
            figures = CASES[case](rival)
        except NotYet:
            return
        except (RivalFailed, debian.Unavailable) as error:
            self.failures.append(f"{case}: {rival}: {error}")
            print(f"  {self.failures[-1]}", flush=True)
            return
        self._runs.setdefault((case, rival), []).append(figures)
        record(case, rival, turn, figures)
        print(f"  {case} {rival} {turn}: {told(case, figures)}", flush=True)

    def medians(self) -> dict[tuple[str, str], Figures]:
        """Medians by case and rival, of the runs that have the figure."""
        return {key: _medians(runs) for key, runs in self._runs.items()}


def _medians(runs: Sequence[Figures]) -> Figures:
    names = dict.fromkeys(name for run in runs for name in run)
    return {name: statistics.median([r[name] for r in runs if name in r]) for name in names}


def record(case: str, rival: str, turn: int, figures: Figures) -> None:
    """Append one run to the file; what was not reached is null."""
    told = {name: None if math.isinf(value) else value for name, value in figures.items()}
    line = {
        "when": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "kernel": os.uname().release,
        "cpus": os.cpu_count(),
        "case": case,
        "rival": rival,
        "run": turn,
        **told,
    }
    with RECORD.open("a") as file:
        file.write(json.dumps(line) + "\n")


def told(case: str, figures: Figures) -> str:
    """One run's figures in a line."""
    shown = ((COLUMNS[name], figures.get(name)) for name in SHOWN[case])
    return ", ".join(f"{column.heading} {column.text(value)}" for column, value in shown)


def table(case: str, medians: Mapping[tuple[str, str], Figures]) -> None:
    """Print one case's medians."""
    rows = {rival: figures for (of, rival), figures in medians.items() if of == case}
    if not rows:
        return
    columns = [(COLUMNS[name], name) for name in SHOWN[case]]
    print(f"\n{case:14}" + "".join(f"{column.heading:>15}" for column, _ in columns))
    for rival, figures in rows.items():
        cells = (column.text(figures.get(name)) for column, name in columns)
        print(f"{rival:14}" + "".join(f"{cell:>15}" for cell in cells))


def report(bench: Bench) -> int:
    """Print tables, targets and failures; 1 if a target is missed or a rival failed."""
    medians = bench.medians()
    for case in CASES:
        table(case, medians)
    print()
    lines = [line for target in TARGETS if (line := target.line(medians))]
    for text, _ in lines:
        print(text)
    for failure in bench.failures:
        print(f"failed: {failure}")
    return int(bool(bench.failures) or not all(met for _, met in lines))


def chosen(text: str, known: Mapping[str, object], usual: Sequence[str]) -> list[str]:
    """Names of a comma-separated list, in the order of running; "all" are all."""
    names = list(known) if text == "all" else text.split(",") if text else list(usual)
    for name in names:
        if name not in known:
            raise SystemExit(f"'{name}' is not one of {', '.join(known)}")
    return [name for name in known if name in names]


def named_by_targets(case: str) -> list[str]:
    """Ours and those that a case's targets compare it with."""
    return ["auto", *dict.fromkeys(one.rival for one in TARGETS if one.case == case)]


def _end(*_: object) -> NoReturn:
    raise SystemExit(143)


def main() -> int:
    """Run and report, also what was measured before an interrupt."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--runs", type=int, default=RUNS)
    arguments.add_argument("--only", default="", help=", ".join(CASES))
    arguments.add_argument(
        "--rivals",
        default="",
        help=f"{', '.join(RIVALS)}; all; or targets: of each case those that its targets name",
    )
    given = arguments.parse_args()
    cases = chosen(given.only, CASES, tuple(CASES))
    rivals = {
        case: named_by_targets(case)
        if given.rivals == "targets"
        else chosen(given.rivals, RIVALS, USUAL)
        for case in cases
    }
    signal.signal(signal.SIGTERM, _end)
    RECORD.parent.mkdir(exist_ok=True)
    bench = Bench()
    with settings_kept():
        try:
            for case in cases:
                for turn in range(1, given.runs + 1):
                    for rival in rivals[case]:
                        bench.run(case, rival, turn)
        except KeyboardInterrupt:
            report(bench)
            raise
    return report(bench)


if __name__ == "__main__":
    sys.exit(main())
