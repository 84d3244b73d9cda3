# SPDX-License-Identifier: GPL-2.0-or-later
"""The host itself: TuneD's profile, governor, KVM's parameters, NUMA balancing: chapters 4, 9."""

from __future__ import annotations

from collections.abc import Iterator

from tuned_virt.audit.rule import ByProfile, Found, Severity, guest_rule, host_rule
from tuned_virt.audit.scene import AuditedGuest, Scene

NESTED = ("vmx", "svm")

NO_PROFILE = "no profile is active"

KVM_DEFAULT = 200_000
"""ns; the kernel's default of halt_poll_ns on x86."""


@host_rule(
    "host-profile",
    Severity.WARNING,
    checks="a host with guests and without a TuneD profile for hosts",
    advice="virtual-host-plus, or virtual-host",
    why="swappiness, write-back, governor and KSM are those of an ordinary server",
    guide="4.2",
    page="https://manpages.ubuntu.com/manpages/noble/man7/tuned-profiles.7.html",
    mends="tuned-adm profile virtual-host-plus",
)
def profile(scene: Scene) -> Iterator[Found]:
    """Profiles that include one of them have another name: an info then."""
    if not scene.running:
        return
    active = scene.facts.profiles.get()
    if not any("virtual-host" in name for name in active):
        told = f"the active profile is {' '.join(active)[:60]}" if active else NO_PROFILE
        yield Found(told, severity=Severity.INFO if active else None)


@host_rule(
    "host-governor",
    Severity.WARNING,
    checks="a CPU frequency governor that keeps CPUs slow while guests wait",
    advice="performance; or schedutil where power matters more than latency",
    why="a vCPU sleeps and wakes often, so the governor takes its CPU for idle",
    guide="4.2",
    page="https://docs.kernel.org/admin-guide/pm/cpufreq.html",
    mends="cpupower frequency-set --governor performance",
    profile=ByProfile("power=stock", by_itself=True),
)
def governor(scene: Scene) -> Iterator[Found]:
    """intel_pstate and amd-pstate-epp choose frequencies themselves under powersave."""
    if not scene.running:
        return
    frequency = scene.facts.frequency.get()
    slow = frequency.governors - {"performance"}
    if slow:
        own = frequency.driver in ("intel_pstate", "amd-pstate-epp")
        mild = own or not slow & {"powersave", "conservative"}
        told = f"{', '.join(sorted(slow))} of {frequency.driver or 'an unknown driver'}"
        yield Found(told, severity=Severity.INFO if mild else None)


@host_rule(
    "host-c-states",
    Severity.INFO,
    checks="idle states that take longer to leave than the profile for hosts allows",
    advice="no idle state that takes over 70 µs to leave, as virtual-host has it",
    why="each wake-up of a vCPU waits until its CPU is awake",
    guide="4.2",
    page="https://docs.kernel.org/admin-guide/pm/cpuidle.html",
    mends="tuned-adm profile virtual-host-plus",
    profile=ByProfile("power=stock", by_itself=True),
)
def c_states(scene: Scene) -> Iterator[Found]:
    """Where the profile is active its own latency limit is in force."""
    if not scene.running or any("virtual-host" in name for name in scene.facts.profiles.get()):
        return
    deep = {name: wait for name, wait in scene.facts.idle_states.get().items() if wait > DEEPEST}
    if deep:
        yield Found(", ".join(f"{name} takes {wait} µs" for name, wait in sorted(deep.items())))


DEEPEST = 70
"""µs; virtual-host's force_latency (cstate.id_no_zero:3|70)."""


@host_rule(
    "host-halt-poll",
    Severity.INFO,
    checks="KVM's halt_poll_ns turned off, or on while CPUs are overcommitted",
    advice=f"{KVM_DEFAULT}; 0 where vCPUs wait for CPUs",
    why="polling saves wake-ups of idle vCPUs, and costs CPU time that other vCPUs wait for",
    page="https://docs.kernel.org/virt/kvm/halt-polling.html",
    mends="echo {value} > /sys/module/kvm/parameters/halt_poll_ns",
)
def halt_poll(scene: Scene) -> Iterator[Found]:
    """Twice as many vCPUs as CPUs count as overcommitted."""
    vcpus, cpus = sum(len(one.guest.online) for one in scene.running), len(scene.topology.cpus)
    if not vcpus:
        return
    value, crowded = scene.facts.halt_poll_ns.get(), vcpus > 2 * cpus
    if value == 0 and not crowded:
        yield Found("halt_poll_ns is 0", {"value": KVM_DEFAULT})
    if value > 0 and crowded:
        yield Found(f"halt_poll_ns is {value}, with {vcpus} vCPUs on {cpus} CPUs", {"value": 0})


@guest_rule(
    "host-nested-off",
    Severity.WARNING,
    checks="a guest that requires vmx or svm on a host without nested virtualization",
    advice="nested=1 of kvm_intel or kvm_amd, or a guest without the feature",
    why="the guest does not start, or finds no /dev/kvm",
    page="https://docs.kernel.org/virt/kvm/x86/nested-vmx.html",
    mends="echo 'options kvm_intel nested=1' > /etc/modprobe.d/kvm-nested.conf",
)
def nested_off(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """By <feature policy='require'>."""
    wanted = [name for name in one.hardware.cpu_requires if name in NESTED]
    if wanted and not scene.facts.nested.get():
        yield Found(f"it requires {wanted[0]}, and nested is off")


@host_rule(
    "host-numa-balancing",
    Severity.INFO,
    checks="automatic NUMA balancing on a host whose guests are all pinned",
    advice="numa_balancing=0 where every guest is pinned with its memory",
    why="the kernel unmaps pages to see who uses them, and has nothing left to improve",
    guide="9.3",
    page="https://docs.kernel.org/admin-guide/sysctl/kernel.html",
    mends="sysctl -w kernel.numa_balancing=0",
    profile=ByProfile("vm_numa_balancing=0"),
)
def numa_balancing(scene: Scene) -> Iterator[Found]:
    """One guest that floats profits from it."""
    guests = scene.running
    kept = [one for one in guests if one.pins.vcpus and (one.pins.nodes or one.pins.memnodes)]
    whole = guests and len(kept) == len(guests) and scene.several_nodes
    if whole and scene.facts.numa_balancing.get():
        yield Found(f"numa_balancing is on, and all {len(guests)} guests are pinned")
