# SPDX-License-Identifier: GPL-2.0-or-later
"""What an administrator asks of the planner, for a selection of guests or for one."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from enum import Enum
from functools import lru_cache
from typing import Union

from tuned_virt.core import options as opt
from tuned_virt.core.device_filter import selects
from tuned_virt.core.options import BadOptions, OneOf, OptionError, OptionSpec
from tuned_virt.kernel import cpuset
from tuned_virt.model.guest import Guest


class PlacementMode(str, Enum):
    """How a guest's vCPUs are placed."""

    NODE = "node"
    DEDICATED = "dedicated"
    NONE = "none"


class Smt(str, Enum):
    """How dedicated vCPUs use the threads of a core.

    PREFER   whole cores first, the guest's siblings on siblings; a core may be shared at last
    REQUIRE  whole cores with two threads or more; what a guest leaves of a core stays idle
    ISOLATE  one vCPU a core, its other threads stay idle
    """

    PREFER = "prefer"
    REQUIRE = "require"
    ISOLATE = "isolate"


class EmulatorMode(str, Enum):
    """Where the emulator thread and vhost work run."""

    NODE = "node"
    HOUSEKEEPING = "housekeeping"
    VCPU0 = "shared-with-vcpu0"


class IoThreadMode(str, Enum):
    """Where IOThreads run: near their disks, on the housekeeping CPUs, or as the emulator."""

    DEVICE = "device"
    HOUSEKEEPING = "housekeeping"
    EMULATOR = "emulator"


class MemoryMode(str, Enum):
    """How memory is kept with the vCPUs."""

    MOVE = "move"
    RESTRICTIVE = "restrictive"
    STRICT = "strict"
    NONE = "none"


class Prefer(str, Enum):
    """Which last-level caches dedicated vCPUs are given first where those differ in size.

    CACHE  the largest (3D V-Cache);  CLOCK  the smallest, whose cores have the higher clock there
    """

    CACHE = "cache"
    CLOCK = "clock"
    NONE = "none"


ALL, OPT_OUT, NOBODY = "all", "opt-out", "none"
"""Whose metadata counts, see GUESTS_OWN; opt-out: everybody's policy=none, which takes no CPUs from
neighbours. Anything else names the guests."""


@dataclass(frozen=True)
class GuestGroup:
    """One option's value for the guests that an expression selects, as TuneD selects devices."""

    guests: str
    option: str
    value: object

    def has(self, guest: Guest) -> bool:
        """Whether a guest is selected, by its name or UUID."""
        return selects(self.guests, (guest.name, guest.uuid))


@dataclass(frozen=True)
class PlacementPolicy:
    """The options of one selection of guests; see OPTIONS for their meaning.

    housekeeping  None: the first core of each node where anything is dedicated
    overcommit    most vCPUs of floating guests per CPU that they may share; None: auto, all guests
                  are placed, each where it leaves the host most level
    rebalance     most guests that one plan moves though they are well where they are
    wishes        whose metadata counts: ALL, OPT_OUT, NOBODY, or an expression that selects guests
    groups        what is so for some guests alone; of several for one guest the last counts
    """

    policy: PlacementMode = PlacementMode.NODE
    smt: Smt = Smt.PREFER
    housekeeping: frozenset[int] | None = None
    emulator: EmulatorMode = EmulatorMode.NODE
    iothreads: IoThreadMode = IoThreadMode.DEVICE
    memory: MemoryMode = MemoryMode.MOVE
    overcommit: float | None = None
    rebalance: int = 0
    wishes: str = ALL
    groups: tuple[GuestGroup, ...] = ()
    prefer: Prefer = Prefer.NONE

    @property
    def vcpus_per_cpu(self) -> float:
        """How many floating vCPUs count as one CPU that is needed."""
        return self.overcommit or 1.0


Policies = Union[PlacementPolicy, Mapping[str, PlacementPolicy]]
"""One for all guests, or by guest's UUID where selections differ; a guest in none is left alone."""

WORDS: Mapping[str, type[Enum]] = {
    "policy": PlacementMode,
    "smt": Smt,
    "emulator": EmulatorMode,
    "iothreads": IoThreadMode,
    "memory": MemoryMode,
    "prefer": Prefer,
}

GUESTS_OWN = ("policy", "smt", "emulator", "iothreads", "memory", "prefer")
"""Options of one guest, which its metadata or a group may set; the others concern its
neighbours."""

