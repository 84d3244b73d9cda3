# SPDX-License-Identifier: GPL-2.0-or-later
"""The role's argument_specs.yml and vars, made of the plugins' own options.

usage: ansible_specs.py

A setting's type is what its plugin's own parser says to a text that nothing accepts: the words, the
range or the form that it would take. So what the role refuses is what `tuned-virt check-settings`
refuses, and no list of settings is kept by hand.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(SOURCE))

from tuned_virt.core import section_settings, settings  # noqa: E402
from tuned_virt.core.options import GROUP, NO, YES, BadOptions, OptionSpec  # noqa: E402
from tuned_virt.registry import tuners  # noqa: E402

ROLE = SOURCE / "ansible/roles/tuned_virt"
SPECS = ROLE / "meta/argument_specs.yml"
VARS = ROLE / "vars/main/settings.yml"
OWN = SOURCE / "scripts/ansible_role_options.yml"
"""The options of the role itself, which people have written."""

PROFILES = ("virtual-host-plus", "virtual-guest-plus")
NOTHING_ACCEPTS = "\N{SECTION SIGN}?"
BOOLEAN = re.compile(r"1 or 0 \(yes")
NUMBER = re.compile(r"a whole number from (-?\d+) to \d+( \([^()]*\))?")
WORDS = re.compile(r"one of (\S.*)")
EXPLAINED = re.compile(
    r"((?:^# (?!---|Example:).*\n)*(?:^# Example:.*\n)?)^#([\w.]+)=", re.MULTILINE
)
UPWARD = "The same for"
"""Begins a text that needs the one above it in the file."""

SELECTIONS = {
    "devices": "Which devices or guests, by name, pattern or UUID; ! excludes.",
    "exclude": "Guests that are never changed, by name or UUID, wherever a profile selects them.",
}

HEAD = "# SPDX-License-Identifier: GPL-2.0-or-later\n# Made by scripts/ansible_specs.py{of}.\n---\n"
IN_PLACE_OF = " " * 10 + "# "
WIDTH = 110


@dataclass(frozen=True)
class Known:
    """A setting as Ansible is told of it; `quoted` if a bare number is never its value."""

    name: str
    kind: str
    description: str
    words: tuple[str, ...] = ()
    quoted: bool = False

    @property
    def boolean_words(self) -> dict[str, str]:
        """What YAML's true and false mean here, where one word each can be meant."""
        if self.kind == "bool":
            return {"true": "1", "false": "0"}
        found = {}
        for word, meant in (("true", YES), ("false", NO)):
            possible = [one for one in self.words if one in meant]
            if len(possible) == 1:
                found[word] = possible[0]
        return found


def refusal(tuner: Any, option: str, text: str) -> str | None:
    """What is valid instead, in the parser's words; None where it takes the text."""
    base = {name: spec.default or "" for name, spec in tuner.options.items() if name != "observe"}
    try:
        tuner.parse({**base, option: text})
    except BadOptions as bad:
        return next((one.valid for one in bad.errors if one.option == option), None)
    return None


def known(tuner: Any, option: str, spec: OptionSpec, name: str, text: str = "") -> Known:
    """A setting, by what its plugin's parser takes; `text` describes it better than the hint."""
    valid = refusal(tuner, option, NOTHING_ACCEPTS)
    text = text or f"{spec.hint[0].upper()}{spec.hint[1:]}".rstrip(".") + "."
    if option == "observe" or (valid and BOOLEAN.match(valid)):
        return Known(name, "bool", text)
    words = WORDS.fullmatch(valid or "")
    if words:
        return Known(name, "str", text, tuple(words[1].split(", ")))
    if valid is None or valid.startswith("names"):
        return Known(name, "list", text)
    valid = re.sub(r" \('§.*?\)", "", valid)
    number = NUMBER.fullmatch(valid)
    kind = "int" if number and refusal(tuner, option, f">{number[1]}") else "str"
    quoted = ":" in valid and refusal(tuner, option, "64") is not None
    return Known(name, kind, f"{text} Valid: {valid}.", quoted=quoted)


