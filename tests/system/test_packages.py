# SPDX-License-Identifier: GPL-2.0-or-later
"""Packages on each TuneD generation: install, switch, verify, off, erase; all is as it was before.

RPMs have their own database and no dependencies here (the machine's are Debian's); Debian packages
go by dpkg. The TuneD under them is the generation's, laid over the machine's root.
"""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path

import pytest

from tests.libvirtd import Libvirtd
from tests.packages.conftest import copy_of_the_source, make, rpmbuild
from tests.sandbox import SystemdSandbox, wait_for
from tests.system.test_guest_plugins import vcpus
from tests.system.test_make import files

NAMES = ("tuned-virt-plus", "tuned-virt-plus-host", "tuned-virt-plus-guest")
DATABASES = (
    "root/.rpmdb",
    "var/lib/dpkg",
    "var/lib/rpm",
    "var/lib/systemd",
    "etc/systemd",
    "etc/machine-id",
)


@functools.lru_cache(maxsize=1)
def built() -> Path:
    """Folder of packages of this checkout; RPMs as for RHEL 9 in `old`, as for others in `new`."""
    folder = Path(tempfile.mkdtemp(prefix="tuned-virt-packages-"))
    source = copy_of_the_source(folder / "source")
    os.environ.setdefault("SOURCE_DATE_EPOCH", "1700000000")
    make(source, "deb")
    rpmbuild(source, folder / "old", "--define", "'rhel 9'")
    rpmbuild(source, folder / "new")
    for file in source.glob("build/deb/*.deb"):
        file.rename(folder / file.name)
    return folder


def put(t: SystemdSandbox, kind: str, packages: Path | None = None) -> list[str]:
    """Copy the packages of a kind inside, of this checkout or of `packages`; their paths there."""
    built_in = packages or built()
    rpms = built_in / ("old" if t.version == "2.20" else "new")
    folder, suffix = (built_in, "_*.deb") if kind == "deb" else (rpms, "-[0-9]*.rpm")
    paths = []
    for name in NAMES:
        [file] = folder.glob(f"{name}{suffix}")
        (t.root / "tmp" / file.name).write_bytes(file.read_bytes())
        paths.append(f"/tmp/{file.name}")
    return paths


INSTALL = {"deb": ("dpkg", "--install"), "rpm": ("rpm", "--nodeps", "-i")}
UPGRADE = {
    "deb": ("dpkg", "--force-confold", "--install"),
    "rpm": ("rpm", "--nodeps", "-U", "--force"),
}
ERASE = {"deb": ("dpkg", "--purge"), "rpm": ("rpm", "--nodeps", "-e")}


def everything(t: SystemdSandbox) -> set[str]:
    return {path for path in files(t) if not path.startswith(DATABASES)}


@pytest.mark.parametrize("kind", INSTALL)
def test_install_switch_verify_off_erase(kind: str, version: str) -> None:
    t = SystemdSandbox(version, installed=False)
    with t:
        paths = put(t, kind)
        before, kernel = everything(t), t.snapshot()
        t.run([*INSTALL[kind], *paths])
        assert t.snapshot() == kernel, "nothing is tuned by installing"
        t.run(["systemctl", "start", "tuned"])
        t.run(["tuned-adm", "profile", "virtual-host-plus"])
        wait_for("verified", lambda: t.run(["tuned-virt", "verify"], check=False).returncode == 0)
        assert t.snapshot() != kernel
        t.run(["tuned-adm", "off"])
        assert t.snapshot() == kernel
        t.run([*ERASE[kind], *NAMES])
        assert everything(t) == before
        assert t.snapshot() == kernel


@pytest.mark.parametrize("kind", INSTALL)
@pytest.mark.parametrize("previous", ["", "virtual-guest"])
def test_erased_while_active_the_profile_before_is_active_again(
    previous: str, kind: str, version: str
) -> None:
    """With its values, exactly; and where none was active, with those that were there."""
    t = SystemdSandbox(version, installed=False)
    with t:
        paths = put(t, kind)
        before, kernel = everything(t), t.snapshot()
        t.run([*INSTALL[kind], *paths])
        t.run(["systemctl", "start", "tuned"])
        if previous:
            t.run(["tuned-adm", "profile", previous])
        of_previous = t.snapshot()
        t.run(["tuned-adm", "profile", "virtual-host-plus"])
        t.run([*ERASE[kind], *NAMES])
        active = t.run(["tuned-adm", "active"], check=False).stdout
        assert ("profile: " + previous if previous else "No current active profile") in active
        assert t.snapshot() == of_previous
        assert everything(t) == before
        t.run(["tuned-adm", "off"])
        assert t.snapshot() == kernel


POOL = Path("/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages")
FULL = """hugepages_2M=0:{pages}
hugepages_reserve_free=0
vm_policy=dedicated
vm_housekeeping=0
"""


def ours(t: SystemdSandbox) -> list[str]:
    """What our plugins have changed; TuneD's own put their settings back and apply them again."""
    lines = t.run(["tuned-virt", "log"]).stdout.splitlines()
    return [line for line in lines if "  tuned  [" not in line]


@pytest.mark.parametrize("kind", INSTALL)
def test_an_upgrade_with_pools_full_and_guests_pinned_writes_nothing(
    kind: str, version: str
) -> None:
    t = SystemdSandbox(version, installed=False)
    with t:
        paths = put(t, kind)
        kernel, pages = t.snapshot(), POOL.read_text()
        full = f"{int(pages) + 16}\n"
        variables = FULL.format(pages=full.strip())
        t.run([*INSTALL[kind], *paths])
        t.write("/etc/tuned/virtual-host-plus-variables.conf", variables)
        with Libvirtd(t) as libvirtd:
            t.run(["systemctl", "start", "tuned"])
            t.run(["tuned-adm", "profile", "virtual-host-plus"])
            libvirtd.start_guest("web1")
            wait_for("the guest pinned", lambda: vcpus(libvirtd, "web1") == {"1"})
            wait_for("the pool full", lambda: POOL.read_text() == full)
            changes = ours(t)
            pid = t.run(["systemctl", "show", "--value", "-p", "MainPID", "tuned"]).stdout
            with t.log_of() as lines:
                t.run([*UPGRADE[kind], *paths])
            assert t.run(["systemctl", "show", "--value", "-p", "MainPID", "tuned"]).stdout != pid
            assert [line for line in lines if "kept for the tuned.service" in line]
            wait_for(
                "verified", lambda: t.run(["tuned-virt", "verify"], check=False).returncode == 0
            )
            assert ours(t) == changes
            assert t.read("/etc/tuned/virtual-host-plus-variables.conf") == variables.strip()
            t.run(["tuned-adm", "off"])
            wait_for("the guest free", lambda: vcpus(libvirtd, "web1") == {"0-1"})
            wait_for("the pool as it was", lambda: POOL.read_text() == pages)
        assert t.snapshot() == kernel
