# SPDX-License-Identifier: GPL-2.0-or-later
"""Beside a real tuned-ppd, which sets the profile that its ppd.conf names each time it starts."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Callable

import pytest

from tests import debian
from tests.debian import CACHE
from tests.sandbox import PYTHON, SUITES, Sandbox, wait_for

Tuned = Callable[..., Sandbox]

VERSION = "latest"
"""tuned-ppd is a package of TuneD's own release."""

NEEDS = (("tuned-ppd", SUITES[VERSION]), ("python3-pyinotify", "bookworm"))
OURS = "virtual-host-plus"
CONF = "/etc/tuned/ppd.conf"


@functools.lru_cache(maxsize=1)
def files() -> dict[str, str]:
    """What the packages install: the daemon, its D-Bus policy, its configuration."""
    roots = [debian.unpacked(package, suite, CACHE) for package, suite in NEEDS]
    return {
        f"/{file.relative_to(root)}": file.read_text()
        for root in roots
        for folder in ("etc", "usr/lib/python3", "usr/sbin", "usr/share/dbus-1")
        for file in (root / folder).rglob("*")
        if file.is_file() and file.suffix in (".py", ".conf", "")
    }


def start_ppd(t: Sandbox) -> None:
    """It ends with the sandbox; returns when it has set its profile."""
    with subprocess.Popen(
        t.command(["sh", "-c", f"{PYTHON} /usr/sbin/tuned-ppd --log >/dev/null 2>&1 &"])
    ):
        wait_for("tuned-ppd started", lambda: t.read("/etc/tuned/ppd_base_profile") == "balanced")


@pytest.mark.parametrize(
    ("replaced", "by"),
    [("balanced=balanced\n", "balanced"), (f"balanced={OURS}\n", OURS)],
)
def test_what_tuned_ppd_sets(replaced: str, by: str, tuned: Tuned) -> None:
    texts = dict(files())
    texts[CONF] = texts[CONF].replace("balanced=balanced\n", replaced)
    t = tuned(VERSION, files=texts)
    t.switch("balanced")
    t.switch(OURS)
    start_ppd(t)
    wait_for(f"{by} active", lambda: t.active() == by)
    said = json.loads(t.run(["tuned-virt", "disable", "--json"]).stdout)
    assert t.active() == "balanced"
    assert any("/etc/tuned/ppd.conf names" in note for note in said["notes"]) is (by == OURS)


def test_a_post_loaded_profile_stays(tuned: Tuned) -> None:
    t = tuned(VERSION, files={**files(), "/etc/tuned/post_loaded_profile": f"{OURS}\n"})
    start_ppd(t)
    wait_for("both active", lambda: t.active() == f"balanced {OURS}")
    wait_for("verified", lambda: t.verify_but("cpufreq_conservative", "'boost'"))
    t.run(["tuned-virt", "disable"])
    assert t.active() == "balanced"
