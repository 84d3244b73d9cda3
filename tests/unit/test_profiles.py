# SPDX-License-Identifier: GPL-2.0-or-later
"""The profiles, their variables files and the plugins' options agree with each other."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

from tuned_virt.cli import hugepages_plan
from tuned_virt.core.options import BadOptions, OptionSpec
from tuned_virt.registry import tuners

FOLDER = Path(__file__).parents[2] / "profiles"
TUNEDS_OWN = ("priority", "devices", "devices_udev_regex")
"""Keys of a section that are no options of its plugin."""

COMPUTED = ("stock", "boot_policy")
"""What is no setting: a pattern made of another variable, and a path for virt-plus-boot."""

PROFILES = ("virtual-host-plus", "virtual-guest-plus")


def profile(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(
        delimiters=("=",), inline_comment_prefixes=("#",), strict=False, interpolation=None
    )
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(FOLDER / name / "tuned.conf")
    return parser


def variables(name: str) -> dict[str, str]:
    return {
        key: text
        for key, text in profile(name)["variables"].items()
        if key not in ("include", *COMPUTED)
    }


@pytest.mark.parametrize("name", PROFILES)
def test_the_variables_file_shows_every_variable_with_its_default_and_an_example(name: str) -> None:
    text = (FOLDER / f"{name}-variables.conf").read_text()
    shown = dict(re.findall(r"^#(\w+)=(.*)$", text, re.MULTILINE))
    assert shown == variables(name)
    for variable in shown:
        assert re.search(rf"Example: .*\b{variable}=|\n#{variable}=", text)
    assert text.count("Example:") >= len(shown) - 1


@pytest.mark.parametrize("name", PROFILES)
def test_every_variable_is_used_and_every_used_one_has_a_default(name: str) -> None:
    read = (FOLDER / part / "tuned.conf" for part in (name, "virt-plus-boot"))
    text = "".join(file.read_text() for file in read)
    assert set(re.findall(r"\$\{(\w+)\}", text)) == {*variables(name), *COMPUTED}


@pytest.mark.parametrize("name", PROFILES)
def test_options_exist_and_defaults_are_valid(name: str) -> None:
    parsed = profile(name)
    values = variables(name)
    for section in set(parsed.sections()) & set(tuners()):
        tuner = tuners()[section]
        options = {key: value for key, value in parsed[section].items() if key not in TUNEDS_OWN}
        assert set(options) <= set(tuner.options)
        tuner.parse(
            {key: re.sub(r"\$\{(\w+)\}", lambda m: values[m[1]], v) for key, v in options.items()}
        )


@pytest.mark.parametrize("name", PROFILES)
def test_the_administrators_file_comes_after_the_defaults(name: str) -> None:
    assert list(profile(name)["variables"])[-3:] == ["include", *COMPUTED]


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


@pytest.mark.parametrize("name", PROFILES)
def test_the_command_knows_which_variable_sets_which_option_of_huge_pages(name: str) -> None:
    section = profile(name)["hugepages_numa"]
    named = {text.strip("${}"): option for option, text in section.items() if option != "observe"}
    assert named.items() <= hugepages_plan.VARIABLES.items()
    assert name != "virtual-host-plus" or named == hugepages_plan.VARIABLES
