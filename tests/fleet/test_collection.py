# SPDX-License-Identifier: GPL-2.0-or-later
"""The collection as Ansible sees it, with no host: it builds, is documented, and refuses typos."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.fleet.hosts import COLLECTIONS, VENV
from tests.fleet.plays import ROLE
from tests.sandbox import REPO

SOURCE = REPO / "ansible"
MODULES = sorted(
    f"tuned_virt.plus.{file.stem}" for file in (SOURCE / "plugins/modules").glob("*.py")
)


def run(folder: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One of Ansible's programs."""
    environment = {
        **os.environ,
        "PATH": f"{VENV}:{os.environ['PATH']}",
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "ANSIBLE_HOME": str(folder / "home"),
        "ANSIBLE_NOCOLOR": "1",
    }
    command = [str(VENV / program), *arguments]
    return subprocess.run(
        command, env=environment, cwd=folder, text=True, capture_output=True, check=False
    )


def test_it_builds(tmp_path: Path) -> None:
    done = run(tmp_path, "ansible-galaxy", "collection", "build", "--output-path", ".", str(SOURCE))
    assert done.returncode == 0, done.stderr
    [archive] = tmp_path.glob("tuned_virt-plus-*.tar.gz")
    with tarfile.open(archive) as opened:
        names = set(opened.getnames())
    assert names >= {"roles/tuned_virt/meta/argument_specs.yml", "playbooks/rollout.yml"}
    assert not [name for name in names if "pycache" in name or name.startswith(".")]


def test_modules_filters_and_role_are_documented(tmp_path: Path) -> None:
    done = run(tmp_path, "ansible-doc", "--json", *MODULES)
    assert done.returncode == 0, done.stderr
    assert not done.stderr.strip(), done.stderr
    found = json.loads(done.stdout)
    assert sorted(found) == MODULES
    assert all(one["examples"] and one["return"] for one in found.values())
    role = run(tmp_path, "ansible-doc", "-t", "role", "tuned_virt.plus.tuned_virt")
    assert role.returncode == 0 and "tuned_virt_settings" in role.stdout, role.stderr


@pytest.mark.parametrize("playbook", ["rollout", "report"])
def test_playbooks_syntax(playbook: str, tmp_path: Path) -> None:
    done = run(tmp_path, "ansible-playbook", "--syntax-check", f"tuned_virt.plus.{playbook}")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"tuned_virt_settings": {"ksm_mod": "off"}}, "ksm_mod"),
        ({"tuned_virt_settings": {"ksm_mode": "of"}}, "off, unmerge, static, ksmtuned"),
        ({"tuned_virt_settings": {"ksm_max_cpu": "much"}}, "ksm_max_cpu"),
        ({"tuned_virt_kind": "hosts"}, "host, guest"),
        ({"tuned_virt_groups": [{"vm_policy": "node"}]}, "guests"),
    ],
)
def test_what_no_plugin_takes_stops_the_role_before_it_does_anything(
    variables: dict[str, Any], told: str, tmp_path: Path
) -> None:
    (tmp_path / "play.yml").write_text(ROLE)
    arguments = ["-i", "web1,", "-c", "local", "play.yml", "-e", json.dumps(variables)]
    done = run(tmp_path, "ansible-playbook", *arguments)
    assert done.returncode == 2
    assert told in done.stdout + done.stderr
    assert "Read the machine" not in done.stdout
