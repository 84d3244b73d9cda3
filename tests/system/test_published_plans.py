# SPDX-License-Identifier: GPL-2.0-or-later
"""What holds for every plan, on the captured machines, from empty to overfull."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.guests import crowds, policies
from tests.plans import check, check_no_needless_split, fresh, with_plain_memory
from tests.published import machines
from tuned_virt.placement import parse

some = settings(max_examples=3, deadline=None, suppress_health_check=[*HealthCheck])
"""Of each machine; made-up ones are many more."""


@machines.each(machines.told())
def test_plans(name: str) -> None:
    @some
    @given(st.data(), st.sampled_from([machines.by_capabilities, machines.by_sysfs]))
    def look(data: Any, read: Any) -> None:
        host = read(name)
        check(host, data.draw(crowds(host)), data.draw(policies(host)))

    look()


@machines.each(machines.told())
def test_no_guest_is_split_that_fits_in_one_node(name: str) -> None:
    @some
    @given(st.data(), st.sampled_from(["node", "dedicated"]), st.sampled_from(["1", "1.5", "4"]))
    def look(data: Any, mode: str, overcommit: str) -> None:
        host = with_plain_memory(machines.by_capabilities(name))
        crowd = data.draw(crowds(host, plain=True))
        policy = parse({"policy": mode, "overcommit": overcommit})
        check_no_needless_split(host, crowd, policy, fresh(host, crowd, policy, {}))

    look()
