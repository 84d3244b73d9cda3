# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuned_virt.libvirt_api import hook as libvirt_hook
from tuned_virt.libvirt_api import placement_tag
from tuned_virt.libvirt_api.own_elements import LARGEST, NotXML
from tuned_virt.model.guest import PLACEMENT_NAMESPACE, read_guest
from tuned_virt.model.pins import Pins

REPO = Path(__file__).parents[3]
HOOK = REPO / "hooks/qemu.d/tuned-virt"

OURS = Pins({0: "4", 1: "0-3,8"}, "0-1", {1: "0-1"}, ("restrictive", "0"))
ELEMENTS = """<vcpupin vcpu='0' cpuset='4'/><vcpupin cpuset="0-3,8" vcpu="1"></vcpupin>
<emulatorpin cpuset='0-1'/><iothreadpin iothread='1' cpuset='0-1' />"""


def domain(cputune: str = "", metadata: str = "", numatune: str = "", head: str = "") -> str:
    return f"""{head}<!-- ü > " --><domain type='qemu' xmlns:q='http://x'>
  <name>é"&gt;</name><uuid>0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f1</uuid>
  <memory unit='MiB'>64</memory><vcpu>4</vcpu>
  <metadata><q:other a=">" b='<no/>'/>{metadata}</metadata>
  <cputune>{cputune}</cputune><numatune>{numatune}</numatune>
  <q:commandline><q:arg value="a>b'c"/></q:commandline>
</domain>""".replace("'<no/>'", "'&lt;no/&gt;'")


def tagged(pins: Pins = OURS) -> str:
    """As libvirt writes what setMetadata was given."""
    key, root = placement_tag.KEY, placement_tag.ROOT
    prefix = f'<{key}:{root} xmlns:{key}="{placement_tag.NAMESPACE}"'
    return placement_tag.text(pins).replace(f"<{placement_tag.ROOT}", prefix, 1)


NUMATUNE = "<memory mode='restrictive' nodeset='0'/>"
FULL = domain(ELEMENTS, tagged(), NUMATUNE)


def test_the_namespace_is_the_planners() -> None:
    assert placement_tag.NAMESPACE == PLACEMENT_NAMESPACE


def test_what_is_ours_is_known_and_the_rest_is_there() -> None:
    assert placement_tag.read(FULL) == (OURS, OURS)
    ours, present = placement_tag.read(FULL.replace("cpuset='4'", "cpuset='5'"))
    assert ours.vcpus == {1: "0-3,8"}
    assert present.vcpus == {0: "5", 1: "0-3,8"}
    assert placement_tag.read(domain(ELEMENTS)) == (Pins(), Pins(OURS.vcpus, "0-1", OURS.iothreads))


def test_the_planner_takes_the_same_for_ours() -> None:
    assert read_guest(domain(ELEMENTS, tagged(), NUMATUNE)).owned == read_guest(domain()).owned
    assert read_guest(domain(ELEMENTS)).owned.vcpus[0] == frozenset({4})


def test_strip_takes_ours_and_leaves_the_bytes_of_all_else() -> None:
    stripped = placement_tag.strip(FULL.encode())
    assert stripped is not None
    assert stripped.decode().replace("\n\n", "\n") == domain("\n")
    assert placement_tag.strip(stripped) is None


def test_strip_leaves_what_somebody_else_changed() -> None:
    changed = ELEMENTS.replace("cpuset='4'", "cpuset='5'")
    stripped = placement_tag.strip(domain(changed, tagged()).encode())
    assert stripped is not None
    root = ElementTree.fromstring(stripped)
    assert [dict(pin.attrib) for pin in root.iter("vcpupin")] == [{"vcpu": "0", "cpuset": "5"}]
    assert b"tuned-virt" not in stripped


def test_neighbours_of_ours_stay() -> None:
    both = "<vcpupin vcpu='0' cpuset='4'/><vcpupin vcpu='2' cpuset='6'/><shares>7</shares>"
    stripped = placement_tag.strip(domain(both, tagged(Pins({0: "4"}))).encode())
    assert stripped is not None
    assert b"<cputune><vcpupin vcpu='2' cpuset='6'/><shares>7</shares></cputune>" in stripped


def test_metadata_goes_where_it_was_made_for_our_tag_alone() -> None:
    mine = f"<domain><metadata>\n {tagged()}\n</metadata><name>a</name></domain>"
    alone = placement_tag.strip(mine.encode())
    assert alone is not None
    assert b"metadata" not in alone
    nested = "<x:a xmlns:x='urn:x'><metadata> </metadata></x:a>"
    beside = placement_tag.strip(domain(metadata=nested + tagged()).encode())
    assert beside is not None
    assert nested.encode() in beside


