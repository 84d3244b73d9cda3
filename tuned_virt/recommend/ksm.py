# SPDX-License-Identifier: GPL-2.0-or-later
"""KSM: on where many guests are alike and memory is short, off where it has nothing to merge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tuned_virt.recommend.advice import Advice, LeftSetting, OutsideStep, RecommendedSetting
from tuned_virt.recommend.situation import Situation, count, named, size

KERNEL = "https://docs.kernel.org/admin-guide/mm/ksm.html"

SHORT = 80
"""Percent of the host's memory: ksm_thres_coef is 20, so KSM runs when guests can use more."""

ALIKE = 8
"""Guests of one size and system from which they are called many."""


def recommend(seen: Situation) -> Iterator[Advice]:
    """By how many guests can be merged, how alike they are, and how much memory they can use."""
    if not seen.guests:
        yield LeftSetting(
            "ksm_mode", "there are no guests; auto does nothing until memory is short"
        )
    elif len(seen.mergeable) < 2:
        yield _off(seen)
    else:
        yield from _on(seen)


def _off(seen: Situation) -> Advice:
    whole, able = len(seen.guests), len(seen.mergeable)
    told = f"KSM can merge pages of {able} of {count(whole, 'guest')}"
    if seen.huge:
        told += f"; {len(seen.huge)} with {size(seen.huge_memory)} in huge pages"
    return RecommendedSetting(
        "ksm_mode",
        "off",
        told,
        "without two guests of ordinary pages scanning takes CPU time and saves nothing",
        "guide 8.4 and 9.4",
    )


def _on(seen: Situation) -> Iterator[Advice]:
    need = sum(one.guest.memory for one in seen.busy)
    percent = 100 * need // seen.memory if seen.memory else 0
    kinds = Counter(
        (one.guest.memory, one.guest.vcpus, one.hardware.os_id) for one in seen.mergeable
    )
    alike = kinds.most_common(1)[0][1]
    told = f"guests can use {size(need)}, {percent} % of the host's {size(seen.memory)}"
    if alike >= ALIKE or percent > SHORT:
        yield RecommendedSetting(
            "ksm_mode",
            "auto",
            f"{alike} guests are alike; {told}",
            "equal pages are merged when memory is short, and CPU time is kept while it is not;"
            " guests of different tenants must not share pages: then unmerge",
            "guide 8.4",
        )
    else:
        yield LeftSetting("ksm_mode", f"auto does nothing until memory is short: {told}")
    yield from _apart(seen)


def _apart(seen: Situation) -> Iterator[Advice]:
    """Guests with real-time threads beside others that are merged."""
    apart = [one for one in seen.mergeable if one.guest.owned.realtime]
    for one in apart:
        yield OutsideStep(
            f"virt-xml {one.handle} --edit --memorybacking nosharepages=yes",
            f"{named([one])} has real-time threads, and a write to a merged page waits until"
            " the kernel has copied it",
            "guide 8.3.2.2",
        )
