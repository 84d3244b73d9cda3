# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages: text of others stays text, nothing is loaded, and colours can be read."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from xml.etree import ElementTree

from tests.contrast import LEAST, contrast, difference
from tests.pages import checked
from tests.reports import NAMES
from tests.unit.machines import machine
from tuned_virt.cli import host_drawing, map, page
from tuned_virt.cli.host_drawing import DrawnGuest


def drawing(*names: str) -> dict[str, object]:
    guests = [DrawnGuest(name, {0: str(at)}, (0,)) for at, name in enumerate(names)]
    guests += [DrawnGuest(name, {0: "0-3"}, (0,)) for name in names]
    return host_drawing.draw(machine(nodes=1, cores=8), guests)


def test_names_of_guests_are_text_in_pages_and_pictures() -> None:
    plain = checked(map.html(drawing(*("plain",) * len(NAMES)), "host", "today"))
    parts = checked(map.html(drawing(*NAMES), NAMES[0], NAMES[1]))
    assert [tag for tag, _ in parts.elements] == [tag for tag, _ in plain.elements]
    assert parts.texts["script"] == plain.texts["script"]
    for name in filter(str.isprintable, NAMES):
        assert name in parts.texts["b"]
    assert "?txt.exe" in parts.texts["b"], "nothing turns the direction of other text"
    root = ElementTree.fromstring(map.svg(drawing(*NAMES)))
    tags = {one.tag.rpartition("}")[2] for one in root.iter()}
    assert tags <= {
        "svg",
        "style",
        "defs",
        "pattern",
        "path",
        "circle",
        "rect",
        "g",
        "text",
        "title",
    }
    assert NAMES[0] in "".join(root.itertext())


def test_a_picture_loads_nothing() -> None:
    text = map.svg(drawing("one"))
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"href|@import|url\((?!#)", text)


def pairs() -> Iterator[tuple[str, str, str]]:
    """Text and what it is on, and where."""
    for theme in (0, 1):
        on = {name: both[theme] for name, both in page.COLOURS.items()}
        for text in ("text", "muted", "accent", "error", "warning", "good"):
            for under in ("page", "panel"):
                yield on[text], on[under], f"{text} on {under} {theme}"
        yield on["text"], on["quiet"], f"text on quiet {theme}"


def test_text_has_the_contrast_of_wcag_aa_in_light_and_in_dark() -> None:
    for text, under, where in pairs():
        assert contrast(text, under) >= LEAST, where
    for hue in host_drawing.HUES:
        assert contrast("#111111", hue) >= LEAST, hue
    assert contrast("#000000", "#ffffff") == 21


def test_colours_of_guests_are_unlike() -> None:
    """By far more than the smallest difference of two colours that can be seen (0.02 in Oklab)."""
    for one, other in itertools.combinations(host_drawing.HUES, 2):
        assert difference(one, other) >= 0.1, (one, other)
