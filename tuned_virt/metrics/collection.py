# SPDX-License-Identifier: GPL-2.0-or-later
"""The collection itself: what could not be read, how old each part is, how long it took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.metrics.family import FamilySamples, family

BUILD = family("build_info", "The version of tuned-virt-plus; always 1.", "version")
ERRORS = family(
    "collector_errors",
    "What a collector could not read, 0 where it read all; the reasons are in the log.",
    "collector",
)
TIMESTAMP = family(
    "collector_timestamp_seconds", "When a collector has read what is shown.", "collector"
)
DURATION = family("collector_duration_seconds", "How long a collector took.", "collector")


@dataclass(frozen=True)
class CollectorState:
    """One collector: errors, and of what is shown the moment and the seconds it took (None:
    nothing is shown)."""

    errors: int
    when: float | None = None
    took: float | None = None


def samples(version: str, states: Mapping[str, CollectorState]) -> Iterator[FamilySamples]:
    """The families of a collection."""
    yield BUILD.info([(version,)])
    yield ERRORS.by({(name,): one.errors for name, one in states.items()})
    yield TIMESTAMP.by({(name,): one.when for name, one in states.items()})
    yield DURATION.by({(name,): one.took for name, one in states.items()})
