# SPDX-License-Identifier: GPL-2.0-or-later
"""TuneD's plugins and functions act on a shadow: no file is written, no program of theirs runs."""

from __future__ import annotations

import builtins
import os
from pathlib import Path
from typing import Any

import pytest
from tuned.utils.commands import commands

from tests.unit.tuned_api.preview.profiles import NOW, PATH, SETTING, Profiles, one, reasons
from tuned_virt.core.preview import Knowledge
from tuned_virt.tuned_api.preview import shadow
from tuned_virt.tuned_api.preview.shadow import Shadow

SET = f"[sysctl]\n{SETTING}="


def test_a_program_of_a_profile_is_not_run(profiles: Profiles, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    found = profiles.preview(f"{SET}${{f:exec:/usr/bin/touch:{trace}}}\n")
    assert not trace.exists()
    assert one(found).after.knowledge is Knowledge.UNKNOWN
    assert f"TuneD runs «/usr/bin/touch {trace}» for it" in one(found).after.why
    assert any(f"TuneD runs «/usr/bin/touch {trace}»" in reason for reason in reasons(found))


def test_a_program_that_names_an_include_is_not_run(profiles: Profiles, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    found = profiles.preview(f"include=-${{f:exec:/usr/bin/touch:{trace}}}\n{SET}1\n")
    assert not trace.exists()
    assert any("whether a profile is included" in reason for reason in reasons(found))
    assert one(found).after.value == "1"


def test_kernel_arguments_by_a_program_are_not_known(profiles: Profiles) -> None:
    found = one(profiles.preview("[bootloader]\ncmdline=a ${f:exec:/usr/bin/id}\n"))
    assert found.after.knowledge is Knowledge.UNKNOWN


def test_a_plugin_that_runs_a_program_is_named(profiles: Profiles) -> None:
    plain = Shadow()
    with plain.in_force(), plain.acting("disk"):
        assert commands().execute(["hdparm", "-B", "254", "/dev/sda"]) == (1, "")
        assert commands().execute(["hdparm", "-B1", "/dev/sda"], return_err=True) == (1, "", "")
        assert commands().execute("lscpu; reboot", shell=True)[0] == 1
        assert commands().unlink("/etc/hosts") is False
        assert commands().copy("/etc/hosts", "/tmp/hosts") is False
    assert [what for _, what in plain.stopped] == [
        *("hdparm -B 254 /dev/sda", "hdparm -B1 /dev/sda", "lscpu; reboot"),
        *("unlink /etc/hosts", "copy /etc/hosts"),
    ]
    assert os.path.exists("/etc/hosts")


def test_tuneds_commands_are_its_own_again_afterwards(tmp_path: Path) -> None:
    file = tmp_path / "x"
    plain = Shadow()
    with plain.in_force():
        assert not commands().write_to_file(str(file), "1")
    assert not file.exists()
    commands().write_to_file(str(file), "1")
    assert commands().read_file(str(file)) == "1"


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    plain = Shadow()
    with plain.in_force():
        commands().write_to_file(PATH, "3")
        assert commands().read_file(PATH) == "3"
    assert commands().read_file(PATH).strip() == NOW


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting's file may not be read."""

    def refuse(path: Any, *rest: Any, **named: Any) -> Any:
        if path == PATH:
            raise PermissionError(13, "Permission denied", path)
        return builtins.open(path, *rest, **named)

    monkeypatch.setattr(shadow, "open", refuse, raising=False)


def test_what_may_not_be_read_is_neither_absent_nor_zero(
    profiles: Profiles, forbidden: None
) -> None:
    found = one(profiles.preview(f"{SET}1\n"))
    assert found.before.knowledge is Knowledge.UNREADABLE
    assert (str(found.before), found.after.value) == ("cannot read", "1")


def test_a_modifier_cannot_compare_with_what_may_not_be_read(
    profiles: Profiles, forbidden: None
) -> None:
    found = one(profiles.preview(f"{SET}>1\n"))
    assert found.after.knowledge is Knowledge.UNKNOWN
    assert "only root can read" in found.after.why