OPTIONS: Mapping[str, OptionSpec] = {
    "policy": OptionSpec(
        "node: vCPUs float inside one NUMA node; dedicated: a CPU for each vCPU; none: not placed",
        "node",
    ),
    "smt": OptionSpec(
        "Threads of a core for dedicated vCPUs: prefer whole cores, require them, or"
        " isolate (one vCPU per core, its other threads idle)",
        "prefer",
    ),
    "housekeeping": OptionSpec(
        "CPUs that are never dedicated, such as 0-1,32; auto: the first core of each node where"
        " anything is dedicated",
        "auto",
    ),
    "emulator": OptionSpec(
        "Emulator thread and vhost work: node (the node's undedicated CPUs), housekeeping, or"
        " shared-with-vcpu0",
        "node",
    ),
    "iothreads": OptionSpec(
        "IOThreads: device (undedicated CPUs of the node of their disk), housekeeping, or emulator",
        "device",
    ),
    "memory": OptionSpec(
        "Memory: move (pages are migrated to the node in batches), restrictive or strict"
        " (<numatune>, if the node has room for all of it and 5 % more), none",
        "move",
    ),
    "overcommit": OptionSpec(
        "Floating guests on a crowded host: auto (all are placed, each where it leaves the nodes"
        " most level), or a maximum of vCPUs per shared CPU of a node, 1 to 64, such as 1.5:"
        " guests beyond it are not placed",
        "auto",
    ),
    "prefer": OptionSpec(
        "Dedicated vCPUs where last-level caches differ in size (3D V-Cache): cache (the largest"
        " first), clock (the smallest first, whose cores have the higher clock), none",
        "none",
    ),
    "dedicated": OptionSpec(
        "Guests that get a CPU for each vCPU whatever policy says, by name, pattern or UUID,"
        " separated by spaces; ! excludes",
        refines="policy",
    ),
    "wishes": OptionSpec(
        "Whose own <metadata> counts: all, none, opt-out (policy=none alone, everybody's), or the"
        " guests, by name, pattern or UUID; for hosts on which tenants write it: dedicated CPUs"
        " are taken from the other guests",
        ALL,
    ),
    "rebalance": OptionSpec(
        "Maximum of guests that one plan moves to a better place; never (0): none", "never"
    ),
    **{
        f"{name}.{opt.GROUP}": OptionSpec(
            f"{name} of the guests that GUESTS selects, such as {name}.db*={example}; of several"
            " for one guest the last counts",
            refines=name,
        )
        for name, example in zip(
            GUESTS_OWN, ("dedicated", "isolate", "housekeeping", "emulator", "strict", "cache")
        )
    },
}
"""Options of the planner, as the plugin and the command show them."""

MOST_OVERCOMMIT = 64.0


def parse(options: Mapping[str, str | None]) -> PlacementPolicy:
    """The policy of a profile's options (empty ones ask for the default). Raises BadOptions.

    Names that are not the planner's are errors too: a caller with options of its own takes
    those out.
    """
    return changed(PlacementPolicy(), options)


def changed(policy: PlacementPolicy, options: Mapping[str, str | None]) -> PlacementPolicy:
    """The policy with a profile's options on top. Raises BadOptions."""
    return _changed(policy, options, tuple(OPTIONS))


MOST_QUOTED = 60
"""Characters, far more than any of the words has."""

MOST_NAMED = 5
"""Wishes of a guest that are named."""


def of_group(guest: Guest, policy: PlacementPolicy) -> PlacementPolicy:
    """The policy with what groups say of a guest, without groups."""
    if not policy.groups:
        return policy
    return _grouped(policy, tuple(one.has(guest) for one in policy.groups))


@lru_cache(maxsize=256)
def _grouped(policy: PlacementPolicy, selected: tuple[bool, ...]) -> PlacementPolicy:
    own = {one.option: one.value for one, has in zip(policy.groups, selected) if has}
    return _replaced(policy, {**own, "groups": ()})


def policy_for(guest: Guest, policy: PlacementPolicy) -> PlacementPolicy:
    """The policy with what groups and the guest's own metadata wish. Raises BadOptions."""
    own = of_group(guest, policy)
    used = {name: text for name, text in guest.wishes.items() if _counts(guest, own, name, text)}
    if not used:
        return own
    wishes = sorted((_quotable(name), _quotable(text)) for name, text in used.items())
    return _wished(own, tuple(wishes))


def unselected(policies: Iterable[PlacementPolicy], running: Collection[tuple[str, str]]) -> str:
    """Names and patterns of groups that select none of these guests, by name and UUID; in words."""
    groups = dict.fromkeys(group for policy in policies for group in policy.groups)
    missing = [
        f"{word} ({group.option}={getattr(group.value, 'value', group.value)})"
        for group in groups
        for word in group.guests.replace(",", " ").split()
        if not word.startswith("!") and not any(selects(word, names) for names in running)
    ]
    return f"no running guest is selected by {', '.join(missing)}" if missing else ""


