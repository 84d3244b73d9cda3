# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known of a host to JSON, and back: a value, or why there is none.

What cannot be read has its reason, what is not there has a value that says so (false, 0, empty).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from tuned_virt.frozen_dataclasses import asdict, fields
from tuned_virt.model.host_facts import (
    BackingDisk,
    CpuFrequency,
    Fact,
    HostFacts,
    KsmSettings,
    NetworkLink,
)

T = TypeVar("T")


def fact_content(fact: Fact[T], plain: Callable[[T], Any] = lambda value: value) -> dict[str, Any]:
    """One fact as JSON has it: an object with *value*, or with *why*."""
    return {"why": fact.why} if fact.value is None else {"value": plain(fact.value)}


def fact(content: Mapping[str, Any], made: Callable[[Any], T]) -> Fact[T]:
    """What `fact_content` wrote."""
    return Fact(made(content["value"]), "") if "value" in content else Fact(None, content["why"])


def content(facts: HostFacts) -> dict[str, Any]:
    """All facts as JSON has them."""
    plain = asdict(facts)
    return {
        one.name: fact_content(Fact(plain[one.name]["value"], plain[one.name]["why"]), _lists)
        for one in fields(facts)
    }


def _lists(value: Any) -> Any:
    """The same without sets, which JSON does not have."""
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, dict):
        return {name: _lists(one) for name, one in value.items()}
    return value


def read(content: Mapping[str, Any]) -> HostFacts:
    """The facts that `content` wrote; one that it does not have is not known."""
    return HostFacts(
        **{name: fact(content[name], made) for name, made in MADE.items() if name in content}
    )


def _ksm(value: Any) -> KsmSettings:
    return KsmSettings(value["run"], value["across_nodes"])


def _subnets(value: Any) -> dict[str, tuple[str, ...]]:
    return {network: tuple(names) for network, names in value.items()}


def _links(value: Any) -> dict[str, NetworkLink]:
    return {
        name: NetworkLink(*(one[part.name] for part in fields(NetworkLink)))
        for name, one in value.items()
    }


def _frequency(value: Any) -> CpuFrequency:
    return CpuFrequency(frozenset(value["governors"]), value["driver"])


def _backing(value: Any) -> dict[str, BackingDisk]:
    return {
        name: BackingDisk(tuple(one["guests"]), one["scheduler"], one["wanted"], one["why"])
        for name, one in value.items()
    }


MADE: Mapping[str, Callable[[Any], Any]] = {
    "kvm": bool,
    "numad": bool,
    "swap": int,
    "thp": str,
    "ksm": _ksm,
    "mounted": frozenset,
    "vhost_net": bool,
    "nested": bool,
    "halt_poll_ns": int,
    "numa_balancing": bool,
    "arp_filter": bool,
    "subnets": _subnets,
    "links": _links,
    "frequency": _frequency,
    "schedulers": dict,
    "backing": _backing,
    "idle_states": dict,
    "profiles": tuple,
}
"""How each fact's value is made of what JSON has."""
