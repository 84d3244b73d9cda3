# SPDX-License-Identifier: GPL-2.0-or-later
"""Single elements of libvirt's capabilities."""

from __future__ import annotations

import pytest

from tuned_virt.model.topology import Cache, CpuDetail, Host, HostError, NumaNode

CPU = "<cpu id='{0}' socket_id='1' die_id='2' core_id='3' siblings='{1}'/>"
CELL = "<cell id='{}'>{}</cell>"
PAIR = f"<cpus>{CPU.format(0, '0-1')}{CPU.format(1, '0-1')}</cpus>"


def xml(cells: str, more: str = "") -> str:
    return (
        f"<capabilities>\n<host>{more}<topology>\n<cells>{cells}</cells></topology></host>"
        "</capabilities>"
    )


def host(cells: str, more: str = "") -> Host:
    return Host.from_xml(xml(cells, more))


def refused(cells: str, more: str = "") -> str:
    with pytest.raises(HostError) as caught:
        host(cells, more)
    return str(caught.value)


def test_a_cell() -> None:
    inside = (
        "<memory unit='MiB'>4</memory><pages size='4'>100</pages>"
        "<pages unit='MiB' size='2'>3</pages><pages>5</pages>"
        "<distances><sibling id='0' value='10'/><sibling id='1' value='21'/></distances>"
    )
    with pytest.raises(HostError, match="<pages>: '' is not a whole number from 0"):
        host(CELL.format(0, inside + PAIR))
    found = host(CELL.format(0, inside.replace("<pages>5</pages>", "") + PAIR))
    assert found.nodes == (NumaNode(0, frozenset({0, 1}), 4096, {0: 10, 1: 21}, {4: 100, 2048: 3}),)
    assert found.cpus == {
        number: CpuDetail(number, 0, 1, 2, 3, frozenset({0, 1})) for number in (0, 1)
    }
    assert (found.arch, found.caches, found.notes, found.offline) == ("", (), (), frozenset())


def test_a_cpu_that_says_nothing_of_its_place_is_in_the_first() -> None:
    found = host(CELL.format(0, "<cpus><cpu id='7' siblings='7'/></cpus>"))
    assert found.cpus == {7: CpuDetail(7, 0, 0, 0, 0, frozenset({7}))}


def test_cells_without_memory_or_cpus() -> None:
    found = host(CELL.format(5, "<memory>7</memory>") + CELL.format(0, PAIR))
    assert found.nodes == (
        NumaNode(0, frozenset({0, 1}), 0, {}, {}),
        NumaNode(5, frozenset(), 7, {}, {}),
    )


def test_cpus_without_siblings_are_offline() -> None:
    found = host(CELL.format(0, f"<cpus>{CPU.format(0, '0')}<cpu id='7'/></cpus>"))
    assert found.cpus.keys() == {0}
    assert found.offline == frozenset({7})
    assert found.nodes[0].cpus == {0, 7}


def test_where_no_cpu_has_siblings_each_is_a_core() -> None:
    found = host(CELL.format(3, "<cpus><cpu id='4'/><cpu id='7' socket_id='2'/></cpus>"))
    assert found.cpus == {
        4: CpuDetail(4, 3, 0, 0, 4, frozenset({4})),
        7: CpuDetail(7, 3, 2, 0, 7, frozenset({7})),
    }
    assert found.notes == ("no CPU has siblings: each is treated as a separate core",)
    assert found.offline == frozenset()


def test_the_architecture() -> None:
    assert host(CELL.format(0, PAIR), "<cpu><arch>x86_64</arch></cpu>").arch == "x86_64"