def test_pins_that_are_not_among_others() -> None:
    one = Pins({0: "1", 1: "2"}, "0", {1: "0"}, ("strict", "0"))
    assert one.without(one) == Pins()
    assert one.without(Pins()) == one
    assert one.without(Pins({0: "1", 1: "3"}, "1", {1: "0"})) == Pins(
        {1: "2"}, "0", {}, ("strict", "0")
    )


def test_pins_elsewhere_are_not_ours() -> None:
    elsewhere = f"<q:copy><domain><cputune>{ELEMENTS}</cputune></domain></q:copy>"
    stripped = placement_tag.strip(domain(metadata=elsewhere + tagged()).encode())
    assert stripped == domain(metadata=elsewhere).encode()


BOMB = '<!DOCTYPE d [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><domain>&b;</domain>'


@pytest.mark.parametrize("xml", ["", "<domain>", BOMB, "<domain a='&x;'/>", "\0", "<a/><b/>"])
def test_hostile_xml_is_refused(xml: str) -> None:
    with pytest.raises(NotXML, match=r".+"):
        placement_tag.strip(xml.encode())


def test_deep_and_long_xml_is_bounded() -> None:
    deep = "<domain>" * 100_000 + "</domain>" * 100_000
    assert placement_tag.strip(deep.encode()) is None
    with pytest.raises(NotXML, match="more than"):
        placement_tag.strip(b" " * (LARGEST + 1))


CPUSET = st.sampled_from(["0", "0-3", "1,5", "15"])
PINS = st.builds(
    Pins,
    st.dictionaries(st.integers(0, 5), CPUSET, max_size=4),
    st.one_of(st.none(), CPUSET),
    st.dictionaries(st.integers(1, 4), CPUSET, max_size=3),
    st.one_of(st.none(), st.tuples(st.sampled_from(["strict", "restrictive"]), CPUSET)),
)


def written(pins: Pins) -> tuple[str, str]:
    """The children of <cputune> and <numatune>."""
    cputune = [f"<vcpupin vcpu='{n}' cpuset='{cpus}'/>" for n, cpus in pins.vcpus.items()]
    cputune += [f"<emulatorpin cpuset='{pins.emulator}'/>"] if pins.emulator else []
    cputune += [f"<iothreadpin iothread='{n}' cpuset='{c}'/>" for n, c in pins.iothreads.items()]
    memory = "<memory mode='{}' nodeset='{}'/>".format(*pins.memory) if pins.memory else ""
    return "".join(cputune), memory


@given(present=PINS, tag=PINS)
def test_strip_is_what_read_says(present: Pins, tag: Pins) -> None:
    cputune, numatune = written(present)
    xml = domain(cputune, tagged(tag), numatune)
    ours, found = placement_tag.read(xml)
    assert found == present
    assert ours == present.among([tag])
    stripped = placement_tag.strip(xml.encode())
    assert stripped is not None
    _, left = placement_tag.read(stripped.decode())
    assert left == Pins(
        {n: c for n, c in present.vcpus.items() if n not in ours.vcpus},
        None if ours.emulator else present.emulator,
        {n: c for n, c in present.iothreads.items() if n not in ours.iothreads},
        None if ours.memory else present.memory,
    )


# --- the hook ---------------------------------------------------------------------------------


ISOLATED = "/usr/bin/python3 -I -m tuned_virt.libvirt_api.hook"


def hook(operation: str, xml: str) -> subprocess.CompletedProcess[str]:
    """The hook with this checkout's module: its own interpreter looks in no current folder."""
    text = HOOK.read_text()
    assert ISOLATED in text
    return subprocess.run(
        ["sh", "-c", text.replace(" -I ", " "), "hook", "guest", operation, "begin", "-"],
        input=xml,
        capture_output=True,
        text=True,
        cwd=REPO,
        check=False,
    )


@pytest.mark.parametrize("operation", ["migrate", "restore"])
def test_the_hook_strips(operation: str) -> None:
    done = hook(operation, FULL)
    assert (done.returncode, done.stderr) == (0, "")
    assert "vcpupin" not in done.stdout
    assert "commandline" in done.stdout


@pytest.mark.parametrize("operation", ["prepare", "start", "started", "stopped", "release"])
def test_the_hook_leaves_other_operations_alone(operation: str) -> None:
    done = hook(operation, FULL)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_hook_takes_no_code_from_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "tuned_virt/libvirt_api").mkdir(parents=True)
    (tmp_path / "tuned_virt/__init__.py").touch()
    (tmp_path / "tuned_virt/libvirt_api/__init__.py").touch()
    (tmp_path / "tuned_virt/libvirt_api/hook.py").write_text("print('from here')\n")
    command = [str(HOOK), "guest", "restore", "begin", "-"]
    done = subprocess.run(
        command, input="", capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_hook_never_fails() -> None:
    done = hook("restore", BOMB)
    assert (done.returncode, done.stdout) == (0, "")
    assert "the XML is not changed: a DTD is not allowed" in done.stderr


def test_as_a_program(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(FULL.encode())))
    assert libvirt_hook.main() == 0
    assert capsysbinary.readouterr().out == placement_tag.strip(FULL.encode())


