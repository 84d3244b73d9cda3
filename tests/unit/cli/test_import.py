# SPDX-License-Identifier: GPL-2.0-or-later
"""`tuned-virt import ksmtuned`, over files in a folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tuned_virt import cli
from tuned_virt.cli import import_, variables
from tuned_virt.cli.variables import Variable
from tuned_virt.plugins import ksm

SHIPPED = Path(__file__).parents[3] / "profiles" / "virtual-host-plus-variables.conf"

STOCK = """\
# Configuration file for ksmtuned.

# How long ksmtuned should sleep between tuning adjustments
# KSM_MONITOR_INTERVAL=60

# Millisecond sleep between ksm scans for 16Gb server.
# Smaller servers sleep more, bigger sleep less.
KSM_SLEEP_MSEC=20

# KSM_NPAGES_BOOST - is added to the `npages` value
# KSM_NPAGES_BOOST=300

# ours: größer
KSM_NPAGES_MAX="2500"  # since 2019
KSM_NPAGES_DECAY='-100'

# uncomment the following if you want ksmtuned debug info
LOGFILE=/var/log/ksmtuned
# loud
DEBUG=1
KSM_THRES_COEF=

# the end
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "ksmtuned.conf"
    file.write_text(STOCK)
    return file


@pytest.fixture
def target(tmp_path: Path) -> Path:
    file = tmp_path / "variables.conf"
    file.write_bytes(SHIPPED.read_bytes())
    return file


@pytest.fixture
def run(source: Path, target: Path) -> Callable[..., int]:
    return lambda *more: cli.main(
        ["import", "ksmtuned", "--from", str(source), "--to", str(target), *more]
    )


