# SPDX-License-Identifier: GPL-2.0-or-later
"""The algorithm of ksmtuned, with its own names and defaults, for those who move over.

Source: ksmtuned's script (Red Hat, 2009) and the guide's chapter 8.4.2. It looks every
`monitor_interval` seconds and whenever a guest starts or stops. As it does, this counts the memory
of QEMU's processes: the sum of their resident sets; merged pages count each time.
"""

from __future__ import annotations

from tuned_virt.core.plan import Values
from tuned_virt.frozen_dataclasses import dataclass, replace
from tuned_virt.plugins.ksm.decision import (
    ControllerMemory,
    Decision,
    Phase,
    Sample,
    changes_towards,
    mib,
)

REFERENCE_KIB = 16 * 1024 * 1024
"""sleep_msec is for a server of this much memory: smaller sleep longer, larger shorter."""

SHORTEST_SLEEP = 10
"""ms; ksmtuned never sleeps less between batches."""


@dataclass(frozen=True)
class KsmtunedPolicy:
    """ksmtuned's tunables.

    monitor_interval  seconds between looks
    npages_boost      pages a batch more at each look while memory is short
    npages_decay      pages a batch more (so: negative) at each look while it is not
    npages_min, npages_max  bounds of pages a batch
    sleep_msec        ms between batches on a server of 16 GiB
    thres_coef        percent of all memory that should stay free
    thres_const       the same in KiB; the larger of both holds
    """

    monitor_interval: int = 60
    npages_boost: int = 300
    npages_decay: int = -50
    npages_min: int = 64
    npages_max: int = 1250
    sleep_msec: int = 10
    thres_coef: int = 20
    thres_const: int = 2048

    def threshold(self, total: int) -> int:
        """KiB that should stay free of `total` KiB."""
        return max(total * self.thres_coef // 100, self.thres_const)


def decide(policy: KsmtunedPolicy, sample: Sample, memory: ControllerMemory) -> Decision:
    """Stop while memory is plentiful; else scan, faster at each look while it is short."""
    threshold = policy.threshold(sample.total)
    enough = sample.resident + threshold < sample.total
    free = sample.free > threshold
    figures = (
        f"guests have {mib(sample.resident)}, {mib(sample.free)} of {mib(sample.total)} are free,"
        f" threshold {mib(threshold)}"
    )
    if enough and free:
        memory = _in_phase(Phase.IDLE, sample, memory)
        return _decision(policy, sample, memory, {"run": "0"}, f"plenty: {figures}")
    step = policy.npages_decay if sample.free >= threshold else policy.npages_boost
    npages = min(max(memory.npages + step, policy.npages_min), policy.npages_max)
    wanted = {
        "pages_to_scan": str(npages),
        "sleep_millisecs": str(_sleep(policy, sample)),
        "run": "1",
    }
    memory = _in_phase(Phase.STEADY, sample, replace(memory, npages=npages))
    word = "boost" if step > 0 else "decay"
    return _decision(policy, sample, memory, wanted, f"{word}: {figures}")


def _in_phase(phase: Phase, sample: Sample, memory: ControllerMemory) -> ControllerMemory:
    return memory if phase is memory.phase else replace(memory, phase=phase, since=sample.now)


def _sleep(policy: KsmtunedPolicy, sample: Sample) -> int:
    return max(policy.sleep_msec * REFERENCE_KIB // max(sample.total, 1), SHORTEST_SLEEP)


def _decision(
    policy: KsmtunedPolicy, sample: Sample, memory: ControllerMemory, wanted: Values, why: str
) -> Decision:
    changes, memory, noted = changes_towards(wanted, sample, memory)
    return Decision(changes, why, memory, float(policy.monitor_interval), tuple(noted))
