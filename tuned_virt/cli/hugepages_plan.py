# SPDX-License-Identifier: GPL-2.0-or-later
"""What a request for huge pages would do on this machine; nothing is written."""

from __future__ import annotations

import argparse
import json
import sys

from tuned_virt.cli import json_output, settings_file, table
from tuned_virt.cli.common import COULD_NOT, FINE, TO_REPORT, CouldNot
from tuned_virt.core.guest_source import FixedGuests
from tuned_virt.core.options import BadOptions
from tuned_virt.core.originals import Originals
from tuned_virt.core.plan import Change, Plan
from tuned_virt.core.section_settings import SectionSettings
from tuned_virt.frozen_dataclasses import replace
from tuned_virt.kernel import cpuset
from tuned_virt.kernel.files import AnyPath, KernelFS
from tuned_virt.libvirt_api.guest_pages import Asking, GuestPageReader
from tuned_virt.model import topology
from tuned_virt.model.topology.huge_pages import Pool
from tuned_virt.plugins.hugepages_numa import (
    HugepagesPolicy,
    HugepagesTuner,
    boot,
    parse,
    plan_notes,
    planner,
    state,
)
from tuned_virt.plugins.hugepages_numa.planner import MountChange, PoolChange
from tuned_virt.plugins.hugepages_numa.policy import NAMES, OPTIONS
from tuned_virt.plugins.hugepages_numa.pools import size_name
from tuned_virt.plugins.hugepages_numa.setting_types import PoolSetting
from tuned_virt.plugins.hugepages_numa.state import HugepagesState, NodeFreeMemory
from tuned_virt.plugins.hugepages_numa.targets import impossible

THIS_MACHINE = {"nodes": None, "kernel": None, "kargs": False}
"""Options of `cmdline` that say which machine the arguments are for, and in which form."""

NOT_KNOWN = NodeFreeMemory(0, 0, 0)
"""The memory of another machine's nodes: the kernel's arguments do not depend on it."""

COLUMNS = ("<setting", "now", "then", "<why")


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
        metavar="VARIABLES.conf",
        help="plan, cmdline: a profile's variables file; without it and --set, this machine's",
    )
    parser.add_argument(
        "--nodes",
        help="cmdline: for another machine: its NUMA nodes with memory, such as 0-1",
    )
    parser.add_argument(
        "--kernel",
        metavar="RELEASE",
        help="cmdline: for another kernel than the one that runs here, such as 5.14",
    )
    parser.add_argument(
        "--kargs",
        action="store_true",
        help="cmdline: print a file for /usr/lib/bootc/kargs.d; 2 where there is nothing to print",
    )


def run(options: argparse.Namespace) -> int:
    """Print the plan; 1 where something is refused. Raises CouldNot."""
    policy = _policy(_file(options), options.set)
    originals = Originals().record(HugepagesTuner.name).originals
    plan = planner.plan(policy, _state(policy), originals)
    if options.json:
        json_output.emit("hugepages-plan", _content(plan))
    else:
        _print(plan)
    return TO_REPORT if plan.refused or plan.missing else FINE


def run_cmdline(options: argparse.Namespace, end: str = "\n") -> int:
    """Print the arguments; nothing where none are wanted or the request is bad, which is no error.

    Other profiles may call it (`f:exec`): were it to fail, TuneD would put its own unexpanded text
    on the kernel's command line, and the boot loader's file would not parse. The builder of an
    image is told by --kargs. Raises CouldNot for the options of another machine.
    """
    machine = _machine(options.nodes, options.kernel)
    try:
        policy = _policy(_file(options), options.set)
        if options.nodes:
            _refuse_shares(policy)
        text, said = _arguments(policy, machine)
    except CouldNot as error:
        text, said = "", [str(error)]
    if options.kargs and not text and not said:
        said = ["no pages of 1G or more are requested, so there is nothing to print"]
    if options.json:
        json_output.emit("hugepages-cmdline", {"arguments": text, "notes": said})
        return FINE
    for line in said:
        print(f"tuned-virt hugepages cmdline: {line}", file=sys.stderr)
    if options.kargs:
        print(f"kargs = {json.dumps(text.split())}" if text else "", end="\n" if text else "")
        return FINE if text else COULD_NOT
    if text:
        print(text, end=end)
    return FINE


def _refuse_shares(policy: HugepagesPolicy) -> None:
    """Raises CouldNot for a share of a node's memory: that of another machine is not known."""
    for pool in policy.pools:
        if any(amount.percent for amount in pool.nodes.values()):
            name = f"pages_{size_name(pool.size_kib)}"
            raise CouldNot(
                f"{name}: '{pool.text}': the memory of another machine (--nodes) is not known:"
                " give numbers of pages; nothing is printed"
            )


