# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt import: import ksmtuned's configuration into the variables of virtual-host-plus.

ConfigObj reads ksmtuned's file (comments per key, errors by line); `variables.place` places
variables in the settings file.
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuned_virt.cli import json_output, variables
from tuned_virt.cli.common import FINE, CouldNot
from tuned_virt.cli.variables import Variable
from tuned_virt.core import settings
from tuned_virt.core.options import BadOptions, OptionError
from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.plugins import ksm
from tuned_virt.plugins.ksm.policy import NUMBERS

SOURCE = Path("/etc/ksmtuned.conf")
TARGET = Path("/etc/tuned/virtual-host-plus-variables.conf")

OPTIONS: Mapping[str, str] = {
    "KSM_MONITOR_INTERVAL": "monitor_interval",
    "KSM_SLEEP_MSEC": "sleep_msec",
    "KSM_NPAGES_BOOST": "npages_boost",
    "KSM_NPAGES_DECAY": "npages_decay",
    "KSM_NPAGES_MIN": "npages_min",
    "KSM_NPAGES_MAX": "npages_max",
    "KSM_THRES_COEF": "thres_coef",
    "KSM_THRES_CONST": "thres_const",
}
"""ksmtuned's names, on Debian and RHEL, and the plugin's options. The variables are ksm_OPTION."""

DROPPED: Mapping[str, str] = {
    **dict.fromkeys(("DEBUG", "LOGFILE", "PIDFILE"), "see TuneD's log and tuned-virt log"),
    "KSM_PS_METRIC": "guests count with their resident memory (rsz) here",
    "KSM_MAX_KERNEL_PAGES": "kernels have had no such limit since 2.6.33",
}
"""What is left out, and why: what ksmtuned logs and where, as TuneD has a log of its own; what
Proxmox VE's takes for a guest's memory (pss or rsz); and what no ksmtuned reads."""

DAEMON = Path("/usr/sbin/ksmtuned")

PROXMOX_SLEEP = "100"
"""KSM_SLEEP_MSEC of Proxmox VE's ksm-control-daemon where its file does not set it; others have 10.
The file has each default in a comment, the script as ${NAME:-DEFAULT}."""

BOM = "\ufeff"

ASSIGNMENT = re.compile(
    r"""\s*(?P<name>\w+)=(?P<value>"[^"$`\\]*"|'[^']*'|[^\s"'$`\\#;&|<>()]*)\s*(?:\s\#.*)?""",
    re.DOTALL,
)
"""A line of shell that only sets a variable, to what is written there."""

NEXT = """\
next: tuned-adm profile virtual-host-plus && tuned-virt verify
The profile stops systemd's ksmtuned and ksm while it is active, and starts them again afterwards.
To disable them permanently: systemctl disable --now ksmtuned ksm"""


@dataclass(frozen=True)
class Imported:
    """What a configuration of ksmtuned comes to: variables, comments with no key below, and the
    keys that are left out."""

    variables: tuple[Variable, ...]
    closing: tuple[str, ...]
    dropped: tuple[str, ...]
    empty: tuple[str, ...]
    remarks: tuple[str, ...] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    parser.add_argument(
        "what", choices=["ksmtuned"], help="the daemon whose configuration to import"
    )
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        default=SOURCE,
        metavar="FILE",
        help=f"ksmtuned's configuration ({SOURCE})",
    )
    parser.add_argument(
        "--to",
        dest="target",
        type=Path,
        default=TARGET,
        metavar="FILE",
        help=f"the profile's variables ({TARGET})",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show the changes, but write nothing"
    )
    json_output.add_option(parser)


def run(options: argparse.Namespace) -> int:
    """Read, check, write, say. Raises CouldNot, with nothing written."""
    source, target = options.source, options.target
    daemon = _text(DAEMON) if source == SOURCE else None
    imported = convert(source, _source(source), daemon or "")
    before = _text(target) or ""
    lines = variables.split(before)
    known = _settings(target, before)
    _validate(source, target, imported, known)
    placed = variables.place(lines, imported.variables, imported.closing)
    _proof(target, placed, imported)
    written = placed != lines and not options.dry_run
    if written:
        _write(target, "".join(placed))
    if options.json:
        json_output.emit("import", _content(options, imported, known, placed != lines, written))
        return FINE
    _say(imported, known)
    if placed == lines:
        print(f"nothing to change in {target}")
    elif written:
        print(f"{target} is written\n{NEXT}")
    else:
        print("".join(difflib.unified_diff(lines, placed, str(target), "would be written")), end="")
    return FINE


def _content(
    options: argparse.Namespace,
    imported: Imported,
    known: Mapping[str, str],
    differs: bool,
    written: bool,
) -> dict[str, Any]:
    return {
        "from": str(options.source),
        "to": str(options.target),
        "differs": differs,
        "changed": written,
        "variables": [
            {"variable": one.name, "before": known.get(one.name), "after": one.value}
            for one in imported.variables
        ],
        "dropped": list(imported.dropped),
        "empty": list(imported.empty),
    }


