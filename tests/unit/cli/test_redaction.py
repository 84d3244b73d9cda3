# SPDX-License-Identifier: GPL-2.0-or-later
"""A redacted snapshot names nobody, and every command says of it what it says of the full one."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import snapshots
from tests.schemas import valid
from tests.unit.cli.test_snapshot_file import FACTS, live
from tuned_virt import __version__
from tuned_virt.audit.check import check
from tuned_virt.audit.rule import all_rules
from tuned_virt.cli import (
    audit_input,
    json_output,
    plan,
    planning_input,
    redaction,
    report_input,
    snapshot_file,
)
from tuned_virt.cli.collected import AuditSources, Collected, GuestDocument
from tuned_virt.cli.planning_input import DescribedGuest
from tuned_virt.cli.replacements import Replacements
from tuned_virt.cli.snapshot_file import Snapshot
from tuned_virt.frozen_dataclasses import replace
from tuned_virt.model.guest import GuestError, read_guest
from tuned_virt.model.host_facts import BackingDisk, Fact, NetworkLink
from tuned_virt.model.pins import Pins
from tuned_virt.model.topology import Host
from tuned_virt.placement import MemoryPlacement, Placement, PlacementKind

DATA = Path(__file__).parents[2] / "data"
GOLDEN = DATA / "golden/snapshot-redacted.json"
HOST = Host.from_xml((DATA / "hosts/two-nodes.xml").read_text())


def readable(text: str) -> bool:
    try:
        return bool(read_guest(text))
    except GuestError:
        return False


DOCUMENTS = [
    text
    for folder in ("guests", "audit", "secrets")
    for text in (file.read_text() for file in sorted((DATA / folder).glob("*.xml")))
    if readable(text)
]


def made(content: Mapping[str, Any]) -> dict[str, Any]:
    """A snapshot's content, redacted as the command does it."""
    found = redaction.redacted(json.loads(json.dumps(content)))
    valid(json_output.document("snapshot", found))
    return found


def read(content: Mapping[str, Any]) -> Snapshot:
    return snapshot_file.parse(json.dumps(content), "host")


def named(text: str, name: str, uuid: str) -> str:
    """A guest's document with another name and UUID."""
    root = ElementTree.fromstring(text)
    for tag, value in (("name", name), ("uuid", uuid)):
        found = root.find(tag)
        if found is None:
            found = ElementTree.SubElement(root, tag)
        found.text = value
    return ElementTree.tostring(root, encoding="unicode")


# --- the same is said -----------------------------------------------------------------------------

NAME = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x24F, blacklist_categories=("Cs", "Cc", "Zs")),
    min_size=1,
    max_size=9,
)


@st.composite
def scenes(draw: st.DrawFn) -> Collected:
    """Guests of ours under other names, some placed, on a host of two nodes."""
    names = draw(st.lists(NAME, unique=True, min_size=1, max_size=6))
    described = []
    for name in names:
        uuid = str(draw(st.uuids()))
        xml = named(draw(st.sampled_from(DOCUMENTS)), name, uuid)
        cpus = {vcpu: "0-7" for vcpu in read_guest(xml).online}
        node = draw(st.integers(0, 1))
        held = Placement(
            name, uuid, PlacementKind.SHARED, (0,), cpus, "0-7", {}, MemoryPlacement("move", "0"),
            f"it is there with {names[0]}",
        )  # fmt: skip
        now = draw(st.sampled_from([None, Pins(cpus, "0-7")]))
        one = DescribedGuest(xml, now, {node: 1 << 20}, draw(st.sampled_from([None, held])))
        described.append((name, one))
    return snapshots.collected(planning_input.of(HOST, described))


@pytest.mark.large
@settings(max_examples=20)
@given(scenes())
def test_it_plans_and_audits_the_same(found: Collected) -> None:
    full = read(snapshot_file.content(found))
    bare = read(made(snapshot_file.content(found)))
    asked = plan.PlanRequest()
    one, other = (plan.planned(known.planning(), asked) for known in (full, bare))
    assert [places(place) for place in one.placements] == [places(p) for p in other.placements]
    assert len(one.warnings) == len(other.warnings)
    assert findings(full) == findings(bare)


def places(one: Placement) -> Placement:
    """A placement without whose it is."""
    return replace(one, guest="", uuid="", why="")


