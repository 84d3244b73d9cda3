# SPDX-License-Identifier: GPL-2.0-or-later
"""A switch from a profile of ours to one that sets the same kernel files itself.

TuneD's plugins read what they find as the value to put back, so a value of ours that waits for the
next profile of ours would come back at `off`, for good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.loopdev import loops, scheduler
from tests.sandbox import Sandbox
from tests.system.test_disks import SECTION

THP = "/sys/kernel/mm/transparent_hugepage/enabled"
KSM = "/sys/kernel/mm/ksm"
BALANCING = "/proc/sys/kernel/numa_balancing"
POOL = "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages"

SAME = {
    THP: ("hugepages_numa", "transparent_hugepages=never", "[vm]\ntransparent_hugepages=always"),
    f"{KSM}/run": ("ksm", "mode=static\nrun=1", f"[sysfs]\n{KSM}/run=2"),
    f"{KSM}/pages_to_scan": (
        *("ksm", "mode=static\nrun=1\npages_to_scan=321"),
        "[sysfs]\n/sys/kernel/mm/ks?/pages_to_scan=77",
    ),
    BALANCING: ("vm_pinning", "numa_balancing=0", "[sysctl]\nkernel.numa_balancing=1"),
    POOL: ("hugepages_numa", "pages_2M=0:16", "[sysctl]\nvm.nr_hugepages=8"),
}
"""File → the plugin that sets it, its options, and TuneD's own section that does."""


def profile(*sections: str) -> str:
    return "\n".join(["[main]\nsummary=of a test", *sections, ""])


@pytest.fixture(params=SAME)
def path(request: pytest.FixtureRequest) -> str:
    return str(request.param)


Switched = Callable[..., Sandbox]


@pytest.fixture
def switched(tuned: Callable[..., Sandbox], version: str, path: str) -> Iterator[Switched]:
    """TuneD with our value of a file, then with the next profile; in the end off is exact."""
    plugin, options, _ = SAME[path]
    made: list[tuple[Sandbox, dict[str, str]]] = []

    def switch(*following: str) -> Sandbox:
        profiles = {"ours": profile(f"[{plugin}]\n{options}"), "following": profile(*following)}
        t = tuned(version, profiles=profiles)
        made.append((t, t.snapshot()))
        t.switch("ours")
        t.switch("following")
        return t

    yield switch
    [(t, before)] = made
    t.off()
    assert t.snapshot() == before


def test_tuneds_own_section(switched: Switched, path: str) -> None:
    t = switched(SAME[path][2])
    assert t.verify(), t.verify_lines


def test_beside_a_section_of_ours(switched: Switched, path: str) -> None:
    t = switched(f"[{SAME[path][0]}]", SAME[path][2])
    assert t.verify(), t.verify_lines


def test_a_guarded_file(switched: Switched, path: str) -> None:
    """crash_guard comes first, the plugin that has set it last."""
    switched(f"[crash_guard]\npriority=-100\nfiles={path}", f"[{SAME[path][0]}]")


def test_our_own_profile(tuned: Callable[..., Sandbox], version: str, path: str) -> None:
    plugin, options, _ = SAME[path]
    t = tuned(version, profiles={"ours": profile(f"[{plugin}]\n{options}")})
    before = t.snapshot()
    t.switch("ours")
    t.switch("virtual-host-plus")
    t.off()
    assert t.snapshot() == before


def test_a_restart_with_another_profile(tuned: Callable[..., Sandbox], path: str) -> None:
    """Killed with no systemd to restore, then told another profile: crash_guard has to know."""
    plugin, options, _ = SAME[path]
    guarded = profile(f"[crash_guard]\npriority=-100\nfiles={path}", f"[{plugin}]")
    t = tuned("2.25", profiles={"ours": profile(f"[{plugin}]\n{options}"), "guarded": guarded})
    before = t.snapshot()
    t.switch("ours")
    t.kill9()
    t.write("/etc/tuned/active_profile", "guarded\n")
    t.start()
    t.off()
    assert t.snapshot() == before


def test_tuneds_own_elevator(tuned: Callable[..., Sandbox], version: str) -> None:
    with loops(2) as names:
        theirs = f"[disk]\ndevices={names[0]}\nelevator=kyber"
        disks = SECTION[SECTION.index("[blk_elevator_virt]") :].rstrip()
        file = f"[sysfs]\n/sys/class/block/{names[0]}/queue/scheduler=kyber"
        t = tuned(
            version,
            profiles={
                "ours": f"{SECTION}host_other=bfq\n",
                "theirs": profile(theirs),
                "both": f"{SECTION}host_other=bfq\n{theirs}\n",
                "file": profile(file),
                "both-but-it": profile(file, f"{disks},!{names[0]}\nhost_other=bfq"),
            },
        )
        for following, rest in (
            ("theirs", "none"),
            ("both", "bfq"),
            ("file", "none"),
            ("both-but-it", "bfq"),
        ):
            t.switch("ours")
            t.switch(following)
            assert [scheduler(name) for name in names] == ["kyber", rest]
            assert t.verify(), t.verify_lines
            t.off()
            assert [scheduler(name) for name in names] == ["none", "none"]


def test_a_profile_that_cannot_be_loaded_keeps_the_pool(
    tuned: Callable[..., Sandbox], version: str
) -> None:
    """TuneD applies the one in force once more: its pages must not be let go for that."""
    plugin, options, _ = SAME[POOL]
    t = tuned(version, profiles={"ours": profile(f"[{plugin}]\n{options}")})
    t.switch("ours")
    with t.log_of() as lines:
        assert not t.call("switch_profile", "virtual-hots-plus")[0]
    assert t.read(POOL) == "16"
    assert "pages_2M node0" not in "\n".join(lines)
