# SPDX-License-Identifier: GPL-2.0-or-later
"""`tuned-virt enable` and `disable` over trees that look like an installed system."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.kernel import FRESH, FakeKsm
from tuned_virt import cli
from tuned_virt.cli import disable, restore
from tuned_virt.cli.activation import Machine
from tuned_virt.core.active_profile import ActiveProfile
from tuned_virt.core.installed_profiles import NEW_FOLDERS, OLD_FOLDERS
from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import UnheldOriginals
from tuned_virt.kernel import systemd

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may enable a profile")

PROFILES = {
    "balanced": "[main]\nsummary=x\n",
    "virtual-host": "[main]\nsummary=x\n",
    "web": "[main]\n",
    "virtual-host-plus": "[main]\ninclude=virtual-host\n",
    "mine": "[main]\ninclude = web ; -virtual-host-plus\n",
    "direct": "[main]\n[pages]\ntype=ksm\n",
    "guests": "[main]\n[vm_pinning]\n",
    "odd": "no section\n",
}


REMEMBER = restore._remember_profile


@pytest.fixture(params=[OLD_FOLDERS, NEW_FOLDERS], ids=["old", "new"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    for name, text in PROFILES.items():
        put(tmp_path, f"{request.param[0]}/{name}/tuned.conf", text)
    put(tmp_path, "etc/tuned/tuned-main.conf", "daemon = 1\n#profile_dirs=/nowhere\n")
    put(tmp_path, "etc/tuned/active_profile", "balanced\n")
    put(tmp_path, "etc/tuned/profile_mode", "auto\n")
    unit = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
    put(tmp_path, "usr/lib/systemd/system/tuned.service", unit)
    return tmp_path


def put(root: Path, path: str, text: str) -> Path:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def tree(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): os.readlink(path) if path.is_symlink() else path.read_text()
        for path in root.rglob("*")
        if path.is_symlink() or path.is_file()
    }


@pytest.fixture
def run(root: Path) -> Callable[..., int]:
    return lambda command, *names: cli.main([command, *names, "--root", str(root)])


def test_enable_writes_what_tuned_reads_when_it_starts(root: Path, run: Callable[..., int]) -> None:
    assert run("enable", "virtual-host-plus") == 0
    assert (root / "etc/tuned/active_profile").read_text() == "virtual-host-plus\n"
    assert (root / "etc/tuned/profile_mode").read_text() == "manual\n"
    link = root / "etc/systemd/system/multi-user.target.wants/tuned.service"
    assert os.readlink(link) == "/usr/lib/systemd/system/tuned.service"
    before = tree(root)
    assert run("enable", "virtual-host-plus") == 0
    assert tree(root) == before


def test_several_profiles_on_one_line(root: Path, run: Callable[..., int]) -> None:
    assert run("enable", "balanced", "mine") == 0
    assert (root / "etc/tuned/active_profile").read_text() == "balanced mine\n"


@pytest.mark.parametrize("name", ["virtual-hots-plus", "../etc", "", ".", "a b", "/etc"])
def test_a_profile_that_is_not_there(
    name: str, root: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(root)
    assert run("enable", "virtual-host-plus", name) == 2
    assert f"there is no profile '{name}' in " in capsys.readouterr().err
    assert tree(root) == before


def test_folders_that_the_configuration_names(root: Path, run: Callable[..., int]) -> None:
    put(root, "etc/tuned/tuned-main.conf", "profile_dirs = /opt/a,/opt/b # two\n")
    put(root, "/opt/b/site/tuned.conf", "[main]\n")
    assert Machine(root).profiles.folders() == ["/opt/a", "/opt/b"]
    assert run("enable", "site") == 0
    assert run("enable", "balanced") == 2


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("etc/tuned/tuned-main.conf", "TuneD is not installed in"),
        ("usr/lib/systemd/system/tuned.service", "there is no tuned.service in"),
    ],
)
def test_no_tuned(
    missing: str, said: str, root: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    (root / missing).unlink()
    before = tree(root)
    assert run("enable", "balanced") == 2
    assert said in capsys.readouterr().err
    assert tree(root) == before


def test_a_root_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["enable", "balanced", "--root", str(tmp_path / "nowhere")]) == 2
    assert "nowhere' is not a folder: give the root" in capsys.readouterr().err


def test_a_link_out_of_the_root_is_not_followed(
    root: Path, run: Callable[..., int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "active_profile"
    outside.write_text("mine\n")
    (root / "etc/tuned/active_profile").unlink()
    (root / "etc/tuned/active_profile").symlink_to(outside)
    assert run("enable", "balanced") == 2
    assert outside.read_text() == "mine\n"


def test_a_service_that_cannot_be_enabled_changes_nothing(
    root: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "etc/systemd/system").mkdir(parents=True)
    (root / "etc/systemd/system/tuned.service").symlink_to("/dev/null")
    before = tree(root)
    assert run("enable", "balanced") == 2
    assert "masked" in capsys.readouterr().err
    assert tree(root) == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[main]\ninclude=gone\n", "there is no profile 'gone', which 'broken' includes, in "),
        ("[main]\ninclude=mine,chain\n", "no profile 'chain', which 'broken' includes"),
        ("[main]\ninclude=odd\n", "TuneD cannot read the profile 'odd': "),
    ],
)
def test_the_whole_chain_of_includes_is_checked(
    text: str,
    said: str,
    root: Path,
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    put(root, f"{Machine(root).profiles.folders()[0]}/broken/tuned.conf", text)
    before = tree(root)
    assert run("enable", "balanced", "broken") == 2
    assert said in capsys.readouterr().err
    assert tree(root) == before


def test_enable_says_whether_it_changed_anything(
    root: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("enable", "virtual-host-plus", "--json") == 0
    assert run("enable", "virtual-host-plus", "--json") == 0
    whole = capsys.readouterr().out.split("}\n")
    first, second = (json.loads(f"{text}}}") for text in whole[:2])
    assert first.pop("changed") is True
    assert second.pop("changed") is False
    assert first == second
    assert (first["kind"], first["profiles"]) == ("enable", ["virtual-host-plus"])
    assert run("enable", "virtual-host-plus") == 0
    assert capsys.readouterr().out.startswith("virtual-host-plus: unchanged; ")
    (root / "etc/systemd/system/multi-user.target.wants/tuned.service").unlink()
    assert run("enable", "virtual-host-plus") == 0
    assert capsys.readouterr().out.startswith("virtual-host-plus: will be applied when ")


@pytest.mark.parametrize("name", ["active_profile", "profile_mode", "virt_plus_previous.json"])
@pytest.mark.parametrize("target", ["/outside/of/it", "dangling/inside"])
def test_a_file_that_cannot_be_written_changes_nothing(
    name: str, target: str, root: Path, run: Callable[..., int]
) -> None:
    """TuneD's state may be a link, to a folder that is not there yet."""
    (root / "etc/tuned" / name).unlink(missing_ok=True)
    (root / "etc/tuned" / name).symlink_to(target)
    before = tree(root)
    assert run("enable", "virtual-host-plus") == 2
    assert tree(root) == before


