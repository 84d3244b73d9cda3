# SPDX-License-Identifier: GPL-2.0-or-later
"""What may be asked of huge pages: the options of each size, and what they are read as."""

from __future__ import annotations

import pytest

from tuned_virt.core.options import BadOptions
from tuned_virt.plugins.hugepages_numa import policy


@pytest.mark.parametrize("size", ["64K", "2M", "1G", "16G"])
def test_each_size_has_its_options(size: str) -> None:
    described = policy._sized()
    assert described.items() <= policy.OPTIONS.items()
    assert described[f"pages_{size}"].hint.startswith(f"huge pages of {size}: NODE:PAGES or ")
    assert described[f"mount_{size}"].hint.startswith(f"where huge pages of {size} are mounted: ")
    assert described[f"overcommit_{size}"].hint == (
        f"maximum of surplus pages of {size} that the kernel may allocate on demand,"
        " on all nodes together"
    )


@pytest.mark.parametrize(
    ("name", "text"), [("pages_2M", "0:٣"), ("reserve_free", "٣"), ("headroom", "٣%")]
)
def test_numbers_are_ascii(name: str, text: str) -> None:
    with pytest.raises(BadOptions, match=f"option '{name}': '{text}' is not valid"):
        policy.parse({name: text})


def test_pools_of_guests_as_they_are_written() -> None:
    [pool] = policy.parse({"pages_2M": " guests "}).pools
    assert pool == policy.PoolRequest(2048, "guests", guests=True)
