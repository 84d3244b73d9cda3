# SPDX-License-Identifier: GPL-2.0-or-later
"""Readers of others' text: what `make fuzz` begins with, what it found, and some of its kind."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import readers, texts
from tests.fuzz.readers import TARGETS, quietly
from tuned_virt.libvirt_api import hook as libvirt_hook

CORPUS = Path(readers.__file__).parent / "corpus"

SLOWEST = 2.0
"""Seconds for one text, on a busy machine."""


@st.composite
def changed(draw: st.DrawFn, name: str) -> bytes:
    """One of a reader's texts in which parts are left out, repeated or replaced by its words."""
    target = TARGETS[name]
    text = draw(st.sampled_from(target.seeds)).encode()
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 40)))
        word = draw(st.sampled_from(target.words)).encode(errors="surrogatepass")
        new = draw(st.sampled_from([b"", word, text[start:end] * 3, b"\xff\xfe"]))
        text = text[:start] + new + text[end:]
    return text


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_found_stays_mended(name: str) -> None:
    found = sorted(path for path in (CORPUS / name).glob("*") if path.is_file())
    for data in [*(seed.encode() for seed in TARGETS[name].seeds), *map(Path.read_bytes, found)]:
        began = time.monotonic()
        quietly(TARGETS[name].read)(data)
        assert time.monotonic() - began < SLOWEST, data[:80]


def test_each_corpus_is_a_readers() -> None:
    assert {path.name for path in CORPUS.iterdir()} <= set(TARGETS)
    assert sum(path.stat().st_size for path in CORPUS.rglob("*")) < 1 << 18, "it is kept small"


@given(st.data())
def test_nothing_makes_a_reader_fail(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(TARGETS)))
    quietly(TARGETS[name].read)(data.draw(changed(name)))


@given(changed("hook"))
def test_the_hook_changes_no_document_without_our_tag_and_breaks_none(document: bytes) -> None:
    readers.hook(document)


def test_the_hooks_rule_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """The property notices each way in which it may be broken."""
    tagged, plain = texts.DOMAINS[-1].encode(), texts.DOMAINS[0].encode()
    cut = tagged.replace(b"<x/>", b"")
    for document, answer in ((plain, plain), (tagged, None), (tagged, b"<domain>"), (tagged, cut)):
        monkeypatch.setattr(libvirt_hook, "strip", lambda _, answer=answer: answer)
        with pytest.raises(AssertionError):
            readers.hook(document)