def findings(known: Snapshot) -> list[tuple[str, str, int]]:
    """Rule and severity of each finding, by guest's place."""
    scene = audit_input.audited(known.audit()).scene
    order = {one.guest.key: at for at, one in enumerate(scene.guests)}
    result = check(scene, list(all_rules().values()), [])
    return sorted(
        (one.rule.id, one.severity.value, order[one.guest.guest.key] if one.guest else -1)
        for one in result.findings
    )


# --- nothing is left ------------------------------------------------------------------------------

SECRET = "Zanzibar"
ADDRESS = "52:54:00:5e:c4:e7"
ID = "5ec4e700-1111-4222-8333-0123456789ab"


def secret_host() -> Collected:
    """A host with a secret in whatever is written by others."""
    found = live()
    xml = (DATA / "secrets/everything.xml").read_text().replace("secret-", f"{SECRET.lower()}-")
    document = named(xml, f"{SECRET} guest", ID)
    now = Pins({0: "2"}, "0-7", {1: "0"})
    held = Placement(
        f"{SECRET} guest", ID, PlacementKind.SHARED, (0,), {0: "2"}, "0-1", {}, None,
        f"shares its node with {SECRET} guest and {SECRET}-off",
    )  # fmt: skip
    described = DescribedGuest(document, now, {0: 5}, held)
    host = replace(
        HOST, cpusets={"/machine": frozenset(range(8)), f"/machine/{SECRET}": frozenset({1})}
    )
    note = (
        f"guest {SECRET} guest: NIC {ADDRESS}, /srv/{SECRET}/a.qcow2: no such file; "
        f"/etc/udev/rules.d/60-{SECRET}.rules:3, /etc/tuned/{SECRET}-profile/tuned.conf, "
        f"/sys/class/net/br-{SECRET}/mtu, /run/libvirt/qemu/{SECRET}.pid; "
        "cannot connect to '/var/run/libvirt/virtqemud-sock'"
    )
    known = planning_input.of(host, [("x", described)], (note,))
    facts = replace(
        FACTS,
        subnets=Fact({"10.20.30.0/24": (f"br-{SECRET}",)}, ""),
        links=Fact({f"br-{SECRET}": NetworkLink(1500), "eth0": NetworkLink(1, f"br-{SECRET}")}, ""),
        backing=Fact(
            {"sda": BackingDisk((f"{SECRET} guest",), "none", "bfq", f"{SECRET}-off")}, ""
        ),
        profiles=Fact((f"{SECRET}-profile", "virtual-host-plus"), ""),
        kvm=Fact(None, f"/srv/{SECRET}/kvm: Permission denied"),
    )
    audit = AuditSources(
        host,
        facts,
        (
            GuestDocument(f"{SECRET} guest", document, profile=Fact(f"{SECRET} mine", "")),
            GuestDocument(f"{SECRET}-off", "<domain", running=False),
        ),
        ((f"{SECRET}-lost", f"the XML of {SECRET}-lost cannot be read"),),
    )
    assert found.state is not None
    row = replace(
        found.state.rows.get()[0], guest=f"{SECRET} guest", uuid=ID, why=f"with {SECRET}-off",
        mend=(f"virsh vcpupin '{SECRET} guest' 0 1",),
    )  # fmt: skip
    change = {
        "when": "2026-11-28T03:00:00.000+01:00",
        "before": "",
        "after": "0-1",
        "why": "placed",
    }
    past = {
        "plugin": "vm_pinning",
        "setting": f"{SECRET} of old pins",
        "path": f"libvirt guest {ID}",
    }
    weight = f"{SECRET}old#{ID}.3/device_weight /srv/{SECRET}.img"
    weighed = {"plugin": "vm_blkio", "setting": weight, "path": weight}
    status = {
        **found.state.status.get(),
        "profile": f"{SECRET}-profile virtual-host-plus",
        "pending": {f"vm_pinning {SECRET} guest": f"{SECRET}-off is in the way"},
        "differing": [f"pins of {SECRET}-off"],
    }
    state = replace(
        found.state,
        rows=Fact([row], ""),
        status=Fact(status, ""),
        changes=Fact({"changes": [{**change, **past}, {**change, **weighed}]}, ""),
        settings=Fact(
            {
                "/etc/tuned/virtual-host-plus-variables.conf": f"# for {SECRET}\nksm_mode=auto\n"
                f"vm_devices={SECRET}*\nvm_policy.{SECRET}=dedicated\n[{SECRET}]\nvm_uri=qemu+ssh://"
                f"{SECRET}@10.20.30.40/system\nhugepages_1G=0:4, 1:4\n\nvm_housekeeping=0-1,8\n"
            },
            "",
        ),
        disks=Fact(None, f"{SECRET} guest: hangs"),
    )
    return replace(
        found,
        host=f"{SECRET}.example",
        planning=Fact(known, ""),
        audit=Fact(audit, ""),
        state=state,
    )


