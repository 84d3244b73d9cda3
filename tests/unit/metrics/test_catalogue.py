# SPDX-License-Identifier: GPL-2.0-or-later
"""Prometheus's conventions, and that alerts, dashboard and manual name families that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tuned_virt.cli import guest_rows
from tuned_virt.metrics.catalogue import CATALOGUE
from tuned_virt.metrics.family import PREFIX, FamilyType, MetricFamily

ROOT = Path(__file__).parents[3]
RULES = ROOT / "monitoring/tuned-virt.rules.yml"
DASHBOARD = ROOT / "monitoring/tuned-virt-dashboard.json"
MANUAL = ROOT / "docs/tuned-virt-metrics.1.md"
ALERTS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
PAGE: dict[str, Any] = json.loads(DASHBOARD.read_text())

OF_OTHERS = {"node_textfile_mtime_seconds"}
"""What node_exporter says of our file."""

OF_THE_TARGET = {"job", "instance"}
"""Labels that Prometheus adds; ours must not have them."""

RESERVED = ("_count", "_sum", "_bucket", "_created")
NOT_BASE = re.compile(
    r"(?:^|_)(?:milli|micro|nano)?(?:seconds?|sec|ms|us|ns|msec|minutes|hours|percent|kib|mib|gib|"
    r"kb|mb|gb|pages)(?:_|$)"
)
UNITS = ("_seconds", "_bytes", "_ratio")


@pytest.mark.parametrize("family", CATALOGUE.values(), ids=lambda one: one.name)
def test_conventions(family: MetricFamily) -> None:
    """prometheus.io/docs/practices/naming and /instrumentation."""
    name = family.name
    assert re.fullmatch(r"tuned_virt_[a-z][a-z0-9_]*[a-z0-9]", name)
    assert not name.endswith(RESERVED)
    assert "__" not in name
    assert all(re.fullmatch(r"[a-z][a-z_]*", label) for label in family.labels)
    assert not {*family.labels} & {*OF_THE_TARGET, "le", "quantile", "type"}
    bare = name.removesuffix("_total").removesuffix("_seconds")
    assert not NOT_BASE.search(bare), "a base unit"
    units = [unit for unit in UNITS if unit in name]
    assert len(units) <= 1
    assert not units or name.removesuffix("_total").endswith(units[0]), "the unit is at the end"
    assert family.help.endswith(".")
    assert family.type is FamilyType.COUNTER or "since boot" not in family.help


def test_each_family_is_in_the_manual_with_its_labels() -> None:
    text = MANUAL.read_text()
    for family in CATALOGUE.values():
        labels = f"{{{', '.join(family.labels)}}}" if family.labels else ""
        assert f"| {family.name.removeprefix(PREFIX)}{labels} |" in text, family.name
    table = text.partition("## METRICS")[2].partition("## EXIT")[0].partition("|---")[2]
    told = re.findall(r"^\| ([a-z_]+)(?:\{[a-z, ]+\})? \|", table, re.MULTILINE)
    assert sorted(told) == sorted(name.removeprefix(PREFIX) for name in CATALOGUE)


def named(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:tuned_virt|node)_\w+", expression))


def selected(expression: str) -> Iterator[tuple[str, str, str]]:
    """Metric, label and value or pattern of each selector."""
    for name, inside in re.findall(r"\b(tuned_virt_\w+)\{([^}]*)\}", expression):
        for label, value in re.findall(r'(\w+)=~?"([^"]*)"', inside):
            yield name, label, value


def expressions(panel: dict[str, Any]) -> list[str]:
    return [target["expr"] for target in panel["targets"]]


def every_expression() -> list[str]:
    variables = [one["definition"] for one in PAGE["templating"]["list"] if "definition" in one]
    notes = [one["expr"] for one in PAGE["annotations"]["list"]]
    panels = [text for panel in PAGE["panels"] for text in expressions(panel)]
    return [*(alert["expr"] for alert in ALERTS), *panels, *variables, *notes]


@pytest.mark.parametrize("expression", every_expression())
def test_expressions_name_families_and_labels_that_there_are(expression: str) -> None:
    assert named(expression)
    assert named(expression) <= {*CATALOGUE, *OF_OTHERS}
    for name, label, _ in selected(expression):
        assert label in {*CATALOGUE[name].labels, *OF_THE_TARGET}
    counters = {name for name in named(expression) if name.endswith("_total")}
    rated = set(re.findall(r"\brate\((\w+)", expression))
    assert rated == counters, "rate() of counters, and of nothing else"


def test_labels_in_texts_are_those_of_the_expression() -> None:
    for alert in ALERTS:
        known = {label for name in named(alert["expr"]) for label in labels_of(name)}
        texts = " ".join(alert["annotations"].values())
        assert set(re.findall(r"\$labels\.(\w+)", texts)) <= known | OF_THE_TARGET, alert["alert"]
    for panel in PAGE["panels"]:
        for target in panel["targets"]:
            known = {label for name in named(target["expr"]) for label in labels_of(name)}
            used = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert used <= known | OF_THE_TARGET, panel["title"]


def labels_of(name: str) -> tuple[str, ...]:
    return CATALOGUE[name].labels if name in CATALOGUE else ("file",)


def test_alerts_say_what_to_do() -> None:
    """A summary is the same for all hosts, so that Alertmanager can group (monitoring-mixins)."""
    names = [alert["alert"] for alert in ALERTS]
    assert len(set(names)) == len(names)
    for alert in ALERTS:
        assert re.fullmatch(r"TunedVirt([A-Z][a-z]+)+", alert["alert"])
        assert alert["labels"]["severity"] in ("critical", "warning", "info")
        assert alert["for"]
        assert set(alert["annotations"]) == {"summary", "description"}
        assert "{{" not in alert["annotations"]["summary"]
        described = alert["annotations"]["description"]
        assert described.startswith("{{ $labels.instance }}: ")
        assert re.search(r"tuned-virt |systemctl |journalctl ", described)


def test_thresholds_are_those_of_guests() -> None:
    """`tuned-virt guests` says of the same values that they hurt."""
    found = {alert["alert"]: alert["expr"].split()[-1] for alert in ALERTS}
    assert float(found["TunedVirtVcpuDelay"]) == guest_rows.WAITS / 100
    assert float(found["TunedVirtRemoteMemory"]) == guest_rows.LOCAL / 100


def test_every_family_that_can_be_wrong_or_grow_is_on_the_dashboard() -> None:
    shown = {
        name for panel in PAGE["panels"] for text in expressions(panel) for name in named(text)
    }
    details = {
        "tuned_virt_guest_ksm_merged_bytes",
        "tuned_virt_guest_ksm_profit_bytes",
        "tuned_virt_guest_ungranted",
        "tuned_virt_audit_suppressed_findings",
        "tuned_virt_audit_unchecked",
        "tuned_virt_build_info",
        "tuned_virt_hugepages_reserved_bytes",
        "tuned_virt_ksm_run",
        "tuned_virt_ksm_shared_bytes",
        "tuned_virt_libvirt_guests",
        "tuned_virt_profile_info",
        "tuned_virt_profile_switch_timestamp_seconds",
        "tuned_virt_verify_lines",
    }
    assert {*CATALOGUE} - shown == details


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    ids = [panel["id"] for panel in PAGE["panels"]]
    assert len(set(ids)) == len(ids)
    assert PAGE["uid"] and PAGE["title"] and PAGE["schemaVersion"] >= 38
    places: set[tuple[int, int]] = set()
    for panel in PAGE["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & places, panel["title"]
        places |= cells
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
    assert [one["name"] for one in PAGE["templating"]["list"]] == ["datasource", "job", "instance"]