def _source(file: Path) -> str:
    text = _text(file)
    if text is None:
        raise CouldNot(
            f"there is no {file}: give ksmtuned's file with --from; without a file"
            f" ksmtuned uses its defaults, as ksm_mode=ksmtuned in {TARGET} does"
        )
    return text


def _text(file: Path) -> str | None:
    """A file's text, None where there is none. Raises CouldNot."""
    try:
        return file.read_bytes().decode()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CouldNot(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise CouldNot(f"{file}, line {line}: not UTF-8") from error


def _settings(file: Path, text: str) -> dict[str, str]:
    """What a settings file's text sets, by name. Raises CouldNot."""
    read = settings.parse(str(file), text)
    if read.errors:
        raise CouldNot("\n".join(map(str, read.errors)))
    return {name: one.value for name, one in read.settings.items()}


def _parsed(file: Path, lines: list[str]) -> Any:
    from configobj import ConfigObj, ConfigObjError, DuplicateError

    try:
        parsed = ConfigObj(
            lines, interpolation=False, list_values=False, raise_errors=True, encoding="utf-8"
        )
    except ConfigObjError as error:
        twice = isinstance(error, DuplicateError)
        valid = "set twice; keep one of them" if twice else "not valid: lines NAME=VALUE, and # …"
        raise CouldNot(f"{file}, line {error.line_number}: '{error.line}' is {valid}") from error
    if parsed.sections:
        name = parsed.sections[0]
        raise CouldNot(f"{file}: '[{name}]' is not valid: lines NAME=VALUE, no sections")
    return parsed


def convert(file: Path, text: str, daemon: str = "") -> Imported:
    """ksmtuned's configuration as variables; `file` is its name, `daemon` the script that reads it,
    where that is there. Raises CouldNot."""
    lines, remarks = _as_shell_reads(file, text)
    parsed = _parsed(file, lines)
    found = [Variable("ksm_mode", "ksmtuned")]
    carried: tuple[str, ...] = ()
    dropped, empty = [], []
    for key in parsed:
        above = (*carried, *_comments(parsed, key))
        carried = ()
        if key in DROPPED:
            dropped.append(key)
            carried = _but_last_paragraph(above)
            continue
        value = _value(file, lines, key, parsed[key])
        if value:
            found.append(Variable(f"ksm_{OPTIONS[key]}", value, _trimmed(above)))
        else:
            empty.append(key)
            carried = above
    last = _stripped(parsed.final_comment if parsed.keys() else parsed.initial_comment)
    if "ksm_sleep_msec" not in {one.name for one in found} and _is_proxmox(lines, daemon):
        found.append(Variable("ksm_sleep_msec", PROXMOX_SLEEP))
        remarks.append(
            f"ksm_sleep_msec={PROXMOX_SLEEP} is the default of Proxmox VE's ksmtuned, others' is 10"
        )
    closing = _trimmed((*carried, *last))
    return Imported(tuple(found), closing, tuple(dropped), tuple(empty), tuple(remarks))


def _as_shell_reads(file: Path, text: str) -> tuple[list[str], list[str]]:
    """The lines of which something comes, with what was left out: a shell finds no assignment in a
    line that begins with a byte order mark, and of several of one name takes the last."""
    lines, remarks = variables.split(text.lstrip(BOM)), []
    if text.startswith(BOM) and lines and not lines[0].startswith("#"):
        remarks.append(f"{file}, line 1: ksmtuned does not read it: a byte order mark is before it")
        lines[0] = "\n"
    lines = [_plain(line) for line in lines]
    for name, numbers in _assigned(lines).items():
        same = len({lines[number].strip() for number in numbers}) == 1
        counts = numbers[0] if same else numbers[-1]
        for number in numbers:
            if number != counts:
                if lines[number].strip() != lines[counts].strip():
                    remarks.append(
                        f"{file}, line {number + 1}: '{lines[number].strip()}' has no effect:"
                        f" line {counts + 1} sets {name} again"
                    )
                lines[number] = "\n"
    return lines, remarks


def _plain(line: str) -> str:
    """An assignment without what changes nothing for ksmtuned: export, and a semicolon behind."""
    plain = re.sub(r"^\s*export\s+", "", re.sub(r"\s*;(?=\s*(?:\s#.*)?$)", "", line))
    return plain if ASSIGNMENT.fullmatch(plain) else line


def _assigned(lines: list[str]) -> dict[str, list[int]]:
    """By name the places of its assignments."""
    found: dict[str, list[int]] = {}
    for number, line in enumerate(lines):
        plain = ASSIGNMENT.fullmatch(line)
        if plain:
            found.setdefault(plain["name"], []).append(number)
    return found


def _is_proxmox(lines: list[str], daemon: str) -> bool:
    """Whether this is the configuration of Proxmox VE's ksmtuned, by its script or comments."""
    if "KSM_SLEEP_MSEC:-" in daemon:
        return f"KSM_SLEEP_MSEC:-{PROXMOX_SLEEP}}}" in daemon
    shown = (re.match(r"#\s*KSM_SLEEP_MSEC=(\d+)", line) for line in lines)
    first = next((found[1] for found in shown if found), "")
    ours = any(re.match(r"(#\s*)?KSM_PS_METRIC=", line) for line in lines)
    return first == PROXMOX_SLEEP or (not first and ours)


def _comments(parsed: Any, key: str) -> tuple[str, ...]:
    """Those above a key, and the one behind it. All above the first key are the file's for
    ConfigObj."""
    first = parsed.initial_comment if key == parsed.scalars[0] else []
    behind = [parsed.inline_comments[key]] if parsed.inline_comments[key] else []
    return _stripped([*first, *parsed.comments[key], *behind])


def _stripped(lines: list[str]) -> tuple[str, ...]:
    return tuple(line.strip() for line in lines)


def _trimmed(comments: tuple[str, ...]) -> tuple[str, ...]:
    """Without empty lines at both ends."""
    return tuple("\n".join(comments).strip("\n").split("\n")) if any(comments) else ()


def _but_last_paragraph(comments: tuple[str, ...]) -> tuple[str, ...]:
    """Without the comments that stand directly above a key: they go with it."""
    last = max((number for number, line in enumerate(comments) if not line), default=-1)
    return comments[: last + 1]


def _value(file: Path, lines: list[str], key: str, raw: str) -> str:
    """A key's number as text, "" for none. Raises CouldNot."""
    number, line = _line(lines, key)
    where = f"{file}, line {number}: option '{key}': '{raw}' is not valid"
    if key not in OPTIONS:
        raise CouldNot(f"{where}: ksmtuned knows {', '.join((*OPTIONS, *DROPPED))}")
    option = OPTIONS[key]
    plain = ASSIGNMENT.fullmatch(line)
    if not plain:
        raise CouldNot(
            f"{where}: {NUMBERS[option].valid}, written as {key}=VALUE without shell expressions"
        )
    value = plain["value"].strip("\"'")
    if value and not re.fullmatch(r"-?(0|[1-9]\d*)", value, re.ASCII):
        raise CouldNot(
            f"{where}: {NUMBERS[option].valid}, without other characters or leading zeros"
        )
    try:
        return value and str(NUMBERS[option].parse(option, value).value)
    except OptionError as error:
        raise CouldNot(f"{where}: {error.valid}") from error


def _line(lines: list[str], key: str) -> tuple[int, str]:
    for number, line in enumerate(lines, 1):
        if re.match(rf"""\s*["']?{re.escape(key)}["']?\s*=""", line):
            return number, line
    return 0, ""


def _validate(source: Path, target: Path, imported: Imported, known: Mapping[str, str]) -> None:
    """Whether all of it goes together with what the target sets. Raises CouldNot."""
    new = {variable.name: variable.value for variable in imported.variables}
    kept = {name: value for name, value in known.items() if name not in new}
    options = {
        name[len("ksm_") :]: value
        for name, value in {**kept, **new}.items()
        if name.startswith("ksm_") and "$" not in value
    }
    try:
        ksm.parse(options)
    except BadOptions as bad:
        error = bad.errors[0]
        where = _place(source, target, error.option, kept)
        raise CouldNot(f"{where}: '{error.value}' is not valid: {error.valid}") from bad


def _place(source: Path, target: Path, option: str, kept: Mapping[str, str]) -> str:
    """Where an option's value comes from: a default is the source's."""
    if f"ksm_{option}" in kept:
        return f"{target}: option 'ksm_{option}'"
    theirs = {plugins: name for name, plugins in OPTIONS.items()}
    return f"{source}: option '{theirs.get(option, option)}'"


def _proof(target: Path, placed: list[str], imported: Imported) -> None:
    """Whether a reader of the new text finds what is wanted. Raises CouldNot."""
    found = _settings(target, "".join(placed))
    for variable in imported.variables:
        if found.get(variable.name) != variable.value:
            raise CouldNot(
                f"{target}: '{variable.name}' cannot be set here: put it on a line of its own"
            )


def _say(imported: Imported, known: Mapping[str, str]) -> None:
    for variable in imported.variables:
        old = known.get(variable.name)
        was = f"  (was '{old}')" if old not in (None, variable.value) else ""
        print(f"{variable.name}={variable.value}{was}")
    for why in dict.fromkeys(DROPPED[key] for key in imported.dropped):
        print(
            f"dropped: {', '.join(key for key in imported.dropped if DROPPED[key] == why)}: {why}"
        )
    if imported.empty:
        print(f"dropped: {', '.join(imported.empty)}: empty, which means the default")
    for remark in imported.remarks:
        print(remark)


def _write(target: Path, text: str) -> None:
    try:
        variables.replace_file(target, text)
    except PermissionError as error:
        raise CouldNot(
            f"cannot write {target}: {error.strerror}: sudo tuned-virt import …"
        ) from error
    except OSError as error:
        raise CouldNot(f"cannot write {target}: {error.strerror}") from error
