# SPDX-License-Identifier: GPL-2.0-or-later
"""From the last release to this one: settings, the enabled profile and edits stay."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.placement import machine
from scripts import release
from tests import hosttrees
from tests.packages import last_release
from tests.packages.conftest import Built
from tests.packages.roots import Root
from tests.packages.test_deb import apt, put
from tests.sandbox import PYTHON
from tuned_virt.frozen_dataclasses import replace
from tuned_virt.model.guest import Guest, read_guest
from tuned_virt.model.topology import Host
from tuned_virt.placement import Placement, PlacementKind, PlacementPolicy, plan
from tuned_virt.plugins.vm_pinning.held_placements import placement_of

HOST = "/etc/tuned/virtual-host-plus-variables.conf"


@pytest.fixture(scope="module")
def last(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last release's source."""
    return last_release.source(tmp_path_factory.mktemp("last"))


def every_setting(last: Path, profile: str) -> str:
    """The settings file as it was delivered, with each setting in force at its default."""
    text = (last / f"profiles/{profile}-variables.conf").read_text()
    return re.sub(r"^#(\w+=)", r"\1", text, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("profile", "count"), [("virtual-host-plus", 75), ("virtual-guest-plus", 24)]
)
def test_each_setting_is_still_taken(
    profile: str, count: int, last: Path, root: Root, debs: Built
) -> None:
    apt(
        root, "install", *put(root, debs.now, "tuned-virt-plus", f"tuned-virt-plus-{profile[8:-5]}")
    )
    file = root.path / f"etc/tuned/{profile}-variables.conf"
    file.write_text(every_setting(last, profile))
    told = root.run("tuned-virt", "check-settings")
    assert f"right for {profile} ({count} set)" in told


def test_debian_packages(last: Path, root: Root, debs: Built) -> None:
    before = root.files()
    apt(root, "install", *put(root, last_release.debs(last), *last_release.NAMES))
    assert root.run("tuned-virt", "--version") == f"tuned-virt-plus {last_release.VERSION}\n"
    root.run("tuned-virt", "enable", "virtual-host-plus")
    edited = root.path / HOST.lstrip("/")
    edited.write_text("ksm_mode=off\nvm_policy=dedicated\n")
    keep = ("-o", "Dpkg::Options::=--force-confold")
    apt(root, *keep, "install", *put(root, debs.now, *last_release.NAMES))
    assert root.run("tuned-virt", "--version") == f"tuned-virt-plus {release.version()}\n"
    assert root.text("/etc/tuned/active_profile") == "virtual-host-plus\n"
    assert edited.read_text() == "ksm_mode=off\nvm_policy=dedicated\n"
    assert "right for virtual-host-plus (2 set)" in root.run("tuned-virt", "check-settings")
    apt(root, "remove", "tuned-virt-plus")
    assert root.text("/etc/tuned/active_profile") == ""
    root.run("dpkg", "--purge", *last_release.NAMES)
    for folder in {debs.now.name, "deb"}:
        shutil.rmtree(root.path / folder, ignore_errors=True)
    assert root.files().keys() - before.keys() == set(), "nothing of either version is left"


def test_rpms(last: Path, root: Root, tmp_path: Path, rpms: Built) -> None:
    """By rpm: what dnf makes of dependencies is in test_rpm.py."""
    built = last_release.rpms(last, tmp_path / "last", "--define", "'rhel 9'")
    before = root.files()

    def of(folder: Path, version: str) -> list[str]:
        files = (folder / f"{name}-{version}-1.noarch.rpm" for name in last_release.NAMES)
        return [
            str(next(folder.glob(f"{file.stem.rpartition('.noarch')[0]}*.rpm"))) for file in files
        ]

    def rpm(*arguments: str) -> None:
        done = root.outside(["rpm", "--root", root.inside, "--nodeps", *arguments])
        assert done.returncode == 0, done.stdout + done.stderr

    rpm("-i", *of(built, last_release.VERSION))
    root.run("tuned-virt", "enable", "virtual-host-plus")
    edited = root.path / HOST.lstrip("/")
    edited.write_text("ksm_mode=off\n")
    rpm("-U", *of(rpms.now, release.version()))
    assert root.run("tuned-virt", "--version") == f"tuned-virt-plus {release.version()}\n"
    assert root.text("/etc/tuned/active_profile") == "virtual-host-plus\n"
    assert edited.read_text() == "ksm_mode=off\n"
    rpm("-e", *last_release.NAMES)
    assert root.text("/etc/tuned/active_profile") == ""
    left = root.files().keys() - before.keys()
    assert {path for path in left if not path.startswith("/root/.rpmdb")} <= {
        f"{HOST}.rpmsave",
        f"{HOST}.rpmnew",
    }


