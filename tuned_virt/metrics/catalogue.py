# SPDX-License-Identifier: GPL-2.0-or-later
"""All families, by name."""

from __future__ import annotations

from collections.abc import Mapping

from tuned_virt.metrics import collection, guests, memory, tuning
from tuned_virt.metrics.family import MetricFamily

CATALOGUE: Mapping[str, MetricFamily] = {
    value.name: value
    for module in (tuning, guests, memory, collection)
    for value in vars(module).values()
    if isinstance(value, MetricFamily)
}
