# SPDX-License-Identifier: GPL-2.0-or-later
"""The drawing: every CPU once, every guest by tag and name, nothing told by colour alone."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from hypothesis import given

from tests.hosts import hosts
from tests.unit.machines import machine
from tuned_virt.cli import host_drawing, map
from tuned_virt.cli.host_drawing import DrawnGuest
from tuned_virt.frozen_dataclasses import replace
from tuned_virt.kernel import cpuset
from tuned_virt.model.topology import Host, NumaNode


def cells(drawing: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """By CPU."""
    panels = [panel for node in drawing["nodes"] for panel in node["panels"]]
    found = [cell for panel in panels for core in panel["cores"] for cell in core["cells"]]
    assert len({cell["cpu"] for cell in found}) == len(found)
    return {cell["cpu"]: cell for cell in found}


def test_every_cpu_is_drawn_once_in_panels_that_a_telephone_shows() -> None:
    for nodes, cores, threads, llcs in ((1, 256, 1, 1), (4, 32, 2, 4), (2, 16, 8, 1), (1, 1, 1, 1)):
        drawing = host_drawing.draw(machine(nodes, cores, threads, llcs), [])
        assert cells(drawing).keys() == set(range(nodes * cores * threads))
        for panel in (one for node in drawing["nodes"] for one in node["panels"]):
            assert panel["width"] <= host_drawing.WIDEST <= 390 - 2 * 12 - 2 * 9
            for core in panel["cores"]:
                right = core["x"] + len(core["cells"]) * host_drawing.CPU
                assert right < panel["width"]
                assert core["y"] + host_drawing.HEIGHT < panel["height"]


def test_who_has_which_cpu() -> None:
    """Two guests on one CPU, one over a node's, one CPU isolated, one node without CPUs."""
    host = machine(nodes=1, cores=4)
    far = NumaNode(7, frozenset(), 4 << 20, {0: 20, 7: 10}, {})
    host = replace(host, nodes=(*host.nodes, far), isolated=frozenset({7}))
    guests = [
        DrawnGuest("floats", {0: "4-6", 1: "4-6"}, (0,), {0: 1 << 20}, "shared"),
        DrawnGuest("db", {0: "2", 1: "3"}, (0,), {0: 1 << 20, 7: 1 << 20}, "dedicated"),
        DrawnGuest("app", {0: "3"}, (0,), {}, "owner"),
    ]
    drawing = host_drawing.draw(host, guests)
    found = cells(drawing)
    assert {cpu: cell["tag"] for cpu, cell in found.items() if cell["tag"]} == {2: "A", 3: "A+1"}
    assert found[3]["names"] == "db, app"
    assert [cpu for cpu, cell in found.items() if cell["shared"]] == [4, 5, 6]
    assert [cpu for cpu, cell in found.items() if cell["isolated"]] == [7]
    near, other = drawing["nodes"]
    assert (near["floating"], near["used"], near["full"]) == ([("floats", 2)], 2, 0.25)
    assert (other["cpus"], other["panels"], other["used"]) == (0, [], 1)
    told = [(one["swatch"] and one["swatch"].tag, one["name"]) for one in drawing["legend"]]
    assert told == [("A", "db"), ("B", "app"), (None, "floats")]
    assert drawing["distances"] == [(0, [10, 20]), (7, [20, 10])]


def test_tags_are_unlike_and_neighbours_have_unlike_colours() -> None:
    swatches = [host_drawing.swatch(number) for number in range(1000)]
    assert len({one.tag for one in swatches}) == 1000
    assert [one.tag for one in swatches[24:28]] == ["Y", "Z", "AA", "AB"]
    looks = [(one.fill, one.pattern) for one in swatches]
    assert len(set(looks)) == 48
    assert all(one[0] != other[0] for one, other in zip(looks, looks[1:]))


@given(host=hosts())
def test_any_host_is_drawn(host: Host) -> None:
    """Nodes without CPUs or memory, caches over nodes, cores of unequal threads, gaps."""
    everywhere = cpuset.text(host.cpus)
    guests = [DrawnGuest("own", {0: str(min(host.cpus))}, (host.nodes[0].id,), {99: 1.0})]
    guests += [DrawnGuest("floats", {0: everywhere}, tuple(host.by_id))]
    drawing = host_drawing.draw(host, guests)
    found = cells(drawing)
    assert found.keys() == host.cpus.keys()
    assert [node["id"] for node in drawing["nodes"]] == [node.id for node in host.nodes]
    assert found[min(host.cpus)]["names"].startswith("own")
    for panel in (one for node in drawing["nodes"] for one in node["panels"]):
        assert panel["width"] <= host_drawing.WIDEST
        last = panel["cores"][-1]
        assert last["y"] + host_drawing.HEIGHT < panel["height"]
    ElementTree.fromstring(map.svg(drawing))