# --- guests that the last release has placed ------------------------------------------------------

SCENES = 100
PLANNED_BEFORE = """
import dataclasses, json, sys
from tuned_virt.guest.reader import read
from tuned_virt.placement import parse, plan
from tuned_virt.topology import Host
made = []
for scene in json.load(sys.stdin):
    guests = [read(one) for one in scene["guests"]]
    found = plan(Host.from_xml(scene["host"]), guests, parse({}), {})
    made.append([dataclasses.asdict(one) for one in found.placements])
json.dump(made, sys.stdout)
"""
WISH = "<metadata><policy xmlns='urn:tuned-virt-plus:policy:1' policy='dedicated'/></metadata>"
GUEST = """<domain type='kvm'><name>guest{number}</name>
<uuid>{number:08}-0000-4000-8000-000000000001</uuid>{wish}
<memory unit='GiB'>{gib}</memory><vcpu>{vcpus}</vcpu></domain>"""


def scene(draw: random.Random) -> dict[str, Any]:
    """A host and its guests, one in six of which asks for CPUs of its own."""
    nodes, cpus = draw.choice((1, 2, 2, 4)), draw.choice((4, 8, 16, 32))
    host = machine(nodes, cpus, draw.choice((64, 128, 256)), threads=2)
    return {
        "host": hosttrees.capabilities(host),
        "guests": [
            GUEST.format(
                number=number,
                wish=draw.choice((WISH, *[""] * 5)),
                gib=draw.choice((1, 2, 4, 8, 16)),
                vcpus=draw.choice((1, 2, 2, 4, 4, 8, 16)),
            )
            for number in range(1, draw.randint(2, 24))
        ],
    }


def running(guest: Guest, placed: Placement) -> Guest:
    """A guest that has run where it was placed."""
    return replace(guest, resident={placed.nodes[0]: guest.memory} if placed.nodes else {})


def test_guests_that_were_placed_stay_but_for_the_rule_on_cores(last: Path) -> None:
    """Whose CPUs are dedicated keep them; others keep their nodes, or say which rule has moved
    them. Nobody loses a place."""
    draw = random.Random(0)
    scenes = [scene(draw) for _ in range(SCENES)]
    done = subprocess.run(
        [PYTHON, "-c", PLANNED_BEFORE],
        cwd=last, input=json.dumps(scenes), capture_output=True, text=True, check=True,
    )  # fmt: skip
    kept = {kind: 0 for kind in (PlacementKind.DEDICATED, PlacementKind.SHARED)}
    moved = 0
    for one, made in zip(scenes, json.loads(done.stdout)):
        before = {placed.uuid: placed for placed in map(placement_of, made)}
        guests = [running(guest, before[guest.uuid]) for guest in map(read_guest, one["guests"])]
        current = {uuid: placed for uuid, placed in before.items() if placed.vcpus}
        found = plan(Host.from_xml(one["host"]), guests, PlacementPolicy(), current)
        for now in found.placements:
            then = before[now.uuid]
            if then.kind is PlacementKind.DEDICATED:
                assert (now.kind, now.vcpus) == (then.kind, then.vcpus)
            if then.kind is PlacementKind.SHARED and then.nodes != now.nodes:
                moved += 1
                assert now.nodes and "before a guest loses over 10 % of its cores" in now.why
            elif then.vcpus:
                kept[then.kind] += 1
    assert min(kept.values()) > SCENES
    assert moved < kept[PlacementKind.SHARED] // 5
