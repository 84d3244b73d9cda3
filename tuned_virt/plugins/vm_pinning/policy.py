# SPDX-License-Identifier: GPL-2.0-or-later
"""What an administrator asks of vm_pinning: the planner's policy, and how it is carried out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from tuned_virt import placement
from tuned_virt.core.options import (
    OBSERVE,
    SYSTEM,
    BadOptions,
    Number,
    OneOf,
    OptionSpec,
    given,
    is_yes,
    parsed,
    template,
    uri,
)
from tuned_virt.core.section_settings import SettingNames
from tuned_virt.frozen_dataclasses import dataclass, field


class RunningGuests(str, Enum):
    """What becomes of guests that ran before the profile came.

    LOCAL  confined to the node that holds at least 80 % of their memory; others are left
    PLACE  as if they had just started: their memory may have to move
    LEAVE  left alone until they start anew
    """

    LOCAL = "local"
    PLACE = "place"
    LEAVE = "leave"


class Persist(str, Enum):
    """Where placements are written.

    LIVE    into the running guest
    CONFIG  into its configuration: it takes effect when the guest starts anew
    BOTH    into both
    """

    LIVE = "live"
    CONFIG = "config"
    BOTH = "both"

    @property
    def configures(self) -> bool:
        """Whether configurations are written."""
        return self is not Persist.LIVE


class Rebalance(str, Enum):
    """When a placed guest may be moved to a better place."""

    NEVER = "never"
    ON_STOP = "on_stop"


class Isolation(str, Enum):
    """What is kept off the CPUs of dedicated guests while they run.

    HOST       the host's own tasks, guests that nobody has pinned, kernel work queues
    HOST_IRQS  and interrupts
    """

    NONE = "none"
    HOST = "host"
    HOST_IRQS = "host+irqs"


@dataclass(frozen=True)
class PinningPolicy:
    """The options of one selection of guests.

    grace       seconds that a guest is left alone after its start
    move        whether pages follow; rate in MiB a second (0: unlimited), limit in MiB a guest
                (None: all of it)
    balancing   kernel.numa_balancing to set, None: left alone
    """

    placement: placement.PlacementPolicy = field(default_factory=placement.PlacementPolicy)
    uri: str = SYSTEM
    persist: Persist = Persist.LIVE
    running: RunningGuests = RunningGuests.LOCAL
    rebalance: Rebalance = Rebalance.NEVER
    grace: int = 0
    move: bool = True
    rate: int = 256
    limit: int | None = None
    balancing: int | None = None
    isolation: Isolation = Isolation.NONE
    observe: bool = False


MODES: Mapping[str, type[Enum]] = {
    "persist": Persist,
    "running": RunningGuests,
    "rebalance": Rebalance,
    "isolation": Isolation,
}

GRACE = Number(0, 3600, "seconds")
RATE = Number(0, 1 << 20, "MiB per second, 0: no limit")
LIMIT = Number(0, 1 << 30, "MiB a guest")
BALANCING = Number(0, 3)
PLANNERS = {name: about for name, about in placement.OPTIONS.items() if name != "rebalance"}

OPTIONS: Mapping[str, OptionSpec] = {
    **PLANNERS,
    "uri": OptionSpec("libvirt's URI; guests of other machines cannot be tuned", SYSTEM),
    "persist": OptionSpec(
        "Where pins are written: live (into the running guest only), config (into its"
        " configuration, for its next start), both; off removes them from configurations"
        " again",
        "live",
    ),
    "running": OptionSpec(
        "Guests that were running before the profile was activated: local (confined to"
        " the node that has at least 80 % of their memory, others are not placed), place"
        " (as if they had just started), leave (not placed)",
        "local",
    ),
    "grace": OptionSpec(
        "Seconds that a guest is given to boot after its start, before it is placed", "0"
    ),
    "move_memory": OptionSpec(
        "yes: pages on other nodes are migrated in small batches; no: they stay", "yes"
    ),
    "move_rate": OptionSpec(
        "Speed at which pages are migrated, in MiB per second; 0: no limit", "256"
    ),
    "move_limit": OptionSpec("Maximum of MiB to migrate per guest; empty: no limit"),
    "rebalance": OptionSpec(
        "never: a placed guest stays; on_stop: one guest may be moved when another has stopped",
        "never",
    ),
    "numa_balancing": OptionSpec(
        "kernel.numa_balancing while the profile is active: 0 avoids its page faults in"
        " pinned guests, but guests that are not placed lose it; empty: not changed"
    ),
    "isolation": OptionSpec(
        "What is kept off the CPUs of dedicated guests while they run: none; host (the host's"
        " own tasks by systemd's AllowedCPUs, guests that nobody has pinned, kernel work"
        " queues); host+irqs (interrupts too, irqbalance is told)",
        "none",
    ),
    "observe": OBSERVE,
}

NAMES = SettingNames("vm_")
"""What the options are called in a profile's settings file."""


def parse(options: Mapping[str, str]) -> PinningPolicy:
    """The policy of a profile's options. Raises BadOptions, naming all that is wrong."""
    told = given(options)
    values, errors = parsed(told, {name: read for name, (_, read) in READERS.items()})
    planned = placement.PlacementPolicy()
    try:
        planned = placement.parse(_planners(told))
    except BadOptions as bad:
        errors = bad.errors + errors
    if errors:
        raise BadOptions(errors)
    return PinningPolicy(planned, **{READERS[name][0]: value for name, value in values.items()})


def _planners(told: Mapping[str, str]) -> dict[str, str | None]:
    return {name: text for name, text in told.items() if template(name) in PLANNERS}


def _word(name: str, text: str) -> Enum:
    kind = MODES[name]
    return kind(OneOf(tuple(str(member.value) for member in kind)).parse(name, text))


READERS: Mapping[str, tuple[str, Callable[[str, str], Any]]] = {
    "uri": ("uri", uri),
    "persist": ("persist", _word),
    "running": ("running", _word),
    "rebalance": ("rebalance", _word),
    "grace": ("grace", GRACE.plain),
    "move_memory": ("move", is_yes),
    "move_rate": ("rate", RATE.plain),
    "move_limit": ("limit", LIMIT.plain),
    "numa_balancing": ("balancing", BALANCING.plain),
    "isolation": ("isolation", _word),
    "observe": ("observe", is_yes),
}
"""Option → the policy's field, and how its text is read."""
