# SPDX-License-Identifier: GPL-2.0-or-later
"""Metrics as text, and in a file for node_exporter's textfile collector."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

from tuned_virt.cli.common import CouldNot
from tuned_virt.metrics.family import FamilySamples, FamilyType

ENDING = ".prom"
"""Of the files that node_exporter reads."""

MISSING = (
    "metrics needs the Python module prometheus_client: install the package"
    " tuned-virt-plus-metrics (or python3-prometheus-client on Debian and Ubuntu,"
    " python3-prometheus_client on Fedora and RHEL)"
)


class _Registry:
    """What prometheus_client takes samples from."""

    def __init__(self, samples: Iterable[FamilySamples]) -> None:
        self._samples = samples

    def collect(self) -> Iterator[Any]:
        """Its families; those without samples are left out."""
        from prometheus_client import core

        kinds = {
            FamilyType.COUNTER: core.CounterMetricFamily,
            FamilyType.GAUGE: core.GaugeMetricFamily,
        }
        for one in self._samples:
            made = kinds[one.family.type](
                one.family.name, one.family.help, labels=list(one.family.labels)
            )
            for labels, value in one.values.items():
                made.add_metric(labels, value)
            if one.values:
                yield made


def check() -> None:
    """Raises CouldNot where what writes metrics is not installed."""
    try:
        import prometheus_client  # noqa: F401
    except ModuleNotFoundError as error:
        raise CouldNot(MISSING) from error


def text(samples: Iterable[FamilySamples]) -> bytes:
    """In Prometheus's text format, without timestamps, which node_exporter refuses."""
    from prometheus_client import exposition

    registry: Any = _Registry(samples)
    return bytes(exposition.generate_latest(registry))


def content_type() -> str:
    """The media type of `text`."""
    from prometheus_client import exposition

    return str(exposition.CONTENT_TYPE_LATEST)


def check_file(file: str) -> None:
    """Raises CouldNot for a file that node_exporter does not read, or whose folder is not there."""
    if not file.endswith(ENDING):
        raise CouldNot(
            f"--textfile: '{file}' is not valid: node_exporter reads files that end in {ENDING}"
        )
    if not os.path.isdir(os.path.dirname(file) or "."):
        raise CouldNot(
            f"--textfile: the folder of '{file}' does not exist: name the one that node_exporter"
            " is given as --collector.textfile.directory"
        )


def write(file: str, content: bytes) -> None:
    """Replace a file in one step, for all to read. A link in its place is replaced, not followed:
    node_exporter's user may own the folder. Raises CouldNot."""
    try:
        _replace(file, content)
    except OSError as error:
        raise CouldNot(f"--textfile: {file}: {error.strerror}") from error


def _replace(file: str, content: bytes) -> None:
    folder, name = os.path.split(file)
    descriptor, new = tempfile.mkstemp(prefix=f".{name}.", dir=folder or ".")
    try:
        with open(descriptor, "wb") as opened:
            opened.write(content)
            os.fchmod(descriptor, 0o644)
        os.replace(new, file)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise
