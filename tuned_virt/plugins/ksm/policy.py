# SPDX-License-Identifier: GPL-2.0-or-later
"""What a profile may ask of KSM: the options, and the policy that they make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from tuned_virt.core import options as opt
from tuned_virt.core.options import BadOptions, Number, OneOf, OptionError, OptionSpec, WantedValue
from tuned_virt.frozen_dataclasses import dataclass, fields
from tuned_virt.plugins.ksm.auto import AutoPolicy
from tuned_virt.plugins.ksm.decision import CONTROLLED
from tuned_virt.plugins.ksm.ksmtuned import KsmtunedPolicy
from tuned_virt.plugins.ksm.state import SETTINGS

NUMBERS: Mapping[str, Number] = {
    "max_cpu": Number(1, 100, "percent of one CPU"),
    "maintenance_cpu": Number(1, 100, "percent of one CPU"),
    "thres_coef": Number(0, 100, "percent of all memory"),
    "thres_const": Number(0, 2**40, "KiB"),
    "monitor_interval": Number(1, 86_400, "s"),
    "npages_boost": Number(0, 1_000_000, "pages per scan"),
    "npages_decay": Number(-1_000_000, 0, "pages per scan"),
    "npages_min": Number(1, 1_000_000, "pages per scan"),
    "npages_max": Number(1, 1_000_000, "pages per scan"),
    "sleep_msec": Number(1, 3_600_000, "ms"),
}
"""What the numbers of the algorithms take."""

OPTIONS: Mapping[str, OptionSpec] = {
    "mode": OptionSpec(
        "off: stop merging; unmerge: stop and unmerge all; static: the settings below;"
        " ksmtuned: ksmtuned's algorithm; kernel: the kernel's advisor; auto: burst, then"
        " maintenance, while memory is short",
        "static",
    ),
    "eager": OptionSpec("auto: 1: also merge while enough memory is available", "0"),
    "max_cpu": OptionSpec(
        "auto: maximum CPU time of ksmd over a minute, percent of one CPU; 50, and 25 on"
        " hosts of up to 4 CPUs"
    ),
    "maintenance_cpu": OptionSpec(
        "auto: maximum CPU time of ksmd once all is merged, percent of one CPU; 1"
    ),
    "thres_coef": OptionSpec(
        "auto, ksmtuned: memory is short when less than this percentage is available; 20"
    ),
    "thres_const": OptionSpec(
        "auto, ksmtuned: the same in KiB, as ksmtuned compares it; the larger applies; 2048"
    ),
    "monitor_interval": OptionSpec("ksmtuned: seconds between checks; 60"),
    "npages_boost": OptionSpec(
        "ksmtuned: pages to add per scan at each check while memory is short; 300"
    ),
    "npages_decay": OptionSpec(
        "ksmtuned: the same while memory is not short; a negative number; -50"
    ),
    "npages_min": OptionSpec("ksmtuned: minimum of pages per scan; 64"),
    "npages_max": OptionSpec("ksmtuned: maximum of pages per scan; 1250"),
    "sleep_msec": OptionSpec(
        "ksmtuned: milliseconds between scans on a server of 16 GiB; others in"
        " proportion, at least 10; 10"
    ),
    "run": OptionSpec(
        "static: 0: stop merging, 1: merge, 2: stop and unmerge all (needs the memory)"
    ),
    "merge_across_nodes": OptionSpec(
        "0: merge only pages of the same NUMA node, 1: of all nodes, auto: 0 where there are"
        " several nodes"
    ),
    "max_page_sharing": OptionSpec("maximum of virtual pages that share one physical page"),
    "use_zero_pages": OptionSpec("1: merge empty pages with the kernel's zero page"),
    "pages_to_scan": OptionSpec("pages scanned before each sleep; > and < as in TuneD"),
    "sleep_millisecs": OptionSpec("sleep between scans in ms; > and < as in TuneD"),
    "smart_scan": OptionSpec("1: skip pages that were not merged in earlier scans"),
    "advisor_mode": OptionSpec(
        "scan-time: the kernel controls pages_to_scan, none: pages_to_scan applies"
    ),
    "advisor_max_cpu": OptionSpec("maximum CPU time of ksmd under the advisor, percent of one CPU"),
    "advisor_target_scan_time": OptionSpec("seconds in which the advisor scans all memory once"),
    "advisor_min_pages_to_scan": OptionSpec("minimum of pages per scan under the advisor"),
    "advisor_max_pages_to_scan": OptionSpec("maximum of pages per scan under the advisor"),
    "stable_node_chains_prune_millisecs": OptionSpec(
        "how often chains of fully shared pages are searched for stale entries, in ms"
    ),
    "unmerge": OptionSpec(
        "allow: unmerge all pages if a setting needs it and there is enough memory,"
        " which spreads them over all NUMA nodes; force: even without enough memory;"
        " never: do not change such a setting",
        "never",
    ),
    "observe": opt.OBSERVE,
}


class Unmerge(str, Enum):
    """Whether all pages may be unmerged for a setting that needs it."""

    NEVER = "never"
    ALLOW = "allow"
    FORCE = "force"


class KsmMode(str, Enum):
    """Who decides on KSM's speed, and whether it runs."""

    OFF = "off"
    UNMERGE = "unmerge"
    STATIC = "static"
    KSMTUNED = "ksmtuned"
    KERNEL = "kernel"
    AUTO = "auto"


