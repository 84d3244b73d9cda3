# SPDX-License-Identifier: GPL-2.0-or-later
"""Originals of what TuneD's own plugins set, which TuneD itself loses at a kill -9.

Our profiles put one instance of `crash_guard` before everything else. At apply it finds what a
crashed daemon left, puts it back before TuneD's own plugins read it as "the original", and keeps
the values of the named files; at unapply, after those plugins, it puts back what they did not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tuned_virt.core import options as opt
from tuned_virt.core.options import BadOptions, OptionError, OptionSpec
from tuned_virt.core.overridden import TunedChoice, TunedSetting
from tuned_virt.core.plan import Change, Plan, Values
from tuned_virt.core.profile_parts import CHECKED, CHOICES
from tuned_virt.core.tuner import Tuner
from tuned_virt.frozen_dataclasses import dataclass, field, replace
from tuned_virt.kernel.device_identity import DeviceFile, DeviceReader, located, why_gone
from tuned_virt.kernel.device_identity import parse as parse_file
from tuned_virt.kernel.files import WILD, KernelFileError, KernelFS, active_word

ROOTS = ("/proc/sys/", "/sys/")
"""Only settings of the kernel are guarded: a profile must not make root write elsewhere."""

STOCK = "stock"
STOCK_FILES = (
    "/proc/sys/vm/swappiness",
    "/proc/sys/vm/dirty_ratio",
    "/proc/sys/vm/dirty_bytes",
    "/proc/sys/vm/dirty_background_ratio",
    "/proc/sys/vm/dirty_background_bytes",
    "/proc/sys/net/core/somaxconn",
    "/proc/sys/net/ipv4/conf/all/arp_filter",
    "/proc/sys/kernel/numa_balancing",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/block/*/queue/read_ahead_kb",
    "/sys/devices/system/cpu/cpufreq/policy*/scaling_governor",
    "/sys/devices/system/cpu/cpufreq/policy*/energy_performance_preference",
    "/sys/devices/system/cpu/cpu*/power/energy_perf_bias",
    "/sys/devices/system/cpu/intel_pstate/min_perf_pct",
    "/sys/firmware/acpi/platform_profile",
)
"""What TuneD's own plugins write in our profiles and those they include, TuneD 2.20 to 2.27."""

DIRTY = ("vm.dirty_ratio", "vm.dirty_bytes", "dirty_ratio", "dirty_bytes")
BACKGROUND = tuple(name.replace("dirty_", "dirty_background_") for name in DIRTY)

TUNED_SETTINGS: Mapping[str, TunedSetting] = {
    "swappiness": TunedSetting("/proc/sys/vm/swappiness", ("vm.swappiness",)),
    "dirty_ratio": TunedSetting("/proc/sys/vm/dirty_ratio", DIRTY),
    "dirty_bytes": TunedSetting("/proc/sys/vm/dirty_bytes", DIRTY),
    "dirty_background_ratio": TunedSetting("/proc/sys/vm/dirty_background_ratio", BACKGROUND),
    "dirty_background_bytes": TunedSetting("/proc/sys/vm/dirty_background_bytes", BACKGROUND),
    "arp_filter": TunedSetting(
        "/proc/sys/net/ipv4/conf/all/arp_filter", ("net.ipv4.conf.all.arp_filter",), at_least=True
    ),
}
"""Where settings for TuneD's own plugins end, and what else may set the same."""

TUNED_CHOICES: Mapping[str, TunedChoice] = {
    "power": TunedChoice(
        {
            "cpu": (
                *("governor", "force_latency", "min_perf_pct", "energy_perf_bias"),
                "energy_performance_preference",
            ),
            "acpi": ("platform_profile",),
        },
        CHOICES["power"],
    ),
    "read_ahead": TunedChoice({"disk": ("readahead",)}, CHOICES["read_ahead"]),
}
"""Settings that choose between the stock profile's options of TuneD's own plugins and others."""

OPTIONS: Mapping[str, OptionSpec] = {
    "files": OptionSpec(
        "kernel files that TuneD's own plugins set, saved against a crash of TuneD: paths under"
        " /proc/sys or /sys with * and ?, separated by commas or spaces; stock: those that"
        " virtual-host, virtual-guest and their additions here set",
        STOCK,
    ),
    **{
        name: OptionSpec(f"{valid.valid}; only checked here: TuneD's own plugins set it")
        for name, valid in CHECKED.items()
    },
    "observe": opt.OBSERVE,
}


@dataclass(frozen=True)
class CrashGuardPolicy:
    """Patterns of the files to guard."""

    patterns: tuple[str, ...] = ()


@dataclass(frozen=True)
class CrashGuardState:
    """The kernel's files as they are; a file's value is its text, of choices the chosen one.

    values   of the files that the policy's patterns match, and of those kept
    matched  those that the patterns match
    before   path → what was there before another plugin of ours set it, where one has
    places   kept setting → its file, of the same device as then
    gone     kept setting → what has become of its device; replaced: those whose name another has
    unknown  kept setting → why it cannot be told which device has its name now
    """

    values: Mapping[DeviceFile, str]
    matched: frozenset[DeviceFile]
    before: Values = field(default_factory=dict)
    places: Mapping[str, DeviceFile] = field(default_factory=dict)
    gone: Values = field(default_factory=dict)
    replaced: frozenset[str] = frozenset()
    unknown: Values = field(default_factory=dict)


