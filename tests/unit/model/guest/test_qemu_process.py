# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's processes, in a folder laid out as /proc."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path

import pytest

from tuned_virt.kernel.files import KernelFS
from tuned_virt.model.guest import qemu_process
from tuned_virt.model.guest.qemu_process import QemuProcesses, identify

KIB = os.sysconf("SC_PAGE_SIZE") // 1024


def process(
    root: Path, pid: int, comm: str, exe: str = "", cmdline: str = "x", pages: int = 100
) -> None:
    folder = root / f"proc/{pid}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "comm").write_text(comm + "\n")
    (folder / "cmdline").write_text(cmdline.replace(" ", "\0"))
    (folder / "statm").write_text(f"9999 {pages} 1 1 0 1 0\n")
    (folder / "exe").unlink(missing_ok=True)
    if exe:
        (folder / "exe").symlink_to(exe)


@pytest.mark.parametrize(
    ("comm", "exe"),
    [
        ("qemu-system-x86", "/usr/bin/qemu-system-x86_64"),
        ("qemu-kvm", "/usr/libexec/qemu-kvm"),
        ("kvm", "/usr/bin/qemu-system-x86_64"),
        ("web1", "/usr/bin/qemu-system-aarch64"),
        ("qemu-system-x86", "/usr/bin/qemu-system-x86_64 (deleted)"),
        ("qemu-system-x86", "/opt/my qemu/bin/qemu-system-x86_64-headless"),
        ("qemu-system-s39", ""),
        ("cloud-hyperviso", "/usr/bin/cloud-hypervisor"),
        ("cloud-hyperviso", ""),
    ],
)
def test_qemu_under_any_of_its_names(tmp_path: Path, comm: str, exe: str) -> None:
    process(tmp_path, 7, comm, exe)
    assert identify(KernelFS(tmp_path), 7)


@pytest.mark.parametrize(
    ("comm", "exe", "cmdline"),
    [
        ("bash", "/usr/bin/bash", "bash -c qemu-system-x86_64 -enable-kvm"),
        ("qemu-x86_64", "/usr/bin/qemu-x86_64", "qemu-x86_64 ./a.out"),
        ("qemu-img", "/usr/bin/qemu-img", "qemu-img convert"),
        ("qemu-system-x86", "/usr/bin/python3.11", "python3 fake"),
        ("kvm", "", ""),
        ("kvm-nx-lpage-re", "", ""),
    ],
)
def test_what_is_no_guest(tmp_path: Path, comm: str, exe: str, cmdline: str) -> None:
    process(tmp_path, 7, comm, exe, cmdline)
    assert identify(KernelFS(tmp_path), 7) is None


def test_what_the_command_line_says(tmp_path: Path) -> None:
    words = "q -name guest=web\x1b[31m1,debug-threads=on -machine pc,mem-merge=off -uuid 12-ab"
    process(tmp_path, 7, "qemu-kvm", "/usr/libexec/qemu-kvm", words)
    guest = identify(KernelFS(tmp_path), 7)
    assert guest
    assert (guest.uuid, guest.name, guest.shares_pages) == ("12-ab", "web?[31m1", False)
    assert guest.label == "web?[31m1 (process 7)"


@pytest.mark.parametrize(
    ("options", "mergeable"),
    [
        ("-machine type=q35+pve0 -object memory-backend-ram,id=ram-node0,size=4096M", True),
        ("-M q35,mem-merge=off", False),
        ("-machine type=q35+pve0,mem-merge=off -machine smm=off", False),
        # Proxmox VE: hugepages: 1024; and a GPU given to the guest
        ("-object memory-backend-file,id=ram-node0,mem-path=/run/hugepages/kvm,share=on", False),
        ("-device vfio-pci,host=0000:01:00.0,id=hostpci0 -device virtio-net-pci", False),
        # Kata Containers: virtiofs
        ("-object memory-backend-memfd,id=dimm1,size=2048M,share=on -numa node", False),
        ("-object memory-backend-ram,id=a -object memory-backend-memfd,id=b,share=on", True),
    ],
)
def test_memory_that_ksm_can_merge(tmp_path: Path, options: str, mergeable: bool) -> None:
    process(tmp_path, 7, "kvm", "/usr/bin/qemu-system-x86_64", f"kvm {options} -S")
    guest = identify(KernelFS(tmp_path), 7)
    assert guest
    assert guest.mergeable is mergeable


