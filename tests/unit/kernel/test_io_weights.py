# SPDX-License-Identifier: GPL-2.0-or-later
"""What libvirt was given as a weight where systemd has scaled it for BFQ."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given as each
from hypothesis import strategies as st

from tests.unit.proc_guests import FakeProc
from tuned_virt.kernel import io_weights
from tuned_virt.kernel.files import KernelFileError

MACHINES = "/sys/fs/cgroup/machine.slice"


def test_the_weight_of_each_guests_scope(tmp_path: Path) -> None:
    fs = FakeProc(tmp_path)
    fs.put(f"{MACHINES}/machine-qemu\\x2d2\\x2dweb1.scope/io.weight", "default 500\n8:0 200\n")
    fs.put(f"{MACHINES}/machine-qemu\\x2d13\\x2ddb\\x2d2.scope/io.weight", "default 100\n")
    fs.put(f"{MACHINES}/machine-qemu\\x2d4\\x2dno.scope/cpu.weight", "100\n")
    fs.put(f"{MACHINES}/machine-lxc\\x2d5\\x2dbox.scope/io.weight", "default 7\n")
    fs.put("/sys/fs/cgroup/own.slice/machine-qemu\\x2d6\\x2da.scope/io.weight", "default 300\n")
    assert io_weights.of_guests(fs) == {2: 500, 13: 100, 6: 300}


def test_with_cgroup_v1_the_units_property(tmp_path: Path) -> None:
    """As systemd 252 writes it for SetUnitProperties(unit, runtime, BlockIOWeight)."""
    fs = FakeProc(tmp_path)
    unit = "/run/systemd/transient/machine-qemu\\x2d7\\x2ddb\\x2d2.scope.d"
    text = "# This is a drop-in unit file extension.\n[Scope]\nBlockIOWeight=500\n"
    fs.put(f"{unit}/50-BlockIOWeight.conf", text)
    fs.put(f"{unit}/50-CPUShares.conf", "[Scope]\nCPUShares=200\n")
    fs.put("/run/systemd/transient/run-9.scope.d/50-BlockIOWeight.conf", text)
    assert io_weights.of_guests(fs) == {7: 500}


def test_without_groups_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fs = FakeProc(tmp_path)
    assert io_weights.of_guests(fs) == {}

    def fail(pattern: str) -> list[str]:
        raise KernelFileError(pattern, "Input/output error")

    monkeypatch.setattr(fs, "glob", fail)
    assert io_weights.of_guests(fs) == {}


@pytest.mark.parametrize(
    ("weight", "bfqs"),
    [
        (1, 1),
        (100, 100),
        (200, 109),
        (300, 118),
        (500, 136),
        (666, 151),
        (1000, 181),
        (10000, 1000),
    ],
)
def test_bfqs_share_of_a_weight(weight: int, bfqs: int) -> None:
    """200, 300 and 666 are in systemd's issues 27622 and 22897; 500 was seen with systemd 252."""
    assert io_weights.bfq(weight) == bfqs
    assert io_weights.given(bfqs, weight) == weight


def test_what_systemd_did_not_write_is_as_it_reads() -> None:
    assert io_weights.given(77, 500) == 77
    assert io_weights.given(500, 100) == 500, "libvirt wrote it itself"
    assert io_weights.given(136, None) == 136


@each(st.integers(1, 10_000), st.integers(1, 10_000))
def test_more_weight_is_never_less_for_bfq(one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert 1 <= io_weights.bfq(low) <= io_weights.bfq(high) <= 1000
