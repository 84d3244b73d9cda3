# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's command line that a policy wants, and what an administrator should know. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from tuned_virt.plugins.hugepages_numa import boot, targets
from tuned_virt.plugins.hugepages_numa.policy import HugepagesPolicy
from tuned_virt.plugins.hugepages_numa.pools import TRANSPARENT, size_name
from tuned_virt.plugins.hugepages_numa.setting_types import HugetlbMount, MountSetting
from tuned_virt.plugins.hugepages_numa.state import HugepagesState, boot_setting

THP = "transparent_hugepage"
"""Its argument on the kernel's command line; the option has an s more."""


PMD_KIB = 2048
"""The size that was the only one before Linux 6.8; smaller ones are never by default."""


def boot_numbers(policy: HugepagesPolicy, state: HugepagesState) -> dict[int, dict[int, int]]:
    """Pages by size and node that belong on the kernel's command line: those of 1 GiB and more."""
    found: dict[int, dict[int, int]] = defaultdict(dict)
    for request in policy.pools:
        if request.size_kib >= boot.GIGANTIC:
            for pool, count in targets.explicit(request, state):
                found[pool.size_kib][pool.node] = count
    return {size: counts for size, counts in found.items() if any(counts.values())}


def boots(policy: HugepagesPolicy, state: HugepagesState) -> dict[str, str]:
    """What the command line should have, by setting."""
    if not policy.boot:
        return {}
    return {
        boot_setting(size): boot.numbers(counts, len(state.nodes), state.release)
        for size, counts in boot_numbers(policy, state).items()
    }


def read(policy: HugepagesPolicy, state: HugepagesState) -> Iterator[str]:
    """All that is worth a note."""
    yield from _on_boot(policy, state)
    yield from _on_mounts(policy, state)
    yield from state.conflicts


def _on_boot(policy: HugepagesPolicy, state: HugepagesState) -> Iterator[str]:
    words = {word.partition("=")[0]: word for word in state.cmdline.split()}
    if "transparent_hugepages" in policy.transparent and THP in words:
        yield f"the kernel's command line has {words[THP]}; the profile's value applies"
    yield from _on_sizes(policy, state)
    wanted = boots(policy, state)
    missing = {name for name, text in wanted.items() if state.values.get(name) != text}
    counts = boot_numbers(policy, state) if wanted else {}
    for size in counts:
        remark = boot.remark(counts[size], len(state.nodes), state.release)
        if remark:
            yield f"{boot_setting(size)}: {remark}"
        if boot_setting(size) in missing:
            yield from _missing(state.cmdline, size, wanted[boot_setting(size)])


def _on_sizes(policy: HugepagesPolicy, state: HugepagesState) -> Iterator[str]:
    """Sizes for which the kernel does not follow the setting for all (transhuge.rst)."""
    word = policy.transparent.get("transparent_hugepages", "")
    for size, own in state.transparent_sizes.items():
        if word and size >= PMD_KIB and own not in ("inherit", word):
            yield (
                f"transparent_hugepages={word} has no effect on pages of {size_name(size)}:"
                f" {TRANSPARENT}/hugepages-{size}kB/enabled is {own}, not inherit"
            )


def _missing(cmdline: str, size: int, text: str) -> Iterator[str]:
    argument = boot.arguments({size: text})
    yield f"from the next boot on the kernel command line needs: {argument}"
    before = boot.in_the_way(cmdline, size, text)
    if before:
        both = argument in cmdline
        source = "" if both else ", unless an earlier request of TuneD's put it there"
        yield (
            f"{boot_setting(size)}: remove {before} from the boot loader's configuration{source}:"
            " the kernel takes what comes first on its command line and ignores the second"
        )


def _on_mounts(policy: HugepagesPolicy, state: HugepagesState) -> Iterator[str]:
    for size, mount in policy.mounts.items():
        name = MountSetting(size, mount.path)
        there = isinstance(state.mounts.get(name), HugetlbMount)
        blind = state.blind.get(name, "") if there else " and ".join(state.daemons)
        if blind and (there or not policy.restart_libvirt):
            yield f"{name}: {blind} started before this mount and does not see it: restart it"
