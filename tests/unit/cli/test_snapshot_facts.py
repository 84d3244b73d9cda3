# SPDX-License-Identifier: GPL-2.0-or-later
"""Facts of a host go to JSON and come back as they were, whatever is known of them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tuned_virt.cli import snapshot_facts
from tuned_virt.frozen_dataclasses import fields
from tuned_virt.model.host_facts import (
    BackingDisk,
    CpuFrequency,
    Fact,
    HostFacts,
    KsmSettings,
    NetworkLink,
)

NAME = st.text(max_size=6)
NAMES = st.lists(NAME, max_size=3).map(tuple)
NUMBER = st.integers(0, 1 << 62)
VALUES: dict[str, SearchStrategy[Any]] = {
    **dict.fromkeys(
        ("kvm", "numad", "vhost_net", "nested", "numa_balancing", "arp_filter"), st.booleans()
    ),
    "swap": NUMBER,
    "halt_poll_ns": NUMBER,
    "thp": NAME,
    "ksm": st.builds(KsmSettings, st.booleans(), st.booleans()),
    "mounted": st.frozensets(NUMBER, max_size=3),
    "subnets": st.dictionaries(NAME, NAMES, max_size=3),
    "links": st.dictionaries(NAME, st.builds(NetworkLink, NUMBER, NAME), max_size=3),
    "frequency": st.builds(CpuFrequency, st.frozensets(NAME, max_size=2), NAME),
    "schedulers": st.dictionaries(NAME, NAME, max_size=3),
    "backing": st.dictionaries(NAME, st.builds(BackingDisk, NAMES, NAME, NAME, NAME), max_size=2),
    "idle_states": st.dictionaries(NAME, NUMBER, max_size=3),
    "profiles": NAMES,
}


def known(value: SearchStrategy[Any]) -> SearchStrategy[Fact[Any]]:
    """A fact that is known, or has a reason."""
    return st.one_of(value.map(lambda one: Fact(one, "")), NAME.map(lambda why: Fact(None, why)))


FACTS = st.fixed_dictionaries({name: known(value) for name, value in VALUES.items()}).map(
    lambda made: HostFacts(**made)
)


@given(FACTS)
def test_they_come_back(facts: HostFacts) -> None:
    content = json.loads(json.dumps(snapshot_facts.content(facts)))
    assert snapshot_facts.read(content) == facts
    assert content.keys() == snapshot_facts.MADE.keys() == VALUES.keys()


def test_every_fact_is_there_and_one_that_is_not_is_unknown() -> None:
    assert snapshot_facts.MADE.keys() == {one.name for one in fields(HostFacts)}
    assert snapshot_facts.read({"kvm": {"value": False}}) == HostFacts(kvm=Fact(False, ""))
