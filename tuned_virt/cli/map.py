# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt map: draw the host's nodes, LLCs, cores and CPUs with the guests planned on them."""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tuned_virt.cli import json_output, plan, planning_input, snapshot
from tuned_virt.cli.common import FINE, CouldNot
from tuned_virt.kernel import cpuset
from tuned_virt.model.guest import Guest, printable
from tuned_virt.model.topology import Host
from tuned_virt.model.topology.grid import Cluster, GridNode
from tuned_virt.placement import PlacementKind, PlacementPlan

CPU, GAP, HEAD, BAR = 30, 5, 22, 14
"""Pixels: a CPU's box, the space around boxes, a title's height, a memory bar's height."""

WIDE = 16
"""CPUs side by side in an LLC, and about the square root of a node's CPUs at 256 CPUs."""

MOST_NAMED = 6
"""Floating guests named in a node's box; the legend has all."""

LINE = 17
"""Pixels of a line of text."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    snapshot.add_sources(parser)
    parser.add_argument(
        "--snapshot",
        metavar="FILE",
        help="a host with its guests, as written by tuned-virt snapshot",
    )
    plan.add_policy(parser)
    output = parser.add_mutually_exclusive_group()
    output.add_argument("-o", "--output", metavar="FILE", help=".svg or .html; default: text")
    json_output.add_option(output)


def run(options: argparse.Namespace) -> int:
    """Gather, plan and draw; changes nothing."""
    asked = plan.read_asked(options.policy, options.set)
    if options.snapshot:
        gathered = snapshot.load(Path(options.snapshot))
    else:
        gathered = planning_input.gather(options.host, options.guest)
    made = plan.planned(gathered, asked)
    if options.json:
        json_output.emit("map", content(gathered.host, made))
        return FINE
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
            yield f"  LLC {number}: CPUs {cpuset.text(cpus)}{_dedicated(cpus, taken)}"
        floating = [
            p for p in made.placements if p.kind is PlacementKind.SHARED and node.id in p.nodes
        ]
        if floating:
            yield f"  floating: {', '.join(printable(one.guest) for one in floating)}"


def _dedicated(cpus: Iterable[int], taken: Mapping[int, str]) -> str:
    """Which of an LLC's CPUs are dedicated, and to whom."""
    by_guest: dict[str, list[int]] = {}
    for cpu in cpus:
        if cpu in taken:
            by_guest.setdefault(printable(taken[cpu]), []).append(cpu)
    parts = (f"{cpuset.text(own)} dedicated to {name}" for name, own in sorted(by_guest.items()))
    return f" ({', '.join(parts)})" if by_guest else ""


def content(host: Host, made: PlacementPlan) -> dict[str, Any]:
    """The picture as JSON has it: nodes, their LLCs, cores and CPUs, and whose these are."""
    taken = _on_cpu(made)
    return {
        "nodes": [_node_content(host, node, taken) for node in host.grid.nodes],
        **plan.content(made),
    }


def _node_content(host: Host, node: GridNode, taken: Mapping[int, str]) -> dict[str, Any]:
    return {
        "node": node.id,
        "cpus": cpuset.text(node.cpus),
        "memory_mib": host.by_id[node.id].memory // 1024,
        "llcs": [
            {
                "cpus": cpuset.text(node.numbers(cluster.mask)),
                "cores": [cpuset.text(node.numbers(core)) for core in cluster.cores],
                "dedicated": {
                    str(cpu): taken[cpu] for cpu in node.numbers(cluster.mask) if cpu in taken
                },
            }
            for cluster in node.clusters
        ],
    }


def _colour(name: str) -> str:
    return f"hsl({zlib.crc32(name.encode()) % 360},65%,72%)"


def svg(host: Host, guests: Sequence[Guest], made: PlacementPlan) -> str:
    """The picture as SVG: nodes in rows, a legend with the distances below."""
    import jinja2  # takes time

    nodes = [_node(host, node, guests, made) for node in host.grid.nodes]
    right, bottom = _in_rows(nodes, 1400)
    legend = [*_distances(host), *_legend(made)]
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["printable"] = printable
    return environment.get_template("map.svg.jinja").render(
        nodes=nodes,
        legend=legend,
        legend_top=bottom + GAP,
        width=max(right, 520),
        height=bottom + 2 * GAP + len(legend) * LINE,
        taken=_on_cpu(made),
        colour=_colour,
        gap=GAP,
        side=CPU,
        bar=BAR,
        line_height=LINE,
    )


def _in_rows(boxes: Iterable[Any], most: int, left: int = GAP, top: int = GAP) -> tuple[int, int]:
    """Give boxes places side by side, in rows of a width; the right and lower edge of all."""
    x, y, right, row = left, top, left, 0
    for box in boxes:
        if x > left and x + box["width"] > most:
            x, y, row = left, y + row + GAP, 0
        box["x"], box["y"] = x, y
        x, row = x + box["width"] + GAP, max(row, box["height"])
        right = max(right, x)
    return right, y + row + GAP


def _node(
    host: Host, node: GridNode, guests: Sequence[Guest], made: PlacementPlan
) -> dict[str, Any]:
    """A node's box: its LLCs in rows, the memory planned, the guests that float on it."""
    clusters = [_cluster(node, cluster) for cluster in node.clusters]
    width, bar = _in_rows(clusters, 4 * WIDE * CPU // 3, top=HEAD)
    memory = host.by_id[node.memory_node].memory
    used = sum(
        next(guest.memory for guest in guests if guest.key == (one.uuid or one.guest))
        / len(one.nodes)
        for one in made.placements
        if node.id in one.nodes and one.kind in {PlacementKind.DEDICATED, PlacementKind.SHARED}
    )
    floating = list(_floating(node, made))
    return {
        "id": node.id,
        "cpus": len(node.cpus),
        "clusters": clusters,
        "width": max(width, 170),
        "height": bar + BAR + GAP + len(floating) * LINE,
        "bar": bar,
        "full": min(1.0, used / memory) if memory else 0.0,
        "memory": f"{used / 2**20:.1f} of {memory / 2**20:.1f} GiB",
        "floating": floating,
    }


def _floating(node: GridNode, made: PlacementPlan) -> Iterator[tuple[str, str]]:
    """A line for each guest that floats on a node, for the first few."""
    found = [
        one for one in made.placements if one.kind is PlacementKind.SHARED and node.id in one.nodes
    ]
    for one in found[:MOST_NAMED]:
        yield _colour(one.guest), f"{printable(one.guest)[:24]} floats ({len(one.vcpus)} vCPUs)"
    if len(found) > MOST_NAMED:
        yield "none", f"and {len(found) - MOST_NAMED} more"


def _cluster(node: GridNode, cluster: Cluster) -> dict[str, Any]:
    """An LLC: cores in rows, each a box around its CPUs."""
    wide = cluster.threads * CPU + GAP
    per_row = max(1, min(len(cluster.cores), WIDE // cluster.threads // 2 or 1))
    cores = [
        {
            "x": GAP + number % per_row * wide,
            "y": GAP + number // per_row * (CPU + GAP),
            "cpus": node.numbers(core),
        }
        for number, core in enumerate(cluster.cores)
    ]
    rows = -(-len(cluster.cores) // per_row)
    return {"cores": cores, "width": per_row * wide + GAP, "height": rows * (CPU + GAP) + GAP}


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
