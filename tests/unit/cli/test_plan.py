# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt plan, snapshot and map: what they read, what they print, how they end."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests import snapshots
from tuned_virt import __version__
from tuned_virt.cli import (
    collection,
    main,
    plan,
    plan_text,
    planning_input,
    processes,
    snapshot_file,
)
from tuned_virt.cli.planning_input import DescribedGuest
from tuned_virt.kernel import numa_maps
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.kernel.numa_maps import Area
from tuned_virt.libvirt_api import worker
from tuned_virt.model.guest import read_guest
from tuned_virt.model.pins import Pins
from tuned_virt.model.topology import Host
from tuned_virt.placement import (
    MemoryPlacement,
    Placement,
    PlacementKind,
    PlacementMode,
    PlacementPolicy,
)
from tuned_virt.placement.policy import Smt
from tuned_virt.plugins.vm_pinning import held_placements
from tuned_virt.plugins.vm_pinning import policy as pinning
from tuned_virt.plugins.vm_pinning.held_placements import HeldPlacement

ROOT = Path(__file__).parents[3]
DATA = ROOT / "tests/data"
HOST = DATA / "hosts/two-nodes.xml"
GUESTS = [str(DATA / f"guests/{name}.xml") for name in ("db", "web", "legacy", "huge")]
SOURCES = ["--host", str(HOST), "--guest", *GUESTS]
ONE_EACH = ["--set", "overcommit=1"]
TWO_NODES = Host.from_xml(HOST.read_text())
REGENERATE = os.environ.get("REGENERATE_GOLDEN") == "1"
"""REGENERATE_GOLDEN=1 writes the golden files anew; read their difference before you commit it."""


def document(name: str) -> str:
    return (DATA / f"guests/{name}.xml").read_text()


# --- golden files ---------------------------------------------------------------------------------


def golden(name: str, text: str) -> None:
    file = DATA / "golden" / name
    if REGENERATE:
        file.write_text(text)
    assert text == file.read_text(), f"{name}: REGENERATE_GOLDEN=1 writes it anew"


def test_the_printed_plan(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *SOURCES, *ONE_EACH]) == 1, "one guest has no room"
    text = re.sub(r" +$", "", capsys.readouterr().out, flags=re.MULTILINE)
    golden("plan.txt", text)
    assert max(map(len, text.splitlines())) <= plan_text.WIDE


def test_the_plan_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *SOURCES, "--json", *ONE_EACH]) == 1
    text = capsys.readouterr().out
    golden("plan.json", text.replace(__version__, "VERSION"))
    content = json.loads(text)
    assert list(content) == ["version", "kind", "placements", "warnings", "cores"]
    keys = ["guest", "uuid", "kind", "nodes", "vcpus", "emulator", "iothreads", "memory", "why"]
    keys.append("ungranted")
    assert all(list(one) == keys for one in content["placements"])
    kinds = {one["guest"][:3]: one["kind"] for one in content["placements"]}
    assert kinds == {"a-g": "unplaced", "db": "dedicated", "leg": "owner", "web": "shared"}


def test_the_map(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["map", *SOURCES, "-o", str(tmp_path / "map.svg"), *ONE_EACH]) == 0
    golden("map.svg", (tmp_path / "map.svg").read_text().replace("><", ">\n<"))
    assert main(["map", *SOURCES, *ONE_EACH]) == 0
    golden("map.txt", capsys.readouterr().out)
    assert main(["map", *SOURCES, "--json"]) == 0
    drawn = json.loads(capsys.readouterr().out)
    assert [node["node"] for node in drawn["nodes"]] == [0, 1]
    [dedicated] = [llc["dedicated"] for llc in drawn["nodes"][0]["llcs"] if llc["dedicated"]]
    assert set(dedicated.values()) == {"db"}
    main(["plan", *SOURCES, "--json"])
    assert json.loads(capsys.readouterr().out)["placements"] == drawn["placements"]


