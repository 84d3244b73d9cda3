# SPDX-License-Identifier: GPL-2.0-or-later
"""vm_limits' worker on a made-up guest: limits need cgroups, which only the VM tier has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.libvirt_api.fake_binding import (
    FREE,
    FakeDomain,
    FakeLibvirt,
    connect,
    install,
    metadata,
)
from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Originals
from tuned_virt.guests.manager import Claim
from tuned_virt.kernel import timeouts
from tuned_virt.kernel.files import KernelFS
from tuned_virt.libvirt_api import resource_tag
from tuned_virt.libvirt_api.connection import Domain
from tuned_virt.libvirt_api.resource_tag import UNLIMITED
from tuned_virt.libvirt_api.worker import GuestsView
from tuned_virt.plugins.vm_limits import original, policy
from tuned_virt.plugins.vm_limits.controller import LimitsController

UUID = "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f1"
DOMAIN = """<domain type='kvm'><name>web1</name><uuid>{}</uuid><memory unit='MiB'>1024</memory>
<vcpu>2</vcpu><os><type arch='x86_64' machine='q35'>hvm</type></os>{}</domain>"""
GIB = 1 << 20


@pytest.fixture
def baseline(tmp_path: Path) -> Originals:
    return Originals(tmp_path / "run", "boot")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeLibvirt:
    return install(monkeypatch)


@pytest.fixture
def guests(
    tmp_path: Path, baseline: Originals, fake: FakeLibvirt, monkeypatch: pytest.MonkeyPatch
) -> LimitsController:
    monkeypatch.setattr(timeouts, "RETRY_REFUSED", 0.0)
    fs = KernelFS(tmp_path / "root")
    return LimitsController("fake:///", fs, baseline, Journal(tmp_path / "journal"))


def guest(more: str = "") -> Domain:
    return FakeDomain(1, "web1", DOMAIN.format(UUID, more), UUID).listed()


def adjust(guests: LimitsController, web: Domain, **options: str) -> None:
    """With a policy for the guest, or without any claim."""
    claims = {web.run: Claim(web.name, policy.parse(options))} if options else {}
    link = connect()
    guests.adjust(GuestsView(link, {web.uuid: web}), claims)


def test_limits_are_set_once_and_put_back(guests: LimitsController, baseline: Originals) -> None:
    web = guest()
    asked = {"memory_hard_limit": "2G", "swap_hard_limit": "3G", "cpu_shares": "50"}
    adjust(guests, web, **asked)
    set_now = {"hard_limit": 2 * GIB, "soft_limit": FREE["soft_limit"], "swap_hard_limit": 3 * GIB}
    assert (web.domain.limits, web.domain.shares) == (set_now, 50)
    written = len(web.domain.written)
    adjust(guests, web, **asked)
    assert len(web.domain.written) == written
    assert list(baseline.all()) == ["vm_limits"]
    adjust(guests, web)
    assert (web.domain.limits, web.domain.shares) == (FREE, 100)
    assert baseline.all() == {}


def test_the_owners_limit_stays(guests: LimitsController) -> None:
    web = guest("<memtune><hard_limit unit='KiB'>4194304</hard_limit></memtune>")
    web.domain.limits["hard_limit"] = 4 * GIB
    adjust(guests, web, memory_hard_limit="2G", memory_soft_limit="1G")
    assert web.domain.written == ["soft_limit"]
    adjust(guests, web)
    assert web.domain.limits == {**FREE, "hard_limit": 4 * GIB}


def test_a_policy_that_asks_for_less_lets_go_of_the_rest(guests: LimitsController) -> None:
    web = guest()
    adjust(guests, web, memory_hard_limit="2G", cpu_shares="50")
    adjust(guests, web, memory_hard_limit="4G")
    assert (web.domain.limits, web.domain.shares) == ({**FREE, "hard_limit": 4 * GIB}, 100)


def test_what_the_owner_limits_later_stays(guests: LimitsController) -> None:
    web = guest()
    adjust(guests, web, memory_hard_limit="2G")
    web.domain.limits["soft_limit"] = GIB
    web.domain.shares = 70
    adjust(guests, web)
    assert (web.domain.limits, web.domain.shares) == ({**FREE, "soft_limit": GIB}, 70)


def test_a_policy_that_asks_for_more_keeps_what_it_finds(
    guests: LimitsController, baseline: Originals
) -> None:
    web = guest()
    adjust(guests, web, memory_hard_limit="2G")
    web.domain.limits["soft_limit"] = GIB
    adjust(guests, web, memory_hard_limit="2G", memory_soft_limit="512M", cpu_shares="50")
    adjust(guests, web, memory_soft_limit="512M", cpu_shares="50")
    assert web.domain.limits == {**FREE, "soft_limit": GIB // 2}
    [kept] = baseline.record("vm_limits").originals.values()
    assert (original.parse(kept).memory, original.parse(kept).shares) == ({"soft_limit": GIB}, 100)
    adjust(guests, web)
    assert (web.domain.limits, web.domain.shares) == ({**FREE, "soft_limit": GIB}, 100)


def test_what_is_refused_is_tried_again_and_said_once(
    guests: LimitsController, caplog: pytest.LogCaptureFixture
) -> None:
    web = guest()
    web.domain.refuses = {"hard_limit"}
    for _ in range(3):
        adjust(guests, web, memory_hard_limit="2G")
    assert [one.message for one in caplog.records if one.levelname == "ERROR"] == [
        "vm_limits: guest web1: hard_limit 2097152 KiB: cgroup: no controller"
    ]
    web.domain.refuses = set()
    adjust(guests, web, memory_hard_limit="2G")
    assert web.domain.limits["hard_limit"] == 2 * GIB


def test_a_limit_that_would_kill_the_guest_is_said_once(
    guests: LimitsController, caplog: pytest.LogCaptureFixture
) -> None:
    web = guest()
    for _ in range(3):
        adjust(guests, web, memory_hard_limit="1G")
    assert web.domain.written == []
    assert [one.message for one in caplog.records] == [
        "vm_limits: guest web1: memory_hard_limit of 1024 MiB: with QEMU the guest needs"
        " at least 1536 MiB"
    ]


def test_what_cannot_be_put_back_is_pending(guests: LimitsController, baseline: Originals) -> None:
    web = guest()
    adjust(guests, web, memory_hard_limit="2G")
    web.domain.refuses = {"hard_limit"}
    adjust(guests, web)
    [reason] = baseline.record("vm_limits").pending.values()
    assert reason.startswith("guest web1: hard_limit ")
    web.domain.refuses = set()
    adjust(guests, web)
    assert web.domain.limits == FREE
    assert baseline.all() == {}


def test_nothing_is_set_where_how_it_was_is_not_told(
    guests: LimitsController, baseline: Originals
) -> None:
    web = guest()
    web.domain.refuses = {"schedulerParameters"}
    adjust(guests, web, memory_hard_limit="2G", cpu_shares="50")
    assert (web.domain.calls, baseline.all()) == ([], {})
    web.domain.refuses = set()
    adjust(guests, web, memory_hard_limit="2G", cpu_shares="50")
    adjust(guests, web)
    assert (web.domain.limits, web.domain.shares) == (FREE, 100)


def test_a_weight_that_is_not_asked_for_need_not_be_told(guests: LimitsController) -> None:
    web = guest()
    web.domain.refuses = {"schedulerParameters"}
    adjust(guests, web, memory_hard_limit="2G")
    assert web.domain.limits["hard_limit"] == 2 * GIB


def test_without_a_cpu_controller_the_other_limits_are_set(guests: LimitsController) -> None:
    web = guest()
    web.domain.refuses = {"cpu controller", "setSchedulerParametersFlags"}
    adjust(guests, web, memory_hard_limit="2G", cpu_shares="50")
    assert web.domain.limits["hard_limit"] == 2 * GIB
    adjust(guests, web)
    assert web.domain.limits == FREE


def owned(xml: str) -> resource_tag.Settings:
    return resource_tag.limits(resource_tag.read(xml)[1])


def test_what_the_owner_limits_is_seen() -> None:
    xml = "<domain><memtune>\n<hard_limit unit='KiB'>1048576</hard_limit>\n</memtune></domain>"
    assert owned(xml) == {"hard_limit": GIB}
    assert owned(xml.replace("1048576", str(UNLIMITED))) == {}
    shares = "<domain><cputune>\n<shares>7</shares></cputune></domain>"
    assert owned(shares) == {"cpu_shares": 7}


@pytest.mark.parametrize(
    "inner",
    [
        "<hard_limit>1</hard_limit>",
        f"<hard_limit>{'9' * 5000}</hard_limit>",
        "<cputune><shares>7</shares></cputune>",
    ],
)
def test_what_only_looks_like_a_limit_is_none(inner: str) -> None:
    metadata = f"<metadata><x:y xmlns:x='urn:x'>{inner}</x:y></metadata>"
    assert owned(f"<domain>{metadata}<cputune/></domain>") == {}
    assert owned(f"<domain><memtune>{inner.replace('>1<', '>one<')}</memtune></domain>") == {}


def last_tag(web: Domain) -> str:
    """The guest's metadata as libvirt has it after the last call."""
    *_, call = [one for one in web.domain.calls if one[0] == "setMetadata"]
    return metadata(call)


def test_a_weight_that_was_put_back_is_no_owners(guests: LimitsController) -> None:
    """libvirt cannot take a weight out of a running guest's XML again, only set it."""
    web = guest()
    adjust(guests, web, cpu_shares="50")
    adjust(guests, web)
    assert web.domain.shares == 100
    with_it = f"<cputune><shares>{web.domain.shares}</shares></cputune>{last_tag(web)}"
    again = replace(web, xml=DOMAIN.format(UUID, with_it))
    adjust(guests, again, cpu_shares="50")
    assert web.domain.shares == 50
    adjust(guests, again)
    assert web.domain.shares == 100
    by_its_owner = replace(web, xml=DOMAIN.format(UUID, with_it.replace(">100<", ">70<")))
    adjust(guests, by_its_owner, cpu_shares="50")
    assert web.domain.shares == 100, "70 is its owner's"
