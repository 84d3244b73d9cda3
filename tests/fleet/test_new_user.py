# SPDX-License-Identifier: GPL-2.0-or-later
"""Three hosts, each with its own problem: the output tells which, why; nothing is half done."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.fleet.hosts import Fleet
from tests.fleet.plays import REFUSED, ROLE, guest, host
from tests.libvirtd import Libvirtd
from tests.sandbox import wait_for

PINNED = "<cputune><vcpupin vcpu='0' cpuset='1'/></cputune>"


def told(output: str, name: str) -> str:
    """What a play says of one host, on one line for each task."""
    return "\n".join(re.findall(rf"^(?:fatal|ok): \[{name}\].*(?:\n(?! *$).*)*", output, re.M))


def test_a_typing_error_an_owners_guest_and_a_failed_verify(fleet: Callable[..., Fleet]) -> None:
    hosts = fleet(
        {
            "typo": guest(arp_filtre=True),
            "owner": host(vm_policy="dedicated", vm_housekeeping="0"),
            "stubborn": guest(arp_filter=True),
        }
    )
    hosts.hosts["stubborn"].run(["sh", "-c", REFUSED])
    before = hosts.states()
    with Libvirtd(hosts.hosts["owner"]) as libvirtd:
        libvirtd.start_guest("db1", extra_xml=PINNED)
        done = hosts.play(ROLE)
        wait_for("its guest is seen", lambda: "db1" in hosts.hosts["owner"].log())

    assert not done.ok
    failed = {name: one.failed for name, one in done.recap.items()}
    assert failed == {"typo": 1, "owner": 0, "stubborn": 1}, done.output

    assert "arp_filtre" in told(done.output, "typo"), done.output
    assert done.recap["typo"].changed == 0
    assert "db1" in told(done.output, "owner"), done.output
    assert "owner" in told(done.output, "owner").partition("db1")[2]
    reason = told(done.output, "stubborn")
    assert "arp_filter" in reason and "Settings and profile are as before: before" in reason

    now = hosts.states()
    assert hosts.hosts["owner"].active() == "guests"
    for name in ("typo", "stubborn"):
        assert now[name] == before[name]
        assert hosts.hosts[name].active() == "before"