# --- the policy -----------------------------------------------------------------------------------


def test_the_shipped_settings_file_asks_for_the_plugins_defaults() -> None:
    asked = plan.read_asked(str(ROOT / "profiles/virtual-host-plus-variables.conf"), [])
    assert asked == plan.PlanRequest(pinning.parse({}), "*")
    assert asked.policy.placement.policy is PlacementMode.NODE


def test_excluded_guests_are_not_planned(tmp_path: Path) -> None:
    file = tmp_path / "v.conf"
    file.write_text("vm_devices=db*\nvm_exclude=db1, web2\n")
    assert plan.read_asked(str(file), []).devices == "db* !db1 !web2"


def test_variables_and_options_on_top(tmp_path: Path) -> None:
    file = tmp_path / "v.conf"
    file.write_text(
        "# vm_smt=require\nvm_policy = dedicated  # text\nvm_devices=db*\nksm_mode=off\n"
    )
    asked = plan.read_asked(str(file), ["smt=isolate", "running=leave"])
    assert asked == plan.PlanRequest(
        pinning.PinningPolicy(
            PlacementPolicy(policy=PlacementMode.DEDICATED, smt=Smt.ISOLATE),
            running=pinning.RunningGuests.LEAVE,
        ),
        "db*",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\nvm_smt=maybe\n", "line 2: 'vm_smt=maybe' is not valid: one of prefer"),
        ("vm_running=x\n", "line 1: 'vm_running=x' is not valid: one of local"),
        (
            "vm_policy=node\n\nno such thing\n",
            "line 3: 'no such thing' is not of the form NAME=VALUE",
        ),
    ],
)
def test_bad_variables_are_named_with_their_line(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "v.conf"
    file.write_text(text)
    for command in ("plan", "map"):
        assert main([command, *SOURCES, "--policy", str(file)]) == 2
        assert f"{file}: {said}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "smt"], "--set smt: write it as OPTION=VALUE"),
        (["--set", "vm_smt=require"], "no such option; use one of policy, smt"),
        (["--set", "overcommit=-1"], "option 'overcommit': '-1'"),
        (["--policy", "/no/such/file"], "/no/such/file: there is no such file"),
        (["--snapshot", str(HOST), "--json"], ""),
    ],
)
def test_what_cannot_be_read(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *SOURCES, *words]) == 2
    assert said in capsys.readouterr().err