WORDS = {"mode": OneOf(tuple(KsmMode)), "unmerge": OneOf(tuple(Unmerge))}

MEANS: Mapping[KsmMode, Mapping[str, str]] = {
    KsmMode.OFF: {"run": "0"},
    KsmMode.UNMERGE: {"run": "2"},
    KsmMode.KERNEL: {"advisor_mode": "scan-time", "run": "1"},
}
"""Settings that a mode stands for."""

DECIDES: Mapping[KsmMode, tuple[str, ...]] = {
    KsmMode.OFF: ("run",),
    KsmMode.UNMERGE: ("run",),
    KsmMode.STATIC: (),
    KsmMode.KERNEL: ("advisor_mode", "pages_to_scan", "run"),
    KsmMode.KSMTUNED: ("advisor_mode", *CONTROLLED),
    KsmMode.AUTO: ("advisor_mode", *CONTROLLED),
}
"""Settings that a mode chooses, and an administrator therefore does not."""


@dataclass(frozen=True)
class KsmPolicy:
    """What a profile asks of KSM: settings by name, whether it may unmerge for them, and who
    decides on the rest (`algorithm`, with modes ksmtuned and auto)."""

    settings: Mapping[str, WantedValue | str]
    unmerge: Unmerge = Unmerge.NEVER
    mode: KsmMode = KsmMode.STATIC
    algorithm: AutoPolicy | KsmtunedPolicy | None = None

    @property
    def asks(self) -> bool:
        """Whether it wants anything of KSM."""
        return bool(self.settings) or self.algorithm is not None

    @property
    def undoing(self) -> KsmPolicy:
        """Asks for nothing, and may unmerge where this one might."""
        return KsmPolicy({}, self.unmerge)


def parse(options: Mapping[str, str]) -> KsmPolicy:
    """The policy of a profile's options (empty ones ask for nothing). Raises BadOptions."""
    errors: list[OptionError] = []
    settings: dict[str, WantedValue | str] = {}
    words: dict[str, str] = {}
    algorithm: dict[str, int] = {}
    for name, text in opt.given(options).items():
        try:
            if name in SETTINGS:
                settings[name] = SETTINGS[name].parse(name, text)
            elif name in WORDS:
                words[name] = WORDS[name].parse(name, text)
            elif name in NUMBERS:
                algorithm[name] = NUMBERS[name].plain(name, text)
            elif name == "eager":
                algorithm[name] = int(opt.is_yes(name, text))
        except OptionError as error:
            errors.append(error)
    if errors:
        raise BadOptions(errors)
    mode = KsmMode(words.get("mode", KsmMode.STATIC))
    errors += [*_contradictions(settings), *_decided(mode, settings), *_bounds(algorithm)]
    if errors:
        raise BadOptions(errors)
    unmerge = Unmerge(words.get("unmerge", Unmerge.NEVER))
    return KsmPolicy(
        {**settings, **MEANS.get(mode, {})}, unmerge, mode, _algorithm(mode, algorithm)
    )


def _algorithm(mode: KsmMode, given: Mapping[str, int]) -> AutoPolicy | KsmtunedPolicy | None:
    if mode is KsmMode.AUTO:
        return AutoPolicy(**_named(AutoPolicy, given))
    if mode is KsmMode.KSMTUNED:
        return KsmtunedPolicy(**_named(KsmtunedPolicy, given))
    return None


def _named(algorithm: type, given: Mapping[str, int]) -> dict[str, Any]:
    names = [field.name for field in fields(algorithm)]
    return {name: given[name] for name in names if name in given}


def _decided(mode: KsmMode, settings: Mapping[str, WantedValue | str]) -> Iterable[OptionError]:
    for name in DECIDES[mode]:
        if name in settings:
            valid = f"leave it out, mode={mode.value} controls it (or mode=static)"
            yield OptionError(name, _text(settings[name]), valid)


def _bounds(algorithm: Mapping[str, int]) -> Iterable[OptionError]:
    low = algorithm.get("npages_min", KsmtunedPolicy.npages_min)
    high = algorithm.get("npages_max", KsmtunedPolicy.npages_max)
    if low > high:
        valid = f"at most npages_max, which is {high}"
        yield OptionError("npages_min", str(low), valid)


def _contradictions(settings: Mapping[str, WantedValue | str]) -> Iterable[OptionError]:
    if settings.get("advisor_mode") == "scan-time" and "pages_to_scan" in settings:
        yield OptionError(
            "pages_to_scan",
            _text(settings["pages_to_scan"]),
            "leave it out while advisor_mode=scan-time controls it",
        )
    low, high = (settings.get(f"advisor_{end}_pages_to_scan") for end in ("min", "max"))
    if isinstance(low, WantedValue) and isinstance(high, WantedValue) and low.value > high.value:
        yield OptionError(
            "advisor_min_pages_to_scan",
            _text(low),
            f"at most advisor_max_pages_to_scan, which is {high.value}",
        )


def _text(wanted: WantedValue | str) -> str:
    return wanted if isinstance(wanted, str) else f"{wanted.modifier.value}{wanted.value}"
