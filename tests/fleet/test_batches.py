# SPDX-License-Identifier: GPL-2.0-or-later
"""A rollout in batches stops at the first failed verify, and its batch returns; then the report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.fleet.hosts import Fleet
from tests.fleet.plays import REFUSED, REPORT, ROLLOUT, guest

NAMES = ("canary", "good", "bad", "later")


def test_rollout_and_report(fleet: Callable[..., Fleet], tmp_path: Path) -> None:
    hosts = fleet({name: guest(arp_filter=True) for name in NAMES})
    hosts.hosts["bad"].run(["sh", "-c", REFUSED])
    before = hosts.states()

    done = hosts.play(ROLLOUT, tuned_virt_batches=[1, 2, 1])
    assert not done.ok
    assert "returns, because verify has failed on bad" in done.output, done.output
    now = hosts.states()
    assert hosts.hosts["canary"].active() == "own" and now["canary"][1] == "1"
    assert {name for name in NAMES if now[name] != before[name]} == {"canary"}, done.output
    assert {hosts.hosts[name].active() for name in NAMES[1:]} == {"before"}

    page = tmp_path / "fleet.html"
    hosts.hosts["later"].run(["pkill", "-x", "sshd"])
    done = hosts.play(REPORT, tuned_virt_report=str(page))
    assert "not known: later" in done.output
    text = page.read_text()
    order = [text.index(f"<td>{name}</td>") for name in ("later", "bad", "canary")]
    assert order[0] == min(order), "a host that does not answer is first"
    assert "4 hosts, the worst first" in text
    assert "http" not in text and "<script" not in text


def test_a_typing_error_stops_a_rollout_before_anything_is_changed(
    fleet: Callable[..., Fleet],
) -> None:
    hosts = fleet({"right": guest(arp_filter=True), "wrong": guest(arp_filter=2)})
    before = hosts.states()
    done = hosts.play(ROLLOUT)
    assert not done.ok
    assert "arp_filter" in done.output and "wrong" in done.output
    assert hosts.states() == before
    assert {one.changed for one in done.recap.values()} == {0}
