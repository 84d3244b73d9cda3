# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt map: draw the host's nodes, LLCs, cores and CPUs with the guests planned on them."""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from tuned_virt.cli import plan, planning_input, snapshot
from tuned_virt.cli.common import FINE, CouldNot
from tuned_virt.kernel import cpuset
from tuned_virt.model.guest import Guest, printable
from tuned_virt.model.topology import Host
from tuned_virt.model.topology.grid import Cluster, GridNode
from tuned_virt.placement import PlacementKind, PlacementPlan

NAME = "map"

CPU, GAP, HEAD, BAR = 30, 5, 22, 14
"""Pixels: a CPU's box, the space around boxes, a title's height, a memory bar's height."""

WIDE = 16
"""CPUs side by side in an LLC, and about the square root of a node's CPUs at 256 CPUs."""

MOST_NAMED = 6
"""Floating guests named in a node's box; the legend has all."""

STYLE = "text{font:11px sans-serif;fill:#222}.b{fill:none;stroke:#888}.n{fill:#f6f6f2;stroke:#555}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    snapshot.add_sources(parser)
    parser.add_argument(
        "--snapshot", metavar="FILE", help="a host with its guests as tuned-virt snapshot wrote it"
    )
    plan.add_policy(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help=".svg or .html; default: text")


def run(options: argparse.Namespace) -> int:
    """Gather, plan and draw; changes nothing."""
    asked = plan.read_asked(options.policy, options.set)
    if options.snapshot:
        gathered = snapshot.load(Path(options.snapshot))
    else:
        gathered = planning_input.gather(options.host, options.guest)
    made = plan.planned(gathered, asked)
    if not options.output:
        print("\n".join(text(gathered.host, made)))
        return FINE
    drawn = svg(gathered.host, gathered.guests, made)
    if options.output.endswith(".html"):
        drawn = f"<!DOCTYPE html><meta charset='utf-8'><title>tuned-virt map</title>{drawn}"
    elif not options.output.endswith(".svg"):
        raise CouldNot(f"-o {options.output}: its name ends neither in .svg nor in .html")
    try:
        Path(options.output).write_text(drawn, encoding="utf-8")
    except OSError as error:
        raise CouldNot(f"{options.output}: {error.strerror}") from error
    return FINE


def _on_cpu(made: PlacementPlan) -> dict[int, str]:
    """CPU → the guest that it is dedicated to."""
    return {
        int(text): one.guest
        for one in made.placements
        if one.kind is PlacementKind.DEDICATED
        for text in one.vcpus.values()
    }


def text(host: Host, made: PlacementPlan) -> Iterator[str]:
    """The picture in a terminal: a line per node and LLC, and the guests on the node."""
    taken = _on_cpu(made)
    for node in host.grid.nodes:
        gib = host.by_id[node.id].memory / 2**20
        yield f"node {node.id}: {len(node.cpus)} CPUs, {gib:.1f} GiB"
        for number, cluster in enumerate(node.clusters):
            cpus = node.numbers(cluster.mask)
            names = sorted({printable(taken[cpu]) for cpu in cpus if cpu in taken})
            own = f"  dedicated to {', '.join(names)}" if names else ""
            yield f"  LLC {number}: CPUs {cpuset.text(cpus)}{own}"
        floating = [
            p for p in made.placements if p.kind is PlacementKind.SHARED and node.id in p.nodes
        ]
        if floating:
            yield f"  floating: {', '.join(printable(one.guest) for one in floating)}"


def _colour(name: str) -> str:
    return f"hsl({zlib.crc32(name.encode()) % 360},65%,72%)"


def svg(host: Host, guests: Sequence[Guest], made: PlacementPlan) -> str:
    """The picture as SVG: nodes in rows, a legend with the distances below."""
    taken = _on_cpu(made)
    parts: list[str] = []
    x = y = right = tallest = GAP
    for node in host.grid.nodes:
        width, height, drawn = _node(host, node, taken, guests, made)
        if x > GAP and x + width > 1400:
            x, y, tallest = GAP, y + tallest + GAP, GAP
        parts.append(f"<g transform='translate({x},{y})'>{drawn}</g>")
        x += width + GAP
        right, tallest = max(right, x), max(tallest, height)
    y += tallest + 2 * GAP
    lines = [*_distances(host), *_legend(made)]
    for colour, line in lines:
        if colour:
            parts.append(f"<rect x='{GAP}' y='{y}' width='12' height='12' fill='{colour}'/>")
        parts.append(f"<text x='{GAP + 18}' y='{y + 10}'>{escape(line)}</text>")
        y += 17
    size = f"width='{max(right, 520)}' height='{y + GAP}'"
    head = f"<svg xmlns='http://www.w3.org/2000/svg' {size}><style>{STYLE}</style>"
    return f"{head}<rect width='100%' height='100%' fill='white'/>{''.join(parts)}</svg>\n"


