# SPDX-License-Identifier: GPL-2.0-or-later
"""RPMs: where they put things, what rpmlint says, and dnf into a system in a folder."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts import release
from tests.documents import commands
from tests.packages.conftest import NEXT, Built
from tests.packages.roots import Root, record_calls
from tests.sandbox import REPO

MACROS = REPO / "tests/data/rpm"
OLD, NEW = "/usr/lib/tuned", "/usr/lib/tuned/profiles"
PLACES = {
    "rhel-9": (OLD, "/usr/lib/python3.9/site-packages"),
    "rhel-10": (NEW, "/usr/lib/python3.12/site-packages"),
    "fedora-44": (NEW, "/usr/lib/python3.14/site-packages"),
}
VARIABLES = "/etc/tuned/virtual-host-plus-variables.conf"
PROVIDED = (
    "tuned = 2.25", "python3-configobj", "python3-dbus", "python3-defusedxml", "python3-jinja2",
    "python3-jsonschema", "python3-libvirt", "python3-argcomplete", "python3-prometheus_client",
    "/bin/sh", "/usr/bin/python3", "/usr/bin/sh",
)  # fmt: skip


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def expanded(distribution: str, tmp_path: Path) -> str:
    """The spec as a distribution's rpmbuild reads it."""
    spec = tmp_path / "tuned-virt-plus.spec"
    spec.write_text(release.spec())
    return run("rpmspec", "--load", str(MACROS / f"{distribution}.macros"), "-P", str(spec))


@pytest.mark.parametrize("distribution", PLACES)
def test_places_on_each_distribution(distribution: str, tmp_path: Path) -> None:
    profiles, sitelib = PLACES[distribution]
    text = expanded(distribution, tmp_path)
    [install] = re.findall(r"layout.py install (?:.*\\\n)*.*", text)
    assert install.endswith(f"--prefix /usr --sitelib {sitelib} --folder {profiles}")
    assert "%{" not in re.sub(r"(?m)^#.*", "", text), "macros that nothing defines"
    command = ["/usr/bin/python3", str(REPO / "scripts/layout.py"), "list", "--prefix", "/usr"]
    listed = run(*command, "--sitelib", sitelib, "--folder", profiles).splitlines()
    assert f"{profiles}/virtual-host-plus/tuned.conf" in listed
    assert f"{sitelib}/tuned/plugins/plugin_ksm.py" in listed
    assert f"{sitelib}/tuned/profiles/functions/function_virt_plus.py" in listed
    assert f"%config(noreplace) {VARIABLES}" in listed
    other = NEW if profiles == OLD else f"{OLD}/virtual"
    assert not [line for line in listed if line.startswith(other)]


@pytest.mark.parametrize(
    ("defined", "folders"),
    [
        ("suse_version 1500", (NEW, OLD)),
        ("suse_version 1699", (NEW, OLD)),
        ("openEuler 2403", (NEW, OLD)),
        ("amzn 2023", (NEW, OLD)),
        ("other 1", (NEW, OLD)),
        ("rhel 9", (OLD,)),
        ("rhel 10", (NEW,)),
        ("fedora 44", (NEW,)),
    ],
)
def test_a_distribution_has_the_profiles_where_its_tuned_looks(
    defined: str, folders: tuple[str, ...], tmp_path: Path
) -> None:
    """Which folder that is where both are possible, only the installed TuneD knows."""
    spec = tmp_path / "tuned-virt-plus.spec"
    spec.write_text(release.spec())
    text = run("rpmspec", "--define", defined, "-P", str(spec))
    given = " ".join(f"--folder {folder}" for folder in folders)
    [install] = re.findall(r"layout.py install (?:.*\\\n)*.*", text)
    assert re.sub(r".*? (?=--folder)", "", install, count=1, flags=re.DOTALL) == given
    command = ["/usr/bin/python3", str(REPO / "scripts/layout.py"), "list", "--sitelib", "/site"]
    listed = run(*command, *given.split()).splitlines()
    assert f"{folders[0]}/virtual-host-plus/tuned.conf" in listed
    for folder in (OLD, NEW):
        assert (f"{folder}/virtual-host-plus" in listed) is (folder in folders[1:])


def test_make_rpm_ran_the_unit_tests(make_rpm: str) -> None:
    assert re.search(r"^\d+ passed", make_rpm, re.MULTILINE), make_rpm


def test_rpmlint(make_rpm: str) -> None:
    config = REPO / "rpm/rpmlint.toml"
    found = run("rpmlint", "-c", str(config), str(REPO / "build/rpm"))
    assert "0 errors, 0 warnings" in found, found


