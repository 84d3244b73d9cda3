# SPDX-License-Identifier: GPL-2.0-or-later
"""KSM in full, for `status --ksm`: its variables, savings and cost, who drives it, and why."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from tuned_virt.cli import json_output, ksm_table
from tuned_virt.core.originals import Originals
from tuned_virt.core.state_file import FOLDER as STATE_FOLDER
from tuned_virt.kernel.files import KernelFS, active_word
from tuned_virt.model import topology
from tuned_virt.plugins import ksm
from tuned_virt.plugins.ksm import conflicts, sampler
from tuned_virt.plugins.ksm.conflicts import KsmConflicts
from tuned_virt.plugins.ksm.controller_state import FILE, ControllerState, ControllerStateFile

ABSENT = "not in this kernel"

MEANINGS: Mapping[str, str] = {
    "full_scans": "times that all mergeable memory was scanned",
    "merge_across_nodes": "1: merge pages of all NUMA nodes, 0: of the same node only",
    "pages_shared": "merged pages in memory, each of which replaces several",
    "pages_sharing": "further references to them: the pages saved",
    "pages_to_scan": "pages scanned before each sleep",
    "pages_unshared": "unique pages that are checked repeatedly",
    "pages_volatile": "pages that change too fast to be merged",
    "run": "0: stopped, merged pages stay merged; 1: merging; 2: stopped, all pages unmerged",
    "sleep_millisecs": "ms of sleep between scans",
    "pages_scanned": "pages scanned since boot",
    "pages_skipped": "pages that smart_scan has skipped since boot",
    "ksm_zero_pages": "empty pages merged with the kernel's zero page: also saved",
    "general_profit": "bytes: the kernel's estimate of what is saved, see below",
    "max_page_sharing": "maximum of references to one merged page",
    "stable_node_chains": "merged pages that have reached max_page_sharing",
    "stable_node_dups": "duplicates of merged pages, because of max_page_sharing",
    "stable_node_chains_prune_millisecs": "ms between searches of them for stale entries",
    "use_zero_pages": "1: merge empty pages with the kernel's zero page",
    "smart_scan": "1: skip pages that earlier scans could not merge",
    "advisor_mode": "scan-time: the kernel controls pages_to_scan; none: it does not",
    "advisor_max_cpu": "maximum CPU time of ksmd under the advisor, percent of one CPU",
    "advisor_target_scan_time": "seconds in which the advisor scans all memory once",
    "advisor_min_pages_to_scan": "minimum of pages_to_scan under the advisor",
    "advisor_max_pages_to_scan": "maximum of pages_to_scan under the advisor",
}
"""The guide's chapter 8.4.3, then the further ones of newer kernels.

