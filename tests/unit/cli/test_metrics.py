# SPDX-License-Identifier: GPL-2.0-or-later
"""`tuned-virt metrics`: what it prints, writes and serves, and its exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuned_virt import cli
from tuned_virt.cli import metrics, metrics_listen, metrics_output
from tuned_virt.metrics.family import FamilySamples
from tuned_virt.metrics.tuning import TUNED

pytest.importorskip("prometheus_client")


class FakeCollection:
    """One family, and as many errors as it is told."""

    errors = 0

    def __init__(self, _fs: object) -> None:
        self.seconds: list[float] = []

    def collect(self, seconds: float) -> tuple[list[FamilySamples], int]:
        self.seconds.append(seconds)
        return [TUNED.of(1)], self.errors


@pytest.fixture(autouse=True)
def collection(monkeypatch: pytest.MonkeyPatch) -> type[FakeCollection]:
    monkeypatch.setattr(metrics, "MetricsCollection", FakeCollection)
    monkeypatch.setattr(FakeCollection, "errors", 0)
    return FakeCollection


def test_it_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["metrics"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "tuned_virt_tuned_up 1.0"


def test_what_could_not_be_read_is_exit_1_and_the_rest_is_there(
    tmp_path: Path, collection: type[FakeCollection], capsys: pytest.CaptureFixture[str]
) -> None:
    collection.errors = 2
    assert cli.main(["metrics"]) == 1
    assert "tuned_virt_tuned_up 1.0" in capsys.readouterr().out
    file = tmp_path / "tuned-virt.prom"
    assert cli.main(["metrics", "--textfile", str(file)]) == 1
    assert file.read_text().endswith("tuned_virt_tuned_up 1.0\n")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--textfile", "/nowhere/a.prom"], "--textfile: the folder of"),
        (["--textfile", "a.txt"], "--textfile: 'a.txt' is not valid"),
        (["--listen", "host:1"], "--listen: 'host' is not an IP address"),
        (["--listen", ""], "--listen: '' is not valid"),
        (["--listen", "192.0.2.1:9815"], "--listen: 192.0.2.1:9815: "),
    ],
)
def test_what_cannot_be_is_exit_2_and_one_line(
    arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["metrics", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"tuned-virt: {why}")
    assert error.count("\n") == 1


def test_it_serves_until_it_is_interrupted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def serve(server: metrics_listen.MetricsServer) -> None:
        assert server.collect(3.0) == metrics_output.text([TUNED.of(1)])
        raise KeyboardInterrupt

    monkeypatch.setattr(metrics_listen.MetricsServer, "serve_forever", serve)
    monkeypatch.setattr(metrics_listen, "parse", lambda _: metrics_listen.ListenAddress("::1", 0))
    assert cli.main(["metrics", "--listen", "9815"]) == 0
    assert capsys.readouterr().err == "http://[::1]:0/metrics\n"