def listing(folder: Path, part: str) -> set[str]:
    [file] = folder.glob(f"tuned-virt-plus{part}-{release.version()}-*.noarch.rpm")
    return set(run("rpm", "-qlp", str(file)).splitlines())


def test_each_package_has_what_the_other_role_does_not_need(make_rpm: str) -> None:
    folder = REPO / "build/rpm/RPMS/noarch"
    main, host, guest = (listing(folder, part) for part in ("", "-host", "-guest"))
    assert "/usr/bin/tuned-virt" in main
    assert f"{NEW}/virtual-host-plus/tuned.conf" in host
    assert f"{NEW}/virtual-guest-plus/tuned.conf" in guest
    assert f"{NEW}/virt-plus-host/tuned.conf" in host
    assert f"{NEW}/virt-plus-guest/tuned.conf" in guest
    assert f"{NEW}/virt-plus-boot/tuned.conf" in main
    assert [path for path in main if path.endswith("/functions/function_virt_plus.py")]
    plugins = {file.name for file in REPO.glob("tuned_plugins/plugin_*.py")}
    of_main = {Path(path).name for path in main if "/tuned/plugins/plugin_" in path}
    of_host = {Path(path).name for path in host if "/tuned/plugins/plugin_" in path}
    assert {name for name in of_main | of_host if name.endswith(".py")} == plugins
    assert not [path for path in main | guest if "plugin_vm_" in path]
    [file] = folder.glob("tuned-virt-plus-guest-*.rpm")
    assert "libvirt" not in run("rpm", "-qp", "--requires", str(file))
    assert {"/usr/bin/numad"} <= listing(folder, "-numad")
    metrics = {Path(path).name for path in listing(folder, "-metrics")}
    assert {"tuned-virt-metrics.timer", "tuned-virt.rules.yml"} <= metrics
    assert listing(folder, "-recommend") == {"/usr/lib/tuned/recommend.d/20-virt-plus.conf"}


# --- dnf -----------------------------------------------------------------------------------------

STUB = """
Name: tuned
Version: 2.25
Release: 1
Summary: Stands for the distribution's packages, which the folder has from Debian
License: none
BuildArch: noarch
{provides}
%description
{{summary}}
%files
"""


