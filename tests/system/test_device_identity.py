# SPDX-License-Identifier: GPL-2.0-or-later
"""Loop devices that are removed, and others made with their numbers, between an apply and `off`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.loopdev import add, attached, loops, queue, remove, scheduler
from tests.sandbox import Sandbox
from tuned_virt.kernel.device_identity import DeviceReader, located
from tuned_virt.kernel.files import KernelFS

ROOT = Path(__file__).parents[2]
NAME = "loop4000"
READ_AHEAD = f"/sys/block/{NAME}/queue/read_ahead_kb"
PROFILE = f"""[main]
summary=read-ahead
[guard]
type=crash_guard
priority=-100
files=/sys/block/loop4*/queue/read_ahead_kb
[sysfs]
{READ_AHEAD}=512
[blk_elevator_virt]
role=host
devices=loop4???
host_other=bfq
"""

ANOTHER = f"{NAME} is another device now: it was removed and added since"


def read_ahead(name: str = NAME) -> int:
    return int((queue(name) / "read_ahead_kb").read_text())


@pytest.fixture
def two() -> Iterator[list[str]]:
    """Two devices whose values somebody has changed by hand."""
    with loops(2) as names:
        for name in names:
            (queue(name) / "read_ahead_kb").write_text("776")
            (queue(name) / "scheduler").write_text("kyber")
        yield names


def replace() -> tuple[int, str]:
    """Another device with the number of the first; what the kernel gives it."""
    remove(NAME)
    add(4000)
    return read_ahead(), scheduler(NAME)


def killed(tuned: Callable[..., Sandbox], generation: str) -> Sandbox:
    t = tuned(generation, profiles={"mine": PROFILE})
    t.switch("mine")
    assert t.verify(), t.verify_lines
    assert (read_ahead(), scheduler(NAME)) == (512, "bfq")
    t.kill9()
    return t


def test_another_device_keeps_what_it_has_after_a_crash(
    tuned: Callable[..., Sandbox], version: str, two: list[str]
) -> None:
    t = killed(tuned, version)
    fresh = replace()
    t.start()
    assert t.verify(), t.verify_lines
    assert f"crash_guard: {ANOTHER}; {READ_AHEAD} was 776, which is not restored" in t.verify_lines
    assert f"blk_elevator_virt: {ANOTHER}; its scheduler was kyber" in t.verify_lines
    t.off()
    assert (read_ahead(), scheduler(NAME)) == fresh
    assert (read_ahead(two[1]), scheduler(two[1])) == (776, "kyber")


def test_restore_says_whose_original_it_was(
    tuned: Callable[..., Sandbox], version: str, two: list[str]
) -> None:
    t = killed(tuned, version)
    fresh = replace()
    done = t.run(["tuned-virt", "restore"])
    for setting in (READ_AHEAD, f"{NAME}/scheduler"):
        assert f"{setting}: nothing to restore: {ANOTHER}" in done.stdout, done.stdout
    assert (read_ahead(), scheduler(NAME)) == fresh
    assert (read_ahead(two[1]), scheduler(two[1])) == (776, "kyber")
    assert not (t.root / "run/tuned-virt/baseline.json").exists()


def test_a_loop_device_with_another_file_is_the_same(
    tuned: Callable[..., Sandbox], version: str, two: list[str]
) -> None:
    """The queue stays, and our values in it; a new file may reset read-ahead, which is restored."""
    t = killed(tuned, version)
    with attached(NAME):
        t.start()
        t.off()
        assert (read_ahead(), scheduler(NAME)) == (776, "kyber")


def test_what_an_older_version_kept_is_restored(
    tuned: Callable[..., Sandbox], version: str, two: list[str]
) -> None:
    t = killed(tuned, version)
    file = t.root / "run/tuned-virt/baseline.json"
    entry = KernelFS().entries("/sys/block")[NAME]
    text = file.read_text()
    assert f"/sys/block/{NAME}#{entry}/queue" in text
    file.write_text(text.replace(f"/sys/block/{NAME}#{entry}/", f"/sys/block/{NAME}/"))
    t.start()
    t.off()
    assert read_ahead() == 776


RENAMED = """
import subprocess
from tuned_virt.kernel.device_identity import DeviceReader, located
from tuned_virt.kernel.files import KernelFS

subprocess.run(["mount", "-t", "sysfs", "none", "/sys"], check=True)
subprocess.run(["ip", "tuntap", "add", "dev", "lan0", "mode", "tap"], check=True)
file = "/proc/sys/net/ipv4/conf/lan0/rp_filter"
before = DeviceReader(KernelFS()).identify(file)
subprocess.run(["ip", "link", "set", "lan0", "name", "lan1"], check=True)
subprocess.run(["ip", "tuntap", "add", "dev", "lan0", "mode", "tap"], check=True)
print(located(before, DeviceReader(KernelFS()).beside(before)).path)
subprocess.run(["ip", "link", "delete", "lan1"], check=True)
print(located(before, DeviceReader(KernelFS()).beside(before)))
"""


@pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="this kernel has no tap devices")
def test_a_network_interface_is_followed_to_its_new_name() -> None:
    done = subprocess.run(
        ["unshare", "--net", "--mount", sys.executable, "-c", RENAMED],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["/proc/sys/net/ipv4/conf/lan1/rp_filter", "None"]


def test_the_kernel_gives_each_device_an_entry_of_its_own() -> None:
    with loops(1):
        before = DeviceReader(KernelFS()).identify(READ_AHEAD)
        assert located(before, DeviceReader(KernelFS()).beside(before)) == before
        remove(NAME)
        assert located(before, DeviceReader(KernelFS()).beside(before)) is None
        add(4000)
        assert located(before, DeviceReader(KernelFS()).beside(before)) is None
