# SPDX-License-Identifier: GPL-2.0-or-later
"""Who else places guests on a made-up host, and what the manual advises against one of them."""

from __future__ import annotations

import re
from pathlib import Path

from tests.unit.model.guest.test_qemu_process import process
from tuned_virt.kernel.files import KernelFS
from tuned_virt.plugins.vm_pinning import conflicts

FILES = {
    "proc/200/comm": "numad\n",
    "proc/200/cmdline": "numad\0",
    "proc/1/status": "Cpus_allowed_list:\t0-1\n",
    "sys/devices/system/cpu/online": "0-7\n",
    "sys/devices/system/cpu/isolated": "6-7\n",
    "proc/sys/kernel/numa_balancing": "1\n",
    "sys/fs/cgroup/machine.slice/cpuset.cpus": "0-3\n",
    "etc/tuned/active_profile": "cpu-partitioning\n",
}


def test_neighbours_are_named(tmp_path: Path) -> None:
    for path, text in FILES.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    notes = "\n".join(conflicts.notes(KernelFS(tmp_path)))
    for word in ("numad", "isolcpus=6-7", "numa_balancing", "CPUAffinity", "0-3", "ps_blacklist"):
        assert word in notes


def test_a_cpuset_of_systemds_own_scope_is_not_its_cpuaffinity(tmp_path: Path) -> None:
    """isolation=host takes dedicated CPUs from init.scope, as AllowedCPUs= there does."""
    confined = {
        "proc/1/status": "Cpus_allowed_list:\t0-2\n",
        "sys/devices/system/cpu/online": "0-3\n",
        "sys/fs/cgroup/init.scope/cpuset.cpus.effective": "0-2\n",
    }
    for path, text in confined.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert not any("CPUAffinity" in note for note in conflicts.notes(KernelFS(tmp_path)))
    (tmp_path / "proc/1/status").write_text("Cpus_allowed_list:\t0-1\n")
    [note] = [note for note in conflicts.notes(KernelFS(tmp_path)) if "CPUAffinity" in note]
    assert "confines services to 0-1" in note


def test_the_manuals_child_profile_spares_qemu_from_the_scheduler_plugin() -> None:
    manual = (Path(__file__).parents[4] / "docs/pinning.7.md").read_text()
    found = re.search(r"^ +ps_blacklist=(\S+)$", manual, re.MULTILINE)
    assert found
    for program in ("qemu-system-x86_64", "/usr/libexec/qemu-kvm", "/usr/bin/qemu-system-aarch64"):
        assert any(re.search(pattern, program) for pattern in found[1].split(";"))
    assert "include=virtual-host-plus,cpu-partitioning" in manual


def test_guests_that_are_not_libvirts(tmp_path: Path) -> None:
    for pid in range(7, 14):
        words = f"kvm -id {pid} -name vm{pid} -pidfile /var/run/qemu-server/{pid}.pid"
        process(tmp_path, pid, "kvm", "/usr/bin/qemu-system-x86_64", words)
    process(tmp_path, 20, "qemu-kvm", "/usr/libexec/qemu-kvm", "q -S /var/lib/libvirt/qemu/d")
    [said] = [note for note in conflicts.notes(KernelFS(tmp_path)) if "not placed" in note]
    assert said == (
        "guests that libvirt has not started are not placed: vm7 (process 7), vm8 (process 8),"
        " vm9 (process 9), vm10 (process 10), vm11 (process 11), …; whoever starts them pins them"
    )
