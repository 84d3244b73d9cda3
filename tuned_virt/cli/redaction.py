# SPDX-License-Identifier: GPL-2.0-or-later
"""A snapshot without what tells whose host it is. Pure: JSON's values in, the same shape out."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tuned_virt import __version__
from tuned_virt.cli import redacted_xml
from tuned_virt.cli.replacements import REDACTED, Replacements
from tuned_virt.model import xml
from tuned_virt.model.guest import GuestError

GUESTS = ("guest", "guests", "backs")
"""Properties that name guests, wherever a snapshot has them."""

TOLD = ("guest", "uuid", "why", "ungranted", "ignored")
"""Of a placement, what is not CPUs and nodes."""

_OURS = """
    when kind size size_kib scheduler wanted class phase mode plugin option disk made_of offered
    owner problem state cpus nodeset emulator iothreads enabled defrag driver governors thp switched
    since manager shmem_enabled vcpus value run pages_to_scan sleep_millisecs
"""
KEPT = frozenset(_OURS.split())
"""Properties with words of ours or the kernel's only, in which no guest's name is looked for."""

SUBJECT = re.compile(
    r"(?P<pinned>.+) (?:pins|limits|configuration)|(?P<weighed>.+?)#[0-9a-f-]{36}\."
)
"""Of whom a change in the journal is: see vm_pinning, vm_limits and vm_blkio."""

NAMING = re.compile(r"\w*(?:devices|exclude|dedicated|wishes|uri|weights)", re.ASCII)
"""Settings that name guests, or disks."""

PLAIN = re.compile(r"(?:[\w%+:=,-]|\*|\.(?=\d)| (?=\S))*", re.ASCII)
"""Values of settings that are numbers and words of ours."""


def redacted(content: Mapping[str, Any]) -> dict[str, Any]:
    """A snapshot of the newest format, with what was replaced in its head. Raises GuestError."""
    using = Replacements(*_guests(content), content["host_name"])
    made = {**content, **_redacted(content, using)}
    made["redacted"] = {"by": f"tuned-virt {__version__}", "counts": dict(using.counts)}
    return made


def _redacted(content: Mapping[str, Any], using: Replacements) -> dict[str, Any]:
    return {
        "host_name": using.host(content["host_name"]) if content["host_name"] else "",
        "host": _host(content["host"], using),
        "guests": [_guest(one, using) for one in content["guests"]],
        "notes": list(map(using.text, content["notes"])),
        "facts": _facts(content["facts"], using),
        "configured": _configured(content["configured"], using),
        "role": _walked("", content["role"], using),
        "state": _state(content["state"], using),
    }


# --- guests' names --------------------------------------------------------------------------------


def _guests(content: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Names and UUIDs of all guests that are named, wherever."""
    configured = content["configured"].get("value", {"guests": (), "unreadable": ()})
    found = list(_identities(content["guests"])) + list(_identities(configured["guests"]))
    names = [name for name, _ in found] + [one["name"] for one in configured["guests"]]
    names += [name for name, _ in configured["unreadable"]]
    names += _named(content["facts"]) + _named(content["state"])
    names += [name for one in _changes(content["state"]) for name in _subject(one)]
    return [one for one in names if one], [uuid for _, uuid in found if uuid]


def _identities(guests: Any) -> Iterator[tuple[str, str]]:
    for one in guests:
        try:
            yield xml.read(
                one["xml"],
                "domain",
                lambda root: (root.findtext("name", "").strip(), _plain(root.findtext("uuid", ""))),
                GuestError,
            )
        except GuestError:
            continue


def _plain(uuid: str) -> str:
    plain = uuid.strip().lower().replace("-", "")
    return plain if re.fullmatch("[0-9a-f]{32}", plain) else ""


def _named(inside: Any) -> list[str]:
    """What properties that name guests have, at any depth."""
    if isinstance(inside, list):
        return [name for one in inside for name in _named(one)]
    if not isinstance(inside, dict):
        return []
    own = [inside[name] for name in GUESTS if name in inside]
    flat = [name for one in own for name in (one if isinstance(one, list) else [one])]
    return [one for one in flat if isinstance(one, str)] + _named(list(inside.values()))


def _changes(state: Any) -> list[Any]:
    return [] if state is None else state["changes"].get("value", {"changes": []})["changes"]


def _subject(change: Mapping[str, str]) -> Iterator[str]:
    found = SUBJECT.match(change["setting"])
    if found and change["plugin"].startswith("vm_"):
        yield found["pinned"] or found["weighed"]


# --- parts ----------------------------------------------------------------------------------------


def _host(host: Mapping[str, Any], using: Replacements) -> dict[str, Any]:
    return {
        **host,
        "notes": list(map(using.text, host["notes"])),
        "devices": {using.device(name): node for name, node in host["devices"].items()},
        "cpusets": {using.partition(name): cpus for name, cpus in host["cpusets"].items()},
    }


