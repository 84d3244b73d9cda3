# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.libvirt_api.fake_binding import FakeDomain, FakeLibvirt, connect, install, metadata
from tuned_virt.libvirt_api import guest_limits, guest_weights, hook, placement_tag, resource_tag
from tuned_virt.libvirt_api.own_elements import LARGEST, NotXML
from tuned_virt.libvirt_api.resource_tag import (
    DEVICE,
    UNLIMITED,
    ResourceTag,
    Settings,
    after,
    read,
    strip,
)
from tuned_virt.model.pins import Pins

TEXTS = {
    "hard_limit": "<memtune><hard_limit unit='KiB'>{}</hard_limit></memtune>",
    "soft_limit": "<memtune><soft_limit unit='KiB'>{}</soft_limit></memtune>",
    "cpu_shares": "<cputune><shares>{}</shares></cputune>",
    "weight": "<blkiotune><weight>{}</weight></blkiotune>",
}


def domain(settings: Settings, tags: Mapping[ResourceTag, Settings]) -> str:
    """A guest's XML with values, and with tags that say which are ours."""
    told = "".join(map(tag_xml, tags, tags.values()))
    inner = "".join(one_xml(name, value) for name, value in settings.items())
    return f"<domain><name>\u00fc</name><metadata>{told}</metadata>{inner}</domain>"


def one_xml(name: str, value: int) -> str:
    if name.startswith(DEVICE):
        path = f"<path>{name[len(DEVICE) :]}</path>"
        return f"<blkiotune><device>{path}<weight>{value}</weight></device></blkiotune>"
    return TEXTS[name].format(value)


def tag_xml(tag: ResourceTag, settings: Settings) -> str:
    text = resource_tag.text(tag, settings)
    call = ("setMetadata", 2, text, tag.key, tag.namespace, 1)
    return metadata(call)[len("<metadata>") : -len("</metadata>")] if text else ""


LIMITS = {"soft_limit": 65536, "cpu_shares": 50}
WEIGHTS = {"weight": 300, f"{DEVICE}/dev/sda": 400}
TAGS = {ResourceTag.LIMITS: LIMITS, ResourceTag.WEIGHTS: WEIGHTS}
FULL = domain({**LIMITS, **WEIGHTS}, TAGS)


def test_what_is_ours_is_known_by_its_value() -> None:
    assert read(FULL) == ({**LIMITS, **WEIGHTS}, {**LIMITS, **WEIGHTS})
    ours, present = read(FULL.replace(">50<", ">70<").replace(">400<", ">401<"))
    assert ours == {"soft_limit": 65536, "weight": 300}
    assert present == {**LIMITS, **WEIGHTS, "cpu_shares": 70, f"{DEVICE}/dev/sda": 401}


def test_what_the_owner_has_set_is_never_tagged() -> None:
    xml = domain({"weight": 500, "cpu_shares": 70}, {})
    assert after(xml, ResourceTag.WEIGHTS, {"weight": 300}) == {}
    assert after(xml, ResourceTag.LIMITS, {"soft_limit": 1}) == {"soft_limit": 1}


def test_a_tag_keeps_what_is_there_and_forgets_what_is_gone() -> None:
    xml = domain({"cpu_shares": 50}, TAGS)
    assert after(xml, ResourceTag.LIMITS, {}) == {"cpu_shares": 50}
    assert after(xml, ResourceTag.LIMITS, {"cpu_shares": 100}) == {"cpu_shares": 100}
    assert after(xml, ResourceTag.WEIGHTS, {}) == {}


def test_the_hook_takes_out_all_that_is_ours() -> None:
    pinned = "<cputune><vcpupin vcpu='0' cpuset='4'/><emulatorpin cpuset='8'/></cputune>"
    pin = f'<p:placement xmlns:p="{placement_tag.NAMESPACE}" vcpus="0=4"/></metadata>'
    xml = FULL.replace("</metadata>", pin).replace("</domain>", f"{pinned}</domain>")
    left = hook.strip(xml.encode())
    assert left is not None
    for ours in ("metadata", "soft_limit", "shares", "weight", "vcpupin", "tuned"):
        assert ours not in left.decode()
    assert "<name>\u00fc</name>" in left.decode()
    assert "<emulatorpin cpuset='8'/>" in left.decode()
    assert "<device><path>/dev/sda</path></device>" in left.decode()
    assert hook.strip(left) is None
    assert placement_tag.read(left.decode()) == (Pins(), Pins(emulator="8"))


def test_what_somebody_else_changed_stays() -> None:
    changed = FULL.replace(">50<", ">70<")
    left = strip(changed.encode(), ResourceTag.LIMITS)
    assert left is not None
    assert read(left.decode()) == (WEIGHTS, {**WEIGHTS, "cpu_shares": 70})


