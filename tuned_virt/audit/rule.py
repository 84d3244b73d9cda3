# SPDX-License-Identifier: GPL-2.0-or-later
"""What a rule is, and where all of them are: importing a topic's module registers its rules."""

from __future__ import annotations

import importlib
import pkgutil
import shlex
import string
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any

from tuned_virt.audit.scene import AuditedGuest, Scene
from tuned_virt.frozen_dataclasses import dataclass, field

GUIDE = "https://docs.redhat.com/en/documentation/red_hat_enterprise_linux/7/html/virtualization_tuning_and_optimization_guide/index"
"""Red Hat's Virtualization Tuning and Optimization Guide, whose sections rules name."""


class Severity(str, Enum):
    """Worst first."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"

    @property
    def rank(self) -> int:
        """0 is the worst."""
        return list(Severity).index(self)


@dataclass(frozen=True)
class ByProfile:
    """What of our profiles mends it: a line of the settings file; by itself: it is the default."""

    setting: str
    by_itself: bool = False
    profile: str = "virtual-host-plus"

    def __str__(self) -> str:
        if self.by_itself:
            return f"{self.profile} does this by itself ({self.setting})"
        return f"{self.profile} does this with {self.setting}"


@dataclass(frozen=True)
class Found:
    """What a rule has found: in words, and what its command is to be filled in with.

    values     None where the command does not mend this one
    severity   where this one is less or more than the rule's
    """

    what: str
    values: Mapping[str, object] | None = field(default_factory=dict)
    severity: Severity | None = None


Check = Callable[..., Iterator[Found]]


@dataclass(frozen=True)
class AuditRule:
    """A rule.

    checks    what it looks for, in a few words
    advice    what to do; why: in one sentence
    guide     section of the guide, "" where it has none; page: one of the kernel, libvirt or QEMU
    mends     a command, with {guest} and other fields that a `Found` fills in; "" where none does
    profile   which setting of our profile mends it
    """

    id: str
    topic: str
    severity: Severity
    of_guest: bool
    check: Check = field(repr=False)
    checks: str
    advice: str
    why: str
    guide: str = ""
    page: str = ""
    mends: str = ""
    profile: ByProfile | None = None

    def command(self, found: Found, guest: str = "") -> str:
        """The command that mends what was found; fields are quoted for a shell."""
        if found.values is None:
            return ""
        values = {name: shlex.quote(str(value)) for name, value in found.values.items()}
        return self.mends.format(guest=guest, **values)

    @property
    def template(self) -> str:
        """The command with its fields as names."""
        fields = {name for _, name, _, _ in string.Formatter().parse(self.mends) if name}
        return self.mends.format(**{name: name.upper() for name in fields})


RULES: dict[str, AuditRule] = {}


def _registering(of_guest: bool) -> Callable[..., Callable[[Check], Check]]:
    def decorator(identifier: str, severity: Severity, **metadata: Any) -> Callable[[Check], Check]:
        def register(check: Check) -> Check:
            topic = check.__module__.rpartition(".")[2]
            if identifier in RULES:
                raise ValueError(f"rule {identifier} is there twice")
            RULES[identifier] = AuditRule(identifier, topic, severity, of_guest, check, **metadata)
            return check

        return register

    return decorator


guest_rule = _registering(of_guest=True)
"""Registers a function of (AuditedGuest, Scene), which is called for each guest; the keywords are
the fields of `AuditRule`."""

host_rule = _registering(of_guest=False)
"""Registers a function of (Scene), which is called once."""


def all_rules() -> Mapping[str, AuditRule]:
    """Every rule by its id, in the order of topics, then as their module has them."""
    package = importlib.import_module("tuned_virt.audit")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return dict(sorted(RULES.items(), key=lambda pair: pair[1].topic))


def run(rule: AuditRule, guest: AuditedGuest | None, scene: Scene) -> Iterator[Found]:
    """What a rule finds. Raises NotKnown."""
    return rule.check(scene) if guest is None else rule.check(guest, scene)
