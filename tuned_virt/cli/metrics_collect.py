# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs collectors side by side for a bounded time, and keeps what holds for longer.

A collector that hangs keeps its own thread and nothing else: its samples are missing, its error is
counted, and it is neither started nor waited for again until it ends.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tuned_virt import __version__
from tuned_virt.cli.metrics_input import COLLECTORS, Collector, CollectorReading
from tuned_virt.core.state_file import FOLDER, StateFile
from tuned_virt.frozen_dataclasses import asdict, dataclass, replace, typed
from tuned_virt.kernel.errors import PlainError
from tuned_virt.kernel.files import AnyPath, KernelFS
from tuned_virt.metrics import collection
from tuned_virt.metrics.catalogue import CATALOGUE
from tuned_virt.metrics.collection import CollectorState
from tuned_virt.metrics.family import FamilySamples

log = logging.getLogger("tuned_virt.metrics")

FILE = os.path.join(FOLDER, "metrics.json")
"""What a verification and an audit have found, for the next collection of another process."""

RETRY = 900.0
"""Seconds after which a collector is tried again that has failed, or found what may pass soon: a
verification while TuneD still applies its profile."""

SHOWN = 2
"""How many times as long as it holds a reading is shown while newer ones fail."""

UNFINISHED = "it has not ended yet"


@dataclass(frozen=True)
class KeptReading:
    """What a collector has read last.

    tried   when it was started last; when: when what is kept was read, None where nothing is
    took    seconds; version: what it depended on; errors of the last try
    soon    whether it is to be tried again soon
    """

    tried: float
    version: str
    errors: tuple[str, ...] = ()
    soon: bool = False
    when: float | None = None
    took: float = 0.0
    samples: tuple[FamilySamples, ...] = ()


class MetricsCollection:
    """Collects again and again; one collection at a time. `file` is None where nothing is kept."""

    def __init__(
        self,
        fs: KernelFS,
        collectors: Sequence[Collector] = COLLECTORS,
        file: AnyPath | None = FILE,
    ) -> None:
        self._fs = fs
        self._collectors = collectors
        self._state = StateFile(file, _parse) if file else None
        self._kept: dict[str, KeptReading] = (self._state and self._state.load()) or {}
        self._busy: set[str] = set()
        self._changed = threading.Condition()
        self._logged: Mapping[str, tuple[str, ...]] = {}

    def collect(self, seconds: float) -> tuple[list[FamilySamples], int]:
        """What is known after so many seconds at most, and how many things could not be read."""
        with self._changed:
            started = {one.name for one in self._collectors if self._due(one)}
            for one in self._collectors:
                if one.name in started:
                    self._start(one)
        self._keep()
        with self._changed:
            self._changed.wait_for(lambda: not started & self._busy, seconds)
            errors = {one.name: self._errors(one) for one in self._collectors}
            shown = {one.name: self._shown(one) for one in self._collectors}
        self._keep()
        self._log(errors)
        states = {
            name: CollectorState(len(errors[name]), one.when, one.took)
            if one
            else CollectorState(len(errors[name]))
            for name, one in shown.items()
        }
        samples = [made for one in shown.values() if one for made in one.samples]
        samples += collection.samples(__version__, states)
        return samples, sum(map(len, errors.values()))

    def _due(self, one: Collector) -> bool:
        if one.name in self._busy:
            return False
        kept = self._kept.get(one.name)
        if kept is None or not one.every or kept.version != one.version():
            return True
        holds = RETRY if kept.soon else one.every
        return not 0 <= time.time() - kept.tried < holds

    def _start(self, one: Collector) -> None:
        """Begin to read; until that ends, this is what is known of it."""
        now, version, kept = time.time(), one.version(), self._kept.get(one.name)
        if kept is None or kept.version != version:
            kept = KeptReading(now, version)
        self._kept[one.name] = replace(kept, tried=now, errors=(UNFINISHED,), soon=True)
        self._busy.add(one.name)
        name = f"virt-metrics-{one.name}"
        threading.Thread(target=self._read, args=(one,), name=name, daemon=True).start()

    def _read(self, one: Collector) -> None:
        began = time.monotonic()
        reading = _tried(one, self._fs)
        took = time.monotonic() - began
        failed = bool(reading.errors and not reading.samples)
        with self._changed:
            kept = replace(self._kept[one.name], errors=reading.errors, soon=failed or reading.soon)
            if not failed:
                kept = replace(kept, when=kept.tried, took=took, samples=reading.samples)
            self._kept[one.name] = kept
            self._busy.discard(one.name)
            self._changed.notify_all()

    def _errors(self, one: Collector) -> tuple[str, ...]:
        kept = self._kept.get(one.name)
        return kept.errors if kept else ()

    def _shown(self, one: Collector) -> KeptReading | None:
        """What is read each time counts only if it was read now."""
        kept = self._kept.get(one.name)
        if kept is None or kept.when is None:
            return None
        if not one.every:
            return kept if one.name not in self._busy and kept.when == kept.tried else None
        return kept if time.time() - kept.when < SHOWN * one.every else None

    def _keep(self) -> None:
        """Write down what holds for longer; only root's readings are whole."""
        if self._state is None or os.geteuid() != 0:
            return
        with self._changed:
            lasting = [one.name for one in self._collectors if one.every]
            content = {name: _content(self._kept[name]) for name in lasting if name in self._kept}
        self._state.save({"readings": content})

    def _log(self, errors: Mapping[str, tuple[str, ...]]) -> None:
        """What is not known already of the collection before."""
        for name, reasons in errors.items():
            if reasons != self._logged.get(name, ()):
                for reason in reasons:
                    log.warning("metrics: %s: %s", name, reason)
        self._logged = errors


def _tried(one: Collector, fs: KernelFS) -> CollectorReading:
    try:
        return one.read(fs)
    except (PlainError, OSError) as error:
        return CollectorReading(errors=(str(error),))
    except ModuleNotFoundError as error:
        return CollectorReading(errors=(f"the Python module {error.name} is not installed",))
    except Exception as error:  # one collector's defect must not take the others' samples
        return CollectorReading(errors=(f"unexpected {type(error).__name__}: {error}",))


# --- on disk --------------------------------------------------------------------------------------


def _content(kept: KeptReading) -> dict[str, Any]:
    samples = [
        {
            "family": one.family.name,
            "values": [[list(labels), value] for labels, value in one.values.items()],
        }
        for one in kept.samples
    ]
    return {**asdict(replace(kept, samples=())), "samples": samples}


def _parse(content: Mapping[str, Any]) -> dict[str, KeptReading]:
    """Raises KeyError, TypeError or ValueError."""
    return {name: _kept(one) for name, one in content["readings"].items()}


def _kept(content: dict[str, Any]) -> KeptReading:
    if not all(isinstance(error, str) for error in content["errors"]):
        raise TypeError("an error is not text")
    samples, errors = tuple(map(_samples, content["samples"])), tuple(content["errors"])
    return typed(KeptReading(**{**content, "samples": samples, "errors": errors}))


def _samples(content: Mapping[str, Any]) -> FamilySamples:
    values = dict(_value(one) for one in content["values"])
    return CATALOGUE[content["family"]].by(values)


def _value(pair: Sequence[Any]) -> tuple[tuple[str, ...], float]:
    labels, value = pair
    if not all(isinstance(label, str) for label in labels):
        raise TypeError("a label is not text")
    return tuple(labels), float(value)
