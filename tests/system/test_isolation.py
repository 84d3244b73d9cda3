# SPDX-License-Identifier: GPL-2.0-or-later
"""isolation= with TuneD as a service of a real systemd, a real libvirtd and this machine's kernel.

AllowedCPUs= needs control groups version 2: where this machine has version 1, that it says so.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import debian
from tests.libvirtd import Libvirtd
from tests.machine_in_use import put
from tests.sandbox import REPO, SystemdSandbox, wait_for
from tuned_virt.kernel import cpuset, systemd, unit_cpus
from tuned_virt.kernel.files import KernelFS
from tuned_virt.plugins.vm_pinning.isolation.host import ONLINE, mask
from tuned_virt.plugins.vm_pinning.isolation.planner import UNITS

pytestmark = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one CPU is for the host")

PROFILE = """[main]
summary=x
[vm_pinning]
policy=dedicated
housekeeping=0
isolation=host+irqs
"""

WORKQUEUES = Path("/sys/devices/virtual/workqueue/cpumask")


def kernel() -> dict[str, str]:
    """Where work queues and interrupts may run."""
    files = [WORKQUEUES, Path("/proc/irq/default_smp_affinity")]
    files += Path("/proc/irq").glob("*/smp_affinity_list")
    return {str(file): file.read_text().strip() for file in files}


@pytest.fixture
def everywhere() -> Iterator[None]:
    """Work queues and interrupts may use all CPUs, whatever this machine's owner has chosen."""
    own, cpus = kernel(), Path(ONLINE).read_text().strip()
    for file in own:
        put(file, cpus if file.endswith("list") else mask(cpus))
    yield
    for file, text in own.items():
        put(file, text)


@pytest.fixture
def libvirtd(tuned_service: SystemdSandbox) -> Iterator[Libvirtd]:
    with Libvirtd(tuned_service) as one:
        yield one


def workqueues() -> frozenset[int]:
    return cpuset.parse_mask(WORKQUEUES.read_text())


@pytest.mark.usefixtures("everywhere")
def test_a_dedicated_guest_isolates_while_it_runs(
    tuned_service: SystemdSandbox, libvirtd: Libvirtd
) -> None:
    t, before = tuned_service, kernel()
    assert 1 in workqueues()
    for folder in ("/etc/tuned", "/etc/tuned/profiles"):
        t.write(f"{folder}/isolated/tuned.conf", PROFILE)
    t.switch("isolated")
    assert kernel() == before, "no guest runs"
    libvirtd.start_guest("gaming")
    wait_for("isolated", lambda: 1 not in workqueues(), 30)
    wait_for("applied", lambda: not t.verify() and "may run on CPUs 1" in t.verify_lines)
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        assert "host tasks: AllowedCPUs= needs control groups version 2" in t.verify_lines
    t.kill9()
    assert kernel() == before, "its service restores what a killed TuneD leaves"
    t.start()
    wait_for("isolated anew", lambda: 1 not in workqueues(), 30)
    libvirtd.stop_guest("gaming")
    wait_for("as before", lambda: kernel() == before)
    libvirtd.start_guest("gaming")
    wait_for("isolated again", lambda: 1 not in workqueues(), 30)
    t.off()
    wait_for("as before", lambda: kernel() == before)


def drop_ins(fs: KernelFS) -> list[list[str]]:
    """What `systemctl set-property --runtime` has left, by folder."""
    return [sorted(fs.names(folder)) for folder in unit_cpus.DROP_INS]


def test_systemd_takes_cpus_and_forgets_them_without_a_trace(
    tuned_service: SystemdSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its part that needs no control groups version 2."""
    t, fs = tuned_service, KernelFS(tuned_service.root)

    def systemctl(*words: str, seconds: float = 0) -> str:
        return t.run(["systemctl", *words]).stdout.strip()

    monkeypatch.setattr(systemd, "systemctl", systemctl)
    assert unit_cpus.read(UNITS) == dict.fromkeys(UNITS, "")
    before = drop_ins(fs)
    for unit in UNITS:
        unit_cpus.write(fs, unit, "0", runtime=True)
    assert unit_cpus.read(UNITS) == dict.fromkeys(UNITS, "0")
    systemctl("daemon-reload")
    assert unit_cpus.read(UNITS) == dict.fromkeys(UNITS, "0")
    assert all(unit_cpus.is_runtime(fs, unit) for unit in UNITS)
    for unit in UNITS:
        unit_cpus.write(fs, unit, "", runtime=False)
    assert unit_cpus.read(UNITS) == dict.fromkeys(UNITS, "")
    assert drop_ins(fs) == before
    systemctl("daemon-reload")
    assert unit_cpus.read(UNITS) == dict.fromkeys(UNITS, "")


IRQBALANCE = """
mount -t tmpfs run /run
mkdir /run/irqbalance /run/irq
mount --bind /run/irq /proc/irq
"$1" --foreground --interval=1 &
while ! ls /run/irqbalance/*.sock; do sleep 0.1; done
"$2" -c "$3"
kill $!
"""
"""One that sees no interrupt that it could move: this machine's are not its own to place."""

BANS = """
import time
from tuned_virt.kernel.irqbalance import Irqbalance
def wait_for(cpus):
    until = time.monotonic() + 20
    while Irqbalance().banned() != cpus:
        assert time.monotonic() < until, Irqbalance().banned()
        time.sleep(0.1)
wait_for(frozenset())
Irqbalance().ban("1")
wait_for(frozenset({1}))
Irqbalance().ban("")
wait_for(frozenset())
print("told")
"""


def test_a_real_irqbalance_takes_what_it_is_told(tmp_path: Path) -> None:
    suite = debian.Suite("bookworm", debian.CACHE)
    suite.update()
    program = suite.unpack("irqbalance", tmp_path) / "usr/sbin/irqbalance"
    unshare = ["unshare", "--mount", "--propagation", "private", "bash", "-euc", IRQBALANCE, "bash"]
    argv = [*unshare, str(program), sys.executable, BANS]
    done = subprocess.run(argv, cwd=REPO, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines()[-1:] == ["told"], done.stdout + done.stderr