@pytest.mark.parametrize("xml", ["", "<domain>", "<!DOCTYPE d []><domain/>", "<domain a='&x;'/>"])
def test_hostile_xml_is_refused(xml: str) -> None:
    with pytest.raises(NotXML, match=r".+"):
        read(xml)


def test_an_element_with_others_inside_is_not_ours() -> None:
    ours, present = read(FULL.replace("<shares>50<", "<shares>50<x>50</x><"))
    assert "cpu_shares" not in ours
    assert present["cpu_shares"] == -1


def test_long_xml_is_refused() -> None:
    with pytest.raises(NotXML, match="more than"):
        read(" " * (LARGEST + 1))


@pytest.mark.parametrize("value", ["", "-1", "1e3", "9" * 20, "\u0663", "1" * 10_000])
def test_what_is_no_number_is_not_ours(value: str) -> None:
    ours, present = read(FULL.replace(">50<", f">{value}<"))
    assert "cpu_shares" not in ours
    assert present["cpu_shares"] == -1
    ours, present = read(FULL.replace('"50"', f'"{value}"'))
    assert "cpu_shares" not in ours
    assert present["cpu_shares"] == 50


VALUES = st.dictionaries(
    st.sampled_from([*TEXTS, f"{DEVICE}/dev/sda", f"{DEVICE}/dev/b c"]), st.integers(0, 3)
)


@given(present=VALUES, told=VALUES)
def test_strip_is_what_read_says(present: Settings, told: Settings) -> None:
    weights = {n: v for n, v in told.items() if n == "weight" or n.startswith(DEVICE)}
    limits = {name: value for name, value in told.items() if name not in weights}
    xml = domain(present, {ResourceTag.LIMITS: limits, ResourceTag.WEIGHTS: weights})
    ours, found = read(xml)
    assert found == present
    assert ours == dict(present.items() & told.items())
    left = (hook.strip(xml.encode()) or xml.encode()).decode()
    assert read(left) == ({}, {n: v for n, v in present.items() if n not in ours})


# --- as limits and weights are set --------------------------------------------------------------


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeLibvirt:
    return install(monkeypatch)


def tag_after(guest: FakeDomain) -> str:
    """What the last call has said is ours, as metadata; "" where it took the tag away."""
    *_, call = [one for one in guest.calls if one[0] == "setMetadata"]
    return metadata(call) if call[2] else ""


def test_limits_are_tagged_before_they_are_set(fake: FakeLibvirt) -> None:
    guest = FakeDomain()
    assert guest_limits.apply(connect(), guest.listed(), {"soft_limit": 65536}, 50) == {}
    assert guest.calls[0][0] == "setMetadata"
    xml = f"<domain>{tag_after(guest)}</domain>"
    assert resource_tag.tagged(xml, ResourceTag.LIMITS) == LIMITS
    guest.xml = domain(LIMITS, {ResourceTag.LIMITS: LIMITS})
    done = len(guest.calls)
    guest_limits.apply(connect(), guest.listed(), {"soft_limit": 65536}, 50)
    assert "setMetadata" not in [call[0] for call in guest.calls[done:]], "it says so already"


def test_the_tag_goes_with_the_last_limit(fake: FakeLibvirt) -> None:
    guest = FakeDomain(xml=domain({}, {ResourceTag.LIMITS: {"soft_limit": 65536}}))
    guest.limits["soft_limit"] = 65536
    assert guest_limits.apply(connect(), guest.listed(), {"soft_limit": UNLIMITED}, None) == {}
    assert tag_after(guest) == ""


@pytest.mark.parametrize(
    ("parameter", "value", "told"),
    [
        ("weight", 300, {"weight": 300}),
        ("device_weight", "/dev/a,b,400", {f"{DEVICE}/dev/a,b": 400}),
    ],
)
def test_weights_are_tagged(
    fake: FakeLibvirt, parameter: str, value: int | str, told: Settings
) -> None:
    guest = FakeDomain()
    guest_weights._write(connect(), guest.listed(), parameter, value)
    assert [call[0] for call in guest.calls] == ["setMetadata", "setBlkioParameters"]
    xml = f"<domain>{tag_after(guest)}</domain>"
    assert resource_tag.tagged(xml, ResourceTag.WEIGHTS) == told


def test_an_owners_weight_is_not_tagged(fake: FakeLibvirt) -> None:
    guest = FakeDomain(xml=domain({"weight": 500}, {}))
    guest_weights._write(connect(), guest.listed(), "weight", 300)
    assert [call[0] for call in guest.calls] == ["setBlkioParameters"]


def test_metadata_of_broken_xml_is_not_written(fake: FakeLibvirt) -> None:
    guest = FakeDomain(xml="<domain>")
    refused = guest_limits.apply(connect(), guest.listed(), {}, 50)
    assert "no element found" in refused["metadata"]
