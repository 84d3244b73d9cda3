# SPDX-License-Identifier: GPL-2.0-or-later
"""Plans and audits of many hosts: a line each, whatever is wrong with another one."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import snapshots
from tuned_virt.cli import fleet, json_output, main, planning_input, snapshot_file
from tuned_virt.cli.fleet import FleetHost, HostResult
from tuned_virt.cli.planning_input import DescribedGuest
from tuned_virt.cli.snapshot_file import Snapshot
from tuned_virt.model.topology import Host

DATA = Path(__file__).parents[2] / "data"
HOST = Host.from_xml((DATA / "hosts/two-nodes.xml").read_text())
GUEST = (DATA / "guests/web.xml").read_text()


def line(name: str, xml: str = GUEST) -> str:
    """A host's snapshot with one guest."""
    known = planning_input.of(HOST, [("x", DescribedGuest(xml))])
    content = {**snapshots.content(known), "host_name": name}
    return json.dumps(json_output.document("snapshot", content))


GOOD, LARGE = line("good"), line("large", re.sub(r"<vcpu[^>]*>\d+", "<vcpu>64", GUEST))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good host, two that cannot be read, and a file with two more."""
    made = tmp_path / "fleet"
    made.mkdir()
    (made / "a.json").write_text(GOOD)
    (made / "b.json").write_text('{"format": 2')
    (made / "c.json").write_bytes(b"\xff\xfe")
    (made / "d.jsonl").write_text(f"{GOOD}\n\n{LARGE}\n")
    (made / "notes.txt").write_text("no snapshot")
    return made


Printed = Callable[..., "tuple[int, list[dict[str, Any]]]"]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    """Runs a command; its exit status and the documents that it prints."""

    def run(*words: object) -> tuple[int, list[dict[str, Any]]]:
        code = main(list(map(str, words)))
        return code, [json.loads(one) for one in capsys.readouterr().out.splitlines()]

    return run


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(("command", "key"), [("plan", "placements"), ("audit", "findings")])
def test_a_line_for_each_in_order_and_a_broken_one_stops_nobody(
    command: str, key: str, jobs: int, folder: Path, printed: Printed
) -> None:
    code, lines = printed(command, "--snapshots", folder, "--jobs", jobs)
    assert code == 2
    assert [one["host"].removeprefix(f"{folder}/") for one in lines] == [
        *("a.json", "b.json", "c.json", "d.jsonl:1", "d.jsonl:3")
    ]
    assert [one.get("host_name") for one in lines] == ["good", None, None, "good", "large"]
    assert [key in one for one in lines] == [True, False, False, True, True]
    assert "line 1" in lines[1]["error"]
    assert "it is not UTF-8 text" in lines[2]["error"]


def test_the_same_as_of_one_host(folder: Path, printed: Printed) -> None:
    file = folder / "a.json"
    _, [alone] = printed("plan", "--snapshot", file, "--json")
    _, [one] = printed("plan", "--snapshots", file)
    assert one == {**alone, "host": f"{file}:1", "host_name": "good"}


def test_standard_input_and_exit_status(monkeypatch: pytest.MonkeyPatch, printed: Printed) -> None:
    for text, status in ((f"{GOOD}\n{GOOD}\n", 0), (f"{GOOD}\n{LARGE}\n", 1), (f"{GOOD}\n[]", 2)):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        words = ("--rule", "cpu-over-host", "--snapshots", "-")
        code, lines = printed("audit", *words)
        assert code == status
        assert [one["host"] for one in lines] == ["standard input:1", "standard input:2"]
    assert lines[1]["error"].startswith("standard input:2: not a snapshot of tuned-virt")


def test_a_policy_is_for_each(folder: Path, printed: Printed) -> None:
    _, lines = printed("plan", "--snapshots", folder / "d.jsonl", "--set", "policy=dedicated")
    assert lines[0]["placements"][0]["kind"] == "dedicated"
    assert lines[1]["placements"][0]["ungranted"] == "policy=dedicated"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--snapshots", "FOLDER", "--host", "x"], "--host does not go with --snapshots"),
        (["--snapshots", "FOLDER", "--snapshot", "x"], "--snapshot does not go with --snapshots"),
        (["--summary"], "--summary is for many hosts: give their snapshots with --snapshots"),
        (["--jobs", "2"], "--jobs is for many hosts"),
        (["--snapshots", "FOLDER/none"], "No such file or directory"),
        (["--snapshots", "FOLDER/empty"], "there is no snapshot in it"),
    ],
)
def test_what_does_not_go(
    words: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "empty").mkdir()
    for command in ("plan", "audit"):
        given = [one.replace("FOLDER", str(folder)) for one in words]
        assert main([command, *given]) == 2
        assert said in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["plan", "--snapshots", str(folder), "--jobs", "0"])


def test_summaries(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--snapshots", str(folder), "--rule", "cpu", "--summary"]) == 2
    text = capsys.readouterr().out
    assert text.startswith("hosts     3 checked, 2 could not be read\n")
    assert f"failed    {folder}/b.json: line 1: " in text
    assert re.search(r"(?m)^cpu-over-host +error +1 +1$", text)
    assert f"large ({folder}/d.jsonl:3)" in text
    assert main(["plan", "--snapshots", str(folder), "--summary", "--json"]) == 2
    content = json.loads(capsys.readouterr().out)
    assert content["of"] == "plan"
    assert content["hosts"] == {"done": 3, "failed": 2}
    assert sum(content["guests"].values()) == 3


# --- bounds ---------------------------------------------------------------------------------------


def test_a_line_that_is_too_long_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(fleet, "MOST_BYTES", 10)
    file = tmp_path / "x.jsonl"
    file.write_text(f"first\n{'x' * 95}\n0123456789\nlast")
    hosts = list(fleet._hosts(str(file)))
    assert [one.text for one in hosts] == [b"first\n", b"", b"0123456789\n", b"last"]
    assert hosts[1].error == f"{file}:2: longer than 10 bytes"


def endless() -> Iterator[FleetHost]:
    """More hosts than there could be; each is counted as it is taken."""
    for number in itertools.count():
        TAKEN.append(number)
        yield FleetHost(f"x:{number}", GOOD.encode())


TAKEN: list[int] = []


def name_of(known: Snapshot) -> HostResult:
    return HostResult({"host_name": known.host_name}, 0)


@pytest.mark.parametrize("jobs", [1, 2])
def test_only_as_many_are_read_as_are_worked_on(jobs: int) -> None:
    TAKEN.clear()
    results = fleet._results(endless(), name_of, jobs)
    assert [next(results)[0] for _ in range(3)] == ["x:0", "x:1", "x:2"]
    assert len(TAKEN) <= 3 + jobs
    results.close()  # type: ignore[attr-defined]


def killed(known: Snapshot) -> HostResult:
    if known.host_name == "large":
        os.kill(os.getpid(), signal.SIGKILL)
    return name_of(known)


def faulty(known: Snapshot) -> HostResult:
    raise KeyError(known.host_name)


def test_a_process_that_is_killed_takes_one_host_with_it() -> None:
    texts = [GOOD, GOOD, LARGE, GOOD, GOOD]
    hosts = (FleetHost(f"x:{at}", text.encode()) for at, text in enumerate(texts))
    found = [one.content for _, one in fleet._results(hosts, killed, 2)]
    assert [one.get("host_name") for one in found] == ["good", "good", None, "good", "good"]
    assert found[2]["error"] == "x:2: its process ended: it ran out of memory, or crashed"


def test_a_fault_of_ours_is_said_with_its_host() -> None:
    [(_, found)] = fleet._results(iter([FleetHost("x:1", GOOD.encode())]), faulty, 1)
    assert found == HostResult({"error": "x:1: a fault of tuned-virt: KeyError: 'good'"}, 2)


def test_a_redacted_stream_is_planned_too() -> None:
    known = snapshot_file.parse(GOOD, "x")
    assert known.host_name == "good"
    assert not known.redacted