def test_processes_come_grow_and_go(tmp_path: Path) -> None:
    process(tmp_path, 1, "init", "/sbin/init")
    process(tmp_path, 7, "qemu-kvm", "/usr/libexec/qemu-kvm", pages=100)
    processes = QemuProcesses(KernelFS(tmp_path))
    assert [(g.pid, g.resident) for g in processes.guests(0)] == [(7, 100 * KIB)]
    process(tmp_path, 7, "qemu-kvm", "/usr/libexec/qemu-kvm", pages=300)
    process(tmp_path, 8, "qemu-kvm", "/usr/libexec/qemu-kvm")
    assert [g.resident for g in processes.guests(1)] == [300 * KIB, 100 * KIB]
    shutil.rmtree(tmp_path / "proc/7")
    assert [g.pid for g in processes.guests(2)] == [8]
    process(tmp_path, 8, "qemu-kvm", "/usr/libexec/qemu-kvm", pages=0)
    assert processes.guests(3) == [], "a zombie has no memory"
    processes.close()


def test_a_process_becomes_qemu_some_time_after_its_fork(tmp_path: Path) -> None:
    process(tmp_path, 7, "libvirtd", "/usr/sbin/libvirtd")
    processes = QemuProcesses(KernelFS(tmp_path))
    assert processes.guests(0) == []
    process(tmp_path, 7, "qemu-kvm", "/usr/libexec/qemu-kvm")
    assert [g.pid for g in processes.guests(qemu_process.YOUNG / 2)] == [7]


def test_a_number_used_again_is_looked_at_again(tmp_path: Path) -> None:
    process(tmp_path, 7, "bash", "/usr/bin/bash")
    processes = QemuProcesses(KernelFS(tmp_path))
    for now in (0.0, qemu_process.YOUNG, qemu_process.YOUNG + 1):
        assert processes.guests(now) == []
    process(tmp_path, 7, "qemu-kvm", "/usr/libexec/qemu-kvm")
    assert processes.guests(qemu_process.YOUNG + 2) == []
    assert [g.pid for g in processes.guests(qemu_process.RESCAN)] == [7]


def test_files_kept_open_are_bounded_and_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (6, 6))
    for pid in range(10, 20):
        process(tmp_path, pid, "qemu-kvm", "/usr/libexec/qemu-kvm")
    before = len(os.listdir("/proc/self/fd"))
    processes = QemuProcesses(KernelFS(tmp_path))
    assert len(processes.guests(0)) == 10
    assert len(os.listdir("/proc/self/fd")) == before + 3
    processes.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("command", "name", "uuid", "shares"),
    [
        ("--api-socket /run/ch/web.sock --memory size=4G,mergeable=on", "web", "", True),
        ("--api-socket path=/run/db.sock --memory size=4G", "db", "", False),
        ("--memory size=4G,mergeable=on,shared=on", "", "", False),
        ("--platform serial_number=1,uuid=aa-bb --memory mergeable=on", "", "aa-bb", True),
    ],
)
def test_cloud_hypervisor(tmp_path: Path, command: str, name: str, uuid: str, shares: bool) -> None:
    process(tmp_path, 7, "cloud-hyperviso", "/usr/bin/cloud-hypervisor", f"ch {command}")
    found = identify(KernelFS(tmp_path), 7)
    assert found == qemu_process.QemuProcess(7, uuid, name, shares)
    assert not found.by_libvirt


def test_who_has_started_it(tmp_path: Path) -> None:
    """Proxmox VE starts its guests itself."""
    proxmox = "/usr/bin/kvm -id 100 -name web -pidfile /var/run/qemu-server/100.pid"
    process(tmp_path, 7, "kvm", "/usr/bin/qemu-system-x86_64", proxmox)
    key = "file=/var/lib/libvirt/qemu/domain-1-db/master-key.aes"
    process(tmp_path, 8, "qemu-kvm", "/usr/libexec/qemu-kvm", f"q -name db -object secret,{key}")
    found = [identify(KernelFS(tmp_path), pid) for pid in (7, 8)]
    assert [(one.name, one.by_libvirt) for one in found if one] == [("web", False), ("db", True)]
