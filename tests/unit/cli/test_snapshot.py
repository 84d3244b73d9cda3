# SPDX-License-Identifier: GPL-2.0-or-later
"""Snapshots from elsewhere: what is wrong in one is named, and nothing else of it is believed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tuned_virt.cli import planning_input, snapshot
from tuned_virt.cli.common import CouldNot
from tuned_virt.cli.planning_input import DescribedGuest
from tuned_virt.model.pins import Pins
from tuned_virt.model.topology import Host

DATA = Path(__file__).parents[2] / "data"
NUMBER = "expected a whole number from"


def written() -> dict[str, Any]:
    """A good one, of a guest that is pinned, as JSON has it."""
    xml = (DATA / "guests/web.xml").read_text()
    described = DescribedGuest(xml, Pins({0: "0"}, "1", {1: "2"}, ("strict", "0")), {0: 5}, None)
    host = Host.from_xml((DATA / "hosts/two-nodes.xml").read_text())
    gathered = planning_input.of(host, [("web", described)])
    content: dict[str, Any] = json.loads(json.dumps(snapshot._content(gathered)))
    return content


def refusal(text: str, file: Path) -> str:
    file.write_text(text)
    with pytest.raises(CouldNot) as error:
        snapshot.load(file)
    said = str(error.value)
    assert said.startswith(f"{file}: ")
    return said


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("host.nodes.0.memory", "much", f"host.nodes[0].memory is 'much', {NUMBER} 0"),
        ("host.nodes.0.available", -1, f"host.nodes[0].available is -1, {NUMBER} 0"),
        ("host.nodes.0.id", [], "host.nodes[0].id is []"),
        ("host.nodes.1.id", 0, "host.nodes has no node, or one twice"),
        ("host.nodes", [], "host.nodes has no node"),
        ("host.cpus", {}, "host.cpus has none"),
        ("host.cpus.0.id", 10**30, f"{NUMBER} 0"),
        ("host.cpus.0.id", 3, "host.cpus.0.id is 3, expected 0"),
        ("host.cpus.0.node", 9, "host.cpus.0.node is 9, which has no such CPU"),
        ("host.cpus.0.siblings", [], "host.cpus.0.siblings does not have the CPU itself"),
        ("host.cpus.0.capacity", True, "host.cpus.0.capacity is True"),
        ("host.notes", [1], "host.notes[0] is 1, expected text"),
        ("host.devices", [], "host.devices is [], expected an object"),
        ("guests.0.now.memory", "x", "guests[0].now.memory is 'x', expected a list"),
        ("guests.0.now.memory", ["x"], "expected a mode and a nodeset"),
        ("guests.0.resident", {"a": 1}, "guests[0].resident.a is 'a', expected a whole number"),
        ("guests.0.held", {"kind": "shared"}, "guests[0].held is not a placement"),
        ("guests", {}, "guests is {}, expected a list"),
        ("format", 1, "format 1 is not 2: write it anew"),
    ],
)
def test_what_is_wrong_is_named(path: str, value: object, said: str, tmp_path: Path) -> None:
    content = written()
    *parents, last = [int(one) if one.isdigit() else one for one in path.split(".")]
    inside: Any = content
    for step in parents:
        inside = inside[str(step) if isinstance(inside, dict) else step]
    inside[last] = value
    assert said in refusal(json.dumps(content), tmp_path / "host.json")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    content = written()
    del content["host"]["nodes"][1]["cpus"]
    said = refusal(json.dumps(content), tmp_path / "host.json")
    assert said.endswith("not a snapshot of tuned-virt: host.nodes[1].cpus is missing")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "not a snapshot of tuned-virt: it is nested too deeply"),
        ("{\n\n,", "line 3: "),
        ("[]", "the file is [], expected an object"),
        ("{}", "format is missing"),
    ],
)
def test_what_is_no_snapshot(text: str, said: str, tmp_path: Path) -> None:
    assert said in refusal(text, tmp_path / "host.json")


@pytest.mark.parametrize("file", sorted((DATA / "hosts").glob("*.xml")), ids=lambda one: one.stem)
def test_every_host_comes_back_as_it_went(file: Path, tmp_path: Path) -> None:
    gathered = planning_input.of(Host.from_xml(file.read_text()), [])
    copy = tmp_path / "host.json"
    copy.write_text(json.dumps(snapshot._content(gathered)))
    assert snapshot.load(copy) == gathered


def test_what_cpusets_leave_to_guests_comes_back_and_older_snapshots_say_nothing_of_it(
    tmp_path: Path,
) -> None:
    host = Host.from_xml((DATA / "hosts/two-nodes.xml").read_text())
    confined = replace(host, cpusets={"/machine": frozenset({0, 1})})
    copy = tmp_path / "host.json"
    content = snapshot._content(planning_input.of(confined, []))
    copy.write_text(json.dumps(content))
    assert snapshot.load(copy).host == confined
    del content["host"]["cpusets"]
    copy.write_text(json.dumps(content))
    assert snapshot.load(copy).host == host