def explained() -> dict[str, str]:
    """What the settings files say of a setting, without their examples."""
    found: dict[str, str] = {}
    for profile in PROFILES:
        text = (SOURCE / f"profiles/{profile}-variables.conf").read_text()
        for comments, name in EXPLAINED.findall(text):
            told = " ".join(line[2:] for line in comments.splitlines())
            found.setdefault(name, re.sub(r" ?Example: .*", "", told))
    return {name: text for name, text in found.items() if text and not text.startswith(UPWARD)}


def defaults() -> dict[str, dict[str, str]]:
    """Of each setting the profiles that have it, with their defaults."""
    found: dict[str, dict[str, str]] = {}
    for profile in PROFILES:
        file = SOURCE / "profiles" / profile / "defaults.conf"
        for name, one in settings.read(str(file)).settings.items():
            found.setdefault(name, {})[profile] = one.value
    return found


def all_known() -> dict[str, Known]:
    """Every setting of both profiles, by name."""
    wanted, texts = defaults(), explained()
    found: dict[str, Known] = {}
    for tuner in tuners().values():
        for option, spec in tuner.options.items():
            name = tuner.setting_names.of(option)
            if name in wanted and name not in found:
                found[name] = known(tuner, option, spec, name, texts.get(name, ""))
        for option in section_settings.SELECTION:
            name = tuner.setting_names.of(option)
            if name in wanted and name not in found:
                found[name] = Known(name, "list", texts.get(name, SELECTIONS[option]))
    missing = wanted.keys() - found.keys()
    if missing:
        raise SystemExit(f"no plugin has the settings {', '.join(sorted(missing))}")
    return {name: found[name] for name in sorted(found)}


# --- written -------------------------------------------------------------------------------------


def described(one: Known, profiles: Mapping[str, str]) -> str:
    """A setting's description, with its profiles and defaults."""
    if len(set(profiles.values())) == 1:
        told = f"{next(iter(profiles.values())) or 'nothing'} ({' and '.join(profiles)})"
    else:
        told = ", ".join(f"{value or 'nothing'} ({name})" for name, value in profiles.items())
    return f"{one.description} Default: {told}."


def option(name: str, one: Known, description: str) -> Iterator[str]:
    """An option of an argument specification, as lines without their indentation."""
    yield f"{name}:"
    yield f"  type: {one.kind}"
    if one.kind == "list":
        yield "  elements: str"
    if one.words:
        yield "  choices:"
        yield from (f"    - {json.dumps(word)}" for word in one.words)
    yield "  description: >-"
    yield from (f"    {line}" for line in textwrap.wrap(description, WIDTH, break_on_hyphens=False))


def indented(lines: Iterable[str], by: int) -> str:
    """Lines as text, each further in."""
    return "".join(f"{' ' * by}{line}\n" for line in lines)


def specs() -> str:
    """argument_specs.yml: the role's own options, then every setting."""
    of, found = defaults(), all_known()
    single, groups = "", ""
    for name, one in found.items():
        base = name.partition(".")[0]
        if name.endswith(f".{GROUP}"):
            text = f"As {base} in tuned_virt_settings, for these guests."
            groups += indented(option(base, one, text), 10)
        else:
            single += indented(option(name, one, described(one, of[name])), 10)
    own = OWN.read_text().partition("---\n")[2]
    own = own.replace(f"{IN_PLACE_OF}settings\n", single)
    own = own.replace(f"{IN_PLACE_OF}groups\n", groups)
    return HEAD.format(of=", of the plugins' own options and ansible_role_options.yml") + own


def variables() -> str:
    """vars/main/settings.yml: what the role has to know to write a setting as it was meant."""
    found = all_known()
    lines = [
        "# What true and false mean for a setting that has one such word: YAML reads off as false."
    ]
    lines += ["tuned_virt_setting_words:"]
    for name, one in found.items():
        if one.boolean_words and not name.endswith(f".{GROUP}"):
            lines.append(f"  {name}:")
            lines += [f'    "{word}": "{text}"' for word, text in one.boolean_words.items()]
    lines += ["# Settings whose value is never a number: YAML reads 1:4 without quotes as 64."]
    lines += ["tuned_virt_quoted_settings:"]
    lines += [f"  - {name}" for name, one in found.items() if one.quoted]
    return HEAD.format(of=", of the plugins' own options") + indented(lines, 0)


def files() -> dict[Path, str]:
    """What is made, by path."""
    return {SPECS: specs(), VARS: variables()}


def main() -> None:
    """Write them anew."""
    for path, text in files().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
