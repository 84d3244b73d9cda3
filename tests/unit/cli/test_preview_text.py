# SPDX-License-Identifier: GPL-2.0-or-later
"""A preview in a terminal: no word is broken, and what is alike is one line."""

from __future__ import annotations

import os
import sys

import pytest

from tuned_virt.cli import preview_text
from tuned_virt.cli.plan_text import GuestChange
from tuned_virt.cli.preview_guests import PreviewedGuest
from tuned_virt.core.preview import (
    Knowledge,
    PreviewedValue,
    PreviewRemark,
    Reading,
    SwitchPreview,
    known,
    unknown,
)
from tuned_virt.core.profile_lines import ProfileLine
from tuned_virt.placement import Placement, PlacementKind

LINE = ProfileLine("/usr/lib/tuned/throughput-performance/tuned.conf", 28, "readahead=>4096")


def disk(name: str) -> PreviewedValue:
    where = f"/sys/block/{name}/queue/read_ahead_kb"
    named = ("disk", "disk", "readahead", where)
    return PreviewedValue(*named, known("128"), known("4096"), "", LINE, name)


def guest(name: str, *changes: GuestChange) -> PreviewedGuest:
    kind = PlacementKind.SHARED
    placed = Placement(name, "", kind, (0,), {0: "0-3", 1: "0-3"}, "", {}, None, "the only node")
    return PreviewedGuest(placed, changes)


FOUND = SwitchPreview(
    [
        *(disk(f"sd{letter}") for letter in "abcdef"),
        PreviewedValue("sysctl", "", "vm.x_bytes", "", known("1"), unknown("only TuneD knows")),
        PreviewedValue(
            *("sysctl", "s", "net.core.bpf_jit_limit", "/x"),
            *(Reading(Knowledge.UNREADABLE), known("0")),
        ),
        PreviewedValue("ksm", "ksm", "run", "", known("0"), known("0")),
    ],
    [PreviewRemark("ksm", "run", "no")],
    [
        PreviewRemark(
            "script", "", "TuneD runs /usr/lib/tuned/x/script.sh, which a preview does not"
        )
    ],
    [PreviewRemark("ksm", "", "as it is")],
)
GUESTS = [guest("web", GuestChange("vCPU", 0, "", "0-3")), guest("db")]


def test_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    preview_text.show(["a", "b"], ["c"], FOUND, GUESTS)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["Now:  a b", "Then: c"]
    assert f"  readahead of sda, sdb, sdc, sdd and 2 more  128 → 4096 KiB  {LINE}" in lines
    assert "  net.core.bpf_jit_limit  cannot read → 0      (no longer set)" in lines
    assert "  vm.x_bytes              1 bytes → not known  (only TuneD knows)" in lines
    assert "  web  shared on node 0, vCPUs on 0-3  (the only node)" in lines
    assert "  db   unchanged, shared  (the only node)" in lines
    assert "  ksm: run: no" in lines
    assert "8 values would change, 1 stays as it is." in lines


def test_in_a_narrow_terminal_no_word_is_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    preview_text.show([], ["c"], FOUND, GUESTS)
    words = capsys.readouterr().out.split()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    preview_text.show([], ["c"], FOUND, GUESTS)
    text = capsys.readouterr().out
    assert text.split() == words
    assert max(map(len, text.splitlines())) <= 64, "a path is longer than the line"


def test_root_is_asked_for_where_it_would_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    preview_text.show([], ["c"], FOUND, [])
    said = "1 value cannot be read without root: sudo tuned-virt preview"
    assert said in capsys.readouterr().out
