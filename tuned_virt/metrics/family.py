# SPDX-License-Identifier: GPL-2.0-or-later
"""A metric family: name, type, help, labels; and its samples.

Names follow prometheus.io/docs/practices/naming: base units (seconds, bytes, ratio) at the end,
counters end in _total, texts are labels of an _info metric that is 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum

from tuned_virt.frozen_dataclasses import dataclass

PREFIX = "tuned_virt_"


class FamilyType(str, Enum):
    """Prometheus's types that are used here."""

    GAUGE = "gauge"
    COUNTER = "counter"


@dataclass(frozen=True)
class MetricFamily:
    """One family; `name` as it is exported, with the prefix and a counter's _total."""

    name: str
    help: str
    labels: tuple[str, ...] = ()

    @property
    def type(self) -> FamilyType:
        """As its name says."""
        return FamilyType.COUNTER if self.name.endswith("_total") else FamilyType.GAUGE

    def of(self, value: float | None) -> FamilySamples:
        """The one sample of a family without labels."""
        return self.by({(): value})

    def by(self, values: Mapping[tuple[str, ...], float | None]) -> FamilySamples:
        """Samples by the values of its labels, in the order of `labels`."""
        known = {labels: value for labels, value in values.items() if value is not None}
        if any(len(labels) != len(self.labels) for labels in known):
            raise ValueError(f"{self.name} has the labels {', '.join(self.labels) or '(none)'}")
        return FamilySamples(self, known)

    def info(self, labels: Iterable[tuple[str, ...]]) -> FamilySamples:
        """Samples of an _info family, each of which is 1."""
        return self.by(dict.fromkeys(labels, 1))


@dataclass(frozen=True)
class FamilySamples:
    """A family's samples: the values of its labels → the value."""

    family: MetricFamily
    values: Mapping[tuple[str, ...], float]


def family(name: str, text: str, *labels: str) -> MetricFamily:
    """A family of ours."""
    return MetricFamily(f"{PREFIX}{name}", text, labels)
