# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt recommend: the file that it prints and writes, and how it ends."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.schemas import valid
from tests.unit.audit.scenes import guest
from tests.unit.recommend import hosts
from tuned_virt import cli
from tuned_virt.cli import recommend_file, recommend_input
from tuned_virt.cli.common import CouldNot
from tuned_virt.core import settings
from tuned_virt.kernel import systemd
from tuned_virt.kernel.files import KernelFS
from tuned_virt.libvirt_api import guest_configurations
from tuned_virt.recommend.advice import RecommendedSetting
from tuned_virt.recommend.decide import decide
from tuned_virt.recommend.situation import Situation

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "profiles" / "virtual-host-plus-variables.conf"
HOST = str(ROOT / "tests/data/hosts/two-nodes.xml")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "virtual-host-plus-variables.conf"
    made.write_bytes(SHIPPED.read_bytes())
    return made


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine is a desktop with one game."""
    monkeypatch.setattr(recommend_input, "here", lambda fs: hosts.gaming())


def recommend(*words: object) -> int:
    return cli.main(["recommend", *map(str, words)])


@pytest.mark.usefixtures("here")
def test_the_output_is_a_right_file_that_keeps_every_line(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recommend("--settings", file) == 0
    out, err = capsys.readouterr()
    assert file.read_bytes() == SHIPPED.read_bytes()
    new = out.splitlines()
    assert [line for line in new if line in SHIPPED.read_text().splitlines()] == (
        SHIPPED.read_text().splitlines()
    )
    at = new.index("vm_dedicated=win11")
    above = new[:at]
    assert above[-2].startswith("# Recommended: win11: 8 vCPUs of 32 CPUs, 2 PCI devices")
    assert above[-3] == "#vm_dedicated="
    assert max(map(len, new)) <= 120
    assert "recommended: ksm_mode=off: KSM can merge pages of 0 of 1 guest" in err
    assert "left: vm_policy: one NUMA node" in err
    assert recommend_file.check(out, "virtual-host-plus") == ()


@pytest.mark.usefixtures("here")
def test_write_keeps_mode_tells_the_changes_and_is_idempotent(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.chmod(0o640)
    assert recommend("--settings", file, "--write") == 0
    out = capsys.readouterr().out
    assert "+vm_dedicated=win11\n" in out
    assert out.endswith(f"{file} is written; next: tuned-virt preview virtual-host-plus\n")
    assert file.stat().st_mode & 0o777 == 0o640
    written = file.read_bytes()
    assert cli.main(["check-settings", str(file)]) == 0
    assert recommend("--settings", file, "--write") == 0
    captured = capsys.readouterr()
    assert f"nothing to change in {file}\n" in captured.out
    assert "set already: vm_dedicated=win11" in captured.err
    assert file.read_bytes() == written


@pytest.mark.usefixtures("here")
def test_own_lines_stay_unless_he_asks(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = (
        "# mine\nvm_isolation = host+irqs  # since May\nksm_mode=kernel\nvm_policy.db*=dedicated\n"
    )
    file.write_text(own)
    assert recommend("--settings", file, "--write") == 1
    assert file.read_text().startswith(own)
    err = capsys.readouterr().err
    assert "differs: line 2 has vm_isolation=host+irqs, which stays; recommended is" in err
    assert "--replace vm_isolation takes it" in err
    assert recommend("--settings", file, "--write", "--replace", "vm_isolation") == 1
    text = file.read_text()
    assert "vm_isolation = host  # since May\n" in text
    assert "ksm_mode=kernel\n" in text
    assert recommend("--settings", file, "--write", "--replace", "all") == 0
    assert "ksm_mode=off\n" in file.read_text()
    assert "vm_policy.db*=dedicated\n" in file.read_text()


def test_a_line_of_ours_that_is_replaced_loses_its_old_comment() -> None:
    first = recommend_file.merge("", "virtual-host-plus", _wanted(16))
    second = recommend_file.merge(first.text, "virtual-host-plus", _wanted(8), ["all"])
    assert first.text.count("# Recommended: ") == second.text.count("# Recommended: ") == 1
    assert "hugepages_1G=0:8\n" in second.text
    assert "0:16" not in second.text


def _wanted(pages: int) -> list[RecommendedSetting]:
    one = RecommendedSetting(
        "hugepages_1G", f"0:{pages}", f"0:{pages} " * 30, "so it is", "guide 8.3.3.2"
    )
    return [one]


def test_another_form_of_the_same_and_what_does_not_go_with_it() -> None:
    [dirty] = [one for one in _settings(hosts.database()) if one.name.startswith("dirty")]
    kept = recommend_file.merge("dirty_background_ratio=3\n", "virtual-host-plus", [dirty], ["all"])
    assert (kept.text, [one.name for one in kept.kept]) == (
        "dirty_background_ratio=3\n",
        ["dirty_background_ratio"],
    )
    wrong = RecommendedSetting("ksm_run", "7", "1 thing", "so it is", "guide 8.4")
    refused = recommend_file.merge("", "virtual-host-plus", [wrong])
    assert refused.added == ()
    assert [one.setting for one in refused.refused] == [wrong]


def _settings(seen: Situation) -> tuple[RecommendedSetting, ...]:
    return decide(seen).settings


@pytest.mark.usefixtures("here")
def test_an_images_settings_are_kept_as_own_lines_are(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "image" / file.name
    image.parent.mkdir()
    image.write_text("ksm_mode=off\nvm_isolation=none\n")
    file.write_text("")
    monkeypatch.setattr(settings, "MACHINES", str(file.parent))
    monkeypatch.setattr(settings, "IMAGES", str(image.parent))
    assert recommend("--settings", file, "--write") == 1
    text, err = file.read_text(), capsys.readouterr().err
    assert "vm_dedicated=" in text
    assert "ksm_mode" not in text
    assert "vm_isolation" not in text
    assert "set already: ksm_mode=off" in err
    assert f"differs: {image}: line 2 has vm_isolation=none, which stays" in err
    assert recommend("--settings", file, "--write", "--replace", "all") == 0
    assert "vm_isolation=host\n" in file.read_text()
    image.write_text("ksm_mod=off\n:\n")
    assert recommend("--settings", file) == 2
    assert f"{image}: line 2: ':'" in capsys.readouterr().err


@pytest.mark.usefixtures("here")
def test_a_file_with_errors_is_not_written(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("ksm_mod=off\n")
    assert recommend("--settings", file, "--write") == 2
    assert file.read_text() == "ksm_mod=off\n"
    assert f"{file}: line 1: 'ksm_mod" in capsys.readouterr().err


@pytest.mark.usefixtures("here")
def test_a_folder_that_is_closed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    absent = tmp_path / "none" / "virtual-host-plus-variables.conf"
    assert recommend("--settings", absent, "--write") == 2
    assert "No such file or directory; nothing is changed" in capsys.readouterr().err
    fresh = tmp_path / "virtual-host-plus-variables.conf"
    assert recommend("--settings", fresh, "--write") == 0
    assert cli.main(["check-settings", str(fresh)]) == 0


def test_from_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "db.xml").write_text(guest(name="db", gib=1, body=hosts.HUGE))
    (tmp_path / "bad.xml").write_text("<domain")
    (tmp_path / "xen.xml").write_text(
        "<domain type='xen'><name>x</name><memory>1</memory></domain>"
    )
    assert recommend("--host", HOST, "--guest", tmp_path / "db.xml", "--json") == 0
    content = valid(json.loads(capsys.readouterr().out))
    assert {one["setting"]: one["state"] for one in content["settings"]} == {
        "ksm_mode": "added",
        "hugepages_2M": "added",
    }
    assert recommend_file.check(content["text"], content["profile"]) == ()
    for words, told in (
        (["--guest", tmp_path / "db.xml"], "which host is it for?"),
        (["--host", HOST, "--guest", tmp_path / "bad.xml"], "what cannot be read\n"),
        (["--host", HOST, "--guest", tmp_path / "xen.xml"], "none of the guests is a KVM guest"),
        (["--host", tmp_path / "no.xml"], "No such file"),
        (["--host", HOST, "--write"], "--write is for this machine"),
        (["--snapshot", tmp_path / "no.json"], "No such file"),
    ):
        assert recommend(*words) == 2, words
        assert told in capsys.readouterr().err


def test_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest, a host of a manager, and one that nothing can be read of."""
    monkeypatch.setattr(systemd, "role", lambda fs: "host")
    (tmp_path / "etc/pve").mkdir(parents=True)
    assert recommend_input.here(KernelFS(tmp_path)).manager == "Proxmox VE"
    os.rmdir(tmp_path / "etc/pve")
    monkeypatch.setattr(guest_configurations, "read", lambda uri: None)
    with pytest.raises(CouldNot, match="nothing is recommended"):
        recommend_input.here(KernelFS(tmp_path))
    monkeypatch.setattr(systemd, "role", lambda fs: "guest")
    with pytest.raises(CouldNot, match="cannot be read"):
        recommend_input.here(KernelFS(tmp_path))

    def unknown(_: KernelFS) -> str:
        raise systemd.RoleUnknown("systemd-detect-virt: No such file or directory")

    monkeypatch.setattr(systemd, "role", unknown)
    with pytest.raises(CouldNot, match="is a guest cannot be told: systemd-detect-virt: No such"):
        recommend_input.here(KernelFS(tmp_path))


def test_nothing_for_a_manager(
    monkeypatch: pytest.MonkeyPatch, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = Situation(hosts.homelab().scene, manager="Proxmox VE")
    monkeypatch.setattr(recommend_input, "here", lambda fs: seen)
    assert recommend("--settings", file) == 0
    captured = capsys.readouterr()
    assert captured.out == SHIPPED.read_text()
    assert captured.err.startswith("nothing: Proxmox VE places the guests of this host")
    assert recommend("--settings", file, "--json") == 0
    assert valid(json.loads(capsys.readouterr().out))["nothing"].startswith("Proxmox VE places")