@pytest.mark.large
@pytest.mark.parametrize(
    ("cells", "why"),
    [
        ("", "there is no <host><topology><cells>: not the capabilities of a host"),
        (CELL.format(0, ""), "line 3: no node has a CPU"),
        (
            CELL.format(0, PAIR) + CELL.format(0, "") + "\n" + CELL.format(1, ""),
            "line 4: two nodes have the same id",
        ),
        (
            CELL.format(0, PAIR) + CELL.format(1, PAIR) + "\n" + CELL.format(2, ""),
            "line 4: two CPUs have the same id",
        ),
        (CELL.format("x", PAIR), "line 3: <cell id>: 'x' is not a whole number from 0"),
        ("<cell><cpus/></cell>", "line 3: <cell id>: '' is not a whole number from 0"),
        (
            CELL.format(0, "<cpus><cpu/></cpus>"),
            "line 3: <cpu id>: '' is not a whole number from 0",
        ),
        (
            CELL.format(0, "<cpus><cpu id='0' siblings='x'/></cpus>"),
            "line 3: <cpu siblings>: 'x' is not a number or a range of numbers",
        ),
        (
            CELL.format(0, "<cpus><cpu id='0' siblings='0-1,^1'/></cpus>"),
            "line 3: <cpu siblings>: '^1' is not a number or a range of numbers",
        ),
        (
            CELL.format(0, "<cpus><cpu id='0' socket_id='x'/></cpus>"),
            "line 3: <cpu socket_id>: 'x' is not a whole number from 0",
        ),
        (
            CELL.format(0, PAIR + "<pages size='4'>x</pages>"),
            "line 3: <pages>: 'x' is not a whole number from 0",
        ),
        (
            CELL.format(0, PAIR + "<pages size='4'/>"),
            "line 3: <pages>: '' is not a whole number from 0",
        ),
        (
            CELL.format(0, PAIR + "<distances><sibling id='0'/></distances>"),
            "line 3: <sibling value>: '' is not a whole number from 0",
        ),
        (
            CELL.format(
                0, "<cpus>" + "".join(f"<cpu id='{n}'/>" for n in range(16385)) + "</cpus>"
            ),
            "line 3: more than 16384 CPUs",
        ),
    ],
    ids=range(14),
)
def test_what_is_not_read(cells: str, why: str) -> None:
    assert refused(cells) == why


@pytest.mark.large
def test_as_many_cpus_as_libvirt_takes() -> None:
    many = "".join(f"<cpu id='{n}'/>" for n in range(16384))
    assert len(host(CELL.format(0, f"<cpus>{many}</cpus>")).cpus) == 16384


def test_other_xml_is_refused() -> None:
    with pytest.raises(HostError, match=r"^line 1: <domain> is no <capabilities>$"):
        Host.from_xml("<domain/>")


def banks(*written: str) -> tuple[Cache, ...]:
    return host(CELL.format(0, PAIR), f"<cache>{''.join(written)}</cache>").caches


def test_last_level_caches() -> None:
    assert banks(
        "<bank level='2' type='both' size='1' unit='MiB' cpus='0-1'/>",
        "<bank level='3' type='both' size='32' unit='MiB' cpus='8-15'/>",
        "<bank level='3' type='data' size='16' cpus='0-7'/>",
        "<bank level='3' type='code' size='16' cpus='0-7'/>",
        "<bank level='3' type='both' size='16' cpus=''/>",
        "<bank level='3' type='both' cpus='16'/>",
    ) == (
        Cache(frozenset(range(8)), 16),
        Cache(frozenset(range(8, 16)), 32 << 10),
        Cache(frozenset({16}), 0),
    )


@pytest.mark.parametrize(
    ("bank", "why"),
    [
        ("<bank/>", "line 2: <bank level>: '' is not a whole number from 0"),
        (
            "<bank level='3' cpus='x'/>",
            "line 2: <bank cpus>: 'x' is not a number or a range of numbers",
        ),
        (
            "<bank level='3' cpus='0-1,^1'/>",
            "line 2: <bank cpus>: '^1' is not a number or a range of numbers",
        ),
        ("<bank level='3' cpus='0' size='x'/>", "line 2: <bank>: 'x' is not a whole number from 0"),
        ("<bank level='3' cpus='0' unit='q'/>", "line 2: <bank>: unit 'q' is unknown"),
    ],
)
def test_caches_that_are_not_read(bank: str, why: str) -> None:
    assert refused(CELL.format(0, PAIR), f"<cache>{bank}</cache>") == why


def test_distances_that_nobody_tells() -> None:
    nodes = (
        NumaNode(0, frozenset({0}), 1, {1: 14}, {}),
        NumaNode(1, frozenset({1}), 1, {0: 15, 1: 11}, {}),
    )
    of = Host(nodes, {})
    assert [of.distance(one, other) for one in (0, 1) for other in (0, 1)] == [10, 14, 15, 11]
    assert of.distance(0, 9) == 20
    assert of.by_id == {0: nodes[0], 1: nodes[1]}
