# SPDX-License-Identifier: GPL-2.0-or-later
"""From the last release to this one while its profile is active, on each TuneD generation.

What 0.1.0 has kept of the machine and of a guest is what `off`, or the end of a killed TuneD, goes
back to; meanwhile the guest stays where it is.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts import release
from tests.libvirtd import Libvirtd
from tests.packages import last_release
from tests.sandbox import SystemdSandbox, wait_for
from tests.system.test_guest_plugins import vcpus
from tests.system.test_packages import FULL, INSTALL, POOL, UPGRADE, put
from tuned_virt.kernel import device_identity

ORIGINALS = "/run/tuned-virt/baseline.json"
UNPACK = {
    "deb": ("dpkg", "--force-confold", "--unpack"),
    "rpm": ("rpm", "--nodeps", "-U", "--force", "--noscripts"),
}
"""An upgrade's files without its scripts, which restart TuneD."""

GUEST = "web1"
MORE_PAGES = 16
PLACEMENTS = "run/tuned-virt/vm_pinning.json"
JOURNAL = "/var/lib/tuned-virt/journal.jsonl"
PERIOD_SECONDS = 0.005
"""How often a guest's vCPUs are looked at."""


@functools.lru_cache(maxsize=1)
def built_before() -> Path:
    """Folder of the last release's packages, as `test_packages.built` has those of this one."""
    folder = Path(tempfile.mkdtemp(prefix="tuned-virt-last-release-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    source = last_release.source(folder / "source")
    os.environ.setdefault("SOURCE_DATE_EPOCH", "1700000000")
    for file in last_release.debs(source).glob("*.deb"):
        file.rename(folder / file.name)
    last_release.rpms(source, folder / "old", "--define", "'rhel 9'")
    last_release.rpms(source, folder / "new")
    return folder


def originals(t: SystemdSandbox) -> dict[str, dict[str, str]]:
    """What is kept, by plugin and setting; a device's file as it is named now."""
    content = json.loads(t.read(ORIGINALS))
    return {
        name: {device_identity.parse(one).path: text for one, text in record["originals"].items()}
        for name, record in content["plugins"].items()
    }


@contextlib.contextmanager
def places_of(libvirtd: Libvirtd, name: str) -> Iterator[set[str]]:
    """All CPU sets that a guest's vCPUs have inside the with block."""
    seen: set[str] = set()
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(PERIOD_SECONDS):
            seen.update(vcpus(libvirtd, name))

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        try:
            yield seen
        finally:
            ended.set()
        looking.result()  # raises what has ended it


@dataclass(frozen=True)
class Scene:
    """The last release with its profile active: a pool is full and a guest is pinned.

    kernel, pages  what both were before; variables: the settings file
    """

    t: SystemdSandbox
    libvirtd: Libvirtd
    kernel: dict[str, str]
    pages: str
    variables: str

    def pinned(self) -> bool:
        """Whether the guest has CPU 1, and the pool its pages."""
        full = POOL.read_text() == f"{int(self.pages) + MORE_PAGES}\n"
        return full and vcpus(self.libvirtd, GUEST) == {"1"}

    def check_all_is_as_before(self) -> None:
        """Nothing of either release is left in the kernel, and nothing is kept."""
        wait_for("the guest free", lambda: vcpus(self.libvirtd, GUEST) == {"0-1"})
        wait_for("the pool as it was", lambda: POOL.read_text() == self.pages)
        assert self.t.snapshot() == self.kernel
        assert self.t.run(["sh", "-c", f"ls {ORIGINALS}*"], check=False).stdout == ""


@contextlib.contextmanager
def last_release_active(version: str, kind: str) -> Iterator[Scene]:
    """Installed from its packages and switched to."""
    t = SystemdSandbox(version, installed=False)
    with t:
        kernel, pages = t.snapshot(), POOL.read_text()
        variables = FULL.format(pages=int(pages) + MORE_PAGES)
        t.run([*INSTALL[kind], *put(t, kind, built_before())])
        t.run(["systemctl", "daemon-reload"])  # as a file trigger of RPM distributions' systemd
        t.write("/etc/tuned/virtual-host-plus-variables.conf", variables)
        with Libvirtd(t) as libvirtd:
            scene = Scene(t, libvirtd, kernel, pages, variables)
            t.run(["systemctl", "start", "tuned"])
            t.run(["tuned-adm", "profile", "virtual-host-plus"])
            libvirtd.start_guest(GUEST)
            wait_for("the guest pinned and the pool full", scene.pinned)
            wait_for("the placement recorded", (t.root / PLACEMENTS).exists)
            yield scene


def main_pid(t: SystemdSandbox) -> str:
    return t.run(["systemctl", "show", "--value", "-p", "MainPID", "tuned"]).stdout


@pytest.mark.parametrize("ending", ["off", "kill -9"])
@pytest.mark.parametrize("kind", INSTALL)
def test_upgraded_while_the_profile_is_active(kind: str, ending: str, version: str) -> None:
    with last_release_active(version, kind) as scene:
        t = scene.t
        newer, pid = put(t, kind), main_pid(t)
        kept, changes = originals(t), t.read(JOURNAL).splitlines()
        assert {"ksm", "hugepages_numa", "vm_pinning", "crash_guard"} <= kept.keys()
        with t.log_of() as lines, places_of(scene.libvirtd, GUEST) as places:
            t.run([*UPGRADE[kind], *newer])
            said = t.run(["tuned-virt", "--version"]).stdout
            assert said == f"tuned-virt-plus {release.version()}\n"
            assert main_pid(t) != pid, "TuneD has been restarted"
            wait_for(
                "verified", lambda: t.run(["tuned-virt", "verify"], check=False).returncode == 0
            )
        assert places == {"1"}
        assert scene.pinned()
        assert [one for one in lines if "internal error" in one or "Traceback" in one] == []
        t.run(["tuned-adm", "verify"])
        check_what_is_said(scene, changes)
        now = originals(t)
        for plugin, settings in kept.items():
            assert settings.items() <= now[plugin].items(), plugin
        if ending == "off":
            t.run(["tuned-adm", "off"])
        else:
            t.kill9()
        scene.check_all_is_as_before()


def check_what_is_said(scene: Scene, changes: list[str]) -> None:
    """Of what 0.1.0 has done, and of the guest that it has placed."""
    t = scene.t
    assert t.read("/etc/tuned/virtual-host-plus-variables.conf") == scene.variables.strip()
    log = json.loads(t.run(["tuned-virt", "log", "--json", "-n", "1000"]).stdout)
    assert len(log["changes"]) >= len(changes)
    [guest] = json.loads(t.run(["tuned-virt", "guests", "--json"]).stdout)["guests"]
    assert (guest["kind"], guest["owner"]) == ("dedicated", "tuned-virt")
    assert guest["drift"] == []
    assert t.run(["sh", "-c", f"ls {ORIGINALS}*"]).stdout == f"{ORIGINALS}\n", "none set aside"


@pytest.mark.parametrize("kind", UNPACK)
def test_killed_between_the_upgrade_and_the_restart(kind: str, version: str) -> None:
    """What 0.1.0 has kept, this version's `restore` reads, and nothing else has touched it."""
    with last_release_active(version, kind) as scene:
        t = scene.t
        newer, pid = put(t, kind), main_pid(t)
        t.run([*UNPACK[kind], *newer])
        assert main_pid(t) == pid
        assert scene.pinned()
        t.kill9()
        scene.check_all_is_as_before()