@pytest.fixture(scope="session")
def repository(rpms: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with both versions, and a stub of what they need from the distribution."""
    folder = tmp_path_factory.mktemp("repository")
    spec = folder / "stub.spec"
    provides = "\n".join(f"Provides: {name}" for name in PROVIDED[1:])
    spec.write_text(STUB.format(provides=provides))
    run("rpmbuild", "--quiet", "--define", f"_rpmdir {folder}", "-bb", str(spec))
    for packages in (rpms.now, rpms.next):
        for file in packages.glob("*.rpm"):
            shutil.copy(file, folder)
    run("createrepo_c", "--quiet", str(folder))
    return folder


@pytest.fixture
def dnf(root: Root, repository: Path) -> Callable[..., str]:
    """dnf into the root."""
    base = [
        *("dnf", "--assumeyes", "--quiet", f"--installroot={root.inside}", "--releasever=1"),
        *("--repofrompath", f"ours,file://{repository}", "--repo=ours", "--nogpgcheck"),
        *("--setopt=cachedir=/var/cache/dnf-test", "--setopt=keepcache=0"),
        *("--setopt=install_weak_deps=0", "--setopt=reposdir=/nowhere"),
    ]

    def call(*arguments: str) -> str:
        done = root.outside([*base, *arguments])
        assert done.returncode == 0, done.stdout + done.stderr
        assert "scriptlet failed" not in done.stdout + done.stderr
        return done.stdout + done.stderr

    return call


def versions(root: Root) -> set[str]:
    done = root.outside(["rpm", "--root", root.inside, "-qa", "--qf", "%{NAME} %{VERSION}\n"])
    return {line for line in done.stdout.splitlines() if line.startswith("tuned-virt")}


def test_install_upgrade_downgrade_erase(root: Root, dnf: Callable[..., str]) -> None:
    now, names = release.version(), ("", "-host", "-guest")
    dnf("install", "tuned")
    before = root.files()
    assert len(before) > 1000

    dnf("install", *(f"tuned-virt-plus{name}-{now}" for name in names))
    assert versions(root) == {f"tuned-virt-plus{name} {now}" for name in names}
    assert root.run("tuned-virt", "--version") == f"tuned-virt-plus {now}\n"
    assert root.text("/etc/tuned/active_profile") == "", "nothing is activated unasked"
    edited = root.path / VARIABLES.lstrip("/")
    edited.write_text("swappiness=7\n")

    dnf("upgrade", "tuned-virt-plus*")
    assert versions(root) == {f"tuned-virt-plus{name} {NEXT}" for name in names}
    assert root.run("tuned-virt", "--version") == f"tuned-virt-plus {NEXT}\n"
    assert edited.read_text() == "swappiness=7\n"
    assert f"new in {NEXT}" in root.text(f"{VARIABLES}.rpmnew")
    assert f"new in {NEXT}" in root.text("/etc/tuned/virtual-guest-plus-variables.conf")

    dnf("downgrade", *(f"tuned-virt-plus{name}-{now}" for name in names))
    assert root.run("tuned-virt", "--version") == f"tuned-virt-plus {now}\n"
    assert edited.read_text() == "swappiness=7\n"

    root.run("tuned-virt", "enable", "virtual-host-plus")
    dnf("remove", "tuned-virt-plus-guest")
    assert root.text("/etc/tuned/active_profile") == "virtual-host-plus\n"
    dnf("remove", "tuned-virt-plus")
    assert versions(root) == set()
    assert root.text("/etc/tuned/active_profile") == "", "a profile that is gone is not active"
    after = root.files()
    left = after.keys() - before.keys()
    assert left == {f"{VARIABLES}.rpmsave", f"{VARIABLES}.rpmnew"} & after.keys()
    assert f"{VARIABLES}.rpmsave" in left
    mode = "/etc/tuned/profile_mode"
    assert {p for p in before if after.get(p) != before[p]} <= {mode, "/etc/tuned/active_profile"}


def test_installing_into_an_image_runs_and_reloads_nothing(
    root: Root, dnf: Callable[..., str]
) -> None:
    dnf("install", "tuned")
    called = record_calls(root)
    dnf("install", f"tuned-virt-plus-host-{release.version()}")
    dnf("upgrade", "tuned-virt-plus*")
    dnf("remove", "tuned-virt-plus")
    assert versions(root) == set()
    assert called.read_text() == ""


def test_where_systemd_runs_only_an_upgrade_restarts_tuned_once(
    root: Root, dnf: Callable[..., str]
) -> None:
    dnf("install", "tuned")
    called = record_calls(root)
    (root.path / "run/systemd/system").mkdir(parents=True)
    dnf("install", f"tuned-virt-plus-host-{release.version()}")
    assert called.read_text() == ""
    dnf("upgrade", "tuned-virt-plus*")
    calls = "systemctl daemon-reload\nsystemctl try-restart tuned.service\n"
    assert called.read_text() == calls
    dnf("reinstall", "tuned-virt-plus")
    assert called.read_text().count("try-restart") <= 2


def test_the_profiles_of_a_guest_need_no_libvirt(root: Root, dnf: Callable[..., str]) -> None:
    now = release.version()
    dnf("install", f"tuned-virt-plus-guest-{now}")
    assert versions(root) == {f"tuned-virt-plus {now}", f"tuned-virt-plus-guest {now}"}
    assert (root.path / "usr/lib/tuned/virtual-guest-plus/tuned.conf").exists()
    assert not (root.path / "usr/lib/tuned/virtual-host-plus").exists()


def test_dnfs_commands_in_the_documentation(root: Root, dnf: Callable[..., str]) -> None:
    found = [command.text for command in commands() if command.program == "dnf"]
    assert any(" install " in text for text in found)
    for text in found:
        dnf(*text.split()[1:])
    assert versions(root) == set(), "the last one removes"


RECOMMENDED = {
    "a KVM guest": ("kvm", (), "virtual-guest-plus"),
    "hardware": ("", (), "virtual-host-plus"),
    "a guest that runs guests": ("kvm", ("virtqemud",), "virtual-host-plus"),
    "an older one": ("kvm", ("libvirtd",), "virtual-host-plus"),
}


@pytest.mark.parametrize("machine", RECOMMENDED)
def test_tuned_recommends_ours_by_role(machine: str, root: Root, dnf: Callable[..., str]) -> None:
    """virt-what is replaced: this machine is one of the four kinds only."""
    what, units, profile = RECOMMENDED[machine]
    virt_what = root.path / "usr/sbin/virt-what"
    virt_what.unlink()
    virt_what.write_text(f"#!/bin/sh\nprintf '%s' '{what}'\n")
    virt_what.chmod(0o755)
    for unit in units:
        (root.path / f"usr/lib/systemd/system/{unit}.service").write_text("[Unit]\n")
    stock = root.run("tuned-adm", "recommend")
    names = ("-host", "-guest", "-recommend")
    now = release.version()
    dnf("install", *(f"tuned-virt-plus{name}-{now}" for name in names))
    assert root.run("tuned-adm", "recommend").splitlines()[0] == profile
    dnf("remove", "tuned-virt-plus-recommend")
    assert root.run("tuned-adm", "recommend") == stock
    assert "-plus" not in stock
