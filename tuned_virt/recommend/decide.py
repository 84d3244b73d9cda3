# SPDX-License-Identifier: GPL-2.0-or-later
"""All topics asked: what a situation calls for, what stays, and what is to be done elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.recommend import disks, hugepages, ksm, memory, placement
from tuned_virt.recommend.advice import Advice, LeftSetting, OutsideStep, RecommendedSetting
from tuned_virt.recommend.situation import Situation

HOST, GUEST = "virtual-host-plus", "virtual-guest-plus"


@dataclass(frozen=True)
class Recommendations:
    """For which profile, and what; `nothing` is why a host gets no recommendation at all."""

    profile: str
    settings: tuple[RecommendedSetting, ...] = ()
    left: tuple[LeftSetting, ...] = ()
    steps: tuple[OutsideStep, ...] = ()
    nothing: str = ""


def decide(seen: Situation) -> Recommendations:
    """What serves this machine. Raises NotKnown where its topology is not known."""
    if seen.in_guest:
        return _sorted(GUEST, _inside(seen))
    manager = seen.manager or _manager(seen)
    if manager:
        return Recommendations(HOST, nothing=_owned(manager))
    return _sorted(HOST, _host(seen))


def _manager(seen: Situation) -> str:
    return next((one.guest.manager for one in seen.guests if one.guest.manager), "")


def _owned(manager: str) -> str:
    return (
        f"{manager} places the guests of this host and sizes its memory by settings of its own, so"
        f" nothing is recommended: set CPUs, huge pages and overcommit in {manager}"
    )


def _host(seen: Situation) -> Iterator[Advice]:
    if seen.scene.without_guests:
        yield LeftSetting("guests", f"not known: {seen.scene.without_guests}", short=True)
    for topic in (ksm, placement, hugepages, memory, disks):
        yield from topic.recommend(seen)
    yield from placement.strict(seen)
    yield LeftSetting(
        "power",
        "stock costs watts for latency; whether balanced serves you better is for you to say",
    )


def _inside(seen: Situation) -> Iterator[Advice]:
    yield from memory.recommend(seen)
    yield LeftSetting(
        "hugepages_2M, hugepages_1G", "what programs inside request is not known from here"
    )
    yield LeftSetting("memory_auto_online", "auto puts hot-plugged memory online")
    yield LeftSetting("disk_guest_virtio", "queues leaves the order of requests to the host")


def _sorted(profile: str, made: Iterator[Advice]) -> Recommendations:
    every = list(made)
    return Recommendations(
        profile,
        tuple(one for one in every if isinstance(one, RecommendedSetting)),
        tuple(one for one in every if isinstance(one, LeftSetting)),
        tuple(one for one in every if isinstance(one, OutsideStep)),
    )
