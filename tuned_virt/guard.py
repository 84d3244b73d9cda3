"""Originals of what TuneD's own plugins set, which TuneD itself loses at a kill -9.

Our profiles put one instance of `crash_guard` before everything else. At apply it finds what a
crashed daemon left, puts it back before TuneD's own plugins read it as "the original", and keeps
the values of the named files; at unapply, after those plugins, it puts back what they did not.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tuned_virt import options as opt
from tuned_virt.engine import Tuner
from tuned_virt.kernelfs import KernelFS, active_word
from tuned_virt.options import BadOptions, Described, OptionError
from tuned_virt.plan import Change, Plan, Values

ROOTS = ("/proc/sys/", "/sys/")
"""Only settings of the kernel are guarded: a profile must not make root write elsewhere."""

OPTIONS: Mapping[str, Described] = MappingProxyType(
    {
        "files": Described(
            "kernel files that TuneD's own plugins set, kept against a crash of TuneD: paths under"
            " /proc/sys or /sys with * and ?, separated by commas or spaces"
        ),
        "observe": opt.OBSERVE,
    }
)


@dataclass(frozen=True)
class GuardPolicy:
    """Patterns of the files to guard."""

    patterns: tuple[str, ...] = ()

    def covers(self, path: str) -> bool:
        """Whether a path matches a pattern, segment by segment."""
        return any(
            pattern.count("/") == path.count("/")
            and all(map(fnmatch.fnmatchcase, path.split("/"), pattern.split("/")))
            for pattern in self.patterns
        )


def parse(options: Mapping[str, str]) -> GuardPolicy:
    """The policy of a profile's options. Raises BadOptions."""
    patterns = tuple(opt.given(options).get("files", "").replace(",", " ").split())
    errors = [
        OptionError("files", pattern, "a path under /proc/sys or /sys without ..")
        for pattern in patterns
        if not pattern.startswith(ROOTS) or ".." in pattern.split("/")
    ]
    if errors:
        raise BadOptions(errors)
    return GuardPolicy(patterns)


def decide(policy: GuardPolicy, state: Values, originals: Values) -> Plan:
    """Put back every kept original that differs, and keep the value of each guarded file.

    Of the kernel's pairs (vm.dirty_ratio and vm.dirty_bytes) writing one zeroes the other, and zero
    itself is refused, so values other than 0 go first; the zeros are then already there.
    """
    differing = [path for path in originals if path in state and state[path] != originals[path]]
    return Plan(
        changes=tuple(
            Change(path, path, state[path], originals[path], "as it was before TuneD")
            for path in sorted(differing, key=lambda path: (originals[path] == "0", path))
        ),
        originals={
            path: originals.get(path, value) for path, value in state.items() if policy.covers(path)
        },
    )


class GuardTuner(Tuner[GuardPolicy, Values]):
    """The guarded files, as the plugin `crash_guard` keeps them."""

    name = "crash_guard"
    options = OPTIONS
    restore_waits = False

    def parse(self, options: Mapping[str, str]) -> GuardPolicy:
        """See `parse`."""
        return parse(options)

    def read(self, fs: KernelFS, policy: GuardPolicy, originals: Values) -> Values:
        """Values of the guarded files and of those kept; unreadable ones are left out."""
        paths = {path for pattern in policy.patterns for path in fs.glob(pattern)} | set(originals)
        texts = {path: fs.read_optional(path) for path in sorted(paths)}
        return {path: active_word(text) for path, text in texts.items() if text is not None}

    def decide(self, policy: GuardPolicy, state: Values, originals: Values) -> Plan:
        """See `decide`."""
        return decide(policy, state, originals)

    def values(self, state: Values) -> Values:
        """The files' values."""
        return state