def parse(options: Mapping[str, str]) -> CrashGuardPolicy:
    """The policy of a profile's options. Raises BadOptions."""
    given = opt.given(options)
    named = given.get("files", "").replace(",", " ").split()
    patterns = tuple(path for word in named for path in (STOCK_FILES if word == STOCK else [word]))
    _, errors = opt.parsed(given, {name: valid.parse for name, valid in CHECKED.items()})
    errors += [
        OptionError("files", pattern, "stock, or a path under /proc/sys or /sys without ..")
        for pattern in patterns
        if not is_setting(pattern)
    ]
    if errors:
        raise BadOptions(errors)
    return CrashGuardPolicy(patterns)


def is_setting(path: str) -> bool:
    """Whether a path is one of the kernel's settings."""
    return path.startswith(ROOTS) and ".." not in path.split("/")


def decide(state: CrashGuardState, originals: Values) -> Plan:
    """Put back every kept original that differs, and keep the value of each guarded file.

    Of the kernel's pairs (vm.dirty_ratio and vm.dirty_bytes) writing one zeroes the other, and zero
    itself is refused, so values other than 0 go first; the zeros are then already there. What was
    kept of a device is not written to another one that has its name now. What another plugin of
    ours has set, and leaves for the profile that is being applied, was not there before.
    """
    now = state.values
    before = {one: state.before.get(one.path, text) for one, text in now.items()}
    kept = {place: originals[setting] for setting, place in state.places.items()}
    differing = [
        (originals[setting], setting, place)
        for setting, place in state.places.items()
        if place in now and now[place] != originals[setting]
    ]
    return Plan(
        changes=tuple(
            Change(setting, place.path, now[place], text, "original value before TuneD")
            for text, setting, place in sorted(
                differing, key=lambda one: (one[0] == "0", one[2].path)
            )
        ),
        originals={str(one): kept.get(one, before[one]) for one in now if one in state.matched},
        pending=state.unknown,
        notes=tuple(
            f"{state.gone[setting]}; {parse_file(setting).path} was {originals[setting]}, which is"
            " not restored"
            for setting in sorted(state.replaced)
        ),
    )


class CrashGuardTuner(Tuner[CrashGuardPolicy, CrashGuardState]):
    """The guarded files, as the plugin `crash_guard` keeps them."""

    name = "crash_guard"
    restore_order = 3
    options = OPTIONS
    restore_is_deferred = False
    tuned_settings = TUNED_SETTINGS
    tuned_choices = TUNED_CHOICES
    parse = staticmethod(parse)

    def __init__(self, kept_by_others: Callable[[], Values] = dict) -> None:
        self._kept_by_others = kept_by_others

    def read(self, fs: KernelFS, policy: CrashGuardPolicy, originals: Values) -> CrashGuardState:
        """The guarded files and those kept; what is not there is left out.

        Raises OriginalsError.
        """
        devices = DeviceReader(fs)
        matched = frozenset(
            devices.identify(path)
            for pattern in policy.patterns
            for path in (fs.glob(pattern) if WILD.intersection(pattern) else (pattern,))
            if is_setting(path)
        )
        kept = _kept(devices, originals)
        files = sorted({*matched, *kept.places.values()}, key=str)
        texts = {file: fs.read_optional(file.path) for file in files}
        values = {file: active_word(text) for file, text in texts.items() if text is not None}
        before = self._kept_by_others() if matched else {}
        return replace(kept, values=values, matched=matched, before=before)

    def values(self, state: CrashGuardState) -> Values:
        """The settings' values, also of those kept by names that they have no longer."""
        there = {str(one): text for one, text in state.values.items()}
        kept = {
            setting: state.values[one]
            for setting, one in state.places.items()
            if one in state.values
        }
        return {**there, **kept}

    def decide(self, policy: CrashGuardPolicy, state: CrashGuardState, originals: Values) -> Plan:
        """The state has all of the policy that matters."""
        return decide(state, originals)

    def gone(self, state: CrashGuardState, setting: str) -> str:
        """A device that was removed, or whose name another has now."""
        return state.gone.get(setting, "")


def paths(fs: KernelFS, originals: Values) -> Values:
    """Kept originals by the path that their file has now; those of other devices are left out."""
    places = _kept(DeviceReader(fs), originals).places
    return {place.path: originals[setting] for setting, place in places.items()}


def _kept(devices: DeviceReader, originals: Values) -> CrashGuardState:
    """Where kept files are now: nothing is read of them."""
    places: dict[str, DeviceFile] = {}
    gone: dict[str, str] = {}
    unknown: dict[str, str] = {}
    replaced = set()
    for setting in originals:
        kept = parse_file(setting)
        if not is_setting(kept.path):
            continue
        try:
            there = devices.beside(kept)
            place = located(kept, there) if kept.entry else devices.identify(kept.path)
        except KernelFileError as error:
            unknown[setting] = f"it is not known whether {kept.name} is the same device: {error}"
            continue
        if place is not None:
            places[setting] = place
            continue
        gone[setting] = why_gone(kept.name, there)
        if kept.name in there:
            replaced.add(setting)
    return CrashGuardState({}, frozenset(), {}, places, gone, frozenset(replaced), unknown)
