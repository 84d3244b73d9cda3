# SPDX-License-Identifier: GPL-2.0-or-later
"""From a policy and the disks as they are to one verdict a disk, and from those to a plan. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from tuned_virt.core import device_filter
from tuned_virt.core.plan import Change, Plan, Values
from tuned_virt.frozen_dataclasses import dataclass, field, replace
from tuned_virt.kernel.device_identity import why_gone
from tuned_virt.plugins.blk_elevator_virt import state as sysfs
from tuned_virt.plugins.blk_elevator_virt.classify import Attachment
from tuned_virt.plugins.blk_elevator_virt.deciding_option import guest_class, host_class
from tuned_virt.plugins.blk_elevator_virt.policy import (
    KEEP,
    QUEUES,
    DiskPolicy,
    MachineRole,
    SchedulerRule,
    resolve,
    same,
)
from tuned_virt.plugins.blk_elevator_virt.state import BLOCK, Disk

SCHEDULER = "scheduler"

NAMED = 5
"""Most disks, guests or reasons that one note names."""

DISKS_BELOW = "its underlying disks"

BELOW: Mapping[Attachment, str] = {
    Attachment.DRBD: "its peers: it has no disk here",
    Attachment.ZVOL: "the disks of its ZFS pool",
}
"""What a layer is on that has nothing in its slaves/."""


@dataclass(frozen=True)
class SetElsewhere:
    """What else sets a disk's scheduler: where that is written, what it sets, whose it is.

    surely  it is set at each boot, be it before or after us
    """

    place: str
    scheduler: str
    administrators: bool
    what: str = "udev rule"
    surely: bool = False

    def decided(self, before: str, now: str) -> bool:
        """Whether this is the administrator's word on a disk that had one scheduler, and has one.

        Rules of udev count by what a disk had before us: they come first, and often for other
        disks. What runs later in the boot may find the disk as we have set it.
        """
        if not self.administrators:
            return False
        later = self.what != "udev rule" and (self.surely or same(self.scheduler, now))
        return later or same(self.scheduler, before)

    def takes(self, verdict: Verdict, before: str) -> Verdict:
        """The verdict on a disk that is left to this."""
        where = f"{self.what} {self.place}"
        now = verdict.disk.scheduler
        had = next((one for one in (before, now) if same(one, self.scheduler)), "")
        if not had:
            return replace(
                verdict, remark=f"left to the {where}, which sets {self.scheduler}: remove one"
            )
        remark = f"left at {had}, which the {where} sets: remove one"
        return replace(verdict, remark=remark, taken=same(now, self.scheduler))


@dataclass(frozen=True)
class DiskState:
    """The machine's disks, and what decides about them.

    role       this machine's, for sections with role=auto
    users      guests by disk whose queue orders their requests
    network    guests by what they use on other machines
    unfollowed guests by what of theirs is not followed to a disk, and why
    unsettled  why it is not known yet what some guests use, "" once it is
    tunables   by disk, where a plan needs them: what a change of the scheduler resets
    properties udev's, by disk, where a section asks for them
    elsewhere  what else may set a disk's scheduler, by disk, in the order of the boot
    lacking    schedulers that this kernel does not have, not even as modules
    """

    disks: Mapping[str, Disk] = field(default_factory=dict)
    role: MachineRole = MachineRole.HOST
    users: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    network: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unfollowed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unsettled: str = ""
    tunables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    properties: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    elsewhere: Mapping[str, tuple[SetElsewhere, ...]] = field(default_factory=dict)
    lacking: frozenset[str] = frozenset()

    @property
    def values(self) -> dict[str, str]:
        """Scheduler by setting."""
        offering = (disk for disk in self.disks.values() if disk.offered)
        return {setting(disk, SCHEDULER): disk.scheduler for disk in offering}


@dataclass(frozen=True)
class Verdict:
    """What becomes of one disk.

    option  that decides, "" where none does
    word    that it has
    wanted  the scheduler to have, "" to leave the disk alone
    why     in words
    remark  what an administrator should know: it is set by another, or cannot be set now
    lacking why the wanted scheduler cannot be had
    taken   the administrator's own setting is in force: there is nothing to put back
    """

    disk: Disk
    why: str
    option: str = ""
    word: str = KEEP
    wanted: str = ""
    remark: str = ""
    lacking: str = ""
    users: tuple[str, ...] = ()
    taken: bool = False

    @property
    def claimed(self) -> bool:
        """Whether the disk is to be set, or is left as it has been set."""
        return bool(self.wanted) and not self.lacking


def setting(disk: Disk, file: str) -> str:
    """A setting's name, for the baseline: disk, identity and file."""
    return f"{disk.key}/{file}"