def test_guests_without_a_host(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--guest", GUESTS[0]]) == 2
    assert "--guest needs --host" in capsys.readouterr().err


# --- guests that run ------------------------------------------------------------------------------

EVERYWHERE = Pins(dict.fromkeys(range(3), "0-15"), "0-15")
HELD = Placement(
    "web", "00000000-0000-4000-8000-000000000002", PlacementKind.SHARED, (1,),
    dict.fromkeys(range(3), "8-15"), "8-15", {}, MemoryPlacement("move", "1"), "it is there",
)  # fmt: skip
SPREAD = {0: 600 << 10, 1: 400 << 10}
ASKED = plan.PlanRequest(pinning.PinningPolicy())


def one(described: DescribedGuest, asked: plan.PlanRequest = ASKED) -> Placement:
    [placed] = plan.planned(planning_input.of(TWO_NODES, [("web", described)]), asked).placements
    return placed


def test_a_guest_that_is_held_stays_and_nothing_changes() -> None:
    now = Pins(HELD.vcpus, HELD.emulator)
    described = DescribedGuest(document("web"), now, {1: 1 << 20}, HELD)
    placed = one(described)
    assert placed == HELD
    guest = planning_input.of(TWO_NODES, [("web", described)]).guests[0]
    assert list(plan_text.changes(guest, placed, now)) == []


def test_only_what_differs_is_a_change() -> None:
    now = Pins({0: "8-15", 1: "0-15", 2: "8-15"}, "0-3")
    guest = read_guest(document("web"))
    some = list(plan_text.changes(guest, HELD, now))
    assert [(change.what, change.number, change.before) for change in some] == [
        ("vCPU", 1, "0-15"),
        ("emulator", None, "0-3"),
    ]
    assert list(plan_text.commands(HELD, some)) == [
        "virsh vcpupin web 1 8-15 --live",
        "virsh emulatorpin web 8-15 --live",
    ]


@pytest.mark.parametrize(
    ("running", "resident", "kind", "why"),
    [
        (pinning.RunningGuests.LOCAL, {0: 1, 1: 1 << 20}, PlacementKind.SHARED, "node 1"),
        (
            pinning.RunningGuests.LOCAL,
            SPREAD,
            PlacementKind.UNPLACED,
            "spread (60 % on node 0, 40 % on node 1)",
        ),
        (pinning.RunningGuests.LOCAL, {}, PlacementKind.UNPLACED, "is unknown"),
        (pinning.RunningGuests.LEAVE, {1: 1}, PlacementKind.UNPLACED, "running=leave"),
        (
            pinning.RunningGuests.PLACE,
            SPREAD,
            PlacementKind.SHARED,
            "0.4 GiB of its memory is elsewhere",
        ),
    ],
)
def test_guests_that_ran_before(
    running: pinning.RunningGuests, resident: dict[int, int], kind: PlacementKind, why: str
) -> None:
    asked = plan.PlanRequest(pinning.PinningPolicy(running=running))
    placed = one(DescribedGuest(document("web"), EVERYWHERE, resident), asked)
    assert placed.kind is kind
    assert why in placed.why


def shown(
    capsys: pytest.CaptureFixture[str], described: DescribedGuest, persist: pinning.Persist
) -> str:
    asked = plan.PlanRequest(replace(plan.PLANNED, persist=persist))
    gathered = planning_input.of(TWO_NODES, [("web", described)])
    made = plan.planned(gathered, asked)
    plan_text.show(gathered, made, persist, plan.later(gathered, asked))
    return capsys.readouterr().out


def test_what_is_only_configured_changes_no_running_guest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = shown(capsys, DescribedGuest(document("web"), EVERYWHERE), pinning.Persist.CONFIG)
    assert "\nNothing changes.\n\nChanges when these guests start again (persist=config):" in text
    assert "web: when it starts again (persist=config): " in text
    assert "virsh vcpupin web 0 0-7 --config\n" in text
    assert "--live" not in text


def test_what_was_placed_before_is_kept_up_whatever_persist_says() -> None:
    held = DescribedGuest(document("web"), Pins(HELD.vcpus, HELD.emulator), held=HELD)
    asked = plan.PlanRequest(replace(plan.PLANNED, persist=pinning.Persist.CONFIG))
    gathered = planning_input.of(TWO_NODES, [("web", held)])
    assert not plan.later(gathered, asked)


def test_a_guest_that_is_to_start_is_placed_after_its_grace() -> None:
    asked = plan.PlanRequest(replace(plan.PLANNED, grace=30))
    assert one(DescribedGuest(document("web")), asked).why.startswith(
        "30 s after its start (grace)"
    )
    assert "grace" not in one(DescribedGuest(document("web"), EVERYWHERE), asked).why


def test_both_is_typed_for_both(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, DescribedGuest(document("web"), EVERYWHERE), pinning.Persist.BOTH)
    assert "\nChanges:\n" in text
    assert "virsh vcpupin web 0 0-7 --live --config\n" in text


def test_memory_that_is_elsewhere_is_a_change_without_a_command() -> None:
    described = DescribedGuest(document("web"), EVERYWHERE, SPREAD)
    gathered = planning_input.of(TWO_NODES, [("web", described)])
    [placed] = plan.planned(gathered, plan.PlanRequest()).placements
    [*_, last] = plan_text.changes(gathered.guests[0], placed, EVERYWHERE)
    assert (last.what, last.before, last.after) == (
        "memory", "0.6 GiB on 0, 0.4 GiB on 1", "all on 0"
    )  # fmt: skip
    assert list(plan_text.commands(placed, [last])) == []


@pytest.mark.parametrize("devices", ["db*", "!web", f"!{HELD.uuid}", "* !we?"])
def test_guests_that_are_not_selected_are_left(devices: str) -> None:
    placed = one(DescribedGuest(document("web")), plan.PlanRequest(devices=devices))
    assert (placed.kind, placed.why) == (
        PlacementKind.UNPLACED, f"not selected by devices={devices}"
    )  # fmt: skip


def test_a_snapshot_keeps_where_guests_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    held = Placement(**{**HELD.__dict__, "memory": MemoryPlacement("move", "0-1", {0: 0, 1: 1})})
    described = DescribedGuest(
        document("web"), Pins(HELD.vcpus, "8-15", {}, ("strict", "1")), {1: 5}, held
    )
    gathered = planning_input.of(TWO_NODES, [("web", described)], ("a note",))
    monkeypatch.setattr(collection, "here", lambda fs: snapshots.collected(gathered))
    file = tmp_path / "host.json"
    assert main(["snapshot", "--no-redact", "-o", str(file)]) == 0
    assert snapshot_file.load(str(file)).planning() == gathered
    capsys.readouterr()
    assert main(["plan", "--snapshot", str(file), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["warnings"] == ["a note"]
    assert content["placements"][0]["why"] == "it is there"
    assert main(["map", "--snapshot", str(file)]) == 0
    assert "floating: web" in capsys.readouterr().out


# --- this host ------------------------------------------------------------------------------------


@pytest.fixture
def kernel(tmp_path: Path) -> KernelFS:
    """A made-up /proc with one QEMU process, as libvirt starts it."""
    uuid = "00000000-0000-4000-8000-000000000009"
    words = (
        *("qemu-system-x86_64", "-name", "guest=vm1,debug-threads=on", "-uuid", uuid),
        *("-m", "size=2097152k", "-smp", "2", "-machine", "q35,mem-merge=off"),
        *("-device", '{"driver":"vfio-pci","host":"0000:3b:00.1","id":"hostdev0"}'),
    )
    files = {
        "sys/devices/system/cpu/online": "0-7\n",
        "proc/100/comm": "qemu-system-x86\n",
        "proc/100/cmdline": "\0".join(words) + "\0",
        "proc/100/statm": "9999 5000 0\n",
        "proc/100/maps": "7f0000000000-7f0004000000 rw-p 00000000 00:00 0\n",
        "proc/100/numa_maps": "7f0000000000 default anon=300 N1=300 kernelpagesize_kB=4\n",
    }
    tasks = {
        100: ("qemu-system-x86", "0-7"),
        101: ("CPU 0/KVM", "4"),
        102: ("CPU 1/KVM", "0-7"),
        103: ("IO iothread1", "1"),
    }
    for task, (comm, cpus) in tasks.items():
        files[f"proc/100/task/{task}/comm"] = f"{comm}\n"
        files[f"proc/100/task/{task}/status"] = f"Cpus_allowed_list:\t{cpus}\n"
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return KernelFS(tmp_path)


def test_guests_without_libvirt(kernel: KernelFS) -> None:
    [(name, (pid, xml))] = processes.documents(kernel, set()).items()
    guest = read_guest(xml)
    assert (name, pid, guest.name) == ("vm1", 100, "vm1")
    assert (guest.online, guest.memory, guest.shares_pages) == ((0, 1), 2 << 20, False)
    assert guest.devices == ("0000:3b:00.1",)
    assert guest.owned.vcpus == {0: frozenset({4})}, "the other runs everywhere"
    assert guest.owned.iothreads == {1: frozenset({1})}
    assert guest.owned.emulator is None


def test_pins_of_ours_are_no_owners(kernel: KernelFS) -> None:
    [(_, xml)] = processes.documents(kernel, {100}).values()
    assert read_guest(xml).owned.vcpus == {}


def test_threads_without_names_are_counted_by_smp(kernel: KernelFS, tmp_path: Path) -> None:
    for task in (101, 102, 103):
        (tmp_path / f"proc/100/task/{task}/comm").write_text("qemu-system-x86\n")
    [(_, xml)] = processes.documents(kernel, set()).values()
    assert read_guest(xml).online == (0, 1)


@pytest.mark.parametrize("name", ["5", "-x", "a b", "$(reboot)", "x" * 60])
def test_names_that_cannot_be_typed_are_typed_as_uuid(name: str) -> None:
    change = plan_text.GuestChange("vCPU", 0, "", "1")
    [line] = plan_text.commands(replace(HELD, guest=name), [change])
    assert line == f"virsh vcpupin {HELD.uuid} 0 1 --live"


def test_the_command_line_is_that_of_hugepages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "v.conf"
    file.write_text("hugepages_1G=0:2\n")
    for words in (["--policy", str(file)], ["--set", "pages_1G=0:2"]):
        assert main(["hugepages", "cmdline", *words]) == 0
        direct = capsys.readouterr().out
        assert main(["plan", "--cmdline", *words]) == 0
        assert capsys.readouterr().out == direct
    assert main(["plan", "--cmdline", "--host", str(HOST)]) == 2
    assert "do not give files" in capsys.readouterr().err


def test_an_owners_pins_are_read_where_libvirt_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vm_pinning knows such a guest, and has not pinned it."""
    task = tmp_path / "proc/100/task"
    for thread, comm, cpus in (("100", "qemu-kvm", "0-15"), ("101", "CPU 0/KVM", "3")):
        (task / thread).mkdir(parents=True)
        (task / thread / "comm").write_text(comm)
        (task / thread / "status").write_text(f"Cpus_allowed_list:\t{cpus}\n")
    (tmp_path / "proc/100/comm").write_text("qemu-kvm")
    (tmp_path / "proc/100/cmdline").write_text(f"qemu-kvm\0-uuid\0{HELD.uuid}\0-m\0size=64m\0")
    (tmp_path / "proc/100/statm").write_text("9 9")
    (tmp_path / "sys/devices/system/cpu").mkdir(parents=True)
    (tmp_path / "sys/devices/system/cpu/online").write_text("0-15")
    monkeypatch.setattr(worker, "descriptions", lambda *_: None)
    monkeypatch.setattr(planning_input, "_by_kernel", lambda _: TWO_NODES)
    for kind, owned in ((PlacementKind.OWNER, {0: frozenset({3})}), (PlacementKind.SHARED, {})):
        known = HeldPlacement("k", HELD.uuid, "web", "web", 100, replace(HELD, kind=kind))
        held = {"qemu:///system": [known]}
        monkeypatch.setattr(held_placements, "everything", lambda held=held: held)
        [guest] = planning_input.here(KernelFS(tmp_path)).guests
        assert guest.owned.vcpus == owned


def test_memory_that_cannot_be_read_is_noted(
    kernel: KernelFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(_fs: KernelFS, pid: int) -> list[Area]:
        raise KernelFileError(f"/proc/{pid}/numa_maps", "Input/output error")

    monkeypatch.setattr(worker, "descriptions", lambda *_: None)
    monkeypatch.setattr(planning_input, "descriptions", lambda *_: None)
    monkeypatch.setattr(planning_input, "_by_kernel", lambda _: TWO_NODES)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert planning_input.here(kernel).guests[0].resident == {1: 1200}
    monkeypatch.setattr(numa_maps, "read", unreadable)
    found = planning_input.here(kernel)
    assert found.notes[-2:-1] == (
        "guest vm1: the location of its memory: cannot read /proc/100/numa_maps: Input/output"
        " error",
    )
