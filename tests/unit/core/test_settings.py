# SPDX-License-Identifier: GPL-2.0-or-later
"""A settings file is read as TuneD reads it; tests/system/test_variables.py asks TuneD itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tuned_virt.core import settings
from tuned_virt.core.settings import Setting, SettingsFile

FILE = "/etc/tuned/x.conf"


def parsed(text: str) -> SettingsFile:
    return settings.parse(FILE, text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=x ; y", "x ; y"),
        ("a=x # y", "x"),
        ("a=x #y", "x"),
        ("a=x#y", "x#y"),
        (" a = x ", "x"),
        ("a=x\r\n", "x"),
        ("mode=x\na=${mode}/${mode}", "x/x"),
        ("a=${later}\nlater=x", "${later}"),
        ("mode=x\na=\\${mode}", "${mode}"),
        ("mode=x\n[variables]\na=${mode}", "x"),
        ("a=", ""),
        ("a=b=c", "b=c"),
        ("; b=1\n# c=1\na=x", "x"),
        ("b=1\n  # indented comment\n  ; another\na=x", "x"),
        ("[variables]\n  a=x\n  b=y", "x"),
    ],
)
def test_a_value_is_what_tuned_makes_of_it(text: str, value: str) -> None:
    read = parsed(text)
    assert read.errors == ()
    assert read.settings["a"].value == value


def test_lines_and_what_a_setting_uses() -> None:
    read = parsed("\n# a=2\na = 3\nab=${a}${c}\\${d}\n")
    assert read.settings == {
        "a": Setting("a", "3", 3),
        "ab": Setting("ab", "3${c}${d}", 4, frozenset({"a", "c"})),
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ksm_mode: off", "line 1: 'ksm_mode: off' is not of the form NAME=VALUE; did you mean"),
        ("\nksm_mode: off", "did you mean ksm_mode=off?"),
        ("export ksm_mode=off", "did you mean ksm_mode=off?"),
        ("ksm-mode=off", "did you mean ksm_mode=off?"),
        ("ksm_mode off", "did you mean ksm_mode=off?"),
        ("ksm_mode", "line 1: 'ksm_mode' is not of the form NAME=VALUE"),
        ("=off", "line 1: '=off' is not of the form NAME=VALUE"),
        ("[ksm]\nmode=off", "line 1: '[ksm]' is no section of a settings file"),
        ("a=1\n\na=1", "line 3: 'a=1' is a second a, after line 1; keep one of them"),
        ("a=1\n  b=2", "line 2: 'b=2' is indented: TuneD reads it as part of 'a=1'"),
        ("a=1\n\n\tb=2\nc=3", "line 3: 'b=2' is indented"),
        ("\ufeff# a comment\na=1", "line 1: it begins with a byte order mark (BOM)"),
        ("include=/etc/more.conf\ninclude=/etc/x", "line 2: 'include=/etc/x' is a second include"),
    ],
)
def test_a_line_that_tuned_reads_otherwise_is_named(text: str, said: str) -> None:
    [error] = parsed(text).errors
    assert f"{FILE}: {said}" in str(error) or said in str(error)


def test_each_wrong_line_is_named_and_the_rest_is_read() -> None:
    read = parsed("a=1\n  b=2\n  c=3\nexport d=4\ne=5\n")
    assert [error.line for error in read.errors] == [2, 3, 4]
    assert read.settings.keys() == {"a", "e"}


def test_another_encoding_is_named(tmp_path: Path) -> None:
    file = tmp_path / "v.conf"
    file.write_bytes("a=1\nvm_devices=gr\xf6\xdfe\n".encode("latin-1"))
    [error] = settings.read(str(file)).errors
    said = f"{file}: line 2: 'vm_devices=gr\\xf6\\xdfe' is not UTF-8 text; save the file as UTF-8"
    assert str(error) == said


def test_a_file_that_is_not_there_or_cannot_be_read(tmp_path: Path) -> None:
    [error] = settings.read(str(tmp_path / "none")).errors
    assert str(error).startswith(f"{tmp_path}/none: there is no such file; an empty one means")
    [error] = settings.read(str(tmp_path)).errors
    assert str(error) == f"{tmp_path}: Is a directory"


def test_a_file_is_read_again_once_it_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "v.conf"
    file.write_text("a=1\n")
    first = settings.read(str(file))
    assert settings.read(str(file)) is first
    (tmp_path / "new").write_text("a=2\n")
    os.utime(tmp_path / "new", ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    (tmp_path / "new").replace(file)
    assert settings.read(str(file)).settings["a"].value == "2"


def test_an_images_file_is_below_the_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines, images = tmp_path / "etc", tmp_path / "usr"
    for folder, text in ((machines, "b=2\nc=3\n"), (images, "a=1\nb=1\n: wrong\n")):
        folder.mkdir()
        (folder / "v.conf").write_text(text)
    monkeypatch.setattr(settings, "MACHINES", str(machines))
    monkeypatch.setattr(settings, "IMAGES", str(images))
    read = settings.read(f"{machines}/v.conf")
    found = {name: (one.value, one.file) for name, one in read.settings.items()}
    own, image = f"{machines}/v.conf", f"{images}/v.conf"
    assert found == {"a": ("1", image), "b": ("2", own), "c": ("3", own)}
    assert [str(error) for error in read.errors] == [
        f"{image}: line 3: ': wrong' is not of the form NAME=VALUE"
    ]
    (machines / "v.conf").unlink()
    assert "there is no such file" in str(settings.read(own).errors[-1])
    assert settings.read(image).settings.keys() == {"a", "b"}, "by its own name it is alone"


def test_an_images_file_that_cannot_be_looked_at_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "v.conf").write_text("b=2\n")
    monkeypatch.setattr(settings, "MACHINES", str(tmp_path))
    monkeypatch.setattr(settings, "IMAGES", "x" * 300)
    [error] = settings.read(f"{tmp_path}/v.conf").errors
    assert str(error).endswith("v.conf: File name too long")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ksm_mod", "ksm_mode"),
        ("KSM_MODE", "ksm_mode"),
        ("observ", "observe"),
        ("vm_polcy", "vm_policy"),
        ("swapiness", "swappiness"),
    ],
)
def test_what_a_name_was_probably_meant_to_be(name: str, meant: str) -> None:
    known = ("ksm_mode", "observe", "vm_policy", "swappiness", "vm_smt")
    assert settings.alike(name, known)[0] == meant
    assert settings.alike("isolated_cores", known) == []
