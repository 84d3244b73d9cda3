# SPDX-License-Identifier: GPL-2.0-or-later
"""Two hosts are brought to what is wanted, and a second run finds nothing to do."""

from __future__ import annotations

from collections.abc import Callable

from tests.fleet.hosts import Fleet
from tests.fleet.plays import ROLE, SETTINGS, guest


def test_two_hosts_converge(fleet: Callable[..., Fleet]) -> None:
    wanted = guest(arp_filter=True, vm_exclude=None)
    hosts = fleet({"web1": wanted, "web2": wanted})
    before = hosts.states()

    preview = hosts.play(ROLE, "--check", "--diff")
    assert preview.ok, preview.output
    assert {one.changed for one in preview.recap.values()} == {2}, preview.output
    assert "-/proc/sys/net/ipv4/conf/all/arp_filter = 0" in preview.output
    assert "+/proc/sys/net/ipv4/conf/all/arp_filter = 1" in preview.output
    assert hosts.states() == before

    done = hosts.play(ROLE)
    assert done.ok, done.output
    assert {one.changed for one in done.recap.values()} == {2}, done.output
    for host in hosts.hosts.values():
        assert (host.active(), host.state()[1]) == ("own", "1")
        assert host.read(SETTINGS).splitlines()[-1] == "arp_filter=1"

    for again in (hosts.play(ROLE), hosts.play(ROLE, "--check", "--diff")):
        assert again.ok, again.output
        assert {one.changed for one in again.recap.values()} == {0}, again.output
