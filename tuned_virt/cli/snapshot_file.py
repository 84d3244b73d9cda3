# SPDX-License-Identifier: GPL-2.0-or-later
"""A snapshot: a host and its guests as one JSON document, written and read.

Format 3 has all that planning, the audit, recommendations and the report are made from; format 2
has the host's topology and its running guests. Each part is understood when it is asked for.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuned_virt.cli import json_output, planning_input, snapshot_facts, snapshot_host
from tuned_virt.cli.collected import (
    AuditSources,
    Collected,
    Content,
    GuestDocument,
    HostRole,
    HostState,
    tried,
)
from tuned_virt.cli.common import CouldNot
from tuned_virt.cli.guest_rows import GuestRow, NodePages, problem
from tuned_virt.cli.planning_input import DescribedGuest, PlanningInput
from tuned_virt.cli.snapshot_facts import fact, fact_content
from tuned_virt.frozen_dataclasses import asdict
from tuned_virt.kernel import cpuset
from tuned_virt.model.host_facts import Fact
from tuned_virt.model.pins import Pins
from tuned_virt.placement import Placement
from tuned_virt.plugins.vm_pinning.held_placements import placement_of

FORMAT = 3
FORMATS = (2, FORMAT)
"""Those that are read."""

MOST_BYTES = 64 << 20
"""Of a snapshot that are read."""

STANDARD_INPUT = "standard input"

STATE = {"status": "status", "hugepages": "hugepages", "disks": "disks", "changes": "log"}
"""Parts of the state that are what a command prints, and that document's kind."""


# --- writing --------------------------------------------------------------------------------------


def content(found: Collected) -> dict[str, Any]:
    """A snapshot as JSON has it, nothing redacted. Raises CouldNot where the host is not known."""
    if found.planning.value is None:
        raise CouldNot(found.planning.why)
    known = found.planning.value
    return {
        "format": FORMAT,
        "redacted": None,
        "host_name": found.host,
        "when": found.when,
        "host": snapshot_host.content(known.host),
        "guests": list(map(_described_content, known.described)),
        "notes": list(known.notes),
        **_audit_content(found.audit),
        "role": None if found.role is None else _role_content(found.role),
        "state": None if found.state is None else _state_content(found.state),
    }


def _described_content(one: DescribedGuest) -> dict[str, Any]:
    return {**asdict(one), "now": None if one.now is None else one.now.to_json()}


def _audit_content(found: Fact[AuditSources]) -> dict[str, Any]:
    if found.value is None:
        return {"facts": {}, "configured": {"why": found.why}}
    known = found.value
    configured = {
        "guests": list(map(_document_content, known.documents)),
        "unreadable": [list(one) for one in known.unreadable],
        "without_guests": known.without_guests,
    }
    return {"facts": snapshot_facts.content(known.facts), "configured": {"value": configured}}


def _document_content(one: GuestDocument) -> dict[str, Any]:
    return {
        "name": one.name,
        "xml": one.xml,
        "running": one.running,
        "placed": one.placed,
        "profile": fact_content(one.profile),
    }


def _role_content(role: HostRole) -> dict[str, Any]:
    return {
        "in_guest": fact_content(role.in_guest),
        "manager": role.manager,
        "swap_in_ram": fact_content(role.swap_in_ram),
    }


def _state_content(state: HostState) -> dict[str, Any]:
    own = {name: fact_content(getattr(state, name)) for name in (*STATE, "ksm")}
    return {
        "guests": fact_content(state.rows, lambda rows: list(map(_row_content, rows))),
        **own,
        "settings": fact_content(state.settings, dict),
        "switched": fact_content(state.switched),
    }


def _row_content(row: GuestRow) -> dict[str, Any]:
    return {**asdict(row), "problem": problem(row).value}


# --- reading --------------------------------------------------------------------------------------


def load(file: str) -> Snapshot:
    """What `snapshot` wrote; "-" is standard input. Raises CouldNot, which names what is wrong."""
    if file != "-":
        return parse(planning_input.text_of(Path(file), MOST_BYTES), file, _written(file))
    content = sys.stdin.buffer.read(MOST_BYTES + 1)
    return parse(planning_input.decoded(STANDARD_INPUT, content, MOST_BYTES), STANDARD_INPUT)