def active(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_into_the_shipped_file(
    run: Callable[..., int], target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = target.read_text()
    assert run() == 0
    said = capsys.readouterr().out
    assert said.splitlines()[:4] == [
        "ksm_mode=ksmtuned",
        "ksm_sleep_msec=20",
        "ksm_npages_max=2500",
        "ksm_npages_decay=-100",
    ]
    assert "dropped: LOGFILE, DEBUG: " in said
    assert "dropped: KSM_THRES_COEF: empty" in said
    assert "tuned-adm profile virtual-host-plus && tuned-virt verify" in said
    assert "systemctl disable --now ksmtuned ksm" in said
    text = target.read_text()
    assert sorted(active(text)) == sorted(said.splitlines()[:4])
    assert "#ksm_mode=auto\nksm_mode=ksmtuned\n" in text
    assert (
        "# KSM_NPAGES_BOOST - is added to the `npages` value\n"
        "# KSM_NPAGES_BOOST=300\n\n"
        "# ours: größer\n# since 2019\nksm_npages_max=2500\n"
    ) in text
    assert "\n# Configuration file for ksmtuned.\n" in text
    assert text.endswith("# the end\n")
    assert "# loud" not in text
    kept = iter(text.splitlines())
    assert all(line in kept for line in before.splitlines()), "the target's own, in its order"


def test_twice_changes_nothing(
    run: Callable[..., int], target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    first, inode = target.read_bytes(), target.stat().st_ino
    capsys.readouterr()
    assert run() == 0
    assert f"nothing to change in {target}\n" in capsys.readouterr().out
    assert (target.read_bytes(), target.stat().st_ino) == (first, inode)


def test_dry_run_shows_and_writes_nothing(
    run: Callable[..., int], target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = target.read_bytes()
    assert run("--dry-run") == 0
    assert "\n+ksm_npages_max=2500\n" in capsys.readouterr().out
    assert target.read_bytes() == before


def test_for_programs_it_says_what_it_changed(
    run: Callable[..., int], source: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = []
    for more in (["--dry-run"], [], []):
        assert run("--json", *more) == 0
        told.append(json.loads(capsys.readouterr().out))
    assert [(one["differs"], one["changed"]) for one in told] == [
        (True, False), (True, True), (False, False)
    ]  # fmt: skip
    assert (told[1]["from"], told[1]["to"]) == (str(source), str(target))
    assert told[1]["variables"][0] == {"variable": "ksm_mode", "before": None, "after": "ksmtuned"}
    assert told[2]["variables"][0]["before"] == "ksmtuned"
    assert (told[1]["dropped"], told[1]["empty"]) == (["LOGFILE", "DEBUG"], ["KSM_THRES_COEF"])


def test_existing_variables_are_replaced_in_place(
    run: Callable[..., int], source: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source.write_text("# new\nKSM_NPAGES_MAX=900\n# tail")
    target.write_bytes(b"# mine\r\nksm_npages_max = 5   # why\n\nksm_mode=auto\nvm=${x} \t\n#e")
    assert run() == 0
    assert target.read_bytes() == (
        b"# mine\r\n# new\nksm_npages_max = 900   # why\n\nksm_mode=ksmtuned\nvm=${x} \t\n#e\n"
        b"# tail\n"
    )
    assert "ksm_npages_max=900  (was '5')\n" in capsys.readouterr().out


def test_only_comments_mean_ksmtuneds_defaults(
    run: Callable[..., int], source: Path, target: Path
) -> None:
    source.write_text("# KSM_NPAGES_MAX=9\n\n")
    target.unlink()
    assert run() == 0
    assert target.read_text() == "ksm_mode=ksmtuned\n# KSM_NPAGES_MAX=9\n"
    assert target.stat().st_mode & 0o777 == 0o644


def test_mode_and_symbolic_link_stay(run: Callable[..., int], target: Path, tmp_path: Path) -> None:
    real = tmp_path / "elsewhere"
    target.rename(real)
    target.symlink_to(real)
    real.chmod(0o640)
    assert run() == 0
    assert target.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert "ksm_mode=ksmtuned" in real.read_text()
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "elsewhere",
        "ksmtuned.conf",
        "variables.conf",
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_owner_stays(run: Callable[..., int], target: Path) -> None:
    os.chown(target, 1234, 2345)
    assert run() == 0
    assert (target.stat().st_uid, target.stat().st_gid) == (1234, 2345)


PROXMOX = """\
# Millisecond sleep between ksm scans for 16Gb server.
# KSM_SLEEP_MSEC=100
# KSM_NPAGES_BOOST=300
# The metric used to calculate how much memory is used by a QEMU process
# KSM_PS_METRIC=pss
"""
RED_HAT = PROXMOX.replace("=100", "=10").replace("# KSM_PS_METRIC=pss\n", "")
SCRIPT = "KSM_NPAGES_MAX=${KSM_NPAGES_MAX:-1250}\nKSM_SLEEP_MSEC=${KSM_SLEEP_MSEC:-%s}\n"


@pytest.mark.parametrize(
    ("text", "script", "settings"),
    [
        (f"{PROXMOX}KSM_THRES_COEF=40\n", "", {"thres_coef": "40", "sleep_msec": "100"}),
        (f"{PROXMOX}KSM_SLEEP_MSEC=200  # mine\n", SCRIPT % 100, {"sleep_msec": "200"}),
        (f"{PROXMOX}KSM_SLEEP_MSEC=\n", "", {"sleep_msec": "100"}),
        (f"{RED_HAT}KSM_THRES_COEF=40\n", "", {"thres_coef": "40"}),
        (f"{RED_HAT}#KSM_SLEEP_MSEC=100\n", "", {}),
        ("KSM_PS_METRIC=rsz\n", "", {"sleep_msec": "100"}),
        ("KSM_THRES_COEF=40\n", SCRIPT % 100, {"thres_coef": "40", "sleep_msec": "100"}),
        (PROXMOX, SCRIPT % 10, {}),
        (
            "KSM_THRES_COEF=0\nKSM_THRES_CONST=8388608\n",
            SCRIPT % 10,
            {"thres_coef": "0", "thres_const": "8388608"},
        ),
        ("\ufeff# mine\nKSM_NPAGES_MAX=900\n", "", {"npages_max": "900"}),
        ("\ufeffKSM_NPAGES_MIN=900\nKSM_NPAGES_MAX=900\n", "", {"npages_max": "900"}),
        (f"{RED_HAT}KSM_SLEEP_MSEC=100\nKSM_SLEEP_MSEC=100\n", "", {"sleep_msec": "100"}),
        ("KSM_THRES_COEF=40\nKSM_THRES_COEF=50  # more\n", "", {"thres_coef": "50"}),
        ("KSM_THRES_COEF=40\nKSM_THRES_COEF=50\nKSM_THRES_COEF=40\n", "", {"thres_coef": "40"}),
        ("export KSM_THRES_COEF=40\n", "", {"thres_coef": "40"}),
        ("KSM_THRES_COEF=40; # more\nKSM_NPAGES_MAX=900 ;\n", "",
         {"thres_coef": "40", "npages_max": "900"}),
        ("KSM_MAX_KERNEL_PAGES=40\nKSM_THRES_COEF=30\n", "", {"thres_coef": "30"}),
        (PROXMOX.replace("# KSM_SLEEP_MSEC=100", "KSM_SLEEP_MSEC=80"), "", {"sleep_msec": "80"}),
        ("KSM_MONITOR_INTERVAL=10         # How often in seconds, default is 60s (too long)\n"
         "KSM_THRES_COEF=70               # Activates KSM at 30% RAM usage\n", "",
         {"monitor_interval": "10", "thres_coef": "70"}),
        ("KSM_NPAGES_BOOST=0\nKSM_NPAGES_DECAY=0\nKSM_NPAGES_MIN=1000\nKSM_NPAGES_MAX=25000\n"
         "LOGFILE=/var/log/ksmtuned.log\nDEBUG=1\n", "",
         {"npages_boost": "0", "npages_decay": "0", "npages_min": "1000", "npages_max": "25000"}),
    ],
)  # fmt: skip
def test_what_the_daemon_would_have_used(text: str, script: str, settings: dict[str, str]) -> None:
    """Proxmox VE's, with its own defaults; what a shell does with a byte order mark and with names
    that come again; what post-install scripts and guides for Proxmox VE and Ubuntu write."""
    imported = import_.convert(Path("ksmtuned.conf"), text, script)
    found = {one.name[len("ksm_") :]: one.value for one in imported.variables[1:]}
    assert found == settings
    ksm.parse({"mode": "ksmtuned", **found})


def test_what_is_not_as_written_is_said(
    run: Callable[..., int], source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source.write_text(
        "\ufeffKSM_NPAGES_MIN=900\n# KSM_SLEEP_MSEC=100\nKSM_PS_METRIC=pss\nDEBUG=1\n"
    )
    assert run() == 0
    said = capsys.readouterr().out
    assert "dropped: KSM_PS_METRIC: guests count with their resident memory (rsz) here" in said
    assert "dropped: DEBUG: see TuneD's log and tuned-virt log" in said
    assert f"{source}, line 1: ksmtuned does not read it: a byte order mark is before it" in said
    assert "ksm_sleep_msec=100 is the default of Proxmox VE's ksmtuned, others' is 10" in said


def test_what_has_no_effect_is_said(
    run: Callable[..., int], source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source.write_text("KSM_THRES_COEF=40\n#\nKSM_THRES_COEF=50\n")
    assert run() == 0
    said = f"{source}, line 1: 'KSM_THRES_COEF=40' has no effect: line 3 sets KSM_THRES_COEF again"
    assert said in capsys.readouterr().out


PAGES_VALID = "a whole number from 1 to 1000000 (pages per scan)"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("KSM_NPAGES_MAX=0", f"line 2: option 'KSM_NPAGES_MAX': '0' is not valid: {PAGES_VALID}"),
        ("KSM_NPAGES_MAX=many", f"'many' is not valid: {PAGES_VALID}, without"),
        ("KSM_NPAGES_MAX=0300", "without other characters or leading zeros"),
        ("KSM_NPAGES_MAX=+3", "without other characters or leading zeros"),
        ("KSM_NPAGES_MAX=>3", "without shell expressions"),
        ("KSM_NPAGES_MAX=$((2*3))", f"'$((2*3))' is not valid: {PAGES_VALID}, written as"),
        ("KSM_NPAGES_MAX=`nproc`", "without shell expressions"),
        ('KSM_NPAGES_MAX="$X"', "without shell expressions"),
        ("KSM_NPAGES_MAX = 3", "written as KSM_NPAGES_MAX=VALUE"),
        ("KSM_NPAGES_MAX= 3", "without shell expressions"),
        ("KSM_NPAGES_MAX=10#3", "without shell expressions"),
        ("KSM_NPAGES_MAX=3; KSM_NPAGES_MIN=2", "without shell expressions"),
        ("KSM_NPAGES_MAX=3\\", "without shell expressions"),
        ('KSM_NPAGES_MAX="""3\n"""', "without shell expressions"),
        ("KSM_NPAGES_DECAY=50", "a whole number from -1000000 to 0"),
        ("KSM_NPAGES_MIN=2000", "option 'KSM_NPAGES_MIN': '2000' is not valid: at most npages_max"),
        ("KSM_NPAGES_MAX=9", "option 'KSM_NPAGES_MIN': '64' is not valid: at most npages_max"),
        (
            "KSM_MAX_PAGES=3",
            "line 2: option 'KSM_MAX_PAGES': '3' is not valid: ksmtuned knows KSM_",
        ),
        ("KSM_NPAGES_MAX=3\nKSM_NPAGES_MAX=$X", "line 3: 'KSM_NPAGES_MAX=$X' is set twice"),
        ("if true; then", "line 2: 'if true; then' is not valid: lines NAME=VALUE"),
        ("[ksm]", "'[ksm]' is not valid"),
    ],
)
def test_what_is_not_plain_is_one_clear_error(
    text: str,
    error: str,
    run: Callable[..., int],
    source: Path,
    target: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = target.read_bytes()
    source.write_text(f"# first\n{text}\n")
    assert run() == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"tuned-virt: {source}")
    assert error in said.err
    assert said.out == ""
    assert target.read_bytes() == before


def test_bounds_hold_for_both_ends_together(
    run: Callable[..., int], source: Path, target: Path
) -> None:
    source.write_text("KSM_NPAGES_MIN=2000\nKSM_NPAGES_MAX=4000\n")
    assert run() == 0
    assert "\nksm_npages_min=2000\n" in target.read_text()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("ksm_run=1\n", "option 'ksm_run': '1' is not valid: leave it out, mode=ksmtuned"),
        ("ksm_npages_min=3000\n", "option 'ksm_npages_min': '3000' is not valid: at most"),
        ("a=1\na=2\n", "line 2: 'a=2' is a second a, after line 1; keep one of them"),
        ("nonsense\n", "line 1: 'nonsense' is not of the form NAME=VALUE"),
        ("a=1\n  b=2\n", "line 2: 'b=2' is indented"),
    ],
)
def test_what_the_target_contradicts_is_said(
    text: str, error: str, run: Callable[..., int], target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target.write_text(text)
    assert run() == 2
    said = capsys.readouterr().err
    assert said.startswith(f"tuned-virt: {target}")
    assert error in said
    assert target.read_text() == text


@pytest.mark.parametrize("text", [" ksm_mode=auto\n", "[variables]\n  ksm_mode = auto\n"])
def test_what_is_set_in_any_form_is_replaced_in_place(
    text: str, run: Callable[..., int], target: Path
) -> None:
    target.write_text(text)
    assert run() == 0
    assert target.read_text().count("ksm_mode") == 1
    assert "ksmtuned" in target.read_text().splitlines()[text.count("\n") - 1]


def test_a_variable_of_tuned_in_the_target_is_left_to_tuned(
    run: Callable[..., int], target: Path
) -> None:
    target.write_text("ksm_thres_coef=${mine}\n")
    assert run() == 0


def test_no_source_is_said_with_a_hint(
    run: Callable[..., int], source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source.unlink()
    assert run() == 2
    said = capsys.readouterr().err
    assert f"there is no {source}: give ksmtuned's file with --from" in said
    source.mkdir()
    assert run() == 2
    assert f"cannot read {source}: Is a directory" in capsys.readouterr().err


def test_a_source_that_is_no_text(
    run: Callable[..., int], source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source.write_bytes(b"# a\n# \xff\n")
    assert run() == 2
    assert f"{source}, line 2: not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied"), "sudo tuned-virt import"),
        (OSError(28, "full"), "full"),
    ],
)
def test_a_target_that_cannot_be_written_stays(
    error: OSError,
    said: str,
    run: Callable[..., int],
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> None:
        raise error

    before = target.read_bytes()
    monkeypatch.setattr(os, "replace", fail)
    assert run() == 2
    assert said in capsys.readouterr().err
    assert target.read_bytes() == before
    assert len(list(target.parent.iterdir())) == 2, "nothing is left behind"


def placed(text: str, *wanted: Variable) -> str:
    return "".join(variables.place(variables.split(text), wanted))


def test_placing() -> None:
    assert placed("", Variable("a", "1", ("# x",))) == "# x\na=1\n"
    assert placed("b=2", Variable("a", "1")) == "b=2\na=1\n"
    assert placed("# a=0\nb=2\n", Variable("a", "1")) == "# a=0\na=1\nb=2\n"
    assert placed("#aa=0\naa=3\n", Variable("a", "1")) == "#aa=0\naa=3\na=1\n"
    assert placed("a=x#y\n", Variable("a", "1")) == "a=1\n"
    assert placed("a=\n", Variable("a", "1")) == "a=1\n"
    assert placed("a=1", Variable("a", "1")) == "a=1", "not even the line's end"
    assert placed("a=1\u2028b\x0c\n", Variable("b", "1")) == "a=1\u2028b\x0c\nb=1\n"
