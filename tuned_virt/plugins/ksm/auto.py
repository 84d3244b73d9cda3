# SPDX-License-Identifier: GPL-2.0-or-later
"""The algorithm `auto`: burst, then maintenance.

To merge what a set of guests shares costs ksmd a nearly constant amount of CPU, however fast it
goes: every page is looked at twice, first for its checksum, then for its twin (mm/ksm.c). What a
slow scan wastes is memory, and what a fast one wastes comes afterwards. So:

- IDLE while memory is plentiful: run is 0, what is merged stays merged.
- BURST when memory becomes short (the guide's two rules), or at once with `eager`: ksmd gets up
  to `max_cpu` of one CPU, until a part of a scan gains less than PAYS pages a CPU second.
- MAINTENANCE: a trickle of at most `maintenance_cpu`. It goes back to BURST when a guest starts or
  grows, when the trickle gains (pages move), or when pressure rises; where memory is plentiful and
  it gains nothing it is halved and halved again, and then IDLE.
- YIELDED while run is 2: KSM was switched off on purpose.

The share is kept by measuring what a page costs (CPU seconds of ksmd over pages scanned) and giving
batches of BATCH seconds and sleeps in between; over each minute what was used is counted, and never
more than `max_cpu` of it given. What KSM cannot merge counts neither as used nor as there.
"""

from __future__ import annotations

from tuned_virt.frozen_dataclasses import dataclass, replace
from tuned_virt.plugins.ksm import speed
from tuned_virt.plugins.ksm.decision import (
    ControllerMemory,
    Counters,
    Decision,
    Phase,
    Sample,
    changes_towards,
    mib,
    mib_of,
)

PAYS = 2000
"""Pages (8 MiB) that a CPU second of scanning must gain to be worth it: merging gains some 60,000
where guests share, a scan of a large host that gains 0.5 % of its pages 1,500 to 3,500."""

ENOUGH = (0.5, 0.25)
"""Part of the first merging scan, and of later ones, after which nothing gained ends a burst."""

STALL = 10.0
"""Seconds of a burst in which ksmd scanned nothing: there is nothing to scan."""

OVERDUE = 3
"""Times the known pages that a scan may take: where pages are not counted, theirs is a guess."""

LOOK = 60.0
"""Seconds of trickle after which its gain is judged."""

SEEN = 1000
"""Pages below which a trickle's gain says nothing."""

DRY = 3
"""Looks without gain after which plentiful memory is left alone."""

DEARER = 4
"""How many times more moving pages must gain, after a burst for them that did not pay."""

RESTS = (300.0, 3600.0)
"""First and longest rest, in s, between looks at plentiful memory; each is twice the one before."""

RELAXED = 1.5
"""Memory is plentiful with this many times the threshold available..."""

RELAXED_FOR = 300.0
"""...for so many seconds."""

PRESSED, EASED = 10.0, 5.0
"""Percent of time that tasks wait for memory (PSI): over the first it is short, until under the
second."""

GROWTH, GROWTH_KIB = 1.1, 256 * 1024
"""Guests that have grown by both, in memory not scanned twice, are worth another burst."""

BURST_LOOK = 1.0
"""Seconds between samples in a burst."""

CALM_LOOK = 10.0
"""Seconds between samples otherwise."""

FIRST_LOOK = 0.25
"""Seconds to the second sample of a burst, which is the first to know what a page costs."""

SMALL_HOST = 4
"""CPUs up to which a host is small: max_cpu is 25 there, and 50 elsewhere, unless given."""