def worker_key(name: str) -> str:
    """The disk of a setting: its changes are made in order, those of others beside them."""
    return name.partition("/")[0]


class _Judge:
    def __init__(self, policy: DiskPolicy, state: DiskState, originals: Values) -> None:
        self._policy = policy
        self._state = state
        self._originals = originals
        self._above = sysfs.above(state.disks)
        self._bypassed = sysfs.bypassed(state.disks)

    def judge(self, disk: Disk) -> Verdict:
        """The verdict on one disk."""
        users = self._state.users.get(disk.name, ())
        if not disk.offered:
            return Verdict(disk, self._nothing_to_choose(disk), users=users)
        if disk.name in self._bypassed:
            return Verdict(disk, f"{self._bypassed[disk.name]} orders its requests", users=users)
        rule = next((rule for rule in self._policy.rules if self._is_for(rule, disk)), None)
        if rule is None:
            return Verdict(disk, "no section selects it", users=users)
        option, why = self._class(rule, disk, users)
        word = rule.words[option]
        if word == KEEP:
            return Verdict(disk, f"{why}: {option}={KEEP}", option, users=users)
        why = f"{why}: {option}={word}"
        return self._wanting(Verdict(disk, why, option, word, users=users))

    def _nothing_to_choose(self, disk: Disk) -> str:
        if disk.trouble:
            return f"it gives {disk.trouble}"
        if not sysfs.is_layer(disk):
            return "no choice of schedulers"
        counting = sorted(sysfs.queues_of(disk.name, self._state.disks) - {disk.name})
        return f"its requests go to {named(counting) or BELOW.get(disk.attached.kind, DISKS_BELOW)}"

    def _is_for(self, rule: SchedulerRule, disk: Disk) -> bool:
        if rule.udev_regex:
            properties = self._state.properties.get(disk.name, {})
            return device_filter.matches_udev(rule.udev_regex, properties)
        return device_filter.selects(rule.devices, [disk.name], self._above.get(disk.name, ()))

    def _class(self, rule: SchedulerRule, disk: Disk, users: tuple[str, ...]) -> tuple[str, str]:
        """The option that decides on a disk, and why that one."""
        role = self._state.role if rule.role is MachineRole.AUTO else rule.role
        if role is MachineRole.GUEST:
            return guest_class(disk)
        backing = self._backing(disk, users)
        if role is MachineRole.HOST:
            return host_class(disk, backing)
        option, why = guest_class(disk)
        if backing and rule.words[option] == KEEP:
            return host_class(disk, backing)
        return option, why

    def _backing(self, disk: Disk, users: tuple[str, ...]) -> str:
        """Why a disk is one that backs guests, "" if it is not."""
        if users:
            return f"backs {named(users)}"
        if self._state.unsettled and setting(disk, SCHEDULER) in self._originals:
            return f"backed guests, {self._state.unsettled}"
        return ""

    def _wanting(self, verdict: Verdict) -> Verdict:
        disk = verdict.disk
        wanted = resolve(verdict.word, disk.queues, disk.offered)
        if verdict.word == QUEUES:
            queues = "one queue" if disk.queues == 1 else f"{disk.queues} queues"
            verdict = replace(verdict, why=f"{verdict.why}, {queues}")
        other = self._policy.conflicting.get(disk.name, "")
        if other:
            return replace(
                verdict,
                remark=f"left to TuneD's own disk plugin, which has elevator={other} in this"
                " profile: remove one of the two",
            )
        decided = self._decided(disk, wanted)
        if decided:
            return decided.takes(verdict, self._before(disk))
        if disk.trouble and disk.scheduler != wanted:
            return replace(verdict, remark=f"not set to {wanted} now: {disk.trouble}")
        lacking = ""
        if wanted not in disk.offered and wanted in self._state.lacking:
            offered = " ".join(disk.offered)
            lacking = f"this kernel has no {wanted}, not even as a module: it offers {offered}"
        return replace(verdict, wanted=wanted, lacking=lacking)

    def _before(self, disk: Disk) -> str:
        return self._originals.get(setting(disk, SCHEDULER), disk.scheduler)

    def _decided(self, disk: Disk, wanted: str) -> SetElsewhere | None:
        """The administrator's own word on a disk, where it is another than ours."""
        for one in reversed(self._state.elsewhere.get(disk.name, ())):
            if not same(one.scheduler, wanted) and one.decided(self._before(disk), disk.scheduler):
                return one
        return None


