# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.model.guest.test_qemu_process import process
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.plugins.ksm import conflicts


@pytest.mark.parametrize(
    ("shown", "state"),
    [
        ("ActiveState=active", "active"),
        ("ActiveState=activating\nJob=12", "active"),
        ("ActiveState=inactive\nJob=12", "active"),
        ("ActiveState=inactive\nJob=0", "inactive"),
        ("ActiveState=inactive", "inactive"),
        ("ActiveState=deactivating\nJob=12", "inactive"),
        ("ActiveState=failed", "inactive"),
        ("", "inactive"),
    ],
)
def test_states_of_a_service(shown: str, state: str) -> None:
    assert conflicts.decide_state(shown) == state


def test_nobody_else(tmp_path: Path) -> None:
    process(tmp_path, 5, "bash", "/bin/bash")
    found = conflicts.read(KernelFS(tmp_path))
    assert found == conflicts.KsmConflicts()
    assert found.hands_off == ""


def test_a_masked_service(tmp_path: Path) -> None:
    folder = tmp_path / "etc/systemd/system"
    folder.mkdir(parents=True)
    (folder / "ksm.service").symlink_to("/dev/null")
    (tmp_path / "usr/lib/systemd/system").mkdir(parents=True)
    (tmp_path / "usr/lib/systemd/system/ksm.service").touch()
    found = conflicts.read(KernelFS(tmp_path))
    assert found.services == {}
    assert found.hands_off == "ksm.service masked: an administrator has disabled KSM"


def test_installed_services_have_a_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "usr/lib/systemd/system").mkdir(parents=True)
    (tmp_path / "usr/lib/systemd/system/ksmtuned.service").touch()
    asked: list[str] = []

    def systemctl(verb: str, *words: str) -> str:
        asked.append(words[-1])
        return "ActiveState=active"

    monkeypatch.setattr(conflicts, "_systemctl", systemctl)
    assert conflicts.read(KernelFS(tmp_path)).services == {"ksmtuned.service": "active"}
    assert asked == ["ksmtuned.service"], "no fork for what is not installed"


@pytest.mark.parametrize(("comm", "name"), [("momd", "MOM"), ("virt-handler", "KubeVirt")])
def test_others_by_their_processes(tmp_path: Path, comm: str, name: str) -> None:
    process(tmp_path, 5, comm, "/usr/bin/whatever")
    assert (
        conflicts.read(KernelFS(tmp_path)).hands_off == f"{name} (process {comm}, 5) controls KSM"
    )


def test_who_sets_ksm_on_request_counts_where_ksm_is_in_use(tmp_path: Path) -> None:
    """Every node of a cluster runs virt-handler and Harvester's node manager."""
    process(tmp_path, 7, "harvester-node-", "/usr/bin/harvester-node-manager")
    found = conflicts.read(KernelFS(tmp_path))
    assert found.in_use("1").hands_off == "Harvester (process harvester-node-, 7) controls KSM"
    assert found.in_use("0").hands_off == ""
    process(tmp_path, 6, "momd", "/usr/sbin/momd")
    both = conflicts.read(KernelFS(tmp_path))
    assert both.in_use("0").hands_off == "MOM (process momd, 6) controls KSM"


@pytest.mark.parametrize(
    ("text", "disabled"),
    [
        ("#KSM_ENABLED=AUTO\nKSM_ENABLED=0\nSLEEP_MILLISECS=200\n", True),
        ('KSM_ENABLED=1\n  KSM_ENABLED="0" # no\n', True),
        ("export KSM_ENABLED=0\n", True),
        ("KSM_ENABLED=AUTO\n#KSM_ENABLED=0\n", False),
        ("KSM_ENABLED=0\nKSM_ENABLED=1\n", False),
    ],
)
def test_ubuntus_switch(tmp_path: Path, text: str, disabled: bool) -> None:
    (tmp_path / "etc/default").mkdir(parents=True)
    (tmp_path / "etc/default/qemu-kvm").write_text(text)
    why = "KSM_ENABLED=0 in /etc/default/qemu-kvm: an administrator has disabled KSM"
    assert conflicts.read(KernelFS(tmp_path)).hands_off == (why if disabled else "")


def test_a_start_is_only_queued_while_tuned_is_being_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[tuple[str, ...]] = []

    def systemctl(verb: str, *words: str) -> str:
        said.append((verb, *words))
        if words[-1] == "tuned.service":
            return "ActiveState=deactivating"
        return "ActiveState=inactive\nJob=7"

    monkeypatch.setattr(conflicts, "_systemctl", systemctl)
    conflicts.set_state("ksm.service", conflicts.ACTIVE)
    assert ("start", "--no-block", "ksm.service") in said


def test_a_service_that_does_not_stop_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conflicts, "_systemctl", lambda verb, *words: "ActiveState=active")
    with pytest.raises(KernelFileError, match=r"^ksm.service is active after systemctl stop$"):
        conflicts.set_state("ksm.service", conflicts.INACTIVE)
