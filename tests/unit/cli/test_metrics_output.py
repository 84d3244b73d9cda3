# SPDX-License-Identifier: GPL-2.0-or-later
"""Prometheus's text format, and the file for node_exporter."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuned_virt.cli import metrics_output
from tuned_virt.cli.common import CouldNot
from tuned_virt.metrics.family import family

parser = pytest.importorskip("prometheus_client.parser")

SCANS = family("scans_total", "Scans.")
GUEST = family("guest", "A guest.", "guest")


def test_text() -> None:
    made = metrics_output.text([SCANS.of(7), GUEST.by({("web",): 0}), family("none", ".").of(None)])
    assert made.decode().splitlines() == [
        "# HELP tuned_virt_scans_total Scans.",
        "# TYPE tuned_virt_scans_total counter",
        "tuned_virt_scans_total 7.0",
        "# HELP tuned_virt_guest A guest.",
        "# TYPE tuned_virt_guest gauge",
        'tuned_virt_guest{guest="web"} 0.0',
    ]
    assert metrics_output.content_type().startswith("text/plain; version=")


@given(st.text(st.characters(exclude_categories=["Cs"])), st.floats(allow_nan=False))
def test_whatever_a_guest_is_called_prometheus_reads_that(name: str, value: float) -> None:
    text = metrics_output.text([GUEST.by({(name,): value})]).decode()
    [found] = parser.text_string_to_metric_families(text)
    [sample] = found.samples
    assert (sample.labels, sample.value) == ({"guest": name}, value)


def test_without_prometheus_client_one_line_says_which_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(CouldNot, match="install the package tuned-virt-plus-metrics") as caught:
        metrics_output.check()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("umask", [0o077, 0])
def test_the_file_is_replaced_for_all_to_read(tmp_path: Path, umask: int) -> None:
    file = tmp_path / "a.prom"
    file.write_text("old")
    before = file.stat().st_ino
    old = os.umask(umask)
    try:
        metrics_output.write(str(file), b"new\n")
    finally:
        os.umask(old)
    assert file.read_text() == "new\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert file.stat().st_ino != before, "a reader has the old file or the new one, whole"
    assert list(tmp_path.iterdir()) == [file]


def test_a_link_in_its_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "shadow"
    victim.write_text("secret")
    file = tmp_path / "a.prom"
    file.symlink_to(victim)
    metrics_output.write(str(file), b"new\n")
    assert victim.read_text() == "secret"
    assert not file.is_symlink()


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "a.prom"
    (folder / "in").mkdir(parents=True)
    with pytest.raises(CouldNot, match=r"--textfile: .*a\.prom: Is a directory"):
        metrics_output.write(str(folder), b"new\n")
    assert list(tmp_path.iterdir()) == [folder]


def test_a_file_that_node_exporter_would_not_read_is_refused(tmp_path: Path) -> None:
    metrics_output.check_file(str(tmp_path / "a.prom"))
    metrics_output.check_file("a.prom")
    with pytest.raises(CouldNot, match=r"--textfile: '.*a\.txt' is not valid: .* end in \.prom"):
        metrics_output.check_file(str(tmp_path / "a.txt"))
    with pytest.raises(
        CouldNot, match=r"--textfile: the folder of '.*' does not exist: .*textfile"
    ):
        metrics_output.check_file(str(tmp_path / "none/a.prom"))
