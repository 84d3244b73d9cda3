# SPDX-License-Identifier: GPL-2.0-or-later
"""The pages of `report` and `map` in Chromium: whole, readable, at work, and closed to scripts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests import reports
from tests.browser.chromium import Chromium
from tests.browser.conftest import FEW, MANY

MEASURE = Path(__file__).with_name("measure.js").read_text()
DESKTOP, TELEPHONE = 1280, 390
GUESTS = "guests-table"
LIMIT = 3 << 20
"""Bytes of a report of 1,000 guests."""


def opened(
    browser: Chromium, file: Path, width: int = DESKTOP, dark: bool = False, media: str = "screen"
) -> None:
    browser.open(file, width, dark, media)
    browser.evaluate(MEASURE)


def bad_texts(browser: Chromium, most: int = 3000) -> list[Any]:
    """Texts with too little contrast, of those that there are."""
    found = browser.evaluate(f"texts({most})")
    assert len(found) > 300, "it measures something"
    return [one for one in found if not one["good"]]


@pytest.mark.parametrize("name", ["few.html", "map.html"])
def test_readable_on_a_screen_and_a_telephone_in_light_and_dark(
    browser: Chromium, pages: Mapping[str, Path], name: str
) -> None:
    backgrounds = set()
    for width in (DESKTOP, TELEPHONE):
        for dark in (False, True):
            opened(browser, pages[name], width, dark)
            browser.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
            assert browser.errors == []
            assert browser.evaluate("overflowing()") == [], (width, dark)
            assert bad_texts(browser) == [], (width, dark)
            backgrounds.add(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(backgrounds) == 2
    for width in (320, 768, 1150, 1151, 1920):
        opened(browser, pages[name], width)
        assert browser.evaluate("overflowing()") == [], width


def test_the_measures_notice_what_they_are_for(
    browser: Chromium, pages: Mapping[str, Path]
) -> None:
    opened(browser, pages["map.html"])
    browser.evaluate("document.querySelector('h1').style.color = '#aaa'")
    browser.evaluate("document.querySelector('text.tag').style.fill = '#8dd3c7'")
    assert len(bad_texts(browser)) == 2
    browser.evaluate("document.querySelector('header').style.width = '1400px'")
    assert browser.evaluate("overflowing()")
    browser.evaluate("new Image().src = 'http://192.0.2.1/x.png'; console.log('said')")
    browser.evaluate("new Promise(done => setTimeout(done, 100))")
    assert any("said" in one for one in browser.errors)
    assert any("192.0.2.1" in one for one in browser.errors)


@pytest.mark.parametrize("name", ["map.html", "map.svg", "few.html"])
def test_each_of_256_cpus_can_be_read(
    browser: Chromium, pages: Mapping[str, Path], name: str
) -> None:
    for width in (DESKTOP, TELEPHONE) if name != "map.svg" else (DESKTOP,):
        opened(browser, pages[name], width)
        cells = browser.evaluate("cells()")
        assert sorted(int(one["title"].split()[1]) for one in cells) == list(range(256))
        texts = [text for cell in cells for text in cell["texts"]]
        assert [text for text in texts if not text["inside"] or text["size"] < 11] == []
        for one, other in zip(cells, cells[1:]):
            beside = one["right"] <= other["left"] + 1 or one["bottom"] <= other["top"] + 1
            assert beside or other["right"] <= one["left"] + 1, (one["title"], other["title"])
    if name == "map.svg":
        far = "Math.max(...[...document.querySelectorAll('text')].map("
        far += "one => one.getBoundingClientRect().right))"
        wide = browser.evaluate("document.documentElement.width.baseVal.value")
        assert browser.evaluate(far) <= wide <= DESKTOP
    if name == "map.html":
        shown = browser.evaluate("document.querySelector('.legend').innerText")
        for guest in (*filter(str.isprintable, reports.NAMES), "web-0", "web-59"):
            assert guest in shown


def test_tables_are_sorted(browser: Chromium, pages: Mapping[str, Path]) -> None:
    """By delay at first; by a click on a title up, then down; what has no value is last."""
    opened(browser, pages["few.html"])
    delays = list(map(float, browser.evaluate(f"column('{GUESTS}', 2)")))
    assert len(delays) == FEW
    assert delays == sorted(delays, reverse=True)
    browser.evaluate(f"press('{GUESTS}', 'guest')")
    names = browser.evaluate(f"column('{GUESTS}', 0)")
    numbered = [int(name[4:]) for name in names if name.startswith("web-")]
    assert numbered == sorted(numbered)
    assert len(numbered) == FEW - len(reports.NAMES)
    first = names.index("web-0")
    assert names[first : first + len(numbered)] == [f"web-{one}" for one in numbered]
    browser.evaluate(f"press('{GUESTS}', 'guest')")
    assert browser.evaluate(f"column('{GUESTS}', 0)") == names[::-1]
    browser.evaluate(f"document.querySelector('#{GUESTS} tbody td:nth-child(4)').dataset.sort = ''")
    empty = browser.evaluate(f"column('{GUESTS}', 0)")[0]
    for way in ("ascending", "descending"):
        browser.evaluate(f"press('{GUESTS}', 'local %')")
        shares = [float(one) for one in browser.evaluate(f"column('{GUESTS}', 3)")][:-1]
        assert shares == sorted(shares, reverse=way == "descending")
        assert browser.evaluate(f"column('{GUESTS}', 0)")[-1] == empty
        sorted_by = f"document.querySelectorAll('#{GUESTS} th[aria-sort={way}]').length"
        assert browser.evaluate(sorted_by) == 1
    browser.evaluate("press('pools-table', 'size')")
    assert browser.evaluate("column('pools-table', 1)") == ["2M"] * 4 + ["1G"] * 4
    assert browser.errors == []


def test_tables_and_findings_are_filtered(browser: Chromium, pages: Mapping[str, Path]) -> None:
    opened(browser, pages["few.html"])
    assert browser.evaluate(f"type('{GUESTS}', 'WEB-1 nobody')").endswith(f" of {FEW}")
    found = browser.evaluate(f"column('{GUESTS}', 0)")
    assert found
    assert all(name.startswith("web-1") for name in found)
    assert browser.evaluate(f"type('{GUESTS}', '<img')") == f"1 of {FEW}"
    assert browser.evaluate(f"type('{GUESTS}', '.*')") == f"0 of {FEW}", "words, no patterns"
    browser.evaluate(f"type('{GUESTS}', '')")
    browser.evaluate(f"document.querySelector('[data-for={GUESTS}] [type=checkbox]').click()")
    problems = browser.evaluate(f"column('{GUESTS}', 1)")
    assert 0 < len(problems) < FEW
    assert "none" not in problems
    assert browser.evaluate("type('findings-list', 'machine-outdated')").startswith("1 of ")


def test_no_script_but_the_pages_own_can_run(browser: Chromium, pages: Mapping[str, Path]) -> None:
    """Were a name not escaped, the policy would still stop it."""
    opened(browser, pages["few.html"])
    assert browser.evaluate("document.querySelectorAll('img, iframe, base').length") == 0
    assert browser.evaluate("document.scripts.length") == 1
    browser.evaluate(
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=window.ran=1>"
        "<style>body{display:none}</style><b id=styled onclick=window.ran=2>x</b>');"
        "const one = document.createElement('script'); one.textContent = 'window.ran = 3';"
        "document.body.append(one); document.getElementById('styled').click()"
    )
    browser.evaluate("new Promise(done => setTimeout(done, 200))")
    assert browser.evaluate("window.ran === undefined")
    assert browser.evaluate("getComputedStyle(document.body).display") == "block"
    assert browser.errors, "and says so"


def test_the_button_changes_the_theme(browser: Chromium, pages: Mapping[str, Path]) -> None:
    for name in ("few.html", "map.html"):
        opened(browser, pages[name], dark=True)
        script = "document.getElementById('theme').click(); getComputedStyle(document.body).color"
        light, dark = browser.evaluate(script), browser.evaluate(script)
        assert (light, dark) == ("rgb(26, 29, 33)", "rgb(232, 234, 237)")


def test_on_paper_all_is_open_and_light(browser: Chromium, pages: Mapping[str, Path]) -> None:
    """Of a reader of dark pages, too."""
    opened(browser, pages["few.html"], 794, dark=True, media="print")
    browser.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert browser.evaluate("document.querySelectorAll('details:not([open])').length") == 0
    assert (
        browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    )
    for hidden in ("nav", ".controls", "#theme"):
        assert not browser.evaluate(f"document.querySelector('{hidden}').checkVisibility()")
    button = "getComputedStyle(document.querySelector('th button')).display"
    assert browser.evaluate(button) == "contents", "or Chromium repeats no head on later pages"
    assert browser.evaluate("overflowing()") == []
    assert bad_texts(browser) == []
    browser.evaluate("dispatchEvent(new Event('afterprint'))")
    assert browser.evaluate("document.querySelectorAll('details:not([open])').length") > 0
    assert browser.pdf().startswith(b"%PDF")


def test_a_thousand_guests(browser: Chromium, pages: Mapping[str, Path]) -> None:
    file = pages["many.html"]
    assert file.stat().st_size < LIMIT
    opened(browser, file, TELEPHONE)
    assert browser.errors == []
    assert browser.evaluate("overflowing()") == []
    assert len(browser.evaluate(f"column('{GUESTS}', 0)")) == MANY
    assert browser.evaluate(f"type('{GUESTS}', 'web-77')") == f"11 of {MANY}"
