# SPDX-License-Identifier: GPL-2.0-or-later
"""The kickstart files: valid for each distribution, and their %post in a system in a folder."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from pykickstart.parser import KickstartParser
from pykickstart.version import makeVersion

from tests.packages.conftest import Built
from tests.packages.roots import Root
from tests.sandbox import REPO

FILES = sorted(REPO.glob("docs/kickstart/*.ks"))
DISTRIBUTIONS = ("RHEL9", "RHEL10", "F44", "F45")


def parsed(file: Path, distribution: str) -> KickstartParser:
    parser = KickstartParser(makeVersion(distribution))
    parser.readKickstart(str(file))
    return parser


def role(file: Path) -> str:
    return file.stem


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("file", FILES, ids=role)
def test_valid_and_nothing_in_it_deprecated(file: Path, distribution: str) -> None:
    handler = parsed(file, distribution).handler
    assert f"tuned-virt-plus-{role(file)}" in handler.packages.packageList
    assert "tuned" in handler.packages.packageList
    [script] = handler.scripts
    assert script.inChroot, "the %post runs in the target"
    assert script.errorOnFail


def test_both_roles_are_there() -> None:
    assert [role(file) for file in FILES] == ["guest", "host"]


@contextlib.contextmanager
def installers_buses(root: Root) -> Iterator[list[socket.socket]]:
    """Sockets where a D-Bus and a systemd would listen: the installer's, seen through /run."""
    with contextlib.ExitStack() as stack:
        listening = []
        for name in ("dbus/system_bus_socket", "systemd/private"):
            path = root.path / "run" / name
            path.parent.mkdir(parents=True)
            bus = stack.enter_context(socket.socket(socket.AF_UNIX))
            bus.bind(str(path))
            bus.listen()
            bus.setblocking(False)
            listening.append(bus)
        (root.path / "run/systemd/system").mkdir()
        yield listening


def was_asked(bus: socket.socket) -> bool:
    try:
        bus.accept()
    except BlockingIOError:
        return False
    return True


@pytest.mark.parametrize("file", FILES, ids=role)
def test_post_enables_the_profile_and_asks_no_bus(file: Path, root: Root, debs: Built) -> None:
    names = ("", f"-{role(file)}")
    debs_inside = [
        root.put(next(debs.now.glob(f"tuned-virt-plus{name}_*.deb")), "/debs") for name in names
    ]
    root.run("dpkg", "--install", *debs_inside)
    [script] = parsed(file, "RHEL10").handler.scripts
    with installers_buses(root) as buses:
        said = root.run(script.interp, "-c", script.script)
        assert not any(map(was_asked, buses))
        root.run("timeout", "1", "busctl", "list", status=124)
        assert was_asked(buses[0]), "the check itself would notice"
    profile = f"virtual-{role(file)}-plus"
    assert f"{profile}: will be applied when TuneD starts" in said
    assert root.text("/etc/tuned/active_profile") == f"{profile}\n"
    assert root.text("/etc/tuned/profile_mode") == "manual\n"
    assert root.run("systemctl", "--root=/", "is-enabled", "tuned") == "enabled\n"
    added = re.search(r"<<'END'\n(.*)END\n", script.script, re.DOTALL)
    if added:
        assert root.text(f"/etc/tuned/{profile}-variables.conf").endswith(added[1])


def test_from_outside_with_root(root: Root, debs: Built) -> None:
    """As image builders do: the command of this machine, on the tree that they make."""
    names = ("", "-guest")
    inside = [root.put(next(debs.now.glob(f"tuned-virt-plus{n}_*.deb")), "/debs") for n in names]
    root.run("dpkg", "--install", *inside)
    done = root.outside(
        ["env", f"PYTHONPATH={REPO}", "/usr/bin/python3", "-m", "tuned_virt", "enable",
         "virtual-guest-plus", "--root", root.inside]
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert root.text("/etc/tuned/active_profile") == "virtual-guest-plus\n"