@pytest.mark.parametrize(
    ("ppd", "starts", "noted"),
    [
        (None, False, False),
        (None, True, True),
        ("[profiles]\nbalanced=balanced\n", True, True),
        ("[profiles]\nbalanced=balanced\n", False, False),
        ("[profiles]\nbalanced=virtual-host-plus # ours\n", True, False),
        ("[profiles]\n#balanced=virtual-host-plus\n", True, True),
    ],
)
def test_tuned_ppd_that_will_replace_the_profile(
    ppd: str | None,
    starts: bool,
    noted: bool,
    root: Path,
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    if ppd is not None:
        put(root, "etc/tuned/ppd.conf", ppd)
    if starts:
        put(root, "etc/systemd/system/graphical.target.wants/tuned-ppd.service", "")
    assert run("enable", "virtual-host-plus") == 0
    assert ("\nnote: tuned-ppd replaces it when it starts" in capsys.readouterr().out) is noted
    assert run("enable", "virtual-host-plus", "--json") == 0
    assert bool(json.loads(capsys.readouterr().out)["notes"]) is noted


def test_an_ostree_commit(root: Path, run: Callable[..., int]) -> None:
    (root / "etc").rename(root / "usr/etc")
    assert run("enable", "virtual-host-plus") == 0
    found = tree(root)
    assert not (root / "etc").exists()
    assert found["usr/etc/tuned/active_profile"] == "virtual-host-plus\n"
    assert found["usr/etc/systemd/system/multi-user.target.wants/tuned.service"]
    assert run("enable", "virtual-host-plus") == 0
    assert tree(root) == found
    assert run("disable") == 0
    assert tree(root)["usr/etc/tuned/active_profile"] == "balanced\n"
    assert tree(root)["usr/etc/tuned/profile_mode"] == "auto\n"


@pytest.mark.parametrize(
    ("active", "asked", "off"),
    [
        ("virtual-host-plus", (), True),
        ("virtual-host-plus", ("virtual-host-plus",), True),
        ("virtual-host-plus", ("virtual-guest-plus",), False),
        ("mine", ("virtual-host-plus",), True),
        ("balanced mine", (), True),
        ("direct", (), True),
        ("direct", ("virtual-host-plus",), False),
        ("balanced", (), False),
        ("odd", (), False),
        ("gone", (), False),
        ("", (), False),
    ],
)
def test_disable_takes_only_what_is_ours(
    active: str, asked: tuple[str, ...], off: bool, root: Path, run: Callable[..., int]
) -> None:
    put(root, "etc/tuned/active_profile", f"{active}\n")
    before = tree(root)
    assert run("disable", *asked) == 0
    if off:
        kept = "balanced\n" if "balanced" in active else ""
        assert (root / "etc/tuned/active_profile").read_text() == kept
        assert (root / "etc/tuned/profile_mode").read_text() == "manual\n"
    else:
        assert tree(root) == before


def test_disable_in_a_chroot_asks_no_bus(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(root, "etc/tuned/active_profile", "virtual-host-plus\n")

    def fail(*_: object) -> int:
        raise AssertionError("asked")

    monkeypatch.setattr(systemd, "in_chroot", lambda: True)
    monkeypatch.setattr(disable, "_daemon", fail)
    monkeypatch.setattr(restore, "put_back", fail)
    monkeypatch.setattr(disable, "Machine", lambda _: Machine(root))
    assert cli.main(["disable"]) == 0
    assert capsys.readouterr().out == (
        "virtual-host-plus: off; active now: no profile\n"
        "note: the profile that was active before is not known\n"
    )


def test_a_chroot_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests may run in a chroot themselves, or have a first process that is closed to them."""
    roots = {f"/proc/{os.getppid()}/root": "/", "/proc/1/root": "/"}
    monkeypatch.setattr(os.path, "samefile", lambda own, other: roots[other] == own)
    monkeypatch.setattr(systemd, "_ancestors", lambda: iter((os.getppid(), 1)))
    assert not systemd.in_chroot()
    roots["/proc/1/root"] = "/another"
    assert systemd.in_chroot()


def test_ancestors_go_up_to_the_first_process() -> None:
    *_, last = systemd._ancestors()
    stat = Path(f"/proc/{last}/stat").read_text().rpartition(")")[2].split()
    assert stat[1] == "0"


def test_an_ancestor_that_is_closed_to_us_counts_as_no_chroot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def closed(*_: str) -> bool:
        raise PermissionError

    monkeypatch.setattr(os.path, "samefile", closed)
    assert not systemd.in_chroot()


@pytest.mark.parametrize(
    ("active", "record", "put_back"),
    [
        ("direct", "ksm", False),
        ("balanced", "ksm", True),
        ("absent", "ksm", True),
        ("guests", "vm_pinning", False),
        ("guests", "vm_pinning_configuration", False),
        ("direct", "vm_pinning_configuration", True),
    ],
)
def test_what_a_starting_tuned_will_see_to_is_left_to_it(
    active: str,
    record: str,
    put_back: bool,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(root, "etc/tuned/active_profile", f"{active}\n")
    baseline = UnheldOriginals(tmp_path / "run")
    baseline.keep(record, {"run": "0"})
    baseline.release(record)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(restore, "Machine", lambda: Machine(root))
    monkeypatch.setattr(restore, "UnheldOriginals", lambda: baseline)
    monkeypatch.setattr(restore, "Journal", lambda: Journal(tmp_path / "journal"))
    monkeypatch.setattr(restore, "KernelFS", lambda: FakeKsm(FRESH))
    assert cli.main(["restore", "--leftover", "starting"]) == 0
    assert (baseline.all() == {}) == put_back


@pytest.mark.parametrize("when", ["starting", "ended"])
@pytest.mark.parametrize(
    ("active", "known"),
    [("balanced", ActiveProfile(("balanced",), automatic=True)), ("mine", None), ("direct", None)],
)
def test_tuneds_service_remembers_what_is_not_ours(
    when: str,
    active: str,
    known: ActiveProfile | None,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a daemon `tuned-adm profile` writes TuneD's files before TuneD loads a plugin."""
    put(root, "etc/tuned/active_profile", f"{active}\n")
    monkeypatch.setattr(restore, "_remember_profile", REMEMBER)
    monkeypatch.setattr(restore, "Machine", lambda: Machine(root))
    monkeypatch.setattr(restore, "put_back", lambda *_: 0)
    monkeypatch.setattr(systemd, "restarting", lambda: False)
    assert cli.main(["restore", "--leftover", when]) == 0
    assert Machine(root).previous() == known