Source: the kernel's Documentation/admin-guide/mm/ksm.rst.
"""

NO_MEANING = "(new in this kernel)"

PROFIT = "less its own memory use; negative before pages are merged, stale while run is 0"


def loop(content: ControllerState, held: bool) -> dict[str, Any] | None:
    """What a controller does and last decided; None where none runs. `held`: its TuneD lives."""
    if not content.algorithm:
        return None
    memory = content.memory
    started = time.time() - time.monotonic()
    last = content.decisions[-1] if content.decisions else None
    return {
        "mode": content.algorithm.partition("Policy(")[0].lower(),
        "phase": memory.phase.value,
        "since": json_output.moment(started + memory.since) if memory.since else None,
        "when": json_output.moment(last.when) if last else None,
        "why": last.why if last else "",
        "held": held,
        "decisions": [
            {**asdict(made), "when": json_output.moment(made.when)} for made in content.decisions
        ],
    }


def running() -> dict[str, Any] | None:
    """The loop of this machine, see `loop`."""
    content = ControllerStateFile(os.path.join(STATE_FOLDER, FILE)).load()
    return loop(content, Originals().holder("ksm") is not None) if content.algorithm else None


def gather(fs: KernelFS) -> dict[str, Any] | None:
    """All of it; None in a kernel without KSM."""
    values = _values(fs)
    if "run" not in values:
        return None
    thread = sampler.ksmd(fs)
    pages = _number(values, "pages_sharing") + _number(values, "ksm_zero_pages")
    profit = _number(values, "general_profit") if "general_profit" in values else None
    return {
        "variables": [
            {"name": name, "value": value, "meaning": MEANINGS.get(name, NO_MEANING)}
            for name, value in values.items()
        ],
        "saved_mib": round(pages * topology.page_size() / 2**20, 1),
        "general_profit_mib": None if profit is None else round(profit / 2**20, 1),
        "ksmd_cpu_seconds": sampler.cpu_seconds(fs, thread) if thread else None,
        "conflicts": asdict(conflicts.read(fs)),
        "processes": [asdict(one) for one in ksm_table.others(fs)],
        "loop": running(),
    }


def _values(fs: KernelFS) -> dict[str, str]:
    names = [*MEANINGS, *sorted(set(fs.names(ksm.FOLDER)) - MEANINGS.keys())]
    texts = {name: fs.read_optional(f"{ksm.FOLDER}/{name}") for name in names}
    return {name: active_word(text) for name, text in texts.items() if text is not None}


def _number(values: Mapping[str, str], name: str) -> int:
    text = values.get(name, "0")
    return int(text) if text.lstrip("-").isdecimal() else 0


def lines(content: dict[str, Any] | None) -> list[str]:
    """`gather`'s content in words."""
    if content is None:
        return [f"KSM       {ABSENT}"]
    return [
        *(f"{v['name']:35}{v['value']:>12}  {v['meaning']}" for v in content["variables"]),
        "",
        *(f"{name:10}{text}" for name, text in summary(content)),
        *map(_decision, content["loop"]["decisions"] if content["loop"] else ()),
    ]


def summary(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What KSM saves and costs, who drives it and who shares, each in words."""
    yield "saved", f"{content['saved_mib']} MiB: pages_sharing and ksm_zero_pages"
    if content["general_profit_mib"] is not None:
        yield "profit", f"{content['general_profit_mib']} MiB: the kernel's estimate, {PROFIT}"
    yield "cost", _cost(content["ksmd_cpu_seconds"])
    yield "services", _conflicts(KsmConflicts(**content["conflicts"]))
    yield from (("process", _process(one)) for one in content["processes"])
    yield "loop", _loop(content["loop"])


def _cost(seconds: float | None) -> str:
    if seconds is None:
        return "unknown: the ksmd thread is not visible here"
    return f"ksmd has used {seconds:.1f} s of CPU since boot"


def _conflicts(found: KsmConflicts) -> str:
    words = [f"{unit} {state}" for unit, state in found.services.items()]
    words += [f"{unit} masked" for unit in found.masked]
    words += [found.disabled] if found.disabled else []
    if found.other:
        condition = f" with {found.on_request}" if found.on_request else ""
        words.append(f"{found.other} controls KSM{condition}")
    return ", ".join(words) or "no conflicting service (ksm, ksmtuned, MOM, KubeVirt, Harvester)"


def _process(one: Mapping[str, Any]) -> str:
    scope = "all its memory (MemoryKSM=)" if one["whole"] else "memory that it has advised"
    figures = f"{one['merged_mib']} MiB merged, profit {one['profit_mib']} MiB"
    return f"{one['process']} ({one['pid']}), no guest: {scope}: {figures}"


def _loop(content: dict[str, Any] | None) -> str:
    if content is None:
        return "none: no active profile sets mode=auto or mode=ksmtuned"
    since = f" since {clock(content['since'])}" if content["since"] else ""
    return f"mode={content['mode']}: {content['phase']}{since}{gone(content)}"


def gone(content: Mapping[str, Any]) -> str:
    """What to say where the loop's daemon is gone, "" where it lives."""
    return (
        ""
        if content["held"]
        else "; left by a TuneD that has ended; to restore: sudo tuned-virt restore"
    )


def _decision(made: Mapping[str, Any]) -> str:
    changes = ", ".join(f"{name}={value}" for name, value in made["changes"].items())
    text = f"  {clock(made['when'])}  {made['phase']}: {made['why']}"
    return f"{text} ({changes})" if changes else text


def clock(moment: str) -> str:
    """A time as JSON has it: of today as the clock shows it, another with its date."""
    then = datetime.fromisoformat(moment).astimezone()
    today = then.date() == datetime.now().date()
    return then.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S")
