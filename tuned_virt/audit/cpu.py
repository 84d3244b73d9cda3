# SPDX-License-Identifier: GPL-2.0-or-later
"""vCPUs against the host's CPUs, and the CPU model: chapters 3.3.1 and 3.3.2."""

from __future__ import annotations

from collections.abc import Iterator

from tuned_virt.audit.rule import Found, Severity, guest_rule, host_rule
from tuned_virt.audit.scene import AuditedGuest, Scene

MODELS = "https://www.qemu.org/docs/master/system/i386/cpu.html"
OVERCOMMIT = "https://docs.redhat.com/en/documentation/red_hat_enterprise_linux/7/html/virtualization_deployment_and_administration_guide/sect-overcommitting_with_kvm-overcommitting_virtualized_cpus"

DEFAULT_MODELS = ("qemu64", "qemu32", "kvm64", "kvm32")
"""QEMU's defaults on x86, which libvirt writes out when it defines a guest without <cpu>."""

MOST_PER_CORE = 10
"""vCPUs, by the page of OVERCOMMIT."""


@guest_rule(
    "cpu-over-host",
    Severity.ERROR,
    checks="a guest with more vCPUs than the host has CPUs",
    advice="give the guest at most as many vCPUs as the host has CPUs online",
    why="vCPUs of one guest then wait for each other: it spins on locks whose holder does not run",
    guide="3.3.1",
    page=OVERCOMMIT,
    mends="virt-xml {guest} --edit"
    " --vcpus maxvcpus={cpus},vcpu.current={cpus},sockets={cpus},cores=1,threads=1",
)
def over_host(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """Those that are online now count; the rest could be plugged."""
    cpus = len(scene.topology.cpus)
    if len(one.guest.online) > cpus:
        yield Found(f"{len(one.guest.online)} vCPUs on a host with {cpus} CPUs", {"cpus": cpus})


def _vcpus(scene: Scene) -> int:
    return sum(len(one.guest.online) for one in scene.running)


@host_rule(
    "cpu-overcommit",
    Severity.INFO,
    checks="running guests with more vCPUs together than the host has CPUs",
    advice="fewer vCPUs for guests that do not use theirs, or fewer guests; test under load",
    why="vCPUs wait for CPUs as soon as the guests are busy at the same time",
    guide="3.3.1",
    page=OVERCOMMIT,
)
def overcommit(scene: Scene) -> Iterator[Found]:
    """Up to the advised limit; over it see `overcommit_heavy`."""
    host, vcpus = scene.topology, _vcpus(scene)
    cores = len({cpu.siblings for cpu in host.cpus.values()})
    if len(host.cpus) < vcpus <= MOST_PER_CORE * cores:
        ratio = vcpus / len(host.cpus)
        yield Found(f"{vcpus} vCPUs run on {len(host.cpus)} CPUs, {ratio:.1f} to one")


@host_rule(
    "cpu-overcommit-heavy",
    Severity.WARNING,
    checks=f"more than {MOST_PER_CORE} vCPUs of running guests per core of the host",
    advice=f"at most {MOST_PER_CORE} vCPUs per physical core; move guests to another host",
    why="every vCPU waits for others most of the time, and timers and network peers run out",
    guide="3.3.1",
    page=OVERCOMMIT,
)
def overcommit_heavy(scene: Scene) -> Iterator[Found]:
    """By cores: siblings are one."""
    host, vcpus = scene.topology, _vcpus(scene)
    cores = len({cpu.siblings for cpu in host.cpus.values()})
    if vcpus > MOST_PER_CORE * cores:
        yield Found(f"{vcpus} vCPUs run on {cores} cores")


@guest_rule(
    "cpu-model-default",
    Severity.WARNING,
    checks="a guest with QEMU's default CPU model instead of the host's",
    advice="host-model, or host-passthrough where the guest is never migrated to other CPUs",
    why="the default has no AVX, AES or TSC deadline timer, and no fixes for CPU vulnerabilities",
    guide="3.3.2",
    page=MODELS,
    mends="virt-xml {guest} --edit --cpu host-model",
)
def model_default(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """On x86 under KVM: elsewhere libvirt's default is the host's CPU."""
    hardware = one.hardware
    if one.guest.type != "kvm" or not one.is_x86:
        return
    if hardware.cpu_mode == "" or hardware.cpu_model in DEFAULT_MODELS:
        model = hardware.cpu_model or "none, so it gets qemu64"
        yield Found(f"its CPU model is {model}")


@guest_rule(
    "cpu-model-named",
    Severity.INFO,
    checks="a guest with a named CPU model, which may lack features of the host",
    advice="host-model, unless the guest migrates between hosts whose oldest CPU is this model",
    why="features that the host has beyond the model are not used",
    guide="3.3.2",
    page="https://libvirt.org/formatdomain.html#cpu-model-and-topology",
    mends="virt-xml {guest} --edit --cpu host-model",
)
def model_named(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """A model that somebody has chosen."""
    hardware = one.hardware
    named = hardware.cpu_mode == "custom" and hardware.cpu_model not in DEFAULT_MODELS
    if one.guest.type == "kvm" and named and hardware.cpu_model:
        yield Found(f"its CPU model is {hardware.cpu_model[:60]}")


@guest_rule(
    "cpu-emulated",
    Severity.WARNING,
    checks="a guest that QEMU emulates although it could run under KVM",
    advice="type='kvm' in <domain>",
    why="every instruction is translated by QEMU (TCG), which takes ten times as long or more",
    guide="1.2",
    page="https://www.qemu.org/docs/master/devel/index-tcg.html",
    mends="virt-xml {guest} --edit --xml ./@type=kvm",
)
def emulated(one: AuditedGuest, scene: Scene) -> Iterator[Found]:
    """A guest of another architecture has no choice, nor has one on a host without KVM."""
    if one.guest.type != "qemu":
        return
    ours, theirs = scene.topology.arch, one.guest.arch or scene.topology.arch
    same = ours == theirs or (ours, theirs) == ("x86_64", "i686")
    if same and scene.facts.kvm.get():
        yield Found("its type is qemu, and this host has /dev/kvm")
