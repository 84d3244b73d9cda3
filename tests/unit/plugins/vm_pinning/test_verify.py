# SPDX-License-Identifier: GPL-2.0-or-later
"""What verify says of a guest: where it is, where it should be, and what it was not granted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tuned_virt.cli import findings
from tuned_virt.core.engine import Finding, Result
from tuned_virt.guests.manager import Claim
from tuned_virt.kernel import numa_maps
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.kernel.numa_maps import Area
from tuned_virt.libvirt_api.errors import Unanswered
from tuned_virt.placement import MemoryPlacement, Placement, PlacementKind, unplaced
from tuned_virt.plugins.vm_pinning import policy
from tuned_virt.plugins.vm_pinning.held_placements import HeldPlacement
from tuned_virt.plugins.vm_pinning.verify import PinningVerifier

FLOATS = Placement(
    "web1", "u", PlacementKind.SHARED, (0,), {0: "0-3"}, "", {}, None,
    "not dedicated: it needs 7 CPUs that can be dedicated; node 0 has the most (6)",
    ungranted="policy=dedicated",
)  # fmt: skip
NOWHERE = unplaced("web1", "u", "not placed: no room", ungranted="policy=node")
TYPO = unplaced("web1", "u", "its metadata is not valid", ungranted="what its metadata asks")


class Silent:
    """A libvirt that does not answer."""

    def ask(self, *_: object) -> None:
        raise Unanswered("libvirt does not answer")


def said(tmp_path: Path, placed: Placement, **more: Any) -> Finding:
    return all_said(tmp_path, placed, **more)[0]


def all_said(tmp_path: Path, placed: Placement, **more: Any) -> list[Finding]:
    """Every line of the guest."""
    held = HeldPlacement("u/7", "u", "web1", "web1", placement=placed, **{"pid": 0, **more})
    claim = Claim("web1", policy.parse({}))
    asked: Any = Silent()
    found = PinningVerifier(KernelFS(tmp_path)).findings([(claim, held)], asked)
    return [line for line in found if line.text.startswith("device web1")]


@pytest.mark.parametrize(
    ("placed", "found", "wanted", "why"),
    [
        (FLOATS, "shared on node 0: vCPU 0 on 0-3", "policy=dedicated", "not dedicated: it needs"),
        (NOWHERE, "not placed", "policy=node", "no room"),
        (TYPO, "not placed", "what its metadata asks", "its metadata is not valid"),
    ],
)
def test_what_was_asked_for_and_is_not_so_fails(
    placed: Placement, found: str, wanted: str, why: str, tmp_path: Path
) -> None:
    line = said(tmp_path, placed)
    assert line.result is Result.FAILED
    [parsed] = findings.parse([f"ERROR    tuned: {line}"])
    assert (parsed.device, parsed.option) == ("web1", "vm_pinning")
    assert (parsed.found, parsed.wanted) == (found, wanted)
    assert f"(not granted: {why}" in parsed.text
    assert parsed.name == "vm_pinning of web1"


def test_a_wish_that_does_not_count_is_a_note_and_fails_nothing(tmp_path: Path) -> None:
    """Whoever may write metadata must not be able to fail the host's verify."""
    ignored = "policy=dedicated (wishes=none)"
    placed = replace(FLOATS, ungranted="", ignored=ignored)
    lines = all_said(tmp_path, placed)
    assert [line.result for line in lines] == [Result.PASSED, Result.NOTE]
    assert lines[1].text == f"device web1: its metadata does not count: {ignored}"
    left = unplaced("web1", "u", "policy=none", chosen=True)
    lines = all_said(tmp_path, replace(left, ignored=ignored))
    assert [line.result for line in lines] == [Result.NOTE, Result.NOTE]


def test_granted_it_passes(tmp_path: Path) -> None:
    assert said(tmp_path, replace(FLOATS, ungranted="")).result is Result.PASSED


def test_what_is_only_observed_asks_for_nothing(tmp_path: Path) -> None:
    assert said(tmp_path, FLOATS, observed=True).result is Result.NOTE


def test_what_becomes_of_it_when_it_starts_again_is_told_now(tmp_path: Path) -> None:
    line = said(tmp_path, FLOATS, later=True)
    assert line.result is Result.FAILED
    assert "'not placed yet', expected 'policy=dedicated'" in line.text


def test_a_guest_that_is_left_on_purpose_is_a_note(tmp_path: Path) -> None:
    assert said(tmp_path, unplaced("web1", "u", "policy=none", chosen=True)).result is Result.NOTE
    owned = replace(FLOATS, kind=PlacementKind.OWNER, ungranted="")
    assert said(tmp_path, owned).result is Result.NOTE


def test_memory_that_cannot_be_read_is_told_and_fails_what_must_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(_fs: KernelFS, pid: int) -> list[Area]:
        raise KernelFileError(f"/proc/{pid}/numa_maps", "Input/output error")

    monkeypatch.setattr(numa_maps, "read", unreadable)
    why = "the location of its memory: cannot read /proc/7/numa_maps: Input/output error"
    for mode, result in (("move", Result.PASSED), ("strict", Result.FAILED)):
        placed = replace(FLOATS, ungranted="", memory=MemoryPlacement(mode, "0"))
        line = said(tmp_path, placed, pid=7)
        assert (line.result, why in line.text) == (result, True), mode