def _machine(nodes: str | None, kernel: str | None) -> HugepagesState:
    """This machine, but for its nodes and its kernel where they are given. Raises CouldNot."""
    found = state.read(KernelFS(), HugepagesPolicy(), {}, FixedGuests())
    if kernel is not None:
        release = boot.version(kernel)
        if release == (0, 0):
            raise CouldNot(f"--kernel {kernel}: give a release such as 5.14")
        found = replace(found, release=release)
    if nodes is None:
        return found
    try:
        numbers = cpuset.parse(nodes)
    except ValueError as error:
        raise CouldNot(f"--nodes {nodes}: give numbers such as 0-1") from error
    sizes = sorted({*found.sizes, boot.GIGANTIC})
    pools = {PoolSetting(one, size): Pool(one, size, 0, 0, 0) for one in numbers for size in sizes}
    return replace(found, nodes=dict.fromkeys(sorted(numbers), NOT_KNOWN), pools=pools, cmdline="")


def cmdline(file: AnyPath | None, words: list[str]) -> tuple[str, list[str]]:
    """The kernel's arguments for a file and words, and what should be known of them."""
    try:
        return _arguments(_policy(file, words), _machine(None, None))
    except CouldNot as error:
        return "", [str(error)]


def _arguments(policy: HugepagesPolicy, found: HugepagesState) -> tuple[str, list[str]]:
    """The kernel's arguments, and what should be known of them."""
    refused = [f"{name}: {why}; nothing is printed" for name, why in impossible(policy, found)]
    if refused:
        return "", refused
    counts = plan_notes.boot_numbers(policy, found)
    nodes, release = len(found.nodes), found.release
    remarks = {size: boot.remark(numbers, nodes, release) for size, numbers in counts.items()}
    said = [f"{size_name(size)}: {remark}" for size, remark in remarks.items() if remark]
    said += [
        f"pages_{size_name(pool.size_kib)}=guests: not included: pools of guests grow after boot"
        for pool in policy.pools
        if pool.guests and pool.size_kib >= boot.GIGANTIC
    ]
    totals = {size: sum(numbers.values()) for size, numbers in counts.items()}
    saving = boot.without_vmemmap(totals, found.cmdline, release, topology.page_size())
    said += [saving] if saving else []
    texts = {size: boot.numbers(numbers, nodes, release) for size, numbers in counts.items()}
    return boot.arguments(texts), said


def _policy(file: AnyPath | None, pairs: list[str]) -> HugepagesPolicy:
    found = settings_file.checked(NAMES, OPTIONS, file) if file else SectionSettings()
    words = _from_words(pairs)
    try:
        return parse({**found.texts, **words})
    except BadOptions as error:
        raise settings_file.refused(found, error, words) from error


def _from_words(words: list[str]) -> dict[str, str]:
    pairs = dict(word.partition("=")[::2] for word in words)
    for name in pairs:
        if name not in OPTIONS:
            raise CouldNot(f"--set {name}: use one of {', '.join(sorted(OPTIONS))}")
    return pairs


def _file(options: argparse.Namespace) -> AnyPath | None:
    """The variables file to read; None where words of --set alone are asked. Raises CouldNot."""
    if options.policy is not None or options.set:
        return options.policy or None
    there = settings_file.machines_files()
    if not there:
        raise CouldNot("no request: give --set pages_2M=0:512 or --policy VARIABLES.conf")
    return there[0]


def _state(policy: HugepagesPolicy) -> state.HugepagesState:
    guests: FixedGuests[Asking] = FixedGuests()
    if policy.follows_guests:
        guests = FixedGuests(GuestPageReader().once(), "libvirt does not answer")
    return state.read(KernelFS(), policy, {}, guests)


def _content(plan: Plan) -> dict[str, object]:
    return {
        "changes": [_change(change) for change in plan.changes],
        "refused": dict(plan.refused),
        "missing": dict(plan.missing),
        "notes": list(plan.notes),
    }


def _change(change: Change) -> dict[str, object]:
    """A change; a pool's with its node and page size, a mount's with its page size."""
    content = {**vars(change), "before": str(change.before), "after": str(change.after)}
    if isinstance(change, PoolChange):
        content.update(content.pop("pool")._asdict())
    elif isinstance(change, MountChange):
        content["size_kib"] = content.pop("mount").size_kib
    return content


def _print(plan: Plan) -> None:
    for setting, reason in {**plan.refused, **plan.missing}.items():
        print(f"refused   {setting}: {reason}")
    for note in plan.notes:
        print(f"note      {note}")
    if plan.changes:
        rows = ((one.setting, str(one.before), str(one.after), one.why) for one in plan.changes)
        table.show(COLUMNS, rows)
    elif not plan.refused:
        print("nothing to change")
