# SPDX-License-Identifier: GPL-2.0-or-later
"""From the weights asked for and those that running guests have to a plan. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from tuned_virt.core.device_filter import selects
from tuned_virt.core.plan import Change, Plan, Values
from tuned_virt.frozen_dataclasses import dataclass, field
from tuned_virt.libvirt_api.guest_weights import Weights
from tuned_virt.model.guest import printable
from tuned_virt.plugins.vm_blkio.policy import REMOVE, WeightPolicy, WeightRule

GUEST = "blkio_weight"
DEVICE = "device_weight"

Weighed = Mapping[str, int]
"""Weight by setting."""


@dataclass(frozen=True)
class WeightState:
    """The running guests, why they are not known ("" if they are), and what weighs their I/O.

    controller  whether a cgroup controller can hold weights
    paths       devices that the policy has weights for
    weighing    disks whose scheduler, or the controller's cost model, heeds weights
    """

    guests: Sequence[Weights] = ()
    unavailable: str = ""
    controller: bool = True
    weighing: frozenset[str] = field(default_factory=frozenset)
    paths: frozenset[str] = field(default_factory=frozenset)

    @property
    def weights(self) -> dict[str, int]:
        """Weight by setting; a device that has none has weight 0."""
        return {
            name: weight
            for guest in self.guests
            for name, weight in settings(guest, self.paths).items()
        }


def key(guest: Weights) -> str:
    """A guest and this run of it, for settings."""
    name = printable(guest.name).replace("/", "?").replace("#", "?")
    return f"{name}#{guest.uuid}.{guest.run}"


def address(setting: str) -> tuple[str, int, str, str]:
    """UUID, run, kind (GUEST or DEVICE) and device of a setting."""
    identity, _, rest = setting.partition("#")[2].partition("/")
    uuid, _, run = identity.rpartition(".")
    kind, _, device = rest.partition(" ")
    return uuid, int(run), kind, device


def settings(guest: Weights, paths: Iterable[str]) -> dict[str, int]:
    """Weight by setting of what a guest has, and of paths that it has no weights on."""
    if guest.weight is None:
        return {}
    devices = {**dict.fromkeys(paths, REMOVE), **guest.devices}
    found = {f"{key(guest)}/{DEVICE} {path}": weight for path, weight in devices.items()}
    return {f"{key(guest)}/{GUEST}": guest.weight, **found}


def decide(policy: WeightPolicy, state: WeightState, originals: Values) -> Plan:
    """Set what is asked of guests that have no weights of their own; put the rest back."""
    now = state.weights
    asked: dict[str, int] = {}
    notes = []
    for guest in state.guests:
        rule = _rule(policy, guest)
        if rule is None or not rule.acts:
            continue
        if guest.owned:
            notes.append(f"{printable(guest.name)}: not changed, its XML sets weights itself")
        else:
            asked.update(_asked(guest, rule))
    refused = _refused(asked, now, state)
    asked = {name: value for name, value in asked.items() if name not in refused}
    back = {name: int(text) for name, text in originals.items() if name not in asked}
    present = {key(guest) for guest in state.guests}
    targets = {name: value for name, value in back.items() if name.partition("/")[0] in present}
    return Plan(
        changes=tuple(_changes({**targets, **asked}, now, asked)),
        originals={name: originals.get(name, str(now.get(name, REMOVE))) for name in asked},
        wanted={name: str(weight) for name, weight in asked.items()},
        refused=refused,
        pending=dict.fromkeys(back, state.unavailable) if state.unavailable else {},
        notes=(*notes, *_effect(policy, asked, state)),
    )


def _rule(policy: WeightPolicy, guest: Weights) -> WeightRule | None:
    """The first that is for a guest."""
    names = (guest.name, guest.uuid)
    return next((rule for rule in policy.rules if selects(rule.guests, names)), None)


def _asked(guest: Weights, rule: WeightRule) -> Iterator[tuple[str, int]]:
    if rule.weight is not None:
        yield f"{key(guest)}/{GUEST}", rule.weight
    for path, weight in rule.devices.items():
        yield f"{key(guest)}/{DEVICE} {path}", weight


def _refused(asked: Weighed, now: Weighed, state: WeightState) -> dict[str, str]:
    """What cannot be set, and why."""
    if not state.controller:
        why = "no cgroup controller holds weights: neither io (cgroup v2) nor blkio (v1) is there"
        return dict.fromkeys(asked, why)
    untold = {name.partition("/")[0] for name in asked} - {name.partition("/")[0] for name in now}
    why = "libvirt has no I/O cgroup for this guest: see cgroup_controllers in libvirt's qemu.conf"
    return {name: why for name in asked if name.partition("/")[0] in untold}


def _changes(targets: Weighed, now: Weighed, asked: Weighed) -> Iterator[Change]:
    for name, value in targets.items():
        before = now.get(name, REMOVE)
        if before != value:
            why = "set by the profile" if name in asked else "original value"
            yield Change(name, name, before, value, why)


def _effect(policy: WeightPolicy, asked: Iterable[str], state: WeightState) -> Iterator[str]:
    """What an administrator should know where weights are set and change nothing."""
    if policy.rules and state.unavailable:
        yield f"guests are unknown: {state.unavailable}"
    if asked and not state.weighing:
        yield (
            "weights have no effect: no disk has the scheduler bfq, and io.cost.qos is not enabled;"
            " set host_backing=bfq in [blk_elevator_virt]"
        )
