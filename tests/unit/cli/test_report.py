# SPDX-License-Identifier: GPL-2.0-or-later
"""`tuned-virt report`: one page with every section, or why a section is not there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests import reports
from tests.pages import checked
from tuned_virt.cli import main, page, report_input, report_view
from tuned_virt.cli.collected import Content
from tuned_virt.cli.report_input import ReportInput
from tuned_virt.frozen_dataclasses import fields, replace
from tuned_virt.model.host_facts import Fact

SECTIONS = (
    *("summary", "guests", "map", "findings", "pools", "ksm", "disks", "settings", "changes"),
    "legend",
)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> ReportInput:
    file = tmp_path_factory.mktemp("report") / "host.json"
    reports.write_snapshot(file, 24)
    return report_input.of_snapshot(str(file))


def rendered(given: ReportInput) -> str:
    return page.page("report.html.jinja", report_view.view(given))


def test_every_section_with_hostile_names_everywhere(given: ReportInput) -> None:
    """Names, settings, changes and reasons are text, and no element of the page but ours."""
    bad = "</pre></script><script>alert(1)</script><img src=x onerror=alert(1)>"
    whole = reports.whole(given)
    row = replace(
        whole.rows.get()[0], guest=bad, why=bad, mend=(bad,), drift=(bad,), delay_error=bad
    )
    status = {**reports.STATUS, "profile": bad, "differing": [bad], "notes": [bad]}
    text = rendered(
        replace(
            whole,
            host=bad,
            source=bad,
            rows=Fact([row, *whole.rows.get()], ""),
            status=Fact({**status, "pending": {bad: bad}, "originals": [bad]}, ""),
            settings=Fact({f"/etc/{bad}": f"{bad}\nksm_mode={bad}"}, ""),
            switched=Fact(bad, ""),
            disks=Fact(None, bad),
        )
    )
    parts = checked(text)
    ids = [attributes.get("id") for tag, attributes in parts.elements if tag == "section"]
    assert [one for one in ids if one] == list(SECTIONS)
    assert bad not in text
    assert bad in parts.texts["h1"]
    assert bad in parts.texts["pre"]


def test_guests_are_sorted_by_delay_those_without_one_last(given: ReportInput) -> None:
    rows = [
        replace(row, delay_percent=delay)
        for row, delay in zip(given.rows.get(), (0.0, None, 7.5, 70.0))
    ]
    shown = report_view.view(replace(given, rows=Fact(rows, "")))
    column = [row.cells[2].text for row in shown["guests"].value.rows]
    assert column == ["70.0", "7.5", "0.0", "–"]
    tile = next(one for one in shown["tiles"] if one.label == "longest delay")
    assert (tile.value, tile.level) == ("70.0 %", "error")


def test_what_needs_attention(given: ReportInput) -> None:
    """A healthy host has nothing of it; one that differs says what, and where more of it is."""
    calm = [
        replace(row, local=100.0, owner="tuned-virt", delay_percent=0.0) for row in given.rows.get()
    ]
    good = {**reports.STATUS, "verified": True, "differing": [], "pending": {}}
    quiet = replace(given, rows=Fact(calm, ""), status=Fact(good, ""))
    assert report_view.view(quiet)["attention"] == []
    assert "Nothing that is known needs attention" in rendered(quiet)
    stopped = {**good, "tuned": "TuneD is not running: systemctl start tuned", "verified": False}
    found = report_view.view(replace(quiet, status=Fact(stopped, "")))["attention"]
    assert [(one.level, one.section) for one in found] == [("error", "settings")]
    assert "systemctl start tuned" in found[0].text
    busy = [replace(calm[0], delay_percent=12.0), *calm[1:]]
    found = report_view.view(replace(quiet, rows=Fact(busy, "")))["attention"]
    assert [one.text.partition(":")[0] for one in found] == ["delay"]
    assert found[0].text.endswith("(12.0 % delay)")


def test_what_is_not_known_says_why(given: ReportInput) -> None:
    nothing: Fact[Any] = Fact(None, "only root may read it")
    parts: dict[str, Any] = {
        one.name: nothing for one in fields(given) if isinstance(getattr(given, one.name), Fact)
    }
    empty = replace(given, **parts)
    text = rendered(empty)
    without = {"summary", "legend"}
    missing = len({*SECTIONS, "profile"} - without)
    assert text.count("Not known: only root may read it.") == missing
    checked(text)


def test_nothing_found_is_good_only_where_all_was_checked(given: ReportInput) -> None:
    """A host whose guests could not be asked has no findings either."""
    counts = dict.fromkeys(("error", "warning", "info"), 0)
    clean = {"findings": [], "counts": counts, "guests": [], "not_checked": [], "notes": []}
    unknown = {"rule": None, "guest": "web", "uuid": None, "why": "libvirt is unavailable"}
    for not_checked, level in (([], "good"), ([unknown], "")):
        audit: Fact[Content] = Fact({**clean, "not_checked": not_checked}, "")
        shown = replace(given, audit=audit)
        [tile] = [one for one in report_view.view(shown)["tiles"] if one.label == "findings"]
        assert tile.level == level
        text = rendered(shown)
        assert ("No findings." in text) == (level == "good")
        assert ("<li>libvirt is unavailable: <bdi>web</bdi></li>" in text) == (level == "")


def test_a_host_with_nothing_on_it(given: ReportInput) -> None:
    """No guest, no settings file, no change: sentences, no tables without rows."""
    empty = replace(
        reports.whole(given),
        rows=Fact([], ""),
        settings=Fact({}, ""),
        changes=Fact({"changes": []}, ""),
        disks=Fact({**reports.DISKS, "disks": []}, ""),
        hugepages=Fact({**reports.PAGES, "pools": [], "guests": []}, ""),
    )
    text = rendered(empty)
    checked(text)
    tables = re.findall(r"<tbody>(.*?)</tbody>", text, re.DOTALL)
    assert tables
    assert all("<tr" in rows for rows in tables)
    assert "no settings file of virtual-host-plus or virtual-guest-plus is in force" in text


def test_disks_that_differ_come_first_then_those_with_guests(given: ReportInput) -> None:
    disk = reports.DISKS["disks"][1]
    disks = [
        {**disk, "disk": "idle", "backs": []},
        {**disk, "disk": "used"},
        {**disk, "disk": "wrong", "backs": [], "wanted": "bfq"},
        {**disk, "disk": "loop0", "backs": [], "offered": []},
    ]
    content: Fact[Content] = Fact({**reports.DISKS, "disks": disks}, "")
    table = report_view.view(replace(given, disks=content))["disks"].value["table"]
    told = [(row.cells[0].text, row.cells[4].text) for row in table.rows]
    assert told == [("wrong", "bfq (differs)"), ("used", "none"), ("idle", "none")]


def test_the_settings_are_those_of_the_file_then_the_defaults(given: ReportInput) -> None:
    tables = report_view.view(reports.whole(given))["settings"].value
    own = [[cell.text for cell in row.cells] for row in tables["set"].rows]
    file = "virtual-host-plus-variables.conf"
    assert own[:2] == [
        ["ksm_mode", "auto", f"{file}, line 1"],
        ["vm_policy", "node", f"{file}, line 2"],
    ]
    assert own[3][1] == "not a setting"
    rest = {row.cells[0].text: row.cells[1].text for row in tables["defaults"].rows}
    assert rest["observe"] == "0"
    assert not rest.keys() & {"ksm_mode", "vm_policy"}


def test_an_images_settings_count_where_the_machine_sets_nothing(given: ReportInput) -> None:
    name = "virtual-host-plus-variables.conf"
    image, machine = f"/usr/lib/tuned-virt/{name}", f"/etc/tuned/{name}"
    texts = {image: "ksm_mode=off\nvm_policy=none\n", machine: "vm_policy=node\n"}
    shown = report_view.view(replace(reports.whole(given), settings=Fact(texts, "")))
    tables = shown["settings"].value
    assert [[cell.text for cell in row.cells] for row in tables["set"].rows] == [
        ["ksm_mode", "off", f"{image}, line 1"],
        ["vm_policy", "node", f"{name}, line 1"],
    ]
    rest = [row.cells[0].text for row in tables["defaults"].rows]
    assert len(rest) == len(set(rest))
    assert not {"ksm_mode", "vm_policy"} & set(rest)


def test_only_files_of_the_active_profile_are_in_force(given: ReportInput) -> None:
    """Both packages may be installed; a profile of the administrator may include one of ours."""
    host, guest = (f"/etc/tuned/virtual-{kind}-plus-variables.conf" for kind in ("host", "guest"))
    files: Fact[Mapping[str, str]] = Fact({host: "ksm_mode=off", guest: "dirty_ratio=30"}, "")
    back = reports.STATUS["returns_to"]
    for profile, returns_to, idle in (
        ("virtual-host-plus", back, [guest]),
        ("virtual-guest-plus my-own", back, [host]),
        ("my-own", back, []),
        ("throughput-performance", None, [host, guest]),
        ("", None, [host, guest]),
    ):
        status = {**reports.STATUS, "profile": profile, "returns_to": returns_to}
        shown = report_view.view(replace(given, settings=files, status=Fact(status, "")))
        tables = shown["settings"].value
        told = [f"{path} is not in force: its profile is not active" for path in idle]
        assert tables["idle"] == told, profile
        assert len(tables["set"].rows) == 2 - len(idle)
    unknown = report_view.view(replace(given, settings=files))["settings"].value
    assert (unknown["idle"], len(unknown["set"].rows)) == ([], 2)


def test_the_history_of_ksm_is_decisions_and_changes_newest_first(given: ReportInput) -> None:
    table = report_view.view(reports.whole(given))["ksm"].value["history"]
    told = [(row.cells[0].text[11:16], row.cells[1].text) for row in table.rows]
    assert told == sorted(told, key=lambda one: one[0], reverse=True)
    assert {"burst", "profile"} == {phase for _, phase in told}


def test_the_command(
    given: ReportInput, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "host.json", tmp_path / "report.html"
    reports.write_snapshot(file, 3)
    assert main(["report", "--snapshot", str(file), "-o", str(out)]) == 0
    assert f"{out} is written" in capsys.readouterr().out
    checked(out.read_text())
    assert main(["report", "--snapshot", str(file), "-o", str(tmp_path / "no/where.html")]) == 2
    assert main(["report", "--snapshot", str(tmp_path / "none"), "-o", str(out)]) == 2