def judge(policy: DiskPolicy, state: DiskState, originals: Values) -> list[Verdict]:
    """What becomes of each disk, by name."""
    judge = _Judge(policy, state, originals)
    return [judge.judge(disk) for disk in state.disks.values()]


def to_be_set(policy: DiskPolicy, state: DiskState, originals: Values) -> list[Disk]:
    """Disks for which the policy has a scheduler, whoever else has one."""
    return [verdict.disk for verdict in judge(policy, state, originals) if verdict.word != KEEP]


def decide(policy: DiskPolicy, state: DiskState, originals: Values) -> Plan:
    """Set what is wanted and is not so; put the rest back."""
    verdicts = judge(policy, state, originals)
    claimed = [verdict for verdict in verdicts if verdict.claimed]
    kept = _by_key(originals)
    left = kept.keys() - {verdict.disk.key for verdict in (*claimed, *_taken(verdicts))}
    present = {disk.key: disk for disk in state.disks.values()}
    replaced = _replaced({key: kept[key] for key in sorted(left - present.keys())}, state)
    returning = {present[key]: kept[key] for key in sorted(left & present.keys())}
    return Plan(
        changes=(
            *_settings(claimed),
            *(change for disk, files in returning.items() for change in _back(disk, files, state)),
        ),
        originals=_originals(claimed, kept, state),
        wanted={setting(verdict.disk, SCHEDULER): verdict.wanted for verdict in claimed},
        missing={
            setting(verdict.disk, SCHEDULER): verdict.lacking
            for verdict in verdicts
            if verdict.lacking
        },
        pending={
            f"{disk.key}/{file}": disk.trouble
            for disk, files in returning.items()
            if disk.trouble
            for file in files
        },
        notes=(*notes(verdicts, state), *replaced),
    )


def _replaced(kept: Mapping[str, Values], state: DiskState) -> Iterator[str]:
    """What is said of originals whose disks are gone, where another disk has the name now."""
    for key, files in kept.items():
        name = key.partition("#")[0]
        if name in state.disks and SCHEDULER in files:
            why = why_gone(name, state.disks)
            yield f"{why}; its scheduler was {files[SCHEDULER]}, which is not restored"


def _taken(verdicts: Iterable[Verdict]) -> Iterator[Verdict]:
    return (verdict for verdict in verdicts if verdict.taken)


def _settings(claimed: Iterable[Verdict]) -> Iterator[Change]:
    for verdict in claimed:
        disk = verdict.disk
        if disk.scheduler != verdict.wanted:
            path = f"{BLOCK}/{disk.name}/queue/{SCHEDULER}"
            name = setting(disk, SCHEDULER)
            yield Change(name, path, disk.scheduler, verdict.wanted, verdict.why)


