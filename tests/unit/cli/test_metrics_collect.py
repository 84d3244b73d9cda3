# SPDX-License-Identifier: GPL-2.0-or-later
"""Collectors side by side: what hangs or fails costs its own samples, for a bounded time."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tuned_virt.cli.common import CouldNot
from tuned_virt.cli.metrics_collect import RETRY, MetricsCollection
from tuned_virt.cli.metrics_input import Collector, CollectorReading
from tuned_virt.kernel.files import KernelFS
from tuned_virt.metrics.memory import KSM_RUN, KSM_SAVED
from tuned_virt.metrics.tuning import VERIFIED

HOUR = 3600.0


class Machine:
    """What a collector reads: how often, what, and a gate that holds it up."""

    def __init__(self) -> None:
        self.reading = CollectorReading((VERIFIED.of(1),))
        self.error: Exception | None = None
        self.times = 0
        self.gate = threading.Event()
        self.gate.set()
        self.version = "a"

    def read(self, _fs: KernelFS) -> CollectorReading:
        self.times += 1
        self.gate.wait(20)
        if self.error:
            raise self.error
        return self.reading


@pytest.fixture
def machine() -> Iterator[Machine]:
    made = Machine()
    yield made
    made.gate.set()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Puts the clock forward by so many seconds."""
    ahead = [0.0]
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + ahead[0])

    def forward(seconds: float) -> None:
        ahead[0] += seconds

    return forward


def collection(
    machine: Machine, file: Path | None = None, every: float = HOUR
) -> MetricsCollection:
    collectors = (
        Collector("ksm", lambda fs: CollectorReading((KSM_RUN.of(1),))),
        Collector("verify", machine.read, every, lambda: machine.version),
    )
    return MetricsCollection(KernelFS(), collectors, file)


def look(made: MetricsCollection, seconds: float = 10.0) -> tuple[dict[str, float], int]:
    samples, errors = made.collect(seconds)
    return {
        " ".join([one.family.name.removeprefix("tuned_virt_"), *labels]): value
        for one in samples
        for labels, value in one.values.items()
    }, errors


def test_all_is_read(machine: Machine) -> None:
    found, errors = look(collection(machine))
    assert errors == 0
    assert (found["ksm_run"], found["verify_success"]) == (1, 1)
    assert (found["collector_errors ksm"], found["collector_errors verify"]) == (0, 0)
    assert abs(found["collector_timestamp_seconds verify"] - time.time()) < 60
    assert found["collector_duration_seconds ksm"] < 10


@pytest.mark.parametrize("every", [0.0, HOUR])
def test_what_hangs_is_missing_after_a_bounded_time_and_is_not_started_again(
    machine: Machine, every: float
) -> None:
    made = collection(machine, every=every)
    machine.gate.clear()
    began = time.monotonic()
    found, errors = look(made, 0.2)
    assert time.monotonic() - began < 5
    assert (found["ksm_run"], errors) == (1, 1)
    assert "verify_success" not in found
    assert found["collector_errors verify"] == 1
    assert "collector_timestamp_seconds verify" not in found
    began = time.monotonic()
    look(made, 10)
    assert time.monotonic() - began < 5, "it was waited for in vain already"
    assert machine.times == 1


def test_what_ends_later_is_there_next_time(machine: Machine) -> None:
    made = collection(machine)
    machine.gate.clear()
    look(made, 0.05)
    machine.gate.set()
    for thread in threading.enumerate():
        if thread.name == "virt-metrics-verify":
            thread.join(10)
    found, errors = look(made)
    assert (found["verify_success"], errors, machine.times) == (1, 0, 1)


