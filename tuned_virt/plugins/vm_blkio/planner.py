# SPDX-License-Identifier: GPL-2.0-or-later
"""From the weights asked for and those that running guests have to a plan. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from tuned_virt.core.device_filter import selects
from tuned_virt.core.plan import Change, Plan, Values, shown
from tuned_virt.frozen_dataclasses import dataclass, field
from tuned_virt.kernel import device_identity
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

    silent      they are not known though libvirt is there
    controller  whether a cgroup controller can hold weights
    weighing    disks whose scheduler, or the controller's cost model, heeds weights
    disks       by path that the policy or an original has: the entry in sysfs of the disk that is
                there now, 0 for none
    unknown     by path why that cannot be told
    """

    guests: Sequence[Weights] = ()
    unavailable: str = ""
    silent: bool = False
    controller: bool = True
    weighing: frozenset[str] = field(default_factory=frozenset)
    disks: Mapping[str, int] = field(default_factory=dict)
    unknown: Mapping[str, str] = field(default_factory=dict)

    @property
    def weights(self) -> dict[str, int]:
        """Weight by setting; a device that has none has weight 0."""
        return {
            name: weight
            for guest in self.guests
            for name, weight in settings(guest, self.disks).items()
        }


def key(guest: Weights) -> str:
    """A guest and this run of it, for settings."""
    name = printable(guest.name).replace("/", "?").replace("#", "?")
    return f"{name}#{guest.uuid}.{guest.run}"


@dataclass(frozen=True)
class WeightAddress:
    """What a setting is of: one run of a guest, or a device in it.

    device  path of the device, "" for the whole guest
    entry   of the disk that was there, 0 where only its path is known
    """

    uuid: str
    run: int
    device: str = ""
    entry: int = 0


def address(setting: str) -> WeightAddress:
    """What a setting is of."""
    identity, _, rest = setting.partition("#")[2].partition("/")
    uuid, _, run = identity.rpartition(".")
    kind, _, device = rest.partition(" ")
    if kind == GUEST:
        return WeightAddress(uuid, int(run))
    path, _, entry = device.rpartition("#")
    known = path and entry.isdecimal()
    return WeightAddress(uuid, int(run), *((path, int(entry)) if known else (device, 0)))


def device_setting(guest: Weights, path: str, entry: int) -> str:
    """The setting of a guest's weight on the disk that is at a path."""
    return f"{key(guest)}/{DEVICE} {path}{f'#{entry}' if entry else ''}"


def settings(guest: Weights, disks: Mapping[str, int]) -> dict[str, int]:
    """Weight by setting of what a guest has, and of disks that it has no weights on."""
    if guest.weight is None:
        return {}
    weights = {**dict.fromkeys(disks, REMOVE), **guest.devices}
    devices = {
        device_setting(guest, path, disks.get(path, 0)): weight for path, weight in weights.items()
    }
    return {f"{key(guest)}/{GUEST}": guest.weight, **devices}


def decide(policy: WeightPolicy, state: WeightState, originals: Values) -> Plan:
    """Set what is asked of guests that have no weights of their own; put the rest back.

    Of guests that are not known everything stays as it is where weights are asked for.
    """
    if state.unavailable and policy.rules:
        why = f"guests are unknown: {state.unavailable}"
        if state.silent:
            return Plan(originals=dict(originals), refused={"weights": why})
        return Plan(originals=dict(originals), notes=(why,))
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
            asked.update(_asked(guest, rule, state.disks))
    refused = _refused(asked, now, state)
    asked = {name: value for name, value in asked.items() if name not in refused}
    kept = _Kept(originals, state)
    back, gone, unknown = kept.others(asked)
    unavailable = {name: state.unavailable for name in originals if name not in asked}
    return Plan(
        changes=tuple(_changes({**back, **asked}, state, asked)),
        originals={name: kept.original(name) for name in asked},
        wanted={name: str(weight) for name, weight in asked.items()},
        refused=refused,
        pending=unavailable if state.unavailable else unknown,
        notes=(*notes, *gone, *_effect(asked, state)),
    )


