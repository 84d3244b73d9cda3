# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt snapshot: write this host and its guests into one file, to plan with elsewhere."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from tuned_virt.cli.common import FINE, CouldNot
from tuned_virt.guest import Guest, GuestError
from tuned_virt.kernelfs import KernelFS
from tuned_virt.safexml import MOST_CHARACTERS
from tuned_virt.topology import Cache, CpuDetail, Host, HostError, NumaNode, overlay, read

NAME = "snapshot"

FORMAT = 1
MOST_GUESTS = 4096
"""Of one host; libvirt itself lists at most 16,384 domains, no host runs so many."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    parser.add_argument("--host", metavar="CAPABILITIES.xml", help="a host from a file, not this")
    parser.add_argument("--guest", metavar="DOMAIN.xml", nargs="+", action="extend", default=[])
    parser.add_argument("-o", "--output", metavar="FILE", help="default: standard output")


def run(options: argparse.Namespace) -> int:
    """Gather and write."""
    host, documents = _sources(options.host, options.guest)
    for name, text in documents:
        _guest(name, text)
    text = json.dumps(
        {"format": FORMAT, "host": _plain(host), "guests": [xml for _, xml in documents]}
    )
    if options.output:
        try:
            Path(options.output).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise CouldNot(f"{options.output}: {error.strerror}") from error
    else:
        print(text)
    return FINE


def gather(capabilities: str | None, files: list[str]) -> tuple[Host, list[Guest]]:
    """A host and guests from files, or this host with its guests. Raises CouldNot."""
    host, documents = _sources(capabilities, files)
    return host, [_guest(name, text) for name, text in documents]


def _sources(capabilities: str | None, files: list[str]) -> tuple[Host, list[tuple[str, str]]]:
    if len(files) > MOST_GUESTS:
        raise CouldNot(f"{len(files)} guests are more than {MOST_GUESTS}, the most of one host")
    if capabilities:
        return _host(capabilities, text_of(Path(capabilities))), _texts(files)
    return _here()


def _texts(files: list[str]) -> list[tuple[str, str]]:
    return [(name, text_of(Path(name))) for name in files]


def text_of(file: Path, most: int = MOST_CHARACTERS) -> str:
    """A file's text. Raises CouldNot, also where it is longer than what is read."""
    try:
        with file.open("rb") as opened:
            content = opened.read(most + 1)
        if len(content) > most:
            raise CouldNot(f"{file}: longer than {most} bytes")
        return content.decode()
    except OSError as error:
        raise CouldNot(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = 1 + content[: error.start].count(b"\n")
        raise CouldNot(f"{file}: line {line}: it is no UTF-8 text") from error


def _host(name: str, text: str) -> Host:
    try:
        return Host.from_xml(text)
    except HostError as error:
        raise CouldNot(f"{name}: {error}") from error


def _guest(name: str, text: str) -> Guest:
    try:
        return Guest.from_xml(text)
    except GuestError as error:
        raise CouldNot(f"{name}: {error}") from error


def _here() -> tuple[Host, list[tuple[str, str]]]:
    """This host: by libvirt with sysfs over it, else by sysfs alone, which knows no guest."""
    from tuned_virt.hypervisor.descriptions import descriptions

    fs = KernelFS()
    found = descriptions()
    if found is None:
        try:
            return read(fs), []
        except HostError as error:
            raise CouldNot(f"this host: {error}") from error
    capabilities, domains = found
    host = overlay(_host("libvirt's capabilities", capabilities), fs)
    return host, sorted(domains.items())


# --- files ----------------------------------------------------------------------------------------

MOST_SNAPSHOT = 64 << 20


def load(file: Path) -> tuple[Host, list[Guest]]:
    """What `snapshot` wrote. Raises CouldNot."""
    try:
        content = json.loads(text_of(file, MOST_SNAPSHOT))
        if content["format"] != FORMAT:
            raise CouldNot(f"{file}: format {content['format']!r} is not {FORMAT}")
        documents = content["guests"]
        if len(documents) > MOST_GUESTS:
            raise CouldNot(f"{file}: more than {MOST_GUESTS} guests")
        host = _restored(content["host"])
    except json.JSONDecodeError as error:
        raise CouldNot(f"{file}: line {error.lineno}: {error.msg}") from error
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise CouldNot(f"{file}: no snapshot of tuned-virt ({error!r})") from error
    return host, [_guest(f"{file}: guest {n}", str(xml)) for n, xml in enumerate(documents, 1)]


def _plain(host: Host) -> dict[str, Any]:
    content = dataclasses.asdict(host)
    plain: dict[str, Any] = json.loads(json.dumps(content, default=sorted))
    return plain


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
