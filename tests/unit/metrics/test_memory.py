# SPDX-License-Identifier: GPL-2.0-or-later
"""KSM's and the pools' families."""

from __future__ import annotations

from tuned_virt.metrics import memory
from tuned_virt.metrics.memory import KsmValues
from tuned_virt.model.topology.huge_pages import Pool
from tuned_virt.plugins.hugepages_numa.pools import size_name


def test_ksm_of_an_old_kernel_has_no_profit() -> None:
    values = KsmValues(run=1, saved=8192, shared=4096, profit=None, cpu=0.0, scans=0)
    found = {one.family.name: dict(one.values) for one in memory.of_ksm(values)}
    assert found["tuned_virt_ksm_profit_bytes"] == {}
    assert found["tuned_virt_ksm_cpu_seconds_total"] == {(): 0}
    assert found["tuned_virt_ksm_saved_bytes"] == {(): 8192}


def test_pools_in_bytes_by_node_and_size() -> None:
    pools = [Pool(0, 2048, total=10, free=4, surplus=2), Pool(1, 1 << 20, 1, 0, 0)]
    made = memory.of_pools(pools, {2048: 3, 1 << 20: 0}, size_name)
    found = {one.family.name.removeprefix("tuned_virt_hugepages_"): one.values for one in made}
    assert found == {
        "pool_bytes": {("0", "2M"): 20 << 20, ("1", "1G"): 1 << 30},
        "free_bytes": {("0", "2M"): 8 << 20, ("1", "1G"): 0},
        "surplus_bytes": {("0", "2M"): 4 << 20, ("1", "1G"): 0},
        "reserved_bytes": {("2M",): 6 << 20, ("1G",): 0},
    }
