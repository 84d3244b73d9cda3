# SPDX-License-Identifier: GPL-2.0-or-later
"""Others that place threads: found, and said what becomes of placements beside them."""

from __future__ import annotations

from collections.abc import Iterator

from tuned_virt.kernel import cpuset, procfs
from tuned_virt.kernel.files import KernelFS
from tuned_virt.model.guest import qemu_process
from tuned_virt.plugins.vm_pinning import numa_balancing

CPU = "/sys/devices/system/cpu"
MACHINES = ("/sys/fs/cgroup/machine.slice", "/sys/fs/cgroup/machine")
INIT_CPUSET = "/sys/fs/cgroup/init.scope/cpuset.cpus"
ACTIVE = "/etc/tuned/active_profile"

NAMED = 5
"""Most guests that one note names."""


def notes(fs: KernelFS) -> list[str]:
    """What an administrator should know of this machine's other placers."""
    return [*_daemons(fs), *_guests(fs), *_kernel(fs), *_systemd(fs), *_tuned(fs)]


def _guests(fs: KernelFS) -> Iterator[str]:
    """Guests that cannot be pinned through libvirt: Proxmox VE's, plain QEMU's and others'."""
    found = [qemu_process.identify(fs, pid) for pid in sorted(procfs.pids(fs))]
    others = [one.label for one in found if one and not one.by_libvirt]
    if others:
        named = ", ".join(others[:NAMED]) + (", …" if len(others) > NAMED else "")
        yield (
            f"guests that libvirt has not started are not placed: {named}; whoever starts them pins"
            " them"
        )


def _daemons(fs: KernelFS) -> Iterator[str]:
    running = procfs.by_name(fs, ("numad", "irqbalance"))
    if "numad" in running:
        yield (
            "numad is running: it also moves guests' threads and pages; stop it, or set policy=none"
        )
    if "irqbalance" in running:
        yield (
            "irqbalance is running: it moves interrupts, also to dedicated CPUs;"
            " isolation=host+irqs tells it which, as IRQBALANCE_BANNED_CPULIST does"
        )


def _kernel(fs: KernelFS) -> Iterator[str]:
    isolated = fs.read_optional(f"{CPU}/isolated") or ""
    if isolated:
        yield (
            f"isolcpus={isolated}: the scheduler does not balance there, so floating guests are"
            " kept off these CPUs, and only dedicated vCPUs are put on them"
        )
    moving = numa_balancing.values(fs).get(numa_balancing.SETTING, "0")
    if moving != "0":
        yield (
            f"kernel.numa_balancing is {moving}: not changed, because guests that are not"
            " placed profit from it; numa_balancing=0 avoids its page faults in placed"
            " guests"
        )


def _systemd(fs: KernelFS) -> Iterator[str]:
    online = fs.read_optional(f"{CPU}/online") or ""
    allowed = procfs.status(fs, "1").get("Cpus_allowed_list")
    by_cpuset = (fs.read_optional(f"{INIT_CPUSET}.effective") or "").strip() or online
    if allowed and by_cpuset and not _within(by_cpuset, allowed):
        yield (
            f"systemd's CPUAffinity confines services to {allowed}: guests start there,"
            " and are placed on all CPUs"
        )
    for folder in MACHINES:
        confined = fs.read_optional(f"{folder}/cpuset.cpus") or ""
        if confined and online and not _within(online, confined):
            yield (
                f"the cpuset of {folder} confines guests to {confined}: they are placed on these"
                " CPUs alone, and an owner's pins elsewhere are refused or without effect"
            )


def _within(inner: str, outer: str) -> bool:
    try:
        return cpuset.parse(inner) <= cpuset.parse(outer)
    except ValueError:
        return True


def _tuned(fs: KernelFS) -> Iterator[str]:
    profile = (fs.read_optional(ACTIVE) or "").split()
    found = [name for name in profile if "partitioning" in name or "realtime" in name]
    if found:
        yield (
            f"profile {', '.join(found)}: TuneD's scheduler plugin moves threads off its isolated"
            " CPUs; guests are exempt only if ps_blacklist names their QEMU (see"
            " tuned-plugin-vm_pinning(7), a child profile)"
        )
