# SPDX-License-Identifier: GPL-2.0-or-later
"""The Ansible collection: what is made of the plugins' options, and its filters."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2
import pytest

from scripts import ansible_specs
from tuned_virt.cli import check_settings

FILTERS = Path(__file__).parents[2] / "ansible/plugins/filter"


def plugin(name: str) -> ModuleType:
    """A filter, as Ansible loads it."""
    spec = importlib.util.spec_from_file_location(name, FILTERS / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text(settings: dict[str, Any], groups: Any = ()) -> list[str]:
    """A settings file's lines, as the role writes them."""
    found = ansible_specs.all_known().values()
    words = {one.name: one.boolean_words for one in found}
    quoted = [one.name for one in found if one.quoted]
    whole: str = plugin("settings_text").settings_text(settings, groups, words, quoted)
    return [line for line in whole.splitlines() if not line.startswith("#")]


def test_what_is_made_of_the_options_is_as_the_options_are() -> None:
    for path, made in ansible_specs.files().items():
        assert path.read_text() == made, f"run scripts/ansible_specs.py: {path} is not up to date"


def test_types_come_from_the_parsers() -> None:
    known = ansible_specs.all_known()
    assert (known["observe"].kind, known["vm_move_memory"].kind) == ("bool", "bool")
    assert known["vm_policy"].words == ("node", "dedicated", "none")
    assert known["ksm_max_cpu"].kind == "int"
    assert "from 1 to 100" in known["ksm_max_cpu"].description
    assert known["ksm_pages_to_scan"].kind == "str", "it may begin with > or <"
    assert known["vm_exclude"].kind == "list"
    assert {name for name, one in known.items() if one.quoted} >= {"hugepages_1G", "hugepages_2M"}


@pytest.mark.parametrize(
    ("settings", "lines"),
    [
        ({"ksm_mode": False}, ["ksm_mode=off"]),  # YAML reads off as false
        ({"observe": True, "vm_move_memory": False}, ["observe=1", "vm_move_memory=0"]),
        ({"vm_exclude": ["router", "win*"]}, ["vm_exclude=router win*"]),
        ({"vm_exclude": "router win*"}, ["vm_exclude=router win*"]),
        ({"ksm_max_cpu": 30, "vm_smt": None}, ["ksm_max_cpu=30"]),  # without a value: not there
        ({"thp": ""}, ["thp="]),
        ({"vm_housekeeping": 0, "hugepages_1G": "1:4"}, ["hugepages_1G=1:4", "vm_housekeeping=0"]),
    ],
)
def test_settings_are_written_as_they_were_meant(
    settings: dict[str, Any], lines: list[str], tmp_path: Path
) -> None:
    assert text(settings) == lines
    file = tmp_path / "settings.conf"
    file.write_text("\n".join(lines))
    assert not check_settings.check(file, "virtual-host-plus").errors


def test_groups_are_written_in_their_order() -> None:
    groups = [{"guests": "db*", "vm_policy": "dedicated", "vm_smt": None}]
    groups.append({"guests": "db-test", "vm_policy": "none"})
    assert text({}, groups) == ["vm_policy.db*=dedicated", "vm_policy.db-test=none"]


def test_what_yaml_has_read_otherwise_is_refused() -> None:
    with pytest.raises(ValueError, match=r"hugepages_1G: .* 64; write the value in quotes"):
        text({"hugepages_1G": 64})  # 1:4 without quotes
    with pytest.raises(ValueError, match="more than one line"):
        text({"vm_exclude": "a\nksm_mode=off"})


def host(name: str, verified: bool | None = True, **more: Any) -> dict[str, Any]:
    """A host's variables after the report's questions."""
    content: dict[str, Any] = {
        "verified": verified,
        "differing": [],
        "ungranted": [],
        "unverified": "",
    }
    findings = [
        {"severity": severity, "suppressed": None, "found": severity}
        for severity in more.pop("findings", ())
    ]
    audit = {"findings": findings, "not_checked": more.pop("not_checked", [])}
    return {
        "inventory_hostname": name,
        "tuned_virt_status": {"content": {**content, "profile": "own", **more}},
        "tuned_virt_audited": {"content": audit},
    }


def test_the_worst_host_is_first() -> None:
    silent = {"inventory_hostname": "silent", "tuned_virt_status": {"msg": "timed out"}}
    unchecked = [{"why": "no libvirt"}, {"why": "no libvirt"}]
    hosts = [
        host("fine"),
        host("without", not_checked=unchecked),
        host("warned", findings=["warning", "warning"]),
        host("broken", findings=["warning", "error"]),
        host("differs", verified=False, differing=["swappiness"]),
        host("idle", verified=None, profile=""),
        silent,
    ]
    rows = plugin("fleet").fleet(hosts)
    assert [(one["host"], one["state"]) for one in rows] == [
        ("idle", "not known"),
        ("silent", "not known"),
        ("differs", "differs"),
        ("broken", "findings"),
        ("warned", "findings"),
        ("without", "partly checked"),
        ("fine", "fine"),
    ]
    problems = {one["host"]: one["problems"] for one in rows}
    assert problems["silent"] == ["timed out", "no answer"]
    assert problems["idle"] == ["no profile is active"]
    assert problems["differs"] == ["swappiness"]
    assert rows[3]["findings"][0]["severity"] == "error"
    assert rows[-2]["unchecked"] == ["no libvirt"], "said once, not passed over"


def test_the_page_escapes_what_hosts_say() -> None:
    evil = "<script>alert('x')</script>"
    told = {"guest": evil, "why": evil}
    worst = host(evil, profile=evil, differing=[evil], ungranted=[told], not_checked=[told])
    finding = {"severity": "error", "suppressed": None, "found": evil, "command": evil}
    worst["tuned_virt_audited"]["content"]["findings"] = [{**finding, "guest": evil}]
    silent = {"inventory_hostname": "silent", "tuned_virt_status": {"msg": evil}}
    page = FILTERS.parents[1] / "playbooks/templates/report.html.j2"
    rows = plugin("fleet").fleet([worst, silent])
    text = jinja2.Environment(autoescape=False).from_string(page.read_text()).render(rows=rows)
    assert text.count("&lt;script&gt;") == 10
    assert "<script" not in text
