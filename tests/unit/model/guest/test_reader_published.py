# SPDX-License-Identifier: GPL-2.0-or-later
"""The domains of libvirt's and virt-manager's own tests: each is read, or refused with a reason."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.published.sources import LIBVIRT, VIRT_MANAGER, Source
from tuned_virt.libvirt_api import placement_tag
from tuned_virt.model.guest import Guest, GuestError, read_guest
from tuned_virt.model.topology import Host, HostError
from tuned_virt.placement import parse, plan

TWO_NODES = Host.from_xml((Path(__file__).parents[3] / "data/hosts/two-nodes.xml").read_text())

LEAST = {LIBVIRT.name: (1100, 1090), VIRT_MANAGER.name: (370, 100)}
"""Documents, and how many of them are read; fewer, and a pattern or the reader has lost some."""


@pytest.fixture(params=[LIBVIRT, VIRT_MANAGER], ids=lambda source: str(source.name))
def source(request: pytest.FixtureRequest) -> Source:
    found: Source = request.param
    if found.missing:
        pytest.skip(found.missing)
    return found


def read(path: Path) -> Guest | None:
    """None where it is refused, which must say why and where."""
    try:
        return read_guest(path.read_text())
    except GuestError as error:
        assert error.reason, path
        assert error.line, path
        return None


@pytest.mark.large
def test_every_document_is_read_or_refused(source: Source) -> None:
    counted: Counter[bool] = Counter()
    for path in source.files(source.domains):
        guest = read(path)
        counted[guest is not None] += 1
        if guest:
            [placed] = plan(TWO_NODES, [guest], parse({}), {}).placements
            assert placed.why, path
    print(f"{source.name}: {counted[True]} documents are read, {counted[False]} refused")
    documents, guests = LEAST[source.name]
    assert sum(counted.values()) >= documents
    assert counted[True] >= guests


@pytest.mark.large
def test_no_document_is_a_host(source: Source) -> None:
    """Refused as one, but for virt-manager's capabilities."""
    hosts = 0
    for path in source.files(source.domains):
        try:
            hosts += bool(Host.from_xml(path.read_text()).cpus)
        except HostError as error:
            assert error.reason, path
    assert hosts <= len(source.files("tests/data/capabilities/*.xml"))


@pytest.mark.large
def test_no_owners_pin_is_ours(source: Source) -> None:
    pinned = 0
    for path in source.files(source.domains):
        guest = read(path)
        if guest:
            text = path.read_text()
            ours, present = placement_tag.read(text)
            assert not ours, path
            assert placement_tag.strip(text.encode()) is None, path
            pinned += bool(present or guest.owned.vcpus)
    assert pinned >= 3
