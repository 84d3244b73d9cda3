# SPDX-License-Identifier: GPL-2.0-or-later
"""Prometheus's own promtool and node_exporter on our metrics, alerts and dashboard.

They are unpacked from Debian's packages, not installed: those would start a server each.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from bench import metrics as made_up
from tests.packages import monitoring
from tests.sandbox import REPO, wait_for

RULES = REPO / "monitoring/tuned-virt.rules.yml"
DASHBOARD = REPO / "monitoring/tuned-virt-dashboard.json"

IN_PROMQL = {
    "$__rate_interval": "5m",
    "$job": ".*",
    "$instance": ".*",
}
"""What Grafana puts in place of its variables."""


def promtool(*arguments: str, given: str = "") -> str:
    done = subprocess.run(
        [monitoring.promtool(), *arguments],
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def printed(*arguments: str) -> str:
    command = [sys.executable, "-m", "tuned_virt", "metrics", *arguments]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def test_alert_rules_and_what_fires() -> None:
    assert "SUCCESS" in promtool("check", "rules", str(RULES))
    assert "SUCCESS" in promtool(
        "test", "rules", str(REPO / "tests/data/monitoring/tuned-virt.rules.test.yml")
    )


def by_grafana(variable: re.Match[str]) -> str:
    return IN_PROMQL[variable[0]]


def test_the_dashboards_queries_are_promql(tmp_path: Path) -> None:
    page = json.loads(DASHBOARD.read_text())
    found: list[str] = [target["expr"] for panel in page["panels"] for target in panel["targets"]]
    found += [one["expr"] for one in page["annotations"]["list"]]
    rules = []
    for number, query in enumerate(found):
        rules.append({"record": f"query:{number}", "expr": re.sub(r"\$\w+", by_grafana, query)})
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(file))


def test_metrics_of_this_machine_and_of_many_guests(tmp_path: Path) -> None:
    assert promtool("check", "metrics", given=printed()) == ""
    content = made_up.collected(tmp_path, 30).content
    assert promtool("check", "metrics", given=content.decode()) == ""


def series(text: str) -> list[str]:
    return sorted(re.findall(r"^tuned_virt_\w+(?:\{.*\})?", text, re.MULTILINE))


@pytest.fixture
def exporter(tmp_path: Path) -> Iterator[str]:
    """A node_exporter that reads the folder; its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        *(monitoring.node_exporter(), "--collector.disable-defaults", "--collector.textfile"),
        *(f"--collector.textfile.directory={tmp_path}", f"--web.listen-address={address}"),
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        yield address
        process.terminate()


def test_node_exporter_exports_the_textfile(exporter: str, tmp_path: Path) -> None:
    file = tmp_path / "tuned-virt.prom"
    printed("--textfile", str(file))

    def scraped() -> str:
        try:
            with urllib.request.urlopen(f"http://{exporter}/metrics", timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    wait_for("node_exporter answers", lambda: bool(scraped()))
    text = scraped()
    assert "\nnode_textfile_scrape_error 0\n" in text
    assert re.search(rf'^node_textfile_mtime_seconds{{file="{file}"}} ', text, re.MULTILINE)
    assert series(text) == series(file.read_text())
    alerts = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    [pattern] = re.findall(r'file=~"([^"]*)"', alerts[0]["expr"])
    assert re.fullmatch(pattern, str(file))
