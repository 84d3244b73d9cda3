# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel arguments on rpm-ostree: only those that are not there without TuneD are added."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest

from tuned_virt.core.preview import known
from tuned_virt.tuned_api.preview import special


@pytest.mark.parametrize(
    ("there", "ours", "text", "after"),
    [
        ("root=UUID=1 rw", "", "hugepages=4 quiet", "hugepages=4 quiet"),
        ("root=UUID=1 rw quiet", "", "hugepages=4 quiet", "hugepages=4"),
        ("rw quiet hugepages=4", "hugepages=4", "hugepages=4 quiet", "hugepages=4"),
        ("rw quiet quiet", "quiet", "quiet", ""),
        ("rw", "gone=1", "a=1", "a=1"),
    ],
)
def test_arguments_that_are_there_are_not_added(
    there: str, ours: str, text: str, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def execute(words: list[str]) -> tuple[int, str]:
        asked.append(words)
        return 0, f"{there}\n"

    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(special, "commands", lambda: SimpleNamespace(execute=execute))
    monkeypatch.setattr(special, "request", lambda _path, _active: known(ours))
    assert special._for_rpm_ostree(text) == (after, "")
    assert asked == [["rpm-ostree", "kargs"]]


def test_what_rpm_ostree_does_not_tell_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    assert special._for_rpm_ostree("a=1") == ("a=1", "")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    refused = SimpleNamespace(execute=lambda _words: (1, ""))
    monkeypatch.setattr(special, "commands", lambda: refused)
    text, unknown = special._for_rpm_ostree("a=1")
    assert (text, unknown) == ("a=1", "rpm-ostree does not tell the arguments that are there")
