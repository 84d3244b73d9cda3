# SPDX-License-Identifier: GPL-2.0-or-later
"""What a request for huge pages would do on this machine; nothing is written."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import configobj

from tuned_virt.cli import table
from tuned_virt.cli.common import FINE, TO_REPORT, CouldNot, print_json
from tuned_virt.core.guest_source import FixedGuests
from tuned_virt.core.options import BadOptions
from tuned_virt.core.originals import Originals
from tuned_virt.core.plan import Plan
from tuned_virt.kernel.files import KernelFS
from tuned_virt.plugins.hugepages_numa import (
    HugepagesPolicy,
    HugepagesTuner,
    boot,
    notes,
    parse,
    planner,
    state,
)
from tuned_virt.plugins.hugepages_numa.demand import GuestPageRequest
from tuned_virt.plugins.hugepages_numa.policy import OPTIONS

VARIABLES: Mapping[str, str] = {
    **{f"hugepages_{size}": f"pages_{size}" for size in ("2M", "1G")},
    **{
        f"hugepages_{name}": name
        for name in (
            *("headroom", "reserve_free", "remedies", "timeout", "on_partial", "boot"),
            *("mount_2M", "mount_1G", "overcommit_2M", "restart_libvirt"),
        )
    },
    "thp": "transparent_hugepages",
    "thp_defrag": "defrag",
}
"""Variables of the profiles, and the plugin's options that they set."""

FILES = (
    Path("/etc/tuned/virtual-host-plus-variables.conf"),
    Path("/etc/tuned/virtual-guest-plus-variables.conf"),
)

COLUMNS: Mapping[str, bool] = {"setting": True, "now": False, "then": False, "why": True}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of plan and cmdline."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="plan, cmdline: an option of the plugin, such as pages_2M=0:512,1:512; repeats",
    )
    parser.add_argument(
        "--policy",
        type=Path,
        metavar="VARIABLES.conf",
        help="plan, cmdline: a profile's variables file; without it and --set, this machine's",
    )


def run(options: argparse.Namespace) -> int:
    """Print the plan; 1 where something is refused. Raises CouldNot."""
    policy = _policy(options)
    originals = Originals().record(HugepagesTuner.name).originals
    plan = planner.plan(policy, _state(policy), originals)
    if options.json:
        print_json(_content(plan))
    else:
        _print(plan)
    return TO_REPORT if plan.refused or plan.missing else FINE


def run_cmdline(options: argparse.Namespace) -> int:
    """Print the arguments, nothing where none are wanted. Raises CouldNot."""
    policy = _policy(options)
    found = _state(policy)
    counts = notes.boot_numbers(policy, found)
    nodes = len(found.nodes)
    print(boot.arguments({k: boot.numbers(v, nodes, found.release) for k, v in counts.items()}))
    return FINE


def _policy(options: argparse.Namespace) -> HugepagesPolicy:
    try:
        return parse({**_from_file(options), **_from_words(options.set)})
    except BadOptions as error:
        raise CouldNot("\n".join(map(str, error.errors))) from error


def _from_words(words: list[str]) -> dict[str, str]:
    pairs = dict(word.partition("=")[::2] for word in words)
    for name in pairs:
        if name not in OPTIONS:
            raise CouldNot(f"--set {name}: use one of {', '.join(sorted(OPTIONS))}")
    return pairs


def _from_file(options: argparse.Namespace) -> dict[str, str]:
    """Options by the variables of a file that set them."""
    if options.policy is None and options.set:
        return {}
    there = [file for file in FILES if file.exists()]
    file = options.policy or (there[0] if there else None)
    if file is None:
        raise CouldNot("no request: give --set pages_2M=0:512 or --policy VARIABLES.conf")
    try:
        found = configobj.ConfigObj(str(file), file_error=True, list_values=False)
    except (OSError, configobj.ConfigObjError) as error:
        raise CouldNot(f"{file}: {error}") from error
    texts = {VARIABLES[name]: found[name] for name in found.scalars if name in VARIABLES}
    return {name: re.sub(r"\s#.*$", "", text).strip() for name, text in texts.items()}


def _state(policy: HugepagesPolicy) -> state.HugepagesState:
    guests: FixedGuests[GuestPageRequest] = FixedGuests()
    if policy.follows_guests:
        from tuned_virt.libvirt_api.guest_pages import asking_guests

        guests = FixedGuests(asking_guests(), "libvirt does not answer")
    return state.read(KernelFS(), policy, {}, guests)


def _content(plan: Plan) -> dict[str, object]:
    return {
        "changes": [asdict(change) for change in plan.changes],
        "refused": dict(plan.refused),
        "missing": dict(plan.missing),
        "notes": list(plan.notes),
    }


def _print(plan: Plan) -> None:
    for setting, reason in {**plan.refused, **plan.missing}.items():
        print(f"refused   {setting}: {reason}")
    for note in plan.notes:
        print(f"note      {note}")
    if plan.changes:
        rows = ((one.setting, one.before, one.after, one.why) for one in plan.changes)
        table.show(COLUMNS, rows)
    elif not plan.refused:
        print("nothing to change")
