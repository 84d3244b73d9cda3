# SPDX-License-Identifier: GPL-2.0-or-later
"""isolation= on a real kernel, with a real systemd, control groups version 2 and interrupts.

systemd is the first process of namespaces of its own, as in a container: its units, control groups
and drop-ins are real, and so are the machine's work queues and interrupts.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tuned_virt.core.engine import Result
from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Originals
from tuned_virt.kernel import cpuset, procfs, systemd, unit_cpus
from tuned_virt.kernel.commands import ToolError, run
from tuned_virt.kernel.files import KernelFS
from tuned_virt.kernel.irqbalance import Irqbalance
from tuned_virt.plugins.vm_pinning.isolation import host as isolated_host
from tuned_virt.plugins.vm_pinning.isolation.controller import HostIsolation, IsolationTuner
from tuned_virt.plugins.vm_pinning.isolation.planner import WORKQUEUES, HostIsolationPolicy

UNITS = ("system.slice", "user.slice", "init.scope")
DEDICATED = frozenset({4, 5, 6, 7})

GROUP = "/sys/fs/cgroup/isolation-test"

ENTER = f"""
echo 0 >{GROUP}/cgroup.procs
exec unshare --cgroup bash -euc "$1"
"""
"""Only what systemd starts is in its control group, which must have no process of its own."""

INIT = """
mount --make-rprivate /
mount -t tmpfs -o mode=755 run /run
umount -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/systemd/system
cat >/run/systemd/system/tasks.service <<END
[Unit]
DefaultDependencies=no
[Service]
ExecStart=/bin/sleep infinity
END
cat >/run/systemd/system/tasks.target <<END
[Unit]
DefaultDependencies=no
Requires=tasks.service
END
export container=test
exec /lib/systemd/systemd --system --unit=tasks.target --log-target=kmsg
"""

TIMEOUT = 90


class Systemd(KernelFS):
    """A systemd in namespaces of its own, and the kernel's files as it sees its part of them."""

    def __init__(self) -> None:
        super().__init__("/")
        flags = ("--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
        Path(GROUP).mkdir()
        self.process = subprocess.Popen(["unshare", *flags, "bash", "-euc", ENTER, "bash", INIT])
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        wait_for(lambda: children.read_text() != "")
        self.pid = int(children.read_text())
        wait_for(lambda: Path(f"/proc/{self.pid}/comm").read_text() == "systemd\n")
        wait_for(lambda: "tasks.service" in self.systemctl("list-units", "--state=running"))

    def _real(self, path: str) -> str:
        own = ("/run/systemd", "/sys/fs/cgroup")
        if path.startswith(own):
            return f"/proc/{self.pid}/root{path}"
        return path.replace("/proc/1/", f"/proc/{self.pid}/")

    def systemctl(self, *words: str, seconds: float = TIMEOUT) -> str:
        target = ("--target", str(self.pid), "--mount", "--pid", "--cgroup")
        with contextlib.suppress(ToolError):
            return run("nsenter", *target, "systemctl", *words, seconds=TIMEOUT)
        return ""

    def task(self) -> str:
        """Where the service's process may run."""
        pid = self.systemctl("show", "--property=MainPID", "--value", "tasks.service")
        inside = f"/proc/{self.pid}/root/proc/{pid}/status"
        allowed = [line for line in Path(inside).read_text().splitlines() if "allowed_list" in line]
        return allowed[0].split()[1]

    def stop(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.process.wait()


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < until, run("dmesg", seconds=TIMEOUT)[-5000:]
        time.sleep(0.2)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    Path("/sys/fs/cgroup/cgroup.subtree_control").write_text("+cpuset")
    one = Systemd()
    monkeypatch.setattr(systemd, "systemctl", one.systemctl)
    yield one
    one.stop()
    wait_for(lambda: "populated 0" in Path(f"{GROUP}/cgroup.events").read_text())
    for folder in sorted(Path(GROUP).rglob("*/"), key=lambda one: -len(one.parts)):
        if folder.is_dir():
            folder.rmdir()
    Path(GROUP).rmdir()


def state(host: Systemd) -> dict[str, str]:
    """All that isolation changes, as systemd and the kernel have it."""
    shown = host.systemctl("show", "--property=Id,AllowedCPUs,EffectiveCPUs", *UNITS)
    files = [*isolated_host.MASKS.values(), *host.glob("/proc/irq/*/smp_affinity_list")]
    groups = [f"/sys/fs/cgroup/{unit}/cpuset.cpus" for unit in UNITS]
    folders = [sorted(host.names(folder)) for folder in unit_cpus.DROP_INS]
    found = {file: host.read_optional(file) or "" for file in [*files, *groups]}
    return {**found, "shown": shown, "drop-ins": str(folders)}


def test_tasks_work_queues_and_interrupts_are_kept_off_and_come_back(
    host: Systemd, tmp_path: Path
) -> None:
    before, everywhere = state(host), cpuset.text(os.sched_getaffinity(0))
    assert host.task() == everywhere
    tuner = IsolationTuner(Irqbalance("/nonexistent"))
    one = HostIsolation(host, Originals(tmp_path, "boot"), Journal(tmp_path / "journal"), tuner)
    policy = HostIsolationPolicy(DEDICATED, DEDICATED)
    one.adjust(policy)
    assert host.task() == "0-3"
    assert procfs.status(host, "1")["Cpus_allowed_list"] == "0-3"
    assert host.read(isolated_host.MASKS[WORKQUEUES]).lstrip("0") == "f"
    interrupts = {
        setting: cpuset.parse(cpus)
        for setting, cpus in tuner.read(host, policy, {}).found.items()
        if setting.startswith("irq ") and setting not in tuner.immovable
    }
    print(f"{len(interrupts)} interrupts are moved, {len(tuner.immovable)} cannot be")
    assert interrupts
    assert not [setting for setting, cpus in interrupts.items() if cpus & DEDICATED]
    lines = list(one.findings(set()))
    print(*lines, sep="\n")
    assert Result.FAILED not in {line.result for line in lines}
    again = HostIsolation(host, Originals(tmp_path, "boot"), Journal(tmp_path / "journal"), tuner)
    again.adjust(HostIsolationPolicy())  # as after kill -9
    again.restore()
    assert host.task() == everywhere
    assert host.systemctl("daemon-reload") == ""
    assert state(host) == before
