# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a report of many guests takes to write, and Chromium to open it; and its size.

    python -m bench.report [--guests 1000] [--runs 5]

A new page for each run; opened means laid out, all scripts of the page done.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from tests import reports
from tests.browser import chromium
from tuned_virt.cli import page, report_input, report_view

NAVIGATION = "performance.getEntriesByType('navigation')[0].duration"
LAID_OUT = "new Promise(done => requestAnimationFrame(() => setTimeout(done)))"


def write(file: Path, guests: int) -> dict[str, float]:
    """The report of a snapshot with every section; seconds of each step."""
    saved = file.with_suffix(".json")
    reports.write_snapshot(saved, guests)
    moments = [time.perf_counter()]
    given = reports.whole(report_input.of_snapshot(str(saved)))
    moments.append(time.perf_counter())
    text = page.page("report.html.jinja", report_view.view(given))
    file.write_text(text, encoding="utf-8")
    moments.append(time.perf_counter())
    return {"read and audit": moments[1] - moments[0], "write": moments[2] - moments[1]}


def opening(file: Path, runs: int) -> list[tuple[float, float]]:
    """Seconds until each page is loaded, and until it is laid out."""
    found = []
    with chromium.running() as browser:
        for _ in range(runs):
            started = time.perf_counter()
            browser.open(file)
            browser.evaluate(LAID_OUT)
            found.append((browser.evaluate(NAVIGATION) / 1000, time.perf_counter() - started))
    return found


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="Time reports of many guests.")
    parser.add_argument("--guests", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "report.html")
        steps = write(file, options.guests)
        times = opening(file, options.runs)
        print(f"report of {options.guests} guests: {file.stat().st_size / 2**20:.2f} MiB")
    for name, seconds in steps.items():
        print(f"{name:16}{seconds:6.2f} s")
    for name, some in zip(("loaded", "on the screen"), zip(*times)):
        print(f"{name:16}{statistics.median(some):6.2f} s  (worst {max(some):.2f} s)")


if __name__ == "__main__":
    main()
