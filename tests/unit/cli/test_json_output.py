# SPDX-License-Identifier: GPL-2.0-or-later
"""What all commands print for programs has one shape, a schema, and an example in the manual."""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from jsonschema import ValidationError

from tests.schemas import valid
from tuned_virt import __version__, cli
from tuned_virt.cli import json_output
from tuned_virt.kernel import systemd

ROOT = Path(__file__).parents[3]
KINDS = sorted(file.stem for file in Path(json_output.SCHEMAS).glob("*.json"))
EXAMPLES = [
    json.loads(text)
    for text in re.findall(
        r"^```json\n(.*?)^```$", (ROOT / "docs/json.7.md").read_text(), re.MULTILINE | re.DOTALL
    )
]

OTHER_NAMES = {"name", "domain", "vm", "guest_name", "id", "time", "timestamp", "cpu_list"}
"""What a guest, a node, a disk, CPUs or a time is not called."""


def schema(kind: str) -> Any:
    return json.loads(Path(json_output.SCHEMAS, f"{kind}.json").read_text())


WRITE = {"snapshot", "report", "perf", "metrics"}
"""Commands that write in a form of their own; a report has what others' `--json` says."""


@pytest.mark.parametrize("command", sorted(cli.COMMANDS.keys() - WRITE))
def test_every_command_that_reports_has_json_and_a_schema(command: str) -> None:
    parser = argparse.ArgumentParser()
    cli.module(command).add_arguments(parser)
    [option] = [one for one in parser._actions if "--json" in one.option_strings]
    assert option.help == "print JSON, see tuned-virt-json(7)"
    assert command in KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_says_version_and_kind_first(kind: str) -> None:
    found = schema(kind)
    assert found["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert found["title"]
    if kind != "snapshot":  # it is read too, also those that older versions have written
        assert found["required"][:2] == ["version", "kind"]
        assert found["properties"]["kind"] == {"const": kind}
        assert found["additionalProperties"] is False


@pytest.mark.parametrize("kind", sorted({*KINDS} - {"snapshot"}))
def test_the_manual_has_an_example_of_each(kind: str) -> None:
    [example] = [one for one in EXAMPLES if one["kind"] == kind]
    assert valid(example) == example


def names(inside: Any) -> set[str]:
    """Names of properties in a schema, at any depth."""
    if isinstance(inside, list):
        return set().union(*map(names, inside))
    if not isinstance(inside, dict):
        return set()
    own = inside.get("properties", {})
    return {*own}.union(*(names(one) for one in inside.values()))


@pytest.mark.parametrize("kind", sorted({*KINDS} - {"snapshot", "ksm"}))
def test_the_same_thing_has_the_same_name(kind: str) -> None:
    assert names(schema(kind)) & OTHER_NAMES == set()


def test_role_for_programs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(systemd, "role", lambda fs: "guest")
    assert cli.main(["role", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["role"] == "guest"
    assert cli.main(["role"]) == 0
    assert capsys.readouterr().out == "guest\n"


def test_a_document_has_version_and_kind_first() -> None:
    made = json_output.document("role", {"role": "host"})
    assert list(made.items()) == [("version", __version__), ("kind", "role"), ("role", "host")]


@pytest.mark.parametrize("content", [{}, {"role": "both"}, {"role": "host", "more": 1}])
def test_what_a_schema_does_not_say_fails_a_test(content: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        json_output.document("role", content)


@pytest.mark.parametrize(
    ("zone", "text"),
    [
        ("UTC", "2026-01-31T13:30:00.250+00:00"),
        ("IST-5:30", "2026-01-31T19:00:00.250+05:30"),
        ("EST5", "2026-01-31T08:30:00.250-05:00"),
    ],
)
def test_times_have_their_zone(zone: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert json_output.moment(1769866200.25) == text
    finally:
        monkeypatch.undo()
        time.tzset()
