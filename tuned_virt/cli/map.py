# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt map: draw the host's nodes, LLCs, cores and CPUs with the guests planned on them."""

from __future__ import annotations

import argparse
import os
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tuned_virt.cli import (
    host_drawing,
    json_output,
    page,
    plan,
    planning_input,
    snapshot_file,
)
from tuned_virt.cli.common import FINE, CouldNot
from tuned_virt.cli.host_drawing import DrawnGuest
from tuned_virt.kernel import cpuset
from tuned_virt.model.guest import Guest, printable
from tuned_virt.model.topology import Host
from tuned_virt.model.topology.grid import GridNode
from tuned_virt.placement import Placement, PlacementKind, PlacementPlan

GAP, HEAD, LINE = 6, 18, 26
"""Pixels: the space around boxes, a panel's title, a line of text."""

MOST_WIDE, NARROWEST, ENTRY = 1248, 200, 416
"""Pixels: a row of nodes at most, a node at least, a column of the legend."""

LETTER, WIDE_LETTER = 7.5, 13
"""Pixels that a letter takes: on average, and at most."""

WIDE_LETTERS = frozenset("mwMW@%&…")
"""And those of scripts whose letters are as wide as high, from U+1100."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    planning_input.add_sources(parser)
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
        gathered = snapshot_file.load(options.snapshot).planning()
    else:
        gathered = planning_input.gather(options.host, options.guest)
    made = plan.planned(gathered, asked)
    if options.json:
        json_output.emit("map", content(gathered.host, made))
        return FINE
    if not options.output:
        print("\n".join(text(gathered.host, made)))
        return FINE
    drawing = host_drawing.draw(gathered.host, drawn_guests(gathered.guests, made))
    if options.output.endswith(".html"):
        page.write(options.output, html(drawing, _title(options), json_output.moment(time.time())))
    elif options.output.endswith(".svg"):
        page.write(options.output, svg(drawing))
    else:
        raise CouldNot(f"-o {options.output}: its name ends neither in .svg nor in .html")
    return FINE


def _title(options: argparse.Namespace) -> str:
    """The host's name, or that of the file that has it."""
    return str(options.snapshot or options.host or os.uname().nodename)


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


def drawn_guests(guests: Sequence[Guest], made: PlacementPlan) -> list[DrawnGuest]:
    """Guests as the plan places them; their memory evenly on the nodes of the placement."""
    memory = {guest.key: guest.memory for guest in guests}
    return [
        DrawnGuest(
            one.guest,
            one.vcpus,
            one.nodes,
            _spread(memory[one.uuid or one.guest], one),
            one.kind.value,
        )
        for one in made.placements
    ]


def _spread(memory: int, one: Placement) -> dict[int, float]:
    placed = one.kind in {PlacementKind.DEDICATED, PlacementKind.SHARED}
    return {node: memory / len(one.nodes) for node in one.nodes} if placed else {}


def svg(drawing: Mapping[str, Any]) -> str:
    """The picture as SVG: nodes in rows, a legend with the distances below."""
    nodes = list(map(_placed, drawing["nodes"]))
    right, bottom = _in_rows(nodes, MOST_WIDE)
    legend = list(_legend(drawing))
    wide, height = _in_rows(legend, MOST_WIDE, top=bottom + GAP)
    sizes = {"gap": GAP, "head": HEAD, "line_height": LINE}
    content = {**sizes, "nodes": nodes, "legend": legend, "width": max(right, wide)}
    styles = page.style("drawing.css")
    return page.render("map.svg.jinja", {**content, "height": height}, styles)


def html(drawing: Mapping[str, Any], host: str, when: str) -> str:
    """The picture as a page, with the legend beside it."""
    return page.page("map.html.jinja", {"drawing": drawing, "host": host, "when": when})


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


def _placed(node: Mapping[str, Any]) -> dict[str, Any]:
    """A node's box: its panels in rows, the memory, the guests without CPUs of their own."""
    panels = [{"shown": one, **_titled(one)} for one in node["panels"]]
    width, bar = _in_rows(panels, 2 * host_drawing.WIDEST + 3 * GAP, top=HEAD)
    lines = [f"{name}: {vcpus} vCPUs" for name, vcpus in node["floating"]]
    lines += [f"and {node['more']} more guests, see the legend"] if node["more"] else []
    wide = max(width, NARROWEST)
    lines = [part for line in lines for part in _folded(line, wide)]
    height = bar + host_drawing.BAR + 2 * GAP + len(lines) * LINE
    return {
        **node,
        "panels": panels,
        "width": wide,
        "height": height,
        "bar": bar,
        "lines": lines,
    }


def _titled(panel: Mapping[str, Any]) -> dict[str, int]:
    """A panel's box with its title."""
    return {"width": panel["width"], "height": panel["height"] + HEAD}


def _legend(drawing: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Entries with their sizes: guests side by side, sentences below each other."""
    for one in drawing["legend"]:
        cpus = f", {one['cpus']}" if one["cpus"] else ""
        first, *rest = _folded(f"{one['name']}: {one['told']}{cpus}", MOST_WIDE)
        yield _sized(one["swatch"], first)
        yield from (_sized(None, line, MOST_WIDE) for line in rest)
    for node, row in drawing["distances"]:
        text = f"distances from node {node}: {' '.join(map(str, row))}"
        yield from (_sized(None, line, MOST_WIDE) for line in _folded(text, MOST_WIDE))
    for line in drawing["key"]:
        yield _sized(None, line, MOST_WIDE)


def _folded(text: str, width: int) -> list[str]:
    """Lines of a text in so many pixels, at least one."""
    room = width - host_drawing.CPU - 2 * GAP
    return [text] if _pixels(text) <= room else textwrap.wrap(text, room // WIDE_LETTER)


def _pixels(text: str) -> int:
    wide = sum(letter in WIDE_LETTERS or letter >= "\u1100" for letter in text)
    return int(wide * WIDE_LETTER + (len(text) - wide) * LETTER)


def _sized(told: Any, line: str, least: int = 0) -> dict[str, Any]:
    """An entry of the legend with its size: whole columns."""
    columns = -(-(host_drawing.CPU + 2 * GAP + _pixels(line)) // ENTRY)
    wide = max(least, columns * ENTRY - GAP)
    return {"swatch": told, "line": line, "width": wide, "height": LINE if told else HEAD}