@pytest.mark.parametrize(
    "error",
    [
        CouldNot("no D-Bus"),
        OSError(5, "Input/output error"),
        ModuleNotFoundError(name="libvirt"),
        ValueError("x"),
    ],
)
def test_what_fails_takes_nothing_from_the_others(
    machine: Machine, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    machine.error = error
    made = collection(machine)
    found, errors = look(made)
    assert (found["ksm_run"], found["collector_errors verify"], errors) == (1, 1, 1)
    assert "verify_success" not in found
    [record] = caplog.records
    assert record.getMessage().startswith("metrics: verify: ")
    look(made)
    assert len(caplog.records) == 1, "what is known already is not said again"


def test_what_is_read_each_time_is_not_shown_once_it_fails(machine: Machine) -> None:
    made = collection(machine, every=0.0)
    assert look(made)[0]["verify_success"] == 1
    machine.error = CouldNot("gone")
    assert "verify_success" not in look(made)[0]
    machine.error = None
    assert look(made)[0]["verify_success"] == 1


def test_what_holds_is_read_again_when_it_is_old_or_its_version_differs(
    machine: Machine, clock: Callable[[float], None]
) -> None:
    made = collection(machine)
    look(made)
    clock(HOUR - 60)
    look(made)
    assert machine.times == 1
    clock(120)
    look(made)
    assert machine.times == 2
    machine.version = "b"
    look(made)
    assert machine.times == 3
    clock(-2 * HOUR)
    look(made)
    assert machine.times == 4, "a clock that was put back"


def test_a_reading_is_shown_for_twice_its_time_while_newer_ones_fail(
    machine: Machine, clock: Callable[[float], None]
) -> None:
    made = collection(machine)
    look(made)
    machine.error = CouldNot("TuneD's verify: no reply")
    clock(HOUR + 1)
    found, errors = look(made)
    assert (found["verify_success"], found["collector_errors verify"], errors) == (1, 1, 1)
    clock(RETRY - 60)
    look(made)
    assert machine.times == 2
    clock(120)
    look(made)
    assert machine.times == 3
    clock(HOUR)
    assert "verify_success" not in look(made)[0]
    machine.version = "another profile"
    assert "verify_success" not in look(made)[0]


def test_what_may_pass_soon_is_read_again_soon(
    machine: Machine, clock: Callable[[float], None]
) -> None:
    machine.reading = CollectorReading((VERIFIED.of(0),), soon=True)
    made = collection(machine)
    look(made)
    clock(RETRY + 1)
    machine.reading = CollectorReading((VERIFIED.of(1),))
    assert look(made)[0]["verify_success"] == 1
    clock(RETRY + 1)
    look(made)
    assert machine.times == 2


def test_some_errors_do_not_hide_the_rest(machine: Machine) -> None:
    machine.reading = CollectorReading((VERIFIED.of(1),), ("guest a: …", "guest b: …"))
    found, errors = look(collection(machine))
    assert (found["verify_success"], found["collector_errors verify"], errors) == (1, 2, 2)


# --- kept for another process ---------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return tmp_path / "metrics.json"


def test_another_process_goes_on_from_what_is_kept(machine: Machine, file: Path) -> None:
    machine.reading = CollectorReading((VERIFIED.of(1), KSM_SAVED.of(None)), ("one",))
    first = look(collection(machine, file))[0]
    second, errors = look(collection(machine, file))
    assert (machine.times, errors) == (1, 1)
    assert second["verify_success"] == 1
    key = "collector_timestamp_seconds verify"
    assert second[key] == first[key]
    assert "ksm" not in json.loads(file.read_text())["readings"], "it is read each time"


def test_a_process_that_ended_while_it_read_is_not_repeated_at_once(
    machine: Machine, file: Path
) -> None:
    """Each verification that TuneD is asked for writes into its log, whoever waits for it."""
    machine.gate.clear()
    look(collection(machine, file), 0.05)
    found, errors = look(collection(machine, file))
    assert (machine.times, errors, found["collector_errors verify"]) == (1, 1, 1)


@pytest.mark.parametrize(
    "samples",
    [
        [{"family": "tuned_virt_other", "values": []}],
        [{"family": "tuned_virt_verify_success", "values": [[["a"], 1]]}],
        [{"family": "tuned_virt_verify_success", "values": [[[], "x"]]}],
        [{"family": "tuned_virt_guest_vcpus", "values": [[[1], 1]]}],
        [7],
    ],
)
def test_a_record_that_is_not_ours_is_said_and_not_used(
    machine: Machine, file: Path, samples: object, caplog: pytest.LogCaptureFixture
) -> None:
    look(collection(machine, file))
    content = json.loads(file.read_text())
    content["readings"]["verify"]["samples"] = samples
    file.write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING):
        assert look(collection(machine, file))[0]["verify_success"] == 1
    assert machine.times == 2
    assert "is damaged" in caplog.text


def test_only_root_keeps_what_it_has_read(
    machine: Machine, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    look(collection(machine, file))
    assert not file.exists()