def _written(file: str) -> str:
    return json_output.moment(os.stat(file).st_mtime)


def parse(text: str, name: str, when: str = "") -> Snapshot:
    """A snapshot's text. Raises CouldNot, which names what is wrong in it."""
    try:
        content = json.loads(text)
        if isinstance(content, dict) and content.get("format", FORMAT) not in FORMATS:
            known = " and ".join(map(str, FORMATS))
            raise CouldNot(f"{name}: format {content['format']!r} is not one of {known}")
        _validate("snapshot", content)
        if content["format"] == FORMAT:
            _validate("snapshot", content, "format3")
    except json.JSONDecodeError as error:
        raise CouldNot(f"{name}: line {error.lineno}: {error.msg}") from error
    except RecursionError as error:
        raise CouldNot(f"{name}: not a snapshot of tuned-virt: it is nested too deeply") from error
    except ValueError as error:
        raise CouldNot(f"{name}: not a snapshot of tuned-virt: {error}") from error
    return Snapshot(name, content, when)


class Snapshot:
    """A snapshot that was read, and what is in it; each method raises CouldNot."""

    def __init__(self, name: str, content: Content, when: str) -> None:
        self.name = name
        self._content = content
        self._when = when

    @property
    def redacted(self) -> bool:
        """Whether names, addresses and the like are replaced in it."""
        return bool(self._content.get("redacted"))

    @property
    def host_name(self) -> str:
        """The host's, "" where the snapshot does not say."""
        return str(self._content.get("host_name", ""))

    def collected(self) -> Collected:
        """All of it, as the host was collected."""
        return Collected(
            host=self.host_name or os.path.basename(self.name),
            when=self._content.get("when") or self._when,
            planning=Fact(self.planning(), ""),
            audit=tried(self.audit),
            role=self.role(),
            state=self.state(),
        )

    def planning(self) -> PlanningInput:
        """The host and its running guests."""
        host = self._host
        guests = enumerate(self._content["guests"])
        try:
            described = [
                (f"{self.name}: guest {at + 1}", _described(one, at)) for at, one in guests
            ]
        except ValueError as error:
            raise self._wrong(error) from error
        return planning_input.of(host, described, tuple(self._content["notes"]))

    def audit(self) -> AuditSources:
        """What the audit is made from; of format 2 the running guests."""
        if self._content["format"] != FORMAT:
            return self._running()
        configured = self._content["configured"]
        if "why" in configured:
            raise CouldNot(f"{self.name}: the guests' configurations: {configured['why']}")
        known = configured["value"]
        return AuditSources(
            self._host,
            snapshot_facts.read(self._content["facts"]),
            tuple(_document(one, self.name) for one in known["guests"]),
            tuple((name, why) for name, why in known["unreadable"]),
            known["without_guests"],
        )

    def _running(self) -> AuditSources:
        known = self.planning()
        documents = tuple(
            GuestDocument(guest.name, one.xml, self.name, placed=one.held is not None)
            for guest, one in zip(known.guests, known.described)
        )
        return AuditSources(known.host, documents=documents, notes=known.notes)

    @functools.cached_property
    def _host(self) -> Any:
        try:
            return snapshot_host.host(self._content["host"])
        except ValueError as error:
            raise self._wrong(error) from error

    def _wrong(self, error: ValueError) -> CouldNot:
        return CouldNot(f"{self.name}: not a snapshot of tuned-virt: {error}")

    def role(self) -> HostRole | None:
        """The machine's part; None where the snapshot does not say."""
        found = self._content.get("role")
        if found is None:
            return None
        return HostRole(
            fact(found["in_guest"], bool), found["manager"], fact(found["swap_in_ram"], bool)
        )

    def rows(self) -> Fact[list[GuestRow]]:
        """Running guests, as they were measured."""
        state = self.state()
        return Fact(None, "guests were not measured") if state is None else state.rows

    def state(self) -> HostState | None:
        """What commands said of the host; None where the snapshot was written from files."""
        found = self._content.get("state")
        if found is None:
            return None
        rows = _part(found["guests"], "guests", "guests")
        own = {name: _part(found[name], kind) for name, kind in STATE.items()}
        return HostState(
            rows=Fact(None, rows.why) if rows.value is None else Fact(_rows(rows.value), ""),
            ksm=_part(found["ksm"], "ksm", "ksm"),
            settings=fact(found["settings"], dict),
            switched=fact(found["switched"], str),
            **own,
        )


