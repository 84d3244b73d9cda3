# SPDX-License-Identifier: GPL-2.0-or-later
"""make up, install and uninstall on each TuneD generation, where nothing of ours is installed."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.libvirtd import Libvirtd
from tests.sandbox import REPO, Sandbox, SystemdSandbox

QUIET = (
    "usr/lib/python3/dist-packages/tuned/plugins/__pycache__",
    "var/log",
    "var/cache",
    "etc/tuned",
)


@pytest.fixture
def bare(tuned: Callable[..., Sandbox], version: str) -> Sandbox:
    return tuned(version, installed=False)


def make(t: Sandbox, *arguments: str) -> subprocess.CompletedProcess[str]:
    return t.run(["make", "--no-print-directory", "-C", str(REPO), *arguments], check=False)


NOT_OFFERED = re.compile(r"note      virt_system: module \w+ is not available in this kernel")


def shown(text: str) -> list[str]:
    """Lines of a command's output, numbers and widths alike, without notes on a kernel's lacks."""
    lines = [line.strip() for line in text.splitlines() if not NOT_OFFERED.match(line)]
    alike = [re.sub(r"\d[\d.,-]*", "N", re.sub(r"\s+", " ", line)) for line in lines]
    return list(dict.fromkeys(alike))


def output_in_readme() -> str:
    """What README.md says that `make up` printed."""
    text = (REPO / "README.md").read_text()
    block = re.search(r"^    starting D-Bus\n(?:    .*\n)+", text, re.MULTILINE)
    assert block
    return block.group()


def files(t: Sandbox) -> set[str]:
    """Files that differ from the machine's root, but for logs, caches and TuneD's own state."""
    found = {str(path.relative_to(t.upper)) for path in t.upper.rglob("*") if path.is_file()}
    return {path for path in found if not path.startswith(QUIET) and "__pycache__" not in path}


@pytest.mark.parametrize("profile", ["virtual-host-plus", "virtual-guest-plus"])
def test_up_then_up_again_then_uninstall(bare: Sandbox, profile: str) -> None:
    t = bare
    before, kernel = files(t), t.snapshot()
    up = make(t, "up", f"PROFILE={profile}")
    assert up.returncode == 0, up.stdout + up.stderr
    assert "starting D-Bus" in up.stdout
    assert "starting TuneD" in up.stdout
    assert f"{profile}: verified," in up.stdout
    assert f"profile   {profile}, verified" in up.stdout
    assert f"Current active profile: {profile}" in t.run(["tuned-adm", "active"]).stdout
    assert t.run(["tuned-adm", "verify"]).returncode == 0

    installed, tuned_kernel, changes = files(t), t.snapshot(), t.run(["tuned-virt", "log"]).stdout
    applied = t.log().count("applied\n")
    again = make(t, "up", f"PROFILE={profile}")
    assert again.returncode == 0
    assert "starting" not in again.stdout
    assert (files(t), t.snapshot()) == (installed, tuned_kernel)
    assert t.run(["tuned-virt", "log"]).stdout == changes
    assert t.log().count("applied\n") == applied

    gone = make(t, "uninstall")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert t.snapshot() == kernel
    assert files(t) == before
    assert not list(t.root.glob("etc/tuned/*-plus*"))


def test_up_prints_what_readme_shows(bare: Sandbox) -> None:
    with Libvirtd(bare):
        up = make(bare, "up", "PROFILE=virtual-host-plus")
    assert shown(up.stdout) == shown(output_in_readme())


def test_up_chooses_the_profile_by_role(bare: Sandbox) -> None:
    up = make(bare, "up")
    role = bare.run(["tuned-virt", "role"]).stdout.strip()
    detected = bare.run(["systemd-detect-virt", "--vm"], check=False).stdout.strip()
    runs_guests = any(Path(f"/usr/sbin/{name}").exists() for name in ("libvirtd", "virtqemud"))
    assert role == ("guest" if detected != "none" and not runs_guests else "host")
    assert f"profile   virtual-{role}-plus, verified" in up.stdout


def test_a_machine_that_is_both_takes_the_host_profile(bare: Sandbox) -> None:
    bare.write("/usr/sbin/virtqemud", "")
    up = make(bare, "up")
    assert up.returncode == 0, up.stdout + up.stderr
    assert "profile   virtual-host-plus, verified" in up.stdout


def test_up_where_systemd_runs(version: str) -> None:
    with SystemdSandbox(version, installed=False) as t:
        up = make(t, "up", "PROFILE=virtual-host-plus")
        assert up.returncode == 0, up.stdout + up.stderr
        assert "starting" not in up.stdout, "the services' business"
        assert "profile   virtual-host-plus, verified" in up.stdout
        assert t.run(["systemctl", "is-enabled", "tuned"]).stdout == "enabled\n"
        assert "tuned-virt restore" in t.run(["systemctl", "cat", "tuned"]).stdout
        assert make(t, "up", "PROFILE=virtual-host-plus").returncode == 0


def test_edited_variables_are_kept(bare: Sandbox) -> None:
    t = bare
    file = "/etc/tuned/virtual-host-plus-variables.conf"
    t.write(file, "swappiness=7\n")
    assert make(t, "up", "PROFILE=virtual-host-plus").returncode == 0
    assert t.read("/proc/sys/vm/swappiness") == "7"
    assert f"kept, because edited: {file}" in make(t, "uninstall").stdout
    assert t.read(file) == "swappiness=7"


def test_new_code_reaches_a_running_tuned(bare: Sandbox) -> None:
    t = bare
    assert make(t, "up", "PROFILE=virtual-host-plus").returncode == 0
    t.write("/usr/lib/python3/dist-packages/tuned_virt/core/plan.py", "an older version\n")
    up = make(t, "up", "PROFILE=virtual-host-plus")
    assert up.returncode == 0, up.stdout + up.stderr
    assert "restarting TuneD: our code has changed" in up.stdout


def test_install_into_a_stage(tmp_path: Path) -> None:
    subprocess.run(
        ["make", "-C", str(REPO), "install", f"DESTDIR={tmp_path}", "PREFIX=/usr/local"],
        check=True,
        capture_output=True,
    )
    assert (tmp_path / "usr/local/bin/tuned-virt").exists()
    assert (tmp_path / "usr/lib/tuned/virtual-host-plus/tuned.conf").exists()
    assert (tmp_path / "etc/tuned/virtual-guest-plus-variables.conf").exists()
    subprocess.run(
        ["make", "-C", str(REPO), "uninstall", f"DESTDIR={tmp_path}", "PREFIX=/usr/local"],
        check=True,
        capture_output=True,
    )
    assert not [path for path in tmp_path.rglob("*") if not path.is_dir()]
