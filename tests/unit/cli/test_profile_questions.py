# SPDX-License-Identifier: GPL-2.0-or-later
"""What `${f:virt_plus:…}` answers, and what it says of a file that it cannot read."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from tuned_virt.cli import hugepages_plan, profile_questions
from tuned_virt.cli.profile_questions import parts, value


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "v.conf"


def test_an_empty_file_asks_for_the_defaults(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.write_text("")
    assert parts("virt-plus-host", str(file)) == "virt-plus-host"
    assert value(str(file), "swappiness", "10") == "10"
    assert not caplog.records


def test_a_file_that_is_not_there_is_not_taken_for_an_empty_one(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert parts("virt-plus-host", str(file)) == ""
    assert f"{file}: there is no such file" in caplog.text


@pytest.mark.parametrize("text", ["observ=1\n", "swapiness=1\n", "swappiness=1\nswappiness=2\n"])
def test_a_misspelt_name_and_a_second_value_leave_the_stock_profile(
    file: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text(text)
    assert parts("virt-plus-host", str(file)) == ""
    assert f"{file}: line " in caplog.text


def test_parts_after_the_first_are_optional_too(file: Path) -> None:
    file.write_text("hugepages_boot=auto\n")
    assert parts("virt-plus-host", str(file)) == "virt-plus-host,-virt-plus-boot"


@pytest.mark.parametrize("content", [None, b"swappiness=5\nx=\xff\n", b"no value\n"])
def test_a_file_that_cannot_be_read_is_said_and_asks_for_nothing(
    file: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    assert parts("virt-plus-host", str(file)) == ""
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage().startswith(f"{file}: ")
    assert "stock profile" in record.getMessage()
    assert value(str(file), "swappiness", "10") == "10"


def test_a_folder_that_is_none(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.write_text("")
    assert parts("virt-plus-host", str(file / "v.conf")) == ""
    assert "Not a directory" in caplog.text


def test_an_error_names_file_line_and_variable(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text("# x\nswappiness=abc\n")
    assert parts("virt-plus-host", str(file)) == ""
    assert f"{file}: line 2: 'swappiness=abc' is not valid: a whole number" in caplog.text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("swappiness=5  # late\n", "5"),
        ("base=7\nswappiness=${base}\n", "7"),
        ("swappiness=\n", "10"),
        ("#swappiness=5\n", "10"),
    ],
)
def test_a_value(file: Path, text: str, found: str) -> None:
    file.write_text(text)
    assert value(str(file), "swappiness", "10") == found


def test_a_changed_file_is_read_again(file: Path) -> None:
    file.write_text("swappiness=5\n")
    assert value(str(file), "swappiness", "10") == "5"
    file.write_text("swappiness=6\n")
    os.utime(file, ns=(1, 1))
    assert value(str(file), "swappiness", "10") == "6"


def test_kernel_arguments_and_what_is_said_of_them(
    file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        hugepages_plan, "cmdline", lambda path, words: (f"{os.path.basename(path)}{words}", ["why"])
    )
    assert profile_questions.QUESTIONS["boot"](str(file)) == "v.conf[]"
    assert "huge pages at boot: why" in caplog.text


def test_a_bad_request_gives_no_arguments(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.write_text("hugepages_1G=0:4x\n")
    assert profile_questions.boot(str(file)) == ""
    assert f"{file}: line 1" in caplog.text