def ignored_wishes(guest: Guest, policy: PlacementPolicy) -> str:
    """What of a guest's metadata does not count, in words; "" where all does."""
    ignored = [
        f"{_quotable(name)}={_quotable(text)}"
        for name, text in sorted(guest.wishes.items())
        if not _counts(guest, policy, name, text)
    ]
    if not ignored:
        return ""
    more = f" and {len(ignored) - MOST_NAMED} more" if len(ignored) > MOST_NAMED else ""
    return f"{', '.join(ignored[:MOST_NAMED])}{more} (wishes={policy.wishes})"


def _counts(guest: Guest, policy: PlacementPolicy, name: str, text: str) -> bool:
    if policy.wishes == OPT_OUT:
        return (name, text) == ("policy", PlacementMode.NONE.value)
    if policy.wishes in (ALL, NOBODY):
        return policy.wishes == ALL
    return selects(policy.wishes, (guest.name, guest.uuid))


def _quotable(text: str) -> str:
    """What no option has is not quoted whole: a tenant may write a megabyte there."""
    return text if len(text) <= MOST_QUOTED else f"{text[:MOST_QUOTED]}…"


@lru_cache(maxsize=256)
def _wished(policy: PlacementPolicy, wishes: tuple[tuple[str, str], ...]) -> PlacementPolicy:
    return _changed(policy, dict(wishes), GUESTS_OWN)


def _changed(
    policy: PlacementPolicy, options: Mapping[str, str | None], known: tuple[str, ...]
) -> PlacementPolicy:
    errors: list[OptionError] = []
    values: dict[str, object] = {}
    groups: list[GuestGroup] = []
    for name, text in opt.given(options).items():
        try:
            if opt.template(name) not in known:
                raise OptionError(name, text, f"no such option; use one of {', '.join(known)}")
            if "." in name:
                groups.append(_group(name, text))
            elif name == "dedicated":
                mode = PlacementMode.DEDICATED
                groups.insert(0, GuestGroup(opt.names(name, text), "policy", mode))
            else:
                values[name] = _value(name, text)
        except OptionError as error:
            errors.append(error)
    if errors:
        raise BadOptions(errors)
    earlier = [one for one in policy.groups if one.option not in values]
    return _replaced(policy, {**values, "groups": (*earlier, *groups)})


def _replaced(policy: PlacementPolicy, values: Mapping[str, object]) -> PlacementPolicy:
    current = {field.name: getattr(policy, field.name) for field in fields(policy)}
    return replace(policy, **{**current, **values})


def _group(name: str, text: str) -> GuestGroup:
    option, _, guests = name.partition(".")
    return GuestGroup(opt.names(name, guests), option, _word(name, WORDS[option], text))


def _word(name: str, kind: type[Enum], text: str) -> Enum:
    return kind(OneOf(tuple(member.value for member in kind)).parse(name, text))


def _value(name: str, text: str) -> object:
    if name in WORDS:
        return _word(name, WORDS[name], text)
    if name == "housekeeping":
        return _housekeeping(text)
    if name == "overcommit":
        return _overcommit(text)
    return _whose(name, text) if name == "wishes" else _moves(text)


def _whose(name: str, text: str) -> str:
    """Whose metadata counts; a word that looks like one of these is no guest's name."""
    from difflib import get_close_matches  # takes time to import

    words = (ALL, OPT_OUT, NOBODY)
    if text in words:
        return text
    if get_close_matches(text.lower(), words, cutoff=0.8):
        raise OptionError(name, text, f"{OneOf(words).valid}, or guests by name, pattern or UUID")
    return opt.names(name, text)


def _housekeeping(text: str) -> frozenset[int] | None:
    if text == "auto":
        return None
    try:
        return cpuset.parse(text)
    except ValueError as error:
        raise OptionError(
            "housekeeping", text, f"auto, or CPUs such as 0-1,32 ({error})"
        ) from error


def _overcommit(text: str) -> float | None:
    if text == "auto":
        return None
    if re.fullmatch(r"\d{1,2}(\.\d{1,3})?", text, re.ASCII) and 1 <= float(text) <= MOST_OVERCOMMIT:
        return float(text)
    raise OptionError(
        "overcommit", text, f"auto, or a number from 1 to {MOST_OVERCOMMIT:g}, such as 1.5"
    )


def _moves(text: str) -> int:
    if text == "never":
        return 0
    if re.fullmatch(r"\d{1,3}", text, re.ASCII):
        return int(text)
    raise OptionError("rebalance", text, "never, or how many guests one plan may move (0 to 999)")
