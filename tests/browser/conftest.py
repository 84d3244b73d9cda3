# SPDX-License-Identifier: GPL-2.0-or-later
"""For the tests in a browser: one for all of them, and the pages that they look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests import reports
from tests.browser import chromium
from tests.browser.chromium import Chromium
from tests.unit.machines import machine
from tuned_virt.cli import host_drawing, map, page, report_input, report_view
from tuned_virt.cli.host_drawing import DrawnGuest

FEW, MANY = 40, 1000


@pytest.fixture(scope="session")
def browser() -> Iterator[Chromium]:
    with chromium.running() as found:
        yield found


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Reports of few and of many guests, and drawings of 256 CPUs in four nodes and in one."""
    folder = tmp_path_factory.mktemp("pages")
    texts = {}
    for name, number in (("few", FEW), ("many", MANY)):
        saved = folder / f"{name}.json"
        reports.write_snapshot(saved, number)
        given = reports.whole(report_input.of_snapshot(str(saved)))
        texts[f"{name}.html"] = page.page("report.html.jinja", report_view.view(given))
    one = host_drawing.draw(machine(1, 256, 1, 1), _guests(60))
    texts["map.html"] = map.html(one, "one-node", "today")
    texts["map.svg"] = map.svg(host_drawing.draw(machine(4, 32, 2, 4), _guests(60)))
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return {name: folder / name for name in texts}


def _guests(number: int) -> list[DrawnGuest]:
    """Each with two CPUs of its own, and as many without."""
    own = [
        DrawnGuest(
            f"web-{at}", {0: str(2 * at), 1: str(2 * at + 1)}, (0,), {0: 1 << 20}, "dedicated"
        )
        for at in range(number)
    ]
    names = reports.guest_names(number)
    return [*own, *(DrawnGuest(name, {0: "200-255"}, (0,), {}, "shared") for name in names)]
