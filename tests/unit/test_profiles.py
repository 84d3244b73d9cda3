# SPDX-License-Identifier: GPL-2.0-or-later
"""The profiles, their variables files and the plugins' options agree with each other."""

from __future__ import annotations

import configparser
import fnmatch
import re
from pathlib import Path

import pytest

from tuned_virt.core import profile_parts, section_settings, settings
from tuned_virt.core.options import BadOptions, OptionSpec
from tuned_virt.core.section_settings import SectionSettings
from tuned_virt.registry import tuners

FOLDER = Path(__file__).parents[2] / "profiles"
TUNEDS_OWN = ("priority",)
"""Keys of a section that are no options of its plugin."""

COMPUTED = ("boot_policy",)
"""What is no setting: a path for virt-plus-boot."""

PROFILES = ("virtual-host-plus", "virtual-guest-plus")


def profile(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(
        delimiters=("=",), inline_comment_prefixes=("#",), strict=False, interpolation=None
    )
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(FOLDER / name / "tuned.conf")
    return parser


def part(name: str) -> str:
    """Of a profile, the part that has its sections for TuneD's own plugins."""
    return f"virt-plus-{name.split('-')[1]}"


def tuneds_values(name: str) -> dict[str, str]:
    """What that part takes from the variables file, with its defaults."""
    found = profile(part(name))["variables"].values()
    call = rf"\$\{{f:virt_plus:value:/etc/tuned/{name}-variables.conf:(\w+):([>\w]+)\}}"
    calls = [re.fullmatch(call, text) for text in found]
    return {call[1]: call[2] for call in calls if call}


def defaults(name: str) -> dict[str, str]:
    """Every setting that the profile has, by name."""
    read = settings.read(str(FOLDER / name / "defaults.conf"))
    assert read.errors == ()
    return {one.name: one.value for one in read.settings.values()}


def section_settings_of(name: str, section: str) -> SectionSettings:
    """What a section of the profile gets where the administrator's file sets nothing."""
    tuner = tuners()[section]
    file, defaults_file = f"{FOLDER}/{name}-variables.conf", f"{FOLDER}/{name}/defaults.conf"
    names, options = tuner.setting_names, tuner.options
    return section_settings.load(names, options, file, defaults_file, lambda *_: ())


def ours(name: str) -> set[str]:
    return set(profile(name).sections()) & set(tuners())


@pytest.mark.parametrize("name", PROFILES)
def test_the_settings_file_shows_settings_with_their_defaults_and_an_example(name: str) -> None:
    """The rest is in the manual: tests/unit/test_manuals.py."""
    text = (FOLDER / f"{name}-variables.conf").read_text()
    shown = dict(re.findall(r"^#([\w.]+)=(.*)$", text, re.MULTILINE))
    assert shown.items() <= defaults(name).items()
    assert next(iter(shown)) == "observe"
    for variable in shown:
        assert re.search(rf"Example: .*\b{variable}=|\n#{variable}=", text)
    assert text.count("Example:") >= len(shown) - 1


def test_settings_of_one_profile_alone_are_known_by_their_patterns() -> None:
    both = {name: defaults(name).keys() for name in PROFILES}
    for name, others in (PROFILES, PROFILES[::-1]):
        patterns = section_settings.SETTINGS_OF_ONE[name]
        found = {one for one in both[name] for word in patterns if fnmatch.fnmatchcase(one, word)}
        assert found == both[name] - both[others]


@pytest.mark.parametrize("name", PROFILES)
def test_every_variable_is_used_and_there_is_every_used_one(name: str) -> None:
    read = (FOLDER / one / "tuned.conf" for one in (name, "virt-plus-boot", part(name)))
    text = "".join(file.read_text() for file in read)
    known = {*profile(name)["variables"], *profile(part(name))["variables"]}
    assert set(re.findall(r"\$\{(\w+)\}", text)) == known


@pytest.mark.parametrize("name", PROFILES)
def test_every_value_for_tuneds_own_plugins_is_known_and_its_default_valid(name: str) -> None:
    values = tuneds_values(name)
    assert len(values) == len(profile(part(name))["variables"])
    assert values.items() <= defaults(name).items()
    for setting, default in values.items():
        profile_parts.VALUES[setting].parse(setting, default)


@pytest.mark.parametrize("name", PROFILES)
def test_each_part_there_is(name: str) -> None:
    include = profile(name)["main"]["include"]
    file = f"/etc/tuned/{name}-variables.conf"
    assert include.endswith(f",-${{f:virt_plus:parts:{part(name)}:{file}}}")
    for parts in profile_parts.CHOICES.values():
        assert all((FOLDER / one / "tuned.conf").exists() for one in parts.values() if one)


@pytest.mark.parametrize("name", PROFILES)
def test_no_section_of_tuneds_own_is_outside_of_a_part(name: str) -> None:
    """Merging would have a condition of ours hold for sections of other profiles."""
    assert set(profile(name).sections()) - set(tuners()) == {"main", "variables"}
    for file in FOLDER.glob("*/tuned.conf"):
        assert "uname_regex=" not in file.read_text()


@pytest.mark.parametrize("name", PROFILES)
def test_every_section_of_ours_reads_the_settings_file(name: str) -> None:
    for section in ours(name):
        options = profile(name)[section]
        assert options["settings"] == f"/etc/tuned/{name}-variables.conf"
        assert options["defaults"] == "${i:PROFILE_DIR}/defaults.conf"
        assert set(options) <= {"settings", "defaults", *TUNEDS_OWN}


@pytest.mark.parametrize("name", PROFILES)
def test_every_setting_is_an_option_and_valid_by_default(name: str) -> None:
    used = set()
    for section in ours(name):
        found = section_settings_of(name, section)
        assert found.errors == ()
        assert not found.lines
        used |= set(found.names.values())
        tuner = tuners()[section]
        tuner.parse(section_settings.combined(tuner.options, found, {}))
    assert used == defaults(name).keys()


@pytest.mark.parametrize("tuner", tuners().values(), ids=list(tuners()))
def test_every_option_is_described(tuner) -> None:  # type: ignore[no-untyped-def]
    for described in tuner.options.values():
        assert isinstance(described, OptionSpec)
        assert len(described.hint) > 10


@pytest.mark.parametrize("tuner", tuners().values(), ids=list(tuners()))
def test_every_option_is_read(tuner) -> None:  # type: ignore[no-untyped-def]
    """No option takes what is no value; TuneD's side of a plugin reads `observe` itself."""
    assert "observe" in tuner.options
    for name in tuner.options.keys() - {"observe"}:
        with pytest.raises(BadOptions) as bad:
            tuner.parse({name: "\N{REPLACEMENT CHARACTER}"})
        assert [error.option for error in bad.value.errors] == [name]