@pytest.mark.parametrize("xml", [BOMB.encode(), b"<a>" + b" " * LARGEST + b"</a>"])
def test_what_it_does_not_read_it_leaves_alone_and_says_why(
    xml: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    standard_input = io.BytesIO(xml)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(standard_input))
    assert libvirt_hook.main() == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("tuned-virt hook: the XML is not changed: ")
    assert standard_input.tell() == min(len(xml), LARGEST + 1), "no more is read"


def test_a_tag_without_an_attribute_says_nothing_of_that_part() -> None:
    assert placement_tag.tagged({}) == Pins()
    assert placement_tag.tagged({"vcpus": "1=4"}) == Pins({1: "4"})


# --- single elements --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pins", "some"),
    [
        (Pins(), False),
        (Pins({0: "1"}), True),
        (Pins(emulator="1"), True),
        (Pins(iothreads={1: "1"}), True),
        (Pins(memory=("strict", "0")), True),
    ],
)
def test_whether_there_are_pins(pins: Pins, some: bool) -> None:
    assert bool(pins) is some


def test_the_tag() -> None:
    assert placement_tag.text(OURS) == (
        '<placement vcpus="0=4 1=0-3,8" emulator="0-1" iothreads="1=0-1" numatune="restrictive=0"/>'
    )
    assert placement_tag.text(Pins({2: "4"})) == '<placement vcpus="2=4"/>'
    assert placement_tag.text(Pins(emulator="1"), listed=False) == (
        '<placement emulator="1" iothreadids="none"/>'
    )
    assert (
        placement_tag.text(Pins(emulator='&<">')) == '<placement emulator="&amp;&lt;&quot;&gt;"/>'
    )


def test_iothreads_that_the_owner_did_not_list() -> None:
    def unlisted(*pins: tuple[Pins, bool]) -> bool:
        prefix = f'<x:{placement_tag.ROOT} xmlns:x="{placement_tag.NAMESPACE}"'
        written = [
            placement_tag.text(one, listed).replace("<placement", prefix, 1) for one, listed in pins
        ]
        return placement_tag.unlisted(domain(metadata="".join(written)))

    assert not unlisted()
    assert not unlisted((OURS, True))
    assert unlisted((OURS, False))
    assert unlisted((OURS, False), (OURS, True))
    assert unlisted((OURS, True), (OURS, False))


def test_each_of_several_tags_counts() -> None:
    both = tagged(Pins({0: "4"})) + tagged(Pins(emulator="0-1"))
    ours, _ = placement_tag.read(domain(ELEMENTS, both))
    assert ours == Pins({0: "4"}, "0-1")


def test_a_value_that_is_cut_wrongly_is_not_ours() -> None:
    pin = "<vcpupin vcpu='0' cpuset='4=5'/>"
    odd = tagged(Pins({0: "4=5"}))
    assert placement_tag.read(domain(pin, odd))[0] == Pins({0: "4=5"})
    memory = "<memory mode='strict' nodeset='0=1'/>"
    assert placement_tag.read(domain("", tagged(Pins(memory=("strict", "0=1"))), memory))[0].memory


def test_elements_without_values_are_nobodys() -> None:
    bare = "<vcpupin/><emulatorpin/><iothreadpin cpuset='1'/><vcpupin vcpu='٣' cpuset='1'/>"
    ours, present = placement_tag.read(domain(bare, tagged(Pins({0: "4"})), "<memory/>"))
    assert present == Pins()
    assert not ours.vcpus
    assert placement_tag.read(domain("<vcpupin vcpu='1234567' cpuset='1'/>"))[1] == Pins()


def test_what_is_wrong_is_said() -> None:
    for xml, why in ((BOMB, "a DTD is not allowed"), ("<a>", "no element found: line 1, column 3")):
        with pytest.raises(NotXML) as caught:
            placement_tag.read(xml)
        assert str(caught.value) == why


def test_the_longest_text_that_is_looked_at() -> None:
    xml = b"<a>" + b" " * (LARGEST - 7) + b"</a>"
    assert placement_tag.strip(xml) is None
    with pytest.raises(NotXML, match=f"^more than {LARGEST} bytes$"):
        placement_tag.strip(xml + b" ")


def test_a_namespace_with_a_space_keeps_nothing_of_ours() -> None:
    """expat refuses a namespace that has the separator of names in it."""
    theirs = "<x:y xmlns:x='a b'/>"
    document = domain(f"<vcpupin vcpu='0' cpuset='{OURS.vcpus[0]}'/>", tagged() + theirs)
    stripped = placement_tag.strip(document.encode()) or b""
    assert theirs.encode() in stripped
    assert b"vcpupin" not in stripped
    assert placement_tag.NAMESPACE.encode() not in stripped