def weight(guests: Iterable[Weights], setting: str) -> int:
    """What a setting has now; a device that has none has weight 0."""
    at = address(setting)
    for guest in guests:
        if (guest.uuid, guest.run) == (at.uuid, at.run):
            return guest.devices.get(at.device, REMOVE) if at.device else guest.weight or REMOVE
    return REMOVE


def why_gone(state: WeightState, setting: str) -> str:
    """What has become of the disk that a setting is of, "" where it is still there."""
    at = address(setting)
    now = state.disks.get(at.device, 0)
    if not at.entry or now == at.entry:
        return ""
    return device_identity.why_gone(at.device, {at.device} if now else ())


class _Kept:
    """Originals, each of a run of a guest and of the very disk that was at a path."""

    def __init__(self, originals: Values, state: WeightState) -> None:
        self._originals = originals
        self._state = state
        self._present = {key(guest) for guest in state.guests}
        self._disks = {(at.uuid, at.run, at.device) for at in map(address, originals)}

    def original(self, setting: str) -> str:
        """What to put back of a setting that is claimed.

        libvirt goes on telling the weight of a disk that is gone as that of the next one at its
        path, which has none.
        """
        for name in (setting, _by_path(setting)):
            if name in self._originals:
                return self._originals[name]
        at = address(setting)
        if at.device and (at.uuid, at.run, at.device) in self._disks:
            return str(REMOVE)
        return str(weight(self._state.guests, setting))

    def others(self, asked: Weighed) -> tuple[dict[str, int], list[str], dict[str, str]]:
        """What to put back of the rest; what is said of disks that others have replaced; why of
        some it cannot be told."""
        back, gone, unknown = {}, [], {}
        claimed = {*asked, *map(_by_path, asked)}
        for name, text in self._originals.items():
            guest, _, _ = name.partition("/")
            at = address(name)
            if name in claimed or guest not in self._present:
                continue
            if at.device in self._state.unknown:
                unknown[name] = self._state.unknown[at.device]
            elif not why_gone(self._state, name):
                back[name] = int(text)
            elif self._state.disks.get(at.device):
                why = why_gone(self._state, name)
                gone.append(f"{shown(guest)}: {why}; its weight was {text}, which is not restored")
        return back, gone, unknown


def _by_path(setting: str) -> str:
    """A setting as it was kept before disks were known by more than their paths."""
    return setting.rpartition("#")[0] if address(setting).entry else setting


def _rule(policy: WeightPolicy, guest: Weights) -> WeightRule | None:
    """The first that is for a guest."""
    names = (guest.name, guest.uuid)
    return next((rule for rule in policy.rules if selects(rule.guests, names)), None)


def _asked(guest: Weights, rule: WeightRule, disks: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    if rule.weight is not None:
        yield f"{key(guest)}/{GUEST}", rule.weight
    for path, asked in rule.devices.items():
        yield device_setting(guest, path, disks.get(path, 0)), asked


def _refused(asked: Weighed, now: Weighed, state: WeightState) -> dict[str, str]:
    """What cannot be set, and why."""
    if not state.controller:
        why = "no cgroup controller holds weights: neither io (cgroup v2) nor blkio (v1) is there"
        return dict.fromkeys(asked, why)
    untold = {name.partition("/")[0] for name in asked} - {name.partition("/")[0] for name in now}
    why = "libvirt has no I/O cgroup for this guest: see cgroup_controllers in libvirt's qemu.conf"
    refused = {name: why for name in asked if name.partition("/")[0] in untold}
    paths = {name: address(name).device for name in asked}
    unknown = {name: state.unknown[at] for name, at in paths.items() if at in state.unknown}
    return {**refused, **unknown}


def _changes(targets: Weighed, state: WeightState, asked: Weighed) -> Iterator[Change]:
    for name, value in targets.items():
        before = weight(state.guests, name)
        if before != value:
            why = "set by the profile" if name in asked else "original value"
            yield Change(name, name, before, value, why)


def _effect(asked: Iterable[str], state: WeightState) -> Iterator[str]:
    """What an administrator should know where weights are set and change nothing."""
    if asked and not state.weighing:
        yield (
            "weights have no effect: no disk has the scheduler bfq, and io.cost.qos is not enabled;"
            " set host_backing=bfq in [blk_elevator_virt]"
        )
