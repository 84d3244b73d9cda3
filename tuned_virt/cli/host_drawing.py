# SPDX-License-Identifier: GPL-2.0-or-later
"""The host as it is drawn by `map` and `report`: nodes, LLCs, cores and CPUs, and whose they are.

Pure: what is where, in pixels, and which guest has which tag. A guest that has CPUs of its own is
told by its tag, a colour and a pattern; the legend has its name.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tuned_virt.frozen_dataclasses import dataclass, field
from tuned_virt.kernel import cpuset
from tuned_virt.model.guest import printable
from tuned_virt.model.topology import Host
from tuned_virt.model.topology.grid import Cluster, GridNode

CPU, HEIGHT, GAP = 32, 36, 4
"""Pixels: a CPU's width and height, and the space around cores."""

IN_A_ROW = 8
"""CPUs side by side: so many fit a telephone."""

ROWS = 8
"""Of cores in one panel; an LLC with more has several."""

WIDEST = IN_A_ROW * (CPU + GAP) + GAP
"""A panel's width at most."""

BAR = 20
"""Pixels: the height of a memory bar."""

HUES = ("#8dd3c7", "#ffed6f", "#80b1d3", "#fb8072", "#b3de69", "#bc80bd", "#fdb462", "#fccde5")
"""Far enough apart to be told, and light enough for black text; the same in light and dark."""

PATTERNS = 6
"""Of the band below a tag: none, and five that `drawing.jinja` defines."""

MOST_NAMED = 6
"""Guests named in a node's box that have no CPUs of their own there; the legend has all."""


KEY = (
    "A, B, …: a vCPU of that guest is pinned to this CPU alone; A+1: so is one of another guest.",
    "~: shared, vCPUs may run here that may run on several CPUs. iso: isolated, and no guest's.",
    "A thick frame is a core, with its SMT siblings.",
)
"""What the marks on CPUs mean."""


@dataclass(frozen=True)
class DrawnGuest:
    """A guest to draw.

    vcpus   where each vCPU runs, or may run
    nodes   of its placement
    memory  node → KiB
    kind    how it is placed, in a word
    """

    name: str
    vcpus: Mapping[int, str]
    nodes: tuple[int, ...] = ()
    memory: Mapping[int, float] = field(default_factory=dict)
    kind: str = ""


@dataclass(frozen=True)
class Swatch:
    """How a guest is told in the drawing: tag, number of its colour and of its pattern."""

    tag: str
    hue: int
    pattern: int

    @property
    def fill(self) -> str:
        """The colour."""
        return HUES[self.hue]


def tag(number: int) -> str:
    """A, B, … Z, AA, AB …"""
    letters = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        letters = string.ascii_uppercase[rest] + letters
    return letters


