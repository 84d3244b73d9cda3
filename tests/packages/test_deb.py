# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian packages: what lintian says, and apt into a system in a folder beside its TuneD."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from scripts import release
from tests.documents import commands
from tests.packages.conftest import NEXT, Built
from tests.packages.roots import Root, record_calls
from tests.sandbox import REPO

VARIABLES = "/etc/tuned/virtual-host-plus-variables.conf"
NAMES = tuple(
    f"tuned-virt-plus{suffix}"
    for suffix in ("", "-host", "-guest", "-metrics", "-recommend", "-numad")
)


def test_lintian(debs: Built) -> None:
    files = sorted(map(str, debs.now.glob("*.deb")))
    assert len(files) == len(NAMES)
    done = subprocess.run(
        ["lintian", "--allow-root", "--info", "--fail-on=error,warning", *files],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_same_plugins_as_in_the_checkout(debs: Built) -> None:
    contents = {
        name: subprocess.run(
            ["dpkg-deb", "--fsys-tarfile", str(next(debs.now.glob(f"{name}_*.deb")))],
            capture_output=True,
            check=True,
        ).stdout
        for name in NAMES
    }
    everything = b"".join(contents.values())
    for file in REPO.glob("tuned_plugins/plugin_*.py"):
        assert f"dist-packages/tuned/plugins/{file.name}".encode() in everything
    for part in (REPO / "tuned_virt").rglob("*.py"):
        assert f"dist-packages/{part.relative_to(REPO)}".encode() in everything
    function = b"dist-packages/tuned/profiles/functions/function_virt_plus.py"
    assert function in contents["tuned-virt-plus"]
    for package, profile in (("", "boot"), ("-host", "host"), ("-guest", "guest")):
        assert f"/virt-plus-{profile}/tuned.conf".encode() in contents[f"tuned-virt-plus{package}"]
    assert b"plugin_vm_" not in contents["tuned-virt-plus"] + contents["tuned-virt-plus-guest"]


def apt(root: Root, *arguments: str) -> str:
    return root.run("apt-get", "--yes", "--quiet", "--no-install-recommends", *arguments)


def put(root: Root, folder: Path, *names: str) -> list[str]:
    return [root.put(next(folder.glob(f"{name}_*.deb")), f"/{folder.name}") for name in names]


def test_install_upgrade_downgrade_remove_purge(root: Root, debs: Built) -> None:
    before = root.files()
    assert len(before) > 1000
    now = put(root, debs.now, *NAMES)
    newer = [root.put(Path(debs.next, Path(path).name.replace(release.version(), NEXT)), "/next")
             for path in now]  # fmt: skip

    apt(root, "install", *now)
    assert root.run("tuned-virt", "--version") == f"tuned-virt-plus {release.version()}\n"
    assert root.text("/etc/tuned/active_profile") == "", "nothing is activated unasked"
    assert root.run("systemctl", "is-enabled", "tuned-virt-verify.timer", status=1) == "disabled\n"
    root.run("tuned-virt", "enable", "virtual-host-plus")
    edited = root.path / VARIABLES.lstrip("/")
    edited.write_text("swappiness=7\n")

    keep = ("-o", "Dpkg::Options::=--force-confold")
    apt(root, *keep, "install", *newer)
    assert root.run("tuned-virt", "--version") == f"tuned-virt-plus {NEXT}\n"
    assert edited.read_text() == "swappiness=7\n"
    assert f"new in {NEXT}" in root.text("/etc/tuned/virtual-guest-plus-variables.conf")
    apt(root, *keep, "--allow-downgrades", "install", *now)
    assert root.run("tuned-virt", "--version") == f"tuned-virt-plus {release.version()}\n"

    apt(root, "remove", "tuned-virt-plus-guest")
    assert root.text("/etc/tuned/active_profile") == "virtual-host-plus\n"
    apt(root, "remove", "tuned-virt-plus")
    assert root.text("/etc/tuned/active_profile") == "", "a profile that is gone is not active"
    assert edited.read_text() == "swappiness=7\n"

    root.run("dpkg", "--purge", *NAMES)
    for folder in ("debs", "deb", "next"):
        shutil.rmtree(root.path / folder, ignore_errors=True)
    after = root.files()
    assert after.keys() - before.keys() == set()
    changed = {path for path in before if after.get(path) != before[path]}
    assert changed <= {"/etc/tuned/active_profile", "/etc/tuned/profile_mode"}
    assert not list(root.path.glob("usr/lib/python3/dist-packages/tuned_virt"))


def test_beside_this_machines_tuned_nothing_of_it_is_replaced(root: Root, debs: Built) -> None:
    owned = root.run("dpkg", "-L", "tuned").splitlines()
    before = {path: text for path, text in root.files().items() if path in owned}
    apt(root, "install", *put(root, debs.now, *NAMES))
    after = root.files()
    assert len(before) > 100
    assert {path: after.get(path) for path in before} == before
    assert root.run("dpkg", "--verify", "tuned") == ""


def test_where_systemd_runs_it_learns_of_the_drop_in_and_only_an_upgrade_restarts_tuned(
    root: Root, debs: Built
) -> None:
    called = record_calls(root)
    (root.path / "run/systemd/system").mkdir(parents=True)
    [now] = put(root, debs.now, "tuned-virt-plus")
    reload, restart = "systemctl daemon-reload", "systemctl try-restart tuned.service"
    apt(root, "install", now)
    assert called.read_text().splitlines() == [reload]
    apt(root, "--reinstall", "install", now)
    assert called.read_text().splitlines() == [reload, reload, restart]


def test_a_numad_that_runs_is_stopped_once(root: Root, debs: Built) -> None:
    called = record_calls(root)
    (root.path / "run/systemd/system").mkdir(parents=True)
    packages = put(root, debs.now, "tuned-virt-plus", "tuned-virt-plus-numad")
    assert "numad.service is stopped" in apt(root, "install", *packages)
    stop = "systemctl stop numad.service"
    assert called.read_text().splitlines().count(stop) == 1
    apt(root, "--reinstall", "install", *packages)
    assert called.read_text().splitlines().count(stop) == 1


def test_apts_commands_in_the_documentation(root: Root, debs: Built) -> None:
    put(root, debs.now, *NAMES)
    found = [command.text for command in commands() if command.program == "apt-get"]
    assert found
    for text in found:
        root.run("sh", "-ec", f"cd /{debs.now.name}; {text} --yes --no-install-recommends")
    assert root.run("tuned-virt", "--version") == f"tuned-virt-plus {release.version()}\n"


COMPLETION = """
. /usr/share/bash-completion/completions/tuned-virt
complete -p tuned-virt
export COMP_LINE='tuned-virt ver' COMP_POINT=14 _ARGCOMPLETE=1
export _ARGCOMPLETE_IFS=' ' _ARGCOMPLETE_SHELL=bash
tuned-virt 8>&1 9>&2 >/dev/null
"""


def test_bash_completes_the_commands(root: Root, debs: Built) -> None:
    apt(root, "install", *put(root, debs.now, "tuned-virt-plus"))
    registered, completed = root.run("bash", "-ec", COMPLETION).splitlines()
    assert "_python_argcomplete tuned-virt" in registered
    assert completed.strip() == "verify"
