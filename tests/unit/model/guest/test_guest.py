# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tuned_virt.cli import main
from tuned_virt.kernel import cpuset
from tuned_virt.model.guest import Guest, GuestError, read_guest
from tuned_virt.model.topology import Host, HostError
from tuned_virt.placement import parse, plan

SVG = "{http://www.w3.org/2000/svg}"
HOST = Path(__file__).parents[3] / "data/hosts/two-nodes.xml"

GUEST = """<domain type='kvm'>
  <name>db</name>
  <uuid>00000000-1111-2222-3333-444444444444</uuid>
  <metadata>
    <policy xmlns='urn:tuned-virt-plus:policy:1' policy='dedicated'/>
    <placement xmlns='urn:tuned-virt-plus:placement:1' vcpus='0=2'/>
  </metadata>
  <memory unit='GiB'>2</memory>
  <vcpu current='2'>4</vcpu>
  <iothreads>1</iothreads>
  <memoryBacking><hugepages><page size='2' unit='M'/></hugepages><locked/></memoryBacking>
  <cputune>
    <vcpupin vcpu='0' cpuset='2'/>
    <vcpupin vcpu='1' cpuset='4-7,^6'/>
  </cputune>
  <devices>
    <disk type='block'>
      <driver iothread='1'/><source dev='/dev/nvme0n1'/>
    </disk>
    <interface type='hostdev'>
      <source><address type='pci' domain='0x0' bus='0x3b' slot='010' function='1'/></source>
    </interface>
  </devices>
</domain>"""


def test_what_a_guest_says() -> None:
    guest = read_guest(GUEST)
    assert (guest.vcpus, guest.online, guest.memory) == (4, (0, 1), 2 << 20)
    assert guest.devices == ("0000:3b:08.1",)
    assert guest.iothreads == {1: ("nvme0n1",)}
    assert guest.owned.vcpus == {1: frozenset({4, 5, 7})}, "the tagged pin is ours"
    assert guest.wishes == {"policy": "dedicated"}
    assert guest.huge_pages[0].size == 2048
    assert guest.locked
    assert not guest.movable


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("cpuset='2'", "cpuset='0-999999'", "line 13: <vcpupin cpuset>"),
        ("cpuset='2'", "cpuset='-1'", "line 13: <vcpupin cpuset>"),
        (">4</vcpu>", ">-4</vcpu>", "line 9: <vcpu>"),
        (">4</vcpu>", ">999999</vcpu>", "line 9: <vcpu>"),
        ("unit='GiB'>2", "unit='furlong'>2", "line 8: <memory>"),
        ("<domain type='kvm'>", "<!DOCTYPE d [<!ENTITY e 'x'>]><domain type='kvm'>", "DTD"),
        ("type='kvm'", "type='xen'", "line 1: type 'xen'"),
        ("<devices>", "<a cpuset='0-65535'/>" * 17 + "<devices>", "have over 1048576 numbers"),
        ("<devices>", "<a>" * 90_000, "mismatched tag"),
        ("<devices>", " " * 5_000_000, "longer than"),
        ("<name>db</name>", "<a/>" * 200_000, "more than"),
    ],
)
def test_hostile_guests(old: str, new: str, reason: str) -> None:
    with pytest.raises(GuestError) as caught:
        read_guest(GUEST.replace(old, new))
    assert reason in str(caught.value)


def test_lists_of_a_million() -> None:
    """What these cost is measured by bench/hostile.py."""
    with pytest.raises(ValueError, match="'0-999999' goes beyond 65535"):
        cpuset.parse("0-999999")
    with pytest.raises(ValueError, match="is longer than 131072 characters"):
        cpuset.parse("0," * 1_000_000)
    assert len(cpuset.parse(",".join(["0-65535"] * 15_000))) == 65536


@pytest.mark.large
def test_ten_thousand_guests(capsys: pytest.CaptureFixture[str]) -> None:
    """The planner takes them; the command says that no host has so many, before it reads one."""
    guests = [
        Guest(f"g{n}", f"u{n}", vcpus=2, online=(0, 1), memory=1 << 20) for n in range(10_000)
    ]
    made = plan(Host.from_xml(HOST.read_text()), guests, parse({"policy": "dedicated"}), {})
    assert len(made.placements) == 10_000
    assert main(["plan", "--host", str(HOST), "--guest", *["/no/such/file"] * 10_000]) == 2
    assert "10000 guests are more than 4096" in capsys.readouterr().err


def test_a_host_is_refused_with_its_line() -> None:
    text = HOST.read_text().replace('cpu id="9"', 'cpu id="x"')
    with pytest.raises(HostError, match=r"line \d+: <cpu id>: 'x'"):
        Host.from_xml(text)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "db.xml"
    file.write_text(GUEST.replace("cpuset='4-7,^6'", "cpuset='0-15'").replace("hugepages", "x"))
    arguments = ["plan", "--host", str(HOST), "--guest", str(file)]
    assert main([*arguments, "--json"]) == 0
    assert '"kind": "dedicated"' in capsys.readouterr().out
    assert main([*arguments, "--set", "smt=maybe"]) == 2
    assert "option 'smt': 'maybe'" in capsys.readouterr().err
    file.write_text("<domain>\n<a></b></domain>")
    assert main(arguments) == 2
    assert "db.xml: line 2: mismatched tag" in capsys.readouterr().err


def test_the_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "db.xml"
    file.write_text(GUEST.replace("cpuset='4-7,^6'", "cpuset='0-15'").replace("hugepages", "x"))
    arguments = ["map", "--host", str(HOST), "--guest", str(file)]
    assert main(arguments) == 0
    assert "dedicated to db" in capsys.readouterr().out
    drawn = tmp_path / "map.svg"
    assert main([*arguments, "-o", str(drawn)]) == 0
    boxes = [title.text for title in ElementTree.parse(drawn).iter(f"{SVG}title")]
    assert len(boxes) == 16
    assert [box for box in boxes if box and box.endswith(" db")] == ["CPU 2 db", "CPU 3 db"]
    assert main([*arguments, "-o", str(tmp_path / "map.gif")]) == 2


def test_a_snapshot_plans_like_its_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, kept = tmp_path / "db.xml", tmp_path / "host.json"
    file.write_text(GUEST)
    sources = ["--host", str(HOST), "--guest", str(file)]
    assert main(["snapshot", *sources, "--no-redact", "-o", str(kept)]) == 0
    assert main(["plan", *sources, "--json"]) == 0
    direct = json.loads(capsys.readouterr().out)
    assert main(["plan", "--snapshot", str(kept), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"host": str(kept), **direct}
    assert main(["plan", *sources]) == 0
    text = capsys.readouterr().out
    assert main(["plan", "--snapshot", str(kept)]) == 0
    assert capsys.readouterr().out == text
    assert main(["plan", "--snapshot", str(kept), "/no/such", str(kept)]) == 2
    several = capsys.readouterr()
    assert several.out == f"host {kept}:\n{text}" * 2
    assert "/no/such: No such file" in several.err
    assert main(["plan", "--json", "--snapshot", "/no/such", str(kept)]) == 2
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["host"] for line in lines] == ["/no/such", str(kept)]
    assert "error" in lines[0]
    kept.write_text('{"format": 1}')
    assert main(["plan", "--snapshot", str(kept)]) == 2
