# SPDX-License-Identifier: GPL-2.0-or-later
"""Addresses, and a server that answers one request at a time and waits for nobody for ever."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tuned_virt.cli import metrics_listen
from tuned_virt.cli.common import CouldNot
from tuned_virt.cli.metrics_listen import ListenAddress, MetricsServer


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("9815", "127.0.0.1", 9815),
        ("127.0.0.2:1", "127.0.0.2", 1),
        ("0.0.0.0:65535", "0.0.0.0", 65535),
        ("[::1]:9815", "::1", 9815),
        ("[::]:9815", "::", 9815),
        ("[2001:db8::7]:9815", "2001:db8::7", 9815),
    ],
)
def test_addresses(text: str, host: str, port: int) -> None:
    assert metrics_listen.parse(text) == ListenAddress(host, port)
    assert str(metrics_listen.parse(text)) in (text, f"127.0.0.1:{text}")


@pytest.mark.parametrize(
    "text",
    ["", "0", "65536", "x", "-1", "::1:9815", "[127.0.0.1]:80", "host:80", "*:80", ":80",
     "1.2.3:80", "127.0.0.1", "[::1]", "127.0.0.1:", "9815\n", "٣"],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_what_would_be(text: str) -> None:
    with pytest.raises(
        CouldNot, match=r"(?s)^--listen: .*PORT, ADDRESS:PORT or \[IPV6-ADDRESS\]:PORT"
    ):
        metrics_listen.parse(text)


@pytest.mark.parametrize(
    ("told", "given"),
    [(None, 8), ("", 8), ("x", 8), ("10", 8), ("60", 8), ("5", 4), ("0.1", 0.5), ("-1", 8),
     ("nan", 8), ("inf", 8)],
)  # fmt: skip
def test_a_scraper_is_answered_before_it_stops_waiting(told: str | None, given: float) -> None:
    assert metrics_listen.seconds(told) == given


class Metrics:
    """Collects, and says whether two were at it at once."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.at_once = 0
        self.most = 0

    def collect(self, seconds: float) -> bytes:
        self.asked.append(seconds)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        time.sleep(0.05)
        self.at_once -= 1
        return b"up 1\n"


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture(params=["127.0.0.1", "::1"])
def server(
    request: pytest.FixtureRequest, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MetricsServer]:
    monkeypatch.setattr(metrics_listen, "REQUEST", 0.3)
    try:
        made = MetricsServer(ListenAddress(request.param, 0), metrics.collect, "text/x")
    except CouldNot as error:
        pytest.skip(str(error))
    thread = threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def ask(
    server: MetricsServer, path: str = "/metrics", method: str = "GET", **headers: str
) -> tuple[int, bytes, str | None]:
    client = http.client.HTTPConnection(str(server.server_address[0]), server.server_port, 10)
    client.request(
        method, path, headers={key.replace("_", "-"): value for key, value in headers.items()}
    )
    answer = client.getresponse()
    content = answer.read()
    client.close()
    return answer.status, content, answer.getheader("Content-Type")


def test_requests(server: MetricsServer, metrics: Metrics) -> None:
    assert ask(server) == (200, b"up 1\n", "text/x")
    assert ask(server, "/metrics?x=1", X_Prometheus_Scrape_Timeout_Seconds="5")[0] == 200
    assert metrics.asked == [8, 4]
    assert ask(server, "/")[0] == 200
    assert ask(server, "/other")[0] == 404
    assert ask(server, method="POST")[0] == 405
    assert ask(server, method="HEAD")[:2] == (200, b"")
    assert len(metrics.asked) == 3


@pytest.mark.large
def test_one_scrape_at_a_time(server: MetricsServer, metrics: Metrics) -> None:
    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(ask(server)[0])) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (results, metrics.most) == ([200] * 5, 1)


def connect(server: MetricsServer) -> socket.socket:
    return socket.create_connection((str(server.server_address[0]), server.server_port))


@pytest.mark.large
@pytest.mark.parametrize(
    "sent", [b"", b"GET /metrics HTTP/1.1\r\nX: y\r\n", b"\x16\x03\x01", b"G" * 70000]
)
def test_who_sends_no_whole_request_is_cut_off(server: MetricsServer, sent: bytes) -> None:
    with connect(server) as slow:
        slow.sendall(sent)
        began = time.monotonic()
        assert ask(server)[0] == 200
        assert time.monotonic() - began < 5


@pytest.mark.large
def test_who_drips_a_request_is_cut_off_all_the_same(server: MetricsServer) -> None:
    with connect(server) as slow:
        ended = threading.Event()

        def drip() -> None:
            try:
                while not ended.wait(0.05):
                    slow.sendall(b"G")
            except OSError:
                pass

        thread = threading.Thread(target=drip)
        thread.start()
        time.sleep(0.1)
        assert ask(server)[0] == 200
        ended.set()
        thread.join()


def test_what_is_in_use_is_said(server: MetricsServer, metrics: Metrics) -> None:
    host, port = server.server_address[:2]
    with pytest.raises(CouldNot, match=r"--listen: .*: Address already in use"):
        MetricsServer(ListenAddress(str(host), int(port)), metrics.collect, "text/x")
