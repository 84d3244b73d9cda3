# SPDX-License-Identifier: GPL-2.0-or-later
"""Snapshots from elsewhere: what is wrong in one is named, and nothing else of it is believed."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests import snapshots
from tests.schemas import valid
from tuned_virt.cli import (
    json_output,
    planning_input,
    recommend_input,
    report_input,
    snapshot_file,
)
from tuned_virt.cli.collected import AuditSources, Collected, GuestDocument, HostRole, HostState
from tuned_virt.cli.common import CouldNot
from tuned_virt.cli.guest_rows import NodePages
from tuned_virt.cli.planning_input import DescribedGuest
from tuned_virt.frozen_dataclasses import replace
from tuned_virt.model.host_facts import (
    BackingDisk,
    CpuFrequency,
    Fact,
    HostFacts,
    KsmSettings,
    NetworkLink,
)
from tuned_virt.model.pins import Pins
from tuned_virt.model.topology import Host

DATA = Path(__file__).parents[2] / "data"
MANUAL = (Path(__file__).parents[3] / "docs/json.7.md").read_text()
EXAMPLES: dict[str, Any] = {
    one.pop("kind"): {name: value for name, value in one.items() if name != "version"}
    for one in map(
        json.loads, re.findall(r"^```json\n(.*?)^```$", MANUAL, re.MULTILINE | re.DOTALL)
    )
}
"""What commands print, as the manual has it."""

WHOLE_STATUS = EXAMPLES["status"]
NUMBER = "expected a whole number from"


def written() -> dict[str, Any]:
    """A good one, of a guest that is pinned, as JSON has it."""
    xml = (DATA / "guests/web.xml").read_text()
    described = DescribedGuest(xml, Pins({0: "0"}, "1", {1: "2"}, ("strict", "0")), {0: 5}, None)
    host = Host.from_xml((DATA / "hosts/two-nodes.xml").read_text())
    gathered = planning_input.of(host, [("web", described)])
    return snapshots.content(gathered)


def refusal(text: str, file: Path) -> str:
    file.write_text(text)
    with pytest.raises(CouldNot) as error:
        known = snapshot_file.load(str(file))
        known.planning()
        known.audit()
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
        ("format", 1, "format 1 is not one of 2 and 3"),
        ("host_name", 5, "host_name is 5, expected text"),
        ("facts.kvm", {"value": 1}, "facts.kvm.value is 1, expected true or false"),
        ("facts.kvm", {}, "facts.kvm.value is missing"),
        ("facts.links", {"value": {"br0": {"mtu": 1}}}, "facts.links.value.br0.master is missing"),
        ("configured", {"value": {}}, "configured.value.guests is missing"),
        ("role", {"manager": ""}, "role.in_guest is missing"),
        ("redacted", {"by": "0.2.0"}, "redacted.counts is missing"),
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
    copy.write_text(json.dumps(snapshots.content(gathered)))
    assert snapshot_file.load(str(copy)).planning() == gathered


def test_what_cpusets_leave_to_guests_comes_back_and_older_snapshots_say_nothing_of_it(
    tmp_path: Path,
) -> None:
    host = Host.from_xml((DATA / "hosts/two-nodes.xml").read_text())
    confined = replace(host, cpusets={"/machine": frozenset({0, 1})})
    copy = tmp_path / "host.json"
    content = snapshots.content(planning_input.of(confined, []))
    copy.write_text(json.dumps(content))
    assert snapshot_file.load(str(copy)).planning().host == confined
    del content["host"]["cpusets"]
    copy.write_text(json.dumps(content))
    assert snapshot_file.load(str(copy)).planning().host == host


# --- what each command reads ----------------------------------------------------------------------

FACTS = HostFacts(
    kvm=Fact(True, ""),
    numad=Fact(None, "it cannot be told"),
    swap=Fact(0, ""),
    thp=Fact("madvise", ""),
    ksm=Fact(KsmSettings(True, False), ""),
    mounted=Fact(frozenset({2048, 1 << 20}), ""),
    halt_poll_ns=Fact(200000, ""),
    subnets=Fact({"192.0.2.0/24": ("eth0", "eth1")}, ""),
    links=Fact({"br0": NetworkLink(1500), "eth0": NetworkLink(9000, "br0")}, ""),
    frequency=Fact(CpuFrequency(frozenset({"performance"}), "intel_pstate"), ""),
    schedulers=Fact({"sda": "bfq"}, ""),
    backing=Fact({"sda": BackingDisk(("web",), "none", "mq-deadline", "ssd")}, ""),
    idle_states=Fact({}, ""),
    profiles=Fact(("virtual-host-plus",), ""),
)


def live() -> Collected:
    """A host as it is collected, with one guest that runs and one that does not."""
    known = snapshot_file.parse(json.dumps(written()), "host").planning()
    xml = known.described[0].xml
    documents = (
        GuestDocument("web", xml, running=True, placed=True, profile=Fact("virtual-guest", "")),
        GuestDocument("off", xml.replace("web", "off"), running=False),
    )
    audit = AuditSources(known.host, FACTS, documents, (("odd", "line 1: no XML"),))
    row = replace(
        next(report_input._described(known)), delay_percent=7.5, pages=(NodePages(0, 4, 9),)
    )
    state = HostState(
        rows=Fact([row], ""),
        status=Fact(WHOLE_STATUS, ""),
        hugepages=Fact(EXAMPLES["hugepages"], ""),
        ksm=Fact(None, "not in this kernel"),
        disks=Fact(EXAMPLES["disks"], ""),
        changes=Fact(EXAMPLES["log"], ""),
        settings=Fact({"/etc/tuned/virtual-host-plus-variables.conf": "ksm_mode=auto\n"}, ""),
        switched=Fact(None, "no profile is written down"),
    )
    role = HostRole(Fact(False, ""), "", Fact(None, "/proc/swaps: Permission denied"))
    when = "2026-11-28T03:00:00.000+01:00"
    return Collected("host-a", when, Fact(known, ""), Fact(audit, ""), role, state)


def test_all_that_is_collected_comes_back(tmp_path: Path) -> None:
    """Also what could not be read, with its reason, apart from what is not there."""
    found = live()
    file = tmp_path / "host.json"
    file.write_text(
        json.dumps(valid(json_output.document("snapshot", snapshot_file.content(found))))
    )
    read = snapshot_file.load(str(file)).collected()
    documents = tuple(replace(one, file=str(file)) for one in found.audit.get().documents)
    assert read == replace(found, audit=Fact(replace(found.audit.get(), documents=documents), ""))


def test_the_report_and_recommendations_are_those_of_the_host(tmp_path: Path) -> None:
    file = tmp_path / "host.json"
    file.write_text(json.dumps(snapshot_file.content(live())))
    given = report_input.of_snapshot(str(file))
    assert (given.host, given.source) == ("host-a", f"the snapshot {file}")
    assert given.rows.get()[0].delay_percent == 7.5
    assert given.ksm == Fact(None, "not in this kernel")
    assert given.status.get()["profile"] == WHOLE_STATUS["profile"]
    assert {one["guest"] for one in given.audit.get()["guests"]} == {"web", "off"}
    content = json.loads(file.read_text())
    content["configured"]["value"]["unreadable"] = []
    file.write_text(json.dumps(content))
    seen = recommend_input.gather(None, [], str(file))
    assert seen.delays == {given.rows.get()[0].uuid: 7.5}
    assert seen.scene.facts == FACTS
    content["role"]["manager"] = "oVirt"
    file.write_text(json.dumps(content))
    assert recommend_input.gather(None, [], str(file)).manager == "oVirt"
    content["role"]["in_guest"] = {"value": True}
    file.write_text(json.dumps(content))
    assert recommend_input.gather(None, [], str(file)).in_guest
    content["role"]["in_guest"] = {"why": "it does not start"}
    file.write_text(json.dumps(content))
    with pytest.raises(CouldNot, match="cannot be told: it does not start"):
        recommend_input.gather(None, [], str(file))


def test_a_part_of_another_version_says_so_and_the_rest_is_there(tmp_path: Path) -> None:
    content = json.loads(json.dumps(snapshot_file.content(live())))
    content["state"]["status"]["value"]["mood"] = "good"
    content["state"]["guests"]["value"][0]["vcpus"] = []
    state = snapshot_file.parse(json.dumps(content), "host").state()
    assert state is not None
    assert "not what this version understands" in state.status.why
    assert "not what this version understands" in state.rows.why
    assert state.disks.value


def test_format_2_is_read_as_before(tmp_path: Path) -> None:
    """Its guests are those that ran, and nothing else is known."""
    content = written()
    old = {name: content[name] for name in ("host", "guests", "notes")}
    file = tmp_path / "host.json"
    file.write_text(json.dumps({"format": 2, **old, "notes": ["a note"]}))
    known = snapshot_file.load(str(file))
    assert (known.role(), known.state(), known.redacted) == (None, None, False)
    audit = known.audit()
    assert [one.name for one in audit.documents] == ["web"]
    assert audit.facts == HostFacts()
    assert audit.notes == ("a note",)
    given = report_input.of_snapshot(str(file))
    assert given.host == "host.json"
    assert given.status.why == report_input.OLD
    assert given.rows.get()[0].guest == "web"
    assert recommend_input.gather(None, [], str(file)).manager == ""


def test_configurations_that_could_not_be_read_are_said(tmp_path: Path) -> None:
    content = snapshot_file.content(replace(live(), audit=Fact(None, "libvirt hangs")))
    file = tmp_path / "host.json"
    file.write_text(json.dumps(content))
    with pytest.raises(CouldNot, match="the guests' configurations: libvirt hangs"):
        snapshot_file.load(str(file)).audit()
    assert "libvirt hangs" in report_input.of_snapshot(str(file)).audit.why
    with pytest.raises(CouldNot, match="no CPU"):
        snapshot_file.content(replace(live(), planning=Fact(None, "this host: no CPU")))


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps(written()).encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert snapshot_file.load("-").planning().guests[0].name == "web"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"{")))
    with pytest.raises(CouldNot, match=r"^standard input: line 1: "):
        snapshot_file.load("-")
