# SPDX-License-Identifier: GPL-2.0-or-later
"""`tuned-virt check-settings`: what it says of files, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.schemas import valid
from tuned_virt import cli
from tuned_virt.cli import settings_file

SHIPPED = sorted((Path(__file__).parents[3] / "profiles").glob("*-variables.conf"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "virtual-host-plus-variables.conf"


def check(*arguments: object) -> int:
    return cli.main(["check-settings", *map(str, arguments)])


def test_the_shipped_files_are_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert check(*SHIPPED) == 0
    assert [line.partition(": ")[2] for line in capsys.readouterr().out.splitlines()] == [
        "right for virtual-guest-plus (0 set)",
        "right for virtual-host-plus (0 set)",
    ]


def test_every_example_of_the_shipped_files_is_right(tmp_path: Path) -> None:
    """Each with nothing else set, but for what it needs."""
    needs = {
        "ksm_run": "ksm_mode=static\n",
        "ksm_pages_to_scan": "ksm_mode=static\n",
        "ksm_sleep_millisecs": "ksm_mode=static\n",
        "ksm_advisor_mode": "ksm_mode=static\n",
        "vm_swap_hard_limit": "vm_memory_hard_limit=200%\n",
    }
    for shipped in SHIPPED:
        text = shipped.read_text().replace("\n# ", " ")
        examples = [part.split("\n")[0] for part in text.split("Example: ")[1:]]
        assert len(examples) > 15
        for example in examples:
            name = example.partition("=")[0]
            one = tmp_path / shipped.name
            one.write_text(f"{needs.get(name, '')}{example}\n")
            assert check(one) == 0, one.read_text()


def test_all_that_is_wrong_is_named_in_order(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(
        "ksm_mod=off\nvm_policy='node'\nobserve=maybe\nswappiness=abc\nexport x\nfoo=1\n"
        "vm_blkio_weight=5\nload_modules=a/b\nthp=mavdise\n"
    )
    assert check(file) == 2
    said = [line.partition(f"{file}: line ")[2] for line in capsys.readouterr().out.splitlines()]
    assert [line.partition(": ")[2].partition(" is ")[0] for line in said] == [
        "'ksm_mod=off'",
        "'vm_policy='node''",
        "'observe=maybe'",
        "'swappiness=abc'",
        "'export x'",
        "'foo=1'",
        "'vm_blkio_weight=5'",
        "'load_modules=a/b'",
        "'thp=mavdise'",
    ]
    assert [line.partition(":")[0] for line in said] == list("123456789")
    assert said[1].endswith("write node without quotes")
    assert said[8].endswith("did you mean madvise?")


def test_a_setting_of_the_other_profile_is_told_as_such(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for own, other, names in (
        ("host", "guest", ("dirty_ratio", "memory_auto_online", "disk_guest_virtio")),
        ("guest", "host", ("ksm_mode", "vm_policy.db*", "power", "disk_host_backing", "ksm_mod")),
    ):
        file = tmp_path / f"virtual-{own}-plus-variables.conf"
        file.write_text("".join(f"{name}=x\n" for name in names))
        assert check(file) == 2
        for line, name in zip(capsys.readouterr().out.splitlines(), names):
            assert line.endswith(
                f"'{name}=x' is not a setting of virtual-{own}-plus, but of virtual-{other}-plus:"
                f" move it to virtual-{other}-plus-variables.conf, or delete it"
            )


def test_quotes_around_names_and_words_instead_of_names_are_refused(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With quotes nobody is selected, or excluded."""
    file.write_text(
        "vm_exclude='router'\nvm_devices=all\nvm_dedicated=\"gaming\"\nvm_wishes=opt_out\n"
        "disk_devices=none\n"
    )
    assert check(file) == 2
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(": line ")[2].partition(" is ")[0] for line in said] == [
        "1: 'vm_exclude='router''",
        "2: 'vm_devices=all'",
        "3: 'vm_dedicated=\"gaming\"'",
        "4: 'vm_wishes=opt_out'",
        "5: 'disk_devices=none'",
    ]
    assert said[0].endswith("write router without quotes")
    assert "* for all, empty for none" in said[1]
    assert "one of all, opt-out, none, or guests by name" in said[3]


def test_groups_of_guests_are_checked_too(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(
        "vm_dedicated=gaming win-*\nvm_policy.db* !db-test=dedicated\nvm_smt.db*=isolate\n"
        "vm_policy.web.example.com=none\nvm_wishes=none\n"
    )
    assert check(file) == 0
    file.write_text(
        "vm_policy.db*=dedicate\nvm_overcommit.db*=2\nvm_policy.=node\nvm_dedicted=x\n"
        "vm.swappiness=1\n"
    )
    capsys.readouterr()
    assert check(file) == 2
    said = [line.partition(f"{file}: ")[2] for line in capsys.readouterr().out.splitlines()]
    assert said[0].startswith("line 1: 'vm_policy.db*=dedicate' is not valid: one of node, dedic")
    assert said[0].endswith("did you mean dedicated?")
    assert said[1].startswith("line 2: 'vm_overcommit.db*=2' is not a setting: did you mean")
    assert said[2].startswith("line 3: 'vm_policy.=node' is not of the form NAME=VALUE")
    assert said[3].startswith(
        "line 4: 'vm_dedicted=x' is not a setting: did you mean vm_dedicated?"
    )
    assert said[4].startswith("line 5: 'vm.swappiness=1' is not a setting: did you mean swappine")


def test_options_that_contradict_each_other_are_told_in_the_files_words(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text("ksm_run=1\nvm_swap_hard_limit=4G\n")
    assert check(file) == 2
    out = capsys.readouterr().out
    assert "line 1: 'ksm_run=1' is not valid: leave it out, ksm_mode=auto controls it" in out
    assert "line 2: 'vm_swap_hard_limit=4G' is not valid: " in out
    assert "it needs vm_memory_hard_limit" in out


def test_what_only_tuned_can_evaluate_is_said_and_no_error(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text("ksm_npages_max=${f:exec:echo:9}\nksm_mode=ksmtuned\n")
    assert check(file) == 0
    assert "line 1: only TuneD can evaluate ksm_npages_max" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "code"), [("guest", 0), ("host", 2)])
def test_the_profile_decides_on_what_there_is(tmp_path: Path, name: str, code: int) -> None:
    file = tmp_path / "new.conf"
    file.write_text("disk_guest_virtio=none\n")
    assert check(file, "--profile", f"virtual-{name}-plus") == code
    file.rename(tmp_path / f"virtual-{name}-plus-variables.conf")
    assert check(tmp_path / f"virtual-{name}-plus-variables.conf") == code


def test_this_machines_files(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(settings_file, "FOLDER", file.parent)
    assert check() == 2
    assert f"there is no settings file in {file.parent}" in capsys.readouterr().err
    file.write_text("observe=1\n")
    assert check() == 0
    assert capsys.readouterr().out == f"{file}: right for virtual-host-plus (1 set)\n"


def test_a_file_that_is_not_there(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(file) == 2
    assert f"{file}: there is no such file" in capsys.readouterr().out


def test_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("observe=1\n\nksm_mod=off\n")
    assert check(file, "--json") == 2
    [found] = valid(json.loads(capsys.readouterr().out))["files"]
    assert (found["file"], found["profile"], found["right"]) == (
        str(file),
        "virtual-host-plus",
        False,
    )
    assert found["settings"][0] == {"setting": "observe", "value": "1", "line": 1}
    [error] = found["errors"]
    assert (error["line"], error["found"]) == (3, "ksm_mod=off")
    assert error["text"].startswith(f"{file}: line 3: ")
