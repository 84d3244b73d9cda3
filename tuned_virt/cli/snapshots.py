# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt snapshot: write this host and its guests into one file, to plan with elsewhere."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from tuned_virt.cli import scene
from tuned_virt.cli.common import FINE, CouldNot
from tuned_virt.cli.scene import MOST_GUESTS, Described, Scene
from tuned_virt.pinning.record import placement_of
from tuned_virt.tags import Pins
from tuned_virt.topology import Cache, CpuDetail, Host, NumaNode

NAME = "snapshot"

FORMAT = 2
MOST_SNAPSHOT = 64 << 20
"""Bytes of a file that are read."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    add_sources(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="default: standard output")


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Options that name a host and guests in files."""
    parser.add_argument("--host", metavar="CAPABILITIES.xml", help="a host from a file, not this")
    parser.add_argument(
        "--guest",
        metavar="DOMAIN.xml",
        nargs="+",
        action="extend",
        default=[],
        help="its guests, with --host",
    )


def run(options: argparse.Namespace) -> int:
    """Gather and write."""
    gathered = scene.gather(options.host, options.guest)
    for note in gathered.notes:
        print(f"note: {note}", file=sys.stderr)
    text = json.dumps(_content(gathered))
    if options.output:
        try:
            Path(options.output).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise CouldNot(f"{options.output}: {error.strerror}") from error
    else:
        print(text)
    return FINE


def _content(gathered: Scene) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "host": _plain(gathered.host),
        "guests": [dataclasses.asdict(one) for one in gathered.described],
        "notes": list(gathered.notes),
    }


def _plain(host: Host) -> dict[str, Any]:
    content = dataclasses.asdict(host)
    plain: dict[str, Any] = json.loads(json.dumps(content, default=sorted))
    return plain


# --- reading --------------------------------------------------------------------------------------


def load(file: Path) -> Scene:
    """What `snapshot` wrote. Raises CouldNot."""
    try:
        content = json.loads(scene.text_of(file, MOST_SNAPSHOT))
        if content["format"] != FORMAT:
            raise CouldNot(f"{file}: format {content['format']!r} is not {FORMAT}: write it anew")
        if len(content["guests"]) > MOST_GUESTS:
            raise CouldNot(f"{file}: more than {MOST_GUESTS} guests")
        host = _restored(content["host"])
        guests = [
            (f"{file}: guest {n}", _described(one)) for n, one in enumerate(content["guests"], 1)
        ]
        notes = tuple(map(str, content["notes"]))
    except json.JSONDecodeError as error:
        raise CouldNot(f"{file}: line {error.lineno}: {error.msg}") from error
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise CouldNot(f"{file}: no snapshot of tuned-virt ({error!r})") from error
    return scene.of(host, guests, notes)


def _described(content: dict[str, Any]) -> Described:
    held, now = content["held"], content["now"]
    return Described(
        str(content["xml"]),
        _pins(now) if now else None,
        _numbers(content["resident"]),
        placement_of(held) if held else None,
    )


def _pins(content: dict[str, Any]) -> Pins:
    memory = content["memory"]
    return Pins(
        {int(number): str(cpus) for number, cpus in content["vcpus"].items()},
        None if content["emulator"] is None else str(content["emulator"]),
        {int(number): str(cpus) for number, cpus in content["iothreads"].items()},
        (str(memory[0]), str(memory[1])) if memory else None,
    )


def _numbers(mapping: dict[str, Any]) -> dict[int, int]:
    return {int(key): int(value) for key, value in mapping.items()}


def _restored(content: dict[str, Any]) -> Host:
    nodes = tuple(
        NumaNode(
            **{
                **node,
                "cpus": frozenset(node["cpus"]),
                "distances": _numbers(node["distances"]),
                "pages": _numbers(node["pages"]),
                "free_pages": None if node["free_pages"] is None else _numbers(node["free_pages"]),
            }
        )
        for node in content["nodes"]
    )
    cpus = {
        int(number): CpuDetail(**{**cpu, "siblings": frozenset(cpu["siblings"])})
        for number, cpu in content["cpus"].items()
    }
    caches = tuple(Cache(frozenset(cache["cpus"]), cache["size"]) for cache in content["caches"])
    sets = {name: frozenset(content[name]) for name in ("offline", "isolated", "nohz_full")}
    return Host(
        **{
            **content,
            **sets,
            "nodes": nodes,
            "cpus": cpus,
            "caches": caches,
            "notes": tuple(content["notes"]),
        }
    )
