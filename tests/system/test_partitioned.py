# SPDX-License-Identifier: GPL-2.0-or-later
"""virtual-host-plus with TuneD's cpu-partitioning, by the child profile of pinning(7)."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable

import pytest

from tests.libvirtd import Libvirtd
from tests.pinners import affinities
from tests.sandbox import REPO, Sandbox, wait_for

CHILD = "virtual-host-partitioned"


@pytest.fixture(scope="session", autouse=True)
def ksm_stopped() -> None:
    """cpu-partitioning stops it itself."""


def child() -> str:
    """The profile as the manual has it."""
    manual = (REPO / "docs/pinning.7.md").read_text()
    found = re.search(r"^( +\[main\]\n +summary=virtual-host-plus on .*?)\n\S", manual, re.M | re.S)
    assert found
    return textwrap.dedent(found[1])


def threads(libvirtd: Libvirtd, name: str) -> tuple[set[str], set[str]]:
    """Where vCPUs may run, and all other threads."""
    found = affinities(libvirtd.guest_pid(name))
    vcpus = {cpus for thread, cpus in found.items() if thread.startswith("CPU ")}
    return vcpus, {cpus for thread, cpus in found.items() if not thread.startswith("CPU ")}


@pytest.mark.parametrize("version", ["2.25"])
def test_guests_get_the_isolated_cpus(tuned: Callable[..., Sandbox], version: str) -> None:
    t = tuned(version, profiles={CHILD: child()})
    t.write("/etc/tuned/cpu-partitioning-variables.conf", "isolated_cores=1\n")
    with Libvirtd(t) as libvirtd:
        t.switch(CHILD)
        libvirtd.start_guest("web1")
        wait_for("dedicated", lambda: threads(libvirtd, "web1") == ({"1"}, {"0"}))
        t.verify()
        assert "verify: passed: device web1: 'vm_pinning' = 'dedicated on node 0" in t.verify_lines
        libvirtd.start_guest("web2")  # no isolated CPU is left: beside the others, said
        wait_for("shared", lambda: threads(libvirtd, "web2")[1] == {"0"})
        t.off()
        assert threads(libvirtd, "web1") == ({"0-1"}, {"0-1"})
    found = re.findall(r"^Traceback.*?(?=^\d{4}-|\Z)", t.log(), re.MULTILINE | re.DOTALL)
    theirs = (
        "plugin_irqbalance.py"  # TuneD's own, which needs a module that Debian has in linux-perf
    )
    assert [one for one in found if theirs not in one] == []