def _part(found: Content, kind: str, inside: str = "") -> Fact[Any]:
    """What a command printed, if it is of a version that prints the same."""
    if "why" in found:
        return Fact(None, found["why"])
    value = found["value"]
    try:
        _validate(kind, {"version": "", "kind": kind, **({inside: value} if inside else value)})
    except (TypeError, ValueError) as error:
        return Fact(None, f"the snapshot's is not what this version understands: {error}")
    return Fact(value, "")


def _rows(found: list[dict[str, Any]]) -> list[GuestRow]:
    return [
        GuestRow(
            **{
                **{name: value for name, value in one.items() if name != "problem"},
                "nodes": tuple(one["nodes"]),
                "vcpus": snapshot_host.numbered(one["vcpus"]),
                "by_node": snapshot_host.numbered(one["by_node"]),
                "drift": tuple(one["drift"]),
                "mend": tuple(one["mend"]),
                "pages": tuple(NodePages(**pages) for pages in one["pages"]),
            }
        )
        for one in found
    ]


def _document(one: Content, file: str) -> GuestDocument:
    profile = fact(one["profile"], str)
    return GuestDocument(one["name"], one["xml"], file, one["running"], one["placed"], profile)


def _described(content: Mapping[str, Any], at: int) -> DescribedGuest:
    held, now = content["held"], content["now"]
    return DescribedGuest(
        content["xml"],
        None if now is None else Pins.from_json(now),
        snapshot_host.numbered(content["resident"]),
        None if held is None else _held(held, f"guests[{at}].held"),
    )


def _held(content: dict[str, Any], where: str) -> Placement:
    try:
        made = placement_of(content)
        _ = [cpuset.parse(text) for text in (*made.vcpus.values(), *made.iothreads.values())]
        _ = frozenset(made.nodes)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{where} is not a placement that tuned-virt keeps") from error
    return made


# --- the schema -----------------------------------------------------------------------------------


@functools.cache
def _validator(kind: str, definition: str) -> Any:
    import jsonschema  # takes time

    schema = json.loads(Path(json_output.SCHEMAS, f"{kind}.json").read_text())
    if definition:
        schema = {**schema["definitions"][definition], "definitions": schema["definitions"]}
    return jsonschema.Draft7Validator(schema)


def _validate(kind: str, content: Any, definition: str = "") -> None:
    """Raises ValueError for the first part that a kind's schema does not allow."""
    for error in _validator(kind, definition).iter_errors(content):
        raise ValueError(_said(error))


def _tells(error: Any) -> tuple[int, bool]:
    """How much one of several errors says: the deepest the most, and null alone the least."""
    return len(error.absolute_path), error.schema.get("type") != "null"


def _said(error: Any) -> str:
    """What a jsonschema.ValidationError says, in the words of the schema's descriptions."""
    while error.validator == "anyOf":
        error = max(error.context, key=_tells)
    steps = error.absolute_path
    where = "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in steps).lstrip(".")
    if error.validator == "required":
        missing = next(name for name in error.validator_value if name not in error.instance)
        return f"{where}.{missing} is missing".lstrip(".")
    if error.validator == "pattern":
        where = f"{where}.{error.instance}"
    shown = repr(error.instance)
    shown = shown if len(shown) <= 40 else f"{shown[:37]}..."
    words = error.schema.get("title" if error.validator.endswith("Items") else "description")
    return f"{where or 'the file'} is {shown}, expected {words or error.validator_value}"
