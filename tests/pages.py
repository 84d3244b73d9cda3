# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages taken apart: their elements and texts, and that they can load and run nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

LOADING = {"src", "srcset", "data", "action", "formaction", "poster", "background", "ping"}
"""Attributes whose value a browser fetches."""


class Parts(HTMLParser):
    """The elements of a page with their attributes, its text, and the text in style and script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data: str) -> None:
        self.texts[self._open] = self.texts.get(self._open, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._open = ""


def checked(text: str) -> Parts:
    """A page whose policy fits its one style and its one script, and allows nothing else."""
    parts = Parts(text)
    tags = [tag for tag, _ in parts.elements]
    [policy] = [a["content"] for _, a in parts.elements if "http-equiv" in a]
    assert policy is not None
    for kind in ("style", "script"):
        assert tags.count(kind) == 1
        digest = base64.b64encode(hashlib.sha256(parts.texts[kind].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for tag, attributes in parts.elements:
        assert tag not in ("img", "iframe", "object", "embed", "base", "form", "link")
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        assert not attributes.keys() & LOADING
        assert (attributes.get("href") or "#").startswith("#"), "a link inside the page"
        fills = [value or "" for value in attributes.values() if (value or "").startswith("url(")]
        assert all(value.startswith("url(#") for value in fills)
    assert not re.search(r"url\(|@import", parts.texts["style"])
    assert not re.search(r"fetch|XMLHttp|import|WebSocket|innerHTML|eval", parts.texts["script"])
    return parts