def _node(
    host: Host, node: GridNode, taken: dict[int, str], guests: Sequence[Guest], made: PlacementPlan
) -> tuple[int, int, str]:
    """Width, height and content of a node's box."""
    parts, x, y, width, row = [], GAP, HEAD, 170, 0
    for cluster in node.clusters:
        wide, high, drawn = _cluster(node, cluster, taken)
        if x > GAP and x + wide > 4 * WIDE * CPU // 3:
            x, y, row = GAP, y + row + GAP, 0
        parts.append(f"<g transform='translate({x},{y})'>{drawn}</g>")
        x, row = x + wide + GAP, max(row, high)
        width = max(width, x)
    y += row + GAP
    memory = host.by_id[node.memory_node].memory
    used = sum(
        next(guest.memory for guest in guests if guest.key == (one.uuid or one.guest))
        / len(one.nodes)
        for one in made.placements
        if node.id in one.nodes and one.kind in {PlacementKind.DEDICATED, PlacementKind.SHARED}
    )
    full = min(1.0, used / memory) if memory else 0.0
    length = width - 2 * GAP
    parts.append(
        f"<rect x='{GAP}' y='{y}' width='{length}' height='{BAR}' fill='#ddd'/>"
        f"<rect x='{GAP}' y='{y}' width='{length * full:.0f}' height='{BAR}' fill='#7a9cc6'/>"
        f"<text x='{GAP + 3}' y='{y + 11}'>{used / 2**20:.1f} of {memory / 2**20:.1f} GiB</text>"
    )
    y += BAR + GAP
    for colour, line in _floating(node, made):
        parts.append(f"<rect x='{GAP}' y='{y}' width='12' height='12' fill='{colour}'/>")
        parts.append(f"<text x='{GAP + 18}' y='{y + 10}'>{escape(line)}</text>")
        y += 17
    height = y
    box = f"<rect class='n' width='{width}' height='{height}' rx='4'/>"
    title = f"<text x='{GAP}' y='15'>node {node.id}: {len(node.cpus)} CPUs</text>"
    return width, height, box + title + "".join(parts)


def _floating(node: GridNode, made: PlacementPlan) -> Iterator[tuple[str, str]]:
    """A line for each guest that floats on a node, for the first few."""
    found = [
        one for one in made.placements if one.kind is PlacementKind.SHARED and node.id in one.nodes
    ]
    for one in found[:MOST_NAMED]:
        yield _colour(one.guest), f"{printable(one.guest)[:24]} floats ({len(one.vcpus)} vCPUs)"
    if len(found) > MOST_NAMED:
        yield "none", f"and {len(found) - MOST_NAMED} more"


def _cluster(node: GridNode, cluster: Cluster, taken: dict[int, str]) -> tuple[int, int, str]:
    """An LLC: cores in rows, each a box around its CPUs."""
    wide = cluster.threads * CPU + GAP
    per_row = max(1, min(len(cluster.cores), WIDE // cluster.threads // 2 or 1))
    parts = []
    for number, core in enumerate(cluster.cores):
        x, y = GAP + number % per_row * wide, GAP + number // per_row * (CPU + GAP)
        cpus = node.numbers(core)
        for at, cpu in enumerate(cpus):
            left = x + at * CPU
            name = taken.get(cpu, "")
            fill = _colour(name) if name else "white"
            parts.append(
                f"<rect x='{left}' y='{y}' width='{CPU}' height='{CPU}' fill='{fill}'"
                f" stroke='#ccc'><title>{escape(f'CPU {cpu} {printable(name)}')}</title></rect>"
                f"<text x='{left + CPU // 2}' y='{y + 19}' text-anchor='middle'>{cpu}</text>"
            )
        parts.append(f"<rect class='b' x='{x}' y='{y}' width='{len(cpus) * CPU}' height='{CPU}'/>")
    rows = -(-len(cluster.cores) // per_row)
    width, height = per_row * wide + GAP, rows * (CPU + GAP) + GAP
    return width, height, f"<rect class='b' width='{width}' height='{height}'/>" + "".join(parts)


def _distances(host: Host) -> Iterator[tuple[str, str]]:
    ids = [node.id for node in host.nodes if node.cpus]
    if len(ids) > 1:
        for one in ids:
            row = " ".join(f"{host.distance(one, other)}" for other in ids)
            yield "", f"distances from node {one}: {row}"


def _legend(made: PlacementPlan) -> Iterator[tuple[str, str]]:
    for one in made.placements:
        colour = _colour(one.guest) if one.nodes else ""
        where = f", nodes {cpuset.text(one.nodes)}" if one.nodes else ""
        yield colour, f"{printable(one.guest)}: {one.kind.value}{where}"