@dataclass(frozen=True)
class AutoPolicy:
    """What `auto` may do: start without need, percent of one CPU in bursts (None: by the host's
    size) and in maintenance, and the memory that should stay available, in percent and KiB."""

    eager: int = 0
    max_cpu: int | None = None
    maintenance_cpu: int = 1
    thres_coef: int = 20
    thres_const: int = 2048

    def threshold(self, total: int) -> int:
        """KiB that should stay available of `total` KiB."""
        return max(total * self.thres_coef // 100, self.thres_const)

    def cap(self, cpus: int) -> float:
        """Largest share of one CPU, from 0 to 1."""
        return (self.max_cpu or (25 if cpus <= SMALL_HOST else 50)) / 100


@dataclass(frozen=True)
class Step:
    """A phase to go to, and why; `moving`: a burst only because pages move."""

    phase: Phase
    why: str
    moving: bool = False


def decide(policy: AutoPolicy, sample: Sample, memory: ControllerMemory) -> Decision:
    """What to do now."""
    memory = _progress(sample, memory)
    shortage = _shortage(policy, sample, memory)
    step = _step(policy, sample, memory, shortage)
    why = step.why if step else ""
    memory = _enter(step, sample, memory) if step else _stay(sample, memory)
    memory = _remember(policy, sample, memory, bool(shortage))
    next_look = _next_look(memory)
    wanted = _wanted(policy, sample, memory, next_look)
    changes, memory, noted = changes_towards(wanted, sample, memory)
    if not step and changes:
        why = _why(memory)
    return Decision(changes, why, memory, next_look, tuple(noted))


def _why(memory: ControllerMemory) -> str:
    """Why settings change within a phase."""
    if memory.phase is Phase.IDLE:
        return "enough memory is available"
    return f"a page costs {(memory.cost or speed.NOMINAL_COST) * 1e6:.1f} µs"


def _next_look(memory: ControllerMemory) -> float:
    if memory.phase is not Phase.BURST:
        return CALM_LOOK
    fresh = not memory.cost and memory.begun == memory.last
    return FIRST_LOOK if fresh else BURST_LOOK


# --- what has happened ---------------------------------------------------------------------------


def _progress(sample: Sample, memory: ControllerMemory) -> ControllerMemory:
    """The memory with the counters brought up to the sample, and the cost of a page with them."""
    last = memory.last
    if last is None:
        now = Counters(
            sample.now, sample.cpu or 0.0, sample.scanned or 0, sample.full_scans, sample.merged
        )
        return replace(memory, last=now, begun=now, judged=now, since=sample.now)
    elapsed = max(sample.now - last.now, 0.0)
    scanned = _scanned(sample, last, elapsed)
    cpu = scanned * speed.NOMINAL_COST if sample.cpu is None else max(sample.cpu - last.cpu, 0.0)
    now = Counters(
        sample.now, last.cpu + cpu, last.scanned + scanned, sample.full_scans, sample.merged
    )
    recent = tuple(entry for entry in memory.spent if entry[0] > sample.now - speed.MINUTE)
    lost = min(memory.judged.merged, sample.merged)  # pages that guests wrote to, guests that ended
    return replace(
        memory,
        last=now,
        judged=replace(memory.judged, merged=lost),
        cost=speed.cost(memory.cost, cpu, scanned) if scanned >= SEEN else memory.cost,
        spent=(*recent, (sample.now, cpu)),
    )


def _scanned(sample: Sample, last: Counters, elapsed: float) -> int:
    """Pages scanned since the last sample; where they are not counted, from the sleeps."""
    if sample.scanned is not None:
        return max(sample.scanned - last.scanned, 0)
    if sample.settings.get("run") != "1":
        return 0
    pages = int(sample.settings["pages_to_scan"])
    sleep = int(sample.settings["sleep_millisecs"]) / 1000
    if sample.cpu is None:
        return int(elapsed / max(pages * speed.NOMINAL_COST + sleep, 0.001) * pages)
    asleep = max(elapsed - (sample.cpu - last.cpu), 0.0)
    return int(asleep / max(sleep, 0.001) * pages)


def _shortage(policy: AutoPolicy, sample: Sample, memory: ControllerMemory) -> str:
    """Why memory is short, by the guide's rules or by PSI; "" if it is not."""
    total, obtainable = sample.mergeable_total, sample.obtainable
    threshold = policy.threshold(total)
    if obtainable < threshold:
        return f"memory is short: {mib(obtainable)} available, threshold {mib(threshold)}"
    if sample.committed + threshold > total:
        return (
            f"memory is short: guests may use {mib(sample.committed)} of {mib(total)},"
            f" threshold {mib(threshold)}"
        )
    if _pressed(sample, memory):
        return f"memory is short: tasks wait for it {sample.pressure:.0f} % of the time"
    return ""


def _pressed(sample: Sample, memory: ControllerMemory) -> bool:
    limit = EASED if memory.pressed else PRESSED
    return sample.pressure is not None and sample.pressure >= limit


def _new_guests(sample: Sample, memory: ControllerMemory) -> str:
    """Which guests started since the last sample, in words."""
    started = sample.guests - memory.guests
    if len(started) > 1:
        return f"{len(started)} guests started"
    return f"guest {next(iter(started))} started" if started else ""


def _growth(sample: Sample, memory: ControllerMemory) -> str:
    grown = sample.resident - memory.resident[0]
    if grown < GROWTH_KIB or sample.resident < memory.resident[0] * GROWTH:
        return ""
    return f"guests have grown by {mib(grown)}"


def _per_cpu_second(mark: Counters, now: Counters) -> float:
    """Pages gained for each CPU second since a mark."""
    return (now.merged - mark.merged) / max(now.cpu - mark.cpu, 0.001)


# --- from phase to phase -------------------------------------------------------------------------


def _step(
    policy: AutoPolicy, sample: Sample, memory: ControllerMemory, shortage: str
) -> Step | None:
    """The phase to go to now, None to stay."""
    if sample.settings.get("run") == "2":
        yielding = Step(Phase.YIELDED, "run is 2: another program has unmerged all pages")
        return None if memory.phase is Phase.YIELDED else yielding
    if memory.phase is Phase.YIELDED:
        return Step(Phase.IDLE, "run is no longer 2")
    return _burst(policy, sample, memory, shortage) or _calmer(policy, sample, memory, shortage)


def _calmer(
    policy: AutoPolicy, sample: Sample, memory: ControllerMemory, shortage: str
) -> Step | None:
    """What follows where nothing asks for a burst."""
    if memory.phase is Phase.IDLE:
        return _from_idle(policy, sample, memory)
    relaxed = memory.relaxed is not None and sample.now - memory.relaxed >= RELAXED_FOR
    if relaxed and not policy.eager:
        return Step(Phase.IDLE, "enough memory is available again")
    if memory.phase is Phase.BURST:
        return _from_burst(sample, memory)
    if policy.eager and memory.dry >= DRY and not shortage:
        return Step(Phase.IDLE, "nothing is left to merge and enough memory is available")
    return None


def _burst(
    policy: AutoPolicy, sample: Sample, memory: ControllerMemory, shortage: str
) -> Step | None:
    """A new burst, where anything asks for one."""
    if not sample.guests and not sample.known:
        return None
    if shortage and memory.phase is Phase.IDLE:
        return Step(Phase.BURST, shortage)
    if not (policy.eager or shortage):
        return None
    cause = _cause(sample, memory, shortage)
    if cause or memory.phase is not Phase.MAINTENANCE:
        return Step(Phase.BURST, cause) if cause else None
    moving = _moving(memory)
    return Step(Phase.BURST, moving, moving=True) if moving else None


def _cause(sample: Sample, memory: ControllerMemory, shortage: str) -> str:
    """Why a burst is worth while now, "" for nothing but pages that move."""
    cause = _new_guests(sample, memory)
    if not cause and memory.phase is not Phase.BURST:
        cause = _growth(sample, memory)
    if not cause and memory.phase is Phase.MAINTENANCE:
        rising = not memory.short or _pressed(sample, memory) > memory.pressed
        cause = shortage if rising else ""
    return cause


def _moving(memory: ControllerMemory) -> str:
    """Whether the trickle gains enough for a burst, in words."""
    assert memory.last is not None
    gained = memory.last.merged - memory.judged.merged
    rate = _per_cpu_second(memory.judged, memory.last)
    if gained < SEEN or rate < PAYS * DEARER**memory.dear:
        return ""
    return f"contents have changed: slow scanning saved {mib_of(gained)}"


def _from_idle(policy: AutoPolicy, sample: Sample, memory: ControllerMemory) -> Step | None:
    rested = memory.rest and sample.now - memory.since >= memory.rest
    if policy.eager and rested and (sample.guests or sample.known):
        return Step(Phase.MAINTENANCE, f"scans again after {memory.rest / 60:.0f} minutes")
    return None


def _from_burst(sample: Sample, memory: ControllerMemory) -> Step | None:
    assert memory.last is not None
    if memory.last.scanned == memory.begun.scanned:
        stalled = sample.now - memory.begun.now >= STALL
        return Step(Phase.MAINTENANCE, "ksmd finds nothing to scan") if stalled else None
    through = memory.last.scanned - memory.judged.scanned
    edge = memory.last.full_scans > memory.judged.full_scans
    if through > OVERDUE * sample.known + SEEN and not edge:
        return Step(Phase.MAINTENANCE, "ksmd does not complete a scan")
    scans = memory.last.full_scans - memory.begun.full_scans
    first = 1 if memory.fresh else 2
    if scans < first or _per_cpu_second(memory.judged, memory.last) >= PAYS:
        return None
    enough = ENOUGH[0] if scans == first else ENOUGH[1]
    if (scans == first) if edge else (through < enough * memory.scan):
        return None
    gained = mib_of(memory.last.merged - memory.judged.merged)
    return Step(Phase.MAINTENANCE, f"{through / max(memory.scan, 1):.0%} of a scan saved {gained}")


def _enter(step: Step, sample: Sample, memory: ControllerMemory) -> ControllerMemory:
    """The memory in a new phase, or in a burst begun anew."""
    assert memory.last is not None
    entered = replace(
        memory, phase=step.phase, since=sample.now, begun=memory.last, judged=memory.last, dry=0
    )
    if step.phase is Phase.BURST:
        return replace(
            entered,
            resident=(sample.resident, sample.resident),
            fresh=sample.known == 0,
            scan=0,
            dear=memory.dear + 1 if step.moving else 0,
            rest=0.0,
        )
    if memory.phase is Phase.BURST and _per_cpu_second(memory.begun, memory.last) >= PAYS:
        entered = replace(entered, dear=0)
    if step.phase is Phase.IDLE:
        return replace(entered, rest=min(max(2 * memory.rest, RESTS[0]), RESTS[1]))
    return entered


def _stay(sample: Sample, memory: ControllerMemory) -> ControllerMemory:
    """The memory at the edges of scans and looks."""
    assert memory.last is not None
    last, judged = memory.last, memory.judged
    if memory.phase is Phase.BURST and last.full_scans > judged.full_scans:
        resident = (memory.resident[1], sample.resident)
        return replace(memory, judged=last, scan=last.scanned - judged.scanned, resident=resident)
    if memory.phase is Phase.MAINTENANCE and sample.now - judged.now >= LOOK:
        gains = last.merged - judged.merged >= SEEN
        return replace(memory, judged=last, dry=0 if gains else memory.dry + 1)
    return memory


def _remember(
    policy: AutoPolicy, sample: Sample, memory: ControllerMemory, short: bool
) -> ControllerMemory:
    threshold = policy.threshold(sample.mergeable_total)
    plentiful = not short and sample.obtainable >= RELAXED * threshold
    since = sample.now if memory.relaxed is None else memory.relaxed
    return replace(
        memory,
        guests=sample.guests,
        short=short,
        pressed=_pressed(sample, memory),
        relaxed=since if plentiful else None,
    )


# --- the settings ------------------------------------------------------------------------------


def _wanted(
    policy: AutoPolicy, sample: Sample, memory: ControllerMemory, interval: float
) -> dict[str, str]:
    """The settings for the phase; none while hands are off."""
    if memory.phase is Phase.YIELDED:
        return {}
    if memory.phase is Phase.IDLE:
        return {"run": "0"}
    cap = speed.AIM * policy.cap(sample.cpus)
    share = cap
    if memory.phase is Phase.MAINTENANCE:
        halved = 0 if memory.short else min(memory.dry, DRY)
        share = min(cap, policy.maintenance_cpu / 100 / 2**halved)
    share = min(share, speed.allowance(cap, memory, interval))
    cost = memory.cost or speed.NOMINAL_COST
    fits = speed.kept(dict(memory.written), share, cost)
    if fits:
        return fits
    pages, sleep = speed.of_share(share, cost)
    return {"pages_to_scan": str(pages), "sleep_millisecs": str(sleep), "run": "1"}