def test_nothing_of_others_is_left() -> None:
    content = made(snapshot_file.content(secret_host()))
    text = json.dumps(content)
    assert re.findall(rf"(?i).{{0,30}}(?:{SECRET}|10\.20\.30|5ec4e7|5e:c4).{{0,10}}", text) == []
    head = content["redacted"]
    assert head["by"] == f"tuned-virt {__version__}"
    assert head["counts"]["guests' names"] == 7
    assert head["counts"]["comments"] == 2
    configured = content["configured"]["value"]
    assert [one["name"] for one in configured["guests"]] == ["guest-1"]
    assert configured["guests"][0]["profile"] == {"value": "profile-2 profile-3"}
    assert configured["unreadable"] == [
        ["guest-3", "the XML of guest-3 cannot be read"],
        ["guest-4", "line 1: unclosed token"],
    ]


def test_settings_keep_their_lines_and_what_names_nobody() -> None:
    content = made(snapshot_file.content(secret_host()))
    [text] = content["state"]["settings"]["value"].values()
    assert text.splitlines() == [
        "# redacted",
        "ksm_mode=auto",
        "vm_devices=redacted",
        "vm_policy.redacted=dedicated",
        "# redacted",
        "vm_uri=redacted",
        "hugepages_1G=0:4, 1:4",
        "",
        "vm_housekeeping=0-1,8",
    ]


def test_a_redacted_snapshot_is_read_and_reported(tmp_path: Path) -> None:
    file = tmp_path / "host.json"
    file.write_text(json.dumps(made(snapshot_file.content(secret_host()))))
    given_ = report_input.of_snapshot(str(file))
    assert given_.source == f"the snapshot {file}, redacted"
    assert given_.host == "host-1"
    [row] = given_.rows.get()
    assert row.mend[0].startswith("virsh vcpupin 'guest-")


def test_golden() -> None:
    """REGENERATE_GOLDEN=1 writes it anew; read the difference before you commit it."""
    content = made(snapshot_file.content(secret_host()))
    content["redacted"]["by"] = "tuned-virt VERSION"
    content["host"] = "as it was"
    text = json.dumps(content, indent=1) + "\n"
    if os.environ.get("REGENERATE_GOLDEN"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


def test_what_only_files_say_has_no_host() -> None:
    known = planning_input.of(HOST, [("x", DescribedGuest(DOCUMENTS[0]))])
    content = made(snapshots.content(known))
    assert (content["host_name"], content["role"], content["state"]) == ("", None, None)
    unread = {**snapshots.content(known), "configured": {"why": f"/srv/{SECRET}: hangs"}}
    assert made(unread)["configured"] == {"why": "/redacted/disk-1: hangs"}


@pytest.mark.parametrize("name", ["never", "none", "running", "host", "0", "12", "100"])
def test_words_of_ours_are_kept_where_a_guest_is_called_so(name: str) -> None:
    """And its name is not: where it may be one, it is replaced."""
    known = planning_input.of(HOST, [("x", DescribedGuest(named(DOCUMENTS[0], name, ID)))])
    content = {**snapshots.content(known), "state": snapshot_file.content(live())["state"]}
    found = read(made(content))
    assert found.planning().guests[0].name.startswith("guest-")
    state = found.state()
    assert state is not None
    assert state.hugepages.value and state.changes.value and state.rows.value


def test_a_mediated_device_is_the_same_in_the_host_and_in_its_guest() -> None:
    uuid = "c2177883-f1bb-47f0-914d-32a22e3a8804"
    using = Replacements([], [])
    host = {"notes": [], "cpusets": {}, "devices": {"0000:3b:00.0": 0, uuid: 1}}
    found = redaction._host(host, using)["devices"]
    assert found == {"0000:3b:00.0": 0, using.uuid(uuid): 1}
    assert uuid not in found
