# SPDX-License-Identifier: GPL-2.0-or-later
"""What a section gets from its settings file, in which order, and errors in the file's words."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuned_virt.core import section_settings
from tuned_virt.core.options import OptionError, OptionSpec
from tuned_virt.core.section_settings import SectionSettings, SettingNames

OPTIONS = {
    "mode": OptionSpec("how", "static"),
    "npages_min": OptionSpec("least"),
    "npages_max": OptionSpec("most"),
    "observe": OptionSpec("only look", "0"),
    "not_in_profile": OptionSpec("for experts"),
}
DEFAULTS = (
    "observe=0\nksm_mode=auto\nksm_npages_min=\nksm_npages_max=\nksm_guests=*\nswappiness=10\n"
)
NAMES = SettingNames("ksm_", {"devices": "ksm_guests"})


def load(tmp_path: Path, text: str, used: tuple[str, ...] = ()) -> SectionSettings:
    (tmp_path / "some-profile").mkdir(exist_ok=True)
    defaults = tmp_path / "some-profile/defaults.conf"
    defaults.write_text(DEFAULTS)
    file = tmp_path / "v.conf"
    file.write_text(text)
    return section_settings.load(NAMES, OPTIONS, str(file), str(defaults), lambda _, names: used)


def test_the_section_comes_before_the_file_before_the_profile_before_the_plugin(
    tmp_path: Path,
) -> None:
    found = load(tmp_path, "ksm_npages_min=3\nobserve=1\n")
    texts = section_settings.combined(OPTIONS, found, {"npages_min": "4"})
    assert texts == {
        "mode": "auto",
        "npages_min": "4",
        "npages_max": "",
        "observe": "1",
        "not_in_profile": "",
    }


@pytest.mark.parametrize(("text", "written"), [("ksm_mode=\n", {}), ("", {"mode": ""})])
def test_empty_is_the_plugins_default(tmp_path: Path, text: str, written: dict[str, str]) -> None:
    texts = section_settings.combined(OPTIONS, load(tmp_path, text), written)
    assert texts["mode"] == "static"


GROUPS = {
    "policy": OptionSpec("how", "node"),
    "dedicated": OptionSpec("who", refines="policy"),
    "policy.GUESTS": OptionSpec("how, of some", refines="policy"),
}


def test_a_setting_for_a_group_of_guests_is_an_option_for_it(tmp_path: Path) -> None:
    """In the order of the file, then of the section; void where that sets the option itself."""
    defaults, file = tmp_path / "defaults.conf", tmp_path / "v.conf"
    defaults.write_text("vm_policy=node\nvm_dedicated=\nvm_policy.GUESTS=\n")
    text = "vm_dedicated=gaming\nvm_policy.web.example*=none\nvm_policy.a !a1=node\nvm_smt.a=x\n"
    file.write_text(text + "vm_polcy.db*=none\n")
    found = section_settings.load(
        SettingNames("vm_"), GROUPS, str(file), str(defaults), lambda *_: ()
    )
    assert found.names["policy.web.example*"] == "vm_policy.web.example*"
    wrong = [str(error).partition(": ")[2].partition("?")[0] for error in found.errors]
    assert wrong == [
        "line 4: 'vm_smt.a=x' is not a setting: did you mean vm_policy.GUESTS",
        "line 5: 'vm_polcy.db*=none' is not a setting: did you mean vm_policy.GUESTS",
    ]
    of_file = {"dedicated": "gaming", "policy.web.example*": "none", "policy.a !a1": "node"}
    nothing = {"policy": "node", "dedicated": "", "policy.GUESTS": ""}
    texts = section_settings.combined(GROUPS, found, {"policy.db": "dedicated"})
    assert list(texts.items())[3:] == [*list(of_file.items())[1:], ("policy.db", "dedicated")]
    assert texts["dedicated"] == "gaming"
    own = section_settings.combined(GROUPS, found, {"policy": "node", "policy.db": "dedicated"})
    assert own == {**nothing, "policy.db": "dedicated"}


def test_without_a_file_there_are_the_plugins_defaults() -> None:
    texts = section_settings.combined(OPTIONS, SectionSettings(), {"npages_max": "7"})
    assert (texts["mode"], texts["npages_max"]) == ("static", "7")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "ksm_mod=off",
            "line 1: 'ksm_mod=off' is not a setting: did you mean ksm_mode? All are in",
        ),
        ("KSM_MODE=off", "did you mean ksm_mode?"),
        ("observ=1", "did you mean observe?"),
        ("mode=off", "did you mean ksm_mode?"),
        ("colour=red", "line 1: 'colour=red' is not a setting, and no profile that"),
        ("colour=red", "some-profile-variables.conf(5)"),
        ("ksm_not_in_profile=1", "'ksm_not_in_profile=1' is not a setting"),
    ],
)
def test_an_unknown_name_is_an_error(tmp_path: Path, text: str, said: str) -> None:
    [error] = load(tmp_path, text).errors
    assert said in str(error)


def test_a_name_like_another_plugins_concerns_that_one(tmp_path: Path) -> None:
    assert load(tmp_path, "swapiness=1\n").errors == ()


def test_names_of_ones_own_that_something_uses_are_no_errors(tmp_path: Path) -> None:
    assert load(tmp_path, "colour=red\nksm_mode=${colour}\n").errors == ()
    assert load(tmp_path, "colour=red\nksm_mod=off\n", ("colour", "ksm_mod")).errors == ()


def test_a_line_that_is_no_setting_concerns_every_section(tmp_path: Path) -> None:
    assert len(load(tmp_path, "export swappiness=1\n").errors) == 1


def test_errors_are_told_in_the_files_words(tmp_path: Path) -> None:
    found = load(tmp_path, "\nksm_mode=of\nksm_npages_max=9\n")
    valid = "one of off, auto; not with npages_min or mode=auto; npages_min is more than that mode"
    [told, default, other] = found.told(
        [
            OptionError("mode", "of", valid),
            OptionError("npages_min", "64", "at most npages_max, which is 9"),
            OptionError("not_in_profile", "x", "no"),
        ],
        {},
    )
    assert str(told) == (
        f"{found.file}: line 2: 'ksm_mode=of' is not valid: one of off, auto; not with"
        " ksm_npages_min or ksm_mode=auto; ksm_npages_min is more than that mode"
        "; did you mean off?"
    )
    assert str(default) == (
        f"{found.file}: 'ksm_npages_min=64' is not valid: at most ksm_npages_max, which is 9"
    )
    assert str(other) == "option 'not_in_profile': 'x' is not valid: no"


def test_what_the_section_wrote_is_told_as_its_option(tmp_path: Path) -> None:
    found = load(tmp_path, "ksm_mode=auto\n")
    [told] = found.told([OptionError("mode", "of", "one of off")], {"mode": "of"})
    assert str(told) == "option 'mode': 'of' is not valid: one of off"


def test_quotes_are_no_part_of_a_value(tmp_path: Path) -> None:
    found = load(tmp_path, 'ksm_mode="off"\n')
    [told] = found.told([OptionError("mode", '"off"', "one of off, auto")], {})
    assert str(told).endswith("one of off, auto; write off without quotes")


@pytest.mark.parametrize(
    ("own", "text", "wanted"),
    [
        ("*", "", "*"),
        ("*", "ksm_guests=db* !db1\n", "db* !db1"),
        ("web*", "ksm_guests=db*\n", "web*"),
        (None, "ksm_guests=db*\n", None),
    ],
)
def test_which_guests_a_section_is_for(
    tmp_path: Path, own: str | None, text: str, wanted: str | None
) -> None:
    assert section_settings.selection(own, load(tmp_path, text)) == wanted


@pytest.mark.parametrize("own", ["*", "web*"])
def test_excluded_guests_are_in_no_section(own: str) -> None:
    found = SectionSettings(texts={"exclude": "a, !b"})
    assert section_settings.selection(own, found) == f"{own} !a !b"