def _back(disk: Disk, files: Values, state: DiskState) -> Iterator[Change]:
    """The scheduler first: its change resets the others."""
    if disk.trouble:
        return
    switched = files.get(SCHEDULER, disk.scheduler) != disk.scheduler
    now = {SCHEDULER: disk.scheduler, **state.tunables.get(disk.name, {})}
    for file in sorted(files, key=lambda file: (file != SCHEDULER, file.startswith("iosched"))):
        before = "" if switched and file != SCHEDULER else now.get(file, "")
        if before != files[file]:
            path = f"{BLOCK}/{disk.name}/queue/{file}"
            yield Change(f"{disk.key}/{file}", path, before, files[file], "original value")


def _originals(
    claimed: Iterable[Verdict], kept: Mapping[str, Values], state: DiskState
) -> dict[str, str]:
    """What is kept of claimed disks; before the first change, what it would reset as well."""
    found = {}
    for verdict in claimed:
        disk = verdict.disk
        files = kept.get(disk.key, {SCHEDULER: disk.scheduler})
        if _resets_originals(verdict, files):
            files = {**files, **state.tunables.get(disk.name, {})}
        found.update({f"{disk.key}/{file}": value for file, value in files.items()})
    return found


def _by_key(originals: Values) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for name, value in originals.items():
        key, _, file = name.partition("/")
        found.setdefault(key, {})[file] = value
    return found


def _resets_originals(verdict: Verdict, kept: Values) -> bool:
    """Whether setting a disk resets what nobody has changed since we came: the first change."""
    scheduler = verdict.disk.scheduler
    return scheduler != verdict.wanted and kept.get(SCHEDULER, scheduler) == scheduler


def needing_tunables(policy: DiskPolicy, state: DiskState, originals: Values) -> list[str]:
    """Disks whose tunables a plan needs: those to be changed first, and those to be put back."""
    kept = _by_key(originals)
    names = []
    for verdict in judge(policy, state, originals):
        disk = verdict.disk
        changes = verdict.claimed and _resets_originals(verdict, kept.get(disk.key, {}))
        returns = not verdict.claimed and len(kept.get(disk.key, ())) > 1
        if (changes or returns) and not disk.trouble:
            names.append(disk.name)
    return names


def notes(verdicts: Iterable[Verdict], state: DiskState) -> Iterator[str]:
    """What verify says and does not fail for; disks with the same remark in one line."""
    if state.unsettled:
        yield f"guests: {state.unsettled}"
    yield from _used("on the network, not on disks of this host", state.network)
    yield from _used("not followed to disks", state.unfollowed)
    by_remark: dict[str, list[str]] = {}
    for verdict in verdicts:
        if verdict.remark:
            by_remark.setdefault(verdict.remark, []).append(verdict.disk.name)
    for remark, names in by_remark.items():
        yield f"{named(names)}: {remark}"
    yield from _overridden(verdicts, state)


def _used(what: str, guests: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """What guests use that is no disk here, in one line."""
    if guests:
        yield f"{what}: " + named([f"{use} ({named(names)})" for use, names in guests.items()])


def _overridden(verdicts: Iterable[Verdict], state: DiskState) -> Iterator[str]:
    """Settings of others that give way, most often the distribution's rules, each once."""
    rules = {
        f"{rule.what} {rule.place}": rule.scheduler
        for verdict in verdicts
        if verdict.wanted
        for rule in state.elsewhere.get(verdict.disk.name, ())
        if not same(rule.scheduler, verdict.wanted)
    }
    for place, scheduler in rules.items():
        yield f"the {place} sets {scheduler} on some of these disks; it is set again"


def named(names: Iterable[str]) -> str:
    """The first few names, and how many more."""
    listed = list(names)
    more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return ", ".join(listed[:NAMED]) + more