def _guest(one: Mapping[str, Any], using: Replacements) -> dict[str, Any]:
    made = redacted_xml.redact(one["xml"], using)
    return {**one, "xml": made, "held": _held(one["held"], using)}


def _held(held: Mapping[str, Any] | None, using: Replacements) -> dict[str, Any] | None:
    """A placement: CPUs and nodes are the host's."""
    if held is None:
        return None
    told = {name: _replaced(name, held[name], using) for name in TOLD if name in held}
    return {**held, **told}


def _configured(found: Mapping[str, Any], using: Replacements) -> dict[str, Any]:
    """Guests' configurations; one that is no XML is told as one that cannot be read."""
    if "why" in found:
        return {"why": using.text(found["why"])}
    known = found["value"]
    guests, unreadable = [], list(known["unreadable"])
    for one in known["guests"]:
        try:
            guests.append(_document(one, using))
        except GuestError as error:
            unreadable.append([one["name"], str(error)])
    return {
        "value": {
            "guests": guests,
            "unreadable": [[_whose(name, using), using.text(why)] for name, why in unreadable],
            "without_guests": using.text(known["without_guests"]),
        }
    }


def _whose(name: str, using: Replacements) -> str:
    return name if name == "host" else using.guest(name)


def _document(one: Mapping[str, Any], using: Replacements) -> dict[str, Any]:
    return {
        **one,
        "name": using.guest(one["name"]),
        "xml": redacted_xml.redact(one["xml"], using),
        "profile": _known(one["profile"], using.profile, using),
    }


def _known(
    found: Mapping[str, Any], made: Callable[[Any], Any], using: Replacements
) -> dict[str, Any]:
    """A fact: its value as `made` has it, or its reason."""
    if "value" in found:
        return {"value": made(found["value"])}
    return {"why": using.text(found["why"])}


def _facts(facts: Mapping[str, Any], using: Replacements) -> dict[str, Any]:
    special: Mapping[str, Callable[[Any], Any]] = {
        "subnets": lambda found: {
            using.subnet(name): list(map(using.link, links)) for name, links in found.items()
        },
        "links": lambda found: {
            using.link(name): {
                part: using.link(value) if isinstance(value, str) else value
                for part, value in one.items()
            }
            for name, one in found.items()
        },
        "profiles": lambda found: list(map(using.profile, found)),
    }
    return {
        name: _known(one, special.get(name, functools.partial(_walked, name, using=using)), using)
        for name, one in facts.items()
    }


def _state(state: Mapping[str, Any] | None, using: Replacements) -> dict[str, Any] | None:
    if state is None:
        return None
    special: Mapping[str, Callable[[Any], Any]] = {
        "settings": lambda found: {
            using.text(name): _settings(text, using) for name, text in found.items()
        },
        "status": lambda found: _walked("", _profiles(found, using), using),
        "switched": lambda found: found,
    }
    return {
        name: _known(one, special.get(name, functools.partial(_walked, name, using=using)), using)
        for name, one in state.items()
    }


def _profiles(status: Mapping[str, Any], using: Replacements) -> dict[str, Any]:
    then = status["returns_to"]
    after = then and {**then, "profiles": list(map(using.profile, then["profiles"]))}
    return {**status, "profile": using.profile(status["profile"]), "returns_to": after}


def _walked(name: str, value: Any, using: Replacements) -> Any:
    """A property's value with guests, addresses and paths replaced, at any depth."""
    if isinstance(value, dict):
        return {
            using.text(key): _walked(name if key.isdigit() else key, one, using)
            for key, one in value.items()
        }
    if isinstance(value, list):
        return [_walked(name, one, using) for one in value]
    return _replaced(name, value, using) if isinstance(value, str) else value


def _replaced(name: str, value: str, using: Replacements) -> str:
    """A property's text with guests, addresses and paths replaced."""
    if name in KEPT:
        return value
    if name == "process":
        return using.named("processes", value, "process-{}")
    if name == "uuid" and value:
        return using.uuid(value)
    return using.guest(value) if name in GUESTS else using.text(value)


def _settings(text: str, using: Replacements) -> str:
    """A settings file, line by line; comments are left out, so are names of guests and disks."""
    return "".join(f"{_setting(line.strip(), using)}\n" for line in text.splitlines())


def _setting(line: str, using: Replacements) -> str:
    if not line:
        return line
    name, equals, value = (part.strip() for part in line.partition("="))
    if line.startswith(("#", ";")) or not equals:
        return f"# {using.left_out('comments')}"
    plain = name.partition(".")[0]
    if not re.fullmatch(r"\w+", plain, re.ASCII):
        return f"# {using.left_out('comments')}"
    shown = name if plain == name else f"{plain}.{REDACTED}"
    if value in ("", "*", "all", "none", "opt-out"):
        return f"{shown}={value}"
    keeps = PLAIN.fullmatch(value) and not NAMING.fullmatch(plain)
    return f"{shown}={using.text(value) if keeps else using.left_out('settings', value)}"