def swatch(number: int) -> Swatch:
    """Of the guest with this number: neighbours differ in colour, all differ in their tag."""
    return Swatch(tag(number), number % len(HUES), number // len(HUES) % PATTERNS)


def draw(host: Host, guests: Sequence[DrawnGuest]) -> dict[str, Any]:
    """All that the templates show."""
    own = [_own_cpus(guest) for guest in guests]
    order = sorted((min(cpus), at) for at, cpus in enumerate(own) if cpus)
    swatches = {at: swatch(number) for number, (_, at) in enumerate(order)}
    owners: dict[int, list[int]] = {}
    for at, cpus in enumerate(own):
        for cpu in cpus:
            owners.setdefault(cpu, []).append(at)
    shared = _shared(guests)
    drawing = _Drawing(host, guests, swatches, owners, shared)
    return {
        "nodes": [drawing.node(node.id) for node in host.nodes],
        "legend": [_entry(guests[at], swatches.get(at)) for at in _told(order, guests)],
        "distances": _distances(host),
        "key": list(KEY),
        "offline": cpuset.text(host.offline),
        "isolated": cpuset.text(host.isolated | host.nohz_full),
    }


def _told(order: Iterable[tuple[int, int]], guests: Sequence[DrawnGuest]) -> list[int]:
    """Places of guests as the legend has them: by tag, then by name."""
    tagged = [at for _, at in order]
    rest = sorted(set(range(len(guests))) - set(tagged), key=lambda at: guests[at].name)
    return [*tagged, *rest]


def _own_cpus(guest: DrawnGuest) -> list[int]:
    """CPUs to which one of its vCPUs alone is pinned."""
    sets = (cpuset.parse(text) for text in set(guest.vcpus.values()))
    return sorted(cpu for cpus in sets if len(cpus) == 1 for cpu in cpus)


def _shared(guests: Iterable[DrawnGuest]) -> frozenset[int]:
    """CPUs on which some vCPU may run that is pinned to no single one."""
    texts = {text for guest in guests for text in guest.vcpus.values()}
    sets = (cpus for cpus in map(cpuset.parse, texts) if len(cpus) > 1)
    return frozenset[int]().union(*sets)


def _entry(guest: DrawnGuest, told: Swatch | None) -> dict[str, Any]:
    """A line of the legend."""
    where = f", nodes {cpuset.text(guest.nodes)}" if guest.nodes else ""
    sets = {text for text in guest.vcpus.values() if text}
    cpus = cpuset.text(frozenset[int]().union(*map(cpuset.parse, sets))) if sets else ""
    return {
        "swatch": told,
        "name": printable(guest.name),
        "told": f"{guest.kind}{where}",
        "cpus": f"CPUs {cpus}" if cpus and told else "",
    }


def _distances(host: Host) -> list[tuple[int, list[int]]]:
    """By node; none of a host with one."""
    ids = [node.id for node in host.nodes]
    table = [(one, [host.distance(one, other) for other in ids]) for one in ids]
    return table if len(ids) > 1 else []


@dataclass(frozen=True)
class _Drawing:
    host: Host
    guests: Sequence[DrawnGuest]
    swatches: Mapping[int, Swatch]
    owners: Mapping[int, Sequence[int]]
    shared: frozenset[int]

    def node(self, number: int) -> dict[str, Any]:
        """A node's box: its LLCs, the memory of guests, those without CPUs of their own."""
        found = self.host.grid.node_index.get(number)
        grid = None if found is None else self.host.grid.nodes[found]
        memory = self.host.by_id[number].memory
        used = sum(guest.memory.get(number, 0) for guest in self.guests)
        floating = self._floating(number)
        return {
            "id": number,
            "cpus": len(grid.cpus) if grid else 0,
            "gib": memory / 2**20,
            "used": used / 2**20,
            "full": min(1.0, used / memory) if memory else 0.0,
            "panels": list(self._panels(grid)) if grid else [],
            "floating": floating[:MOST_NAMED],
            "more": max(len(floating) - MOST_NAMED, 0),
            "vcpus": sum(vcpus for _, vcpus in floating),
        }

    def _floating(self, number: int) -> list[tuple[str, int]]:
        """Guests on a node without CPUs of their own, with their vCPUs."""
        return [
            (printable(guest.name), len(guest.vcpus))
            for at, guest in enumerate(self.guests)
            if number in guest.nodes and at not in self.swatches
        ]

    def _panels(self, node: GridNode) -> Iterator[dict[str, Any]]:
        for number, cluster in enumerate(node.clusters):
            in_a_row = max(1, IN_A_ROW // max(cluster.threads, 1))
            most = in_a_row * ROWS
            parts = range(0, len(cluster.cores), most)
            for part in parts:
                cores = cluster.cores[part : part + most]
                of = f" ({part // most + 1} of {len(parts)})" if len(parts) > 1 else ""
                yield self._panel(node, f"{_llc(number, cluster)}{of}", cores, in_a_row)

    def _panel(
        self, node: GridNode, title: str, masks: Sequence[int], in_a_row: int
    ) -> dict[str, Any]:
        cores = [node.numbers(mask) for mask in masks]
        threads = max(map(len, cores))
        wide = threads * CPU + GAP
        return {
            "title": title,
            "cores": [
                {
                    "x": GAP + at % in_a_row * wide,
                    "y": GAP + at // in_a_row * (HEIGHT + GAP),
                    "cells": list(map(self._cell, core)),
                }
                for at, core in enumerate(cores)
            ],
            "width": min(len(cores), in_a_row) * wide + GAP,
            "height": -(-len(cores) // in_a_row) * (HEIGHT + GAP) + GAP,
        }

    def _cell(self, cpu: int) -> dict[str, Any]:
        owners = self.owners.get(cpu, ())
        more = f"+{len(owners) - 1}" if len(owners) > 1 else ""
        return {
            "cpu": cpu,
            "names": ", ".join(printable(self.guests[at].name) for at in owners),
            "swatch": self.swatches[owners[0]] if owners else None,
            "tag": f"{self.swatches[owners[0]].tag}{more}" if owners else "",
            "shared": cpu in self.shared,
            "isolated": cpu in self.host.isolated or cpu in self.host.nohz_full,
        }


def _llc(number: int, cluster: Cluster) -> str:
    """An LLC's title."""
    cache = f", {cluster.cache // 1024} MiB" if cluster.cache >= 1024 else ""
    return f"LLC {number}{cache}"
