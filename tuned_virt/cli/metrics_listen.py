# SPDX-License-Identifier: GPL-2.0-or-later
"""Metrics over HTTP, for `tuned-virt metrics --listen`: one request at a time, each for a bounded
time. Nothing is authenticated or encrypted: see docs/tuned-virt-metrics.1.md."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer

from tuned_virt.cli.common import CouldNot
from tuned_virt.frozen_dataclasses import dataclass

PATH = "/metrics"
LOOPBACK = "127.0.0.1"

SCRAPE = 8.0
"""Seconds for a scrape that does not say how long it waits; Prometheus waits 10 by default."""

SPARE = 0.8
"""Part of the time that a scraper waits in which it is answered."""

LEAST = 0.5
"""Seconds that a collection has in any case."""

REQUEST = 5.0
"""Seconds for the whole of a request to arrive, and for its answer to be taken."""

TIMEOUT = "X-Prometheus-Scrape-Timeout-Seconds"
"""The header in which Prometheus says how long it waits."""

VALID = "PORT, ADDRESS:PORT or [IPV6-ADDRESS]:PORT, with a port from 1 to 65535"


@dataclass(frozen=True)
class ListenAddress:
    """An IP address and a port."""

    host: str
    port: int

    @property
    def ipv6(self) -> bool:
        """Whether it is an IPv6 address."""
        return ":" in self.host

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if self.ipv6 else f"{self.host}:{self.port}"


def parse(text: str) -> ListenAddress:
    """[ADDRESS:]PORT; without an address it is loopback. Raises CouldNot."""
    found = re.fullmatch(
        r"(?:(?:\[(?P<six>[^\]]+)\]|(?P<four>[^:\[\]]+)):)?(?P<port>[0-9]{1,5})", text
    )
    if not found or not 1 <= int(found["port"]) <= 65535:
        raise CouldNot(f"--listen: '{text}' is not valid: {VALID}")
    host = found["six"] or found["four"] or LOOPBACK
    try:
        known = ipaddress.ip_address(host)
    except ValueError as error:
        raise CouldNot(f"--listen: '{host}' is not an IP address: {VALID}") from error
    if (known.version == 6) != bool(found["six"]):
        raise CouldNot(f"--listen: '{text}' is not valid: {VALID}")
    return ListenAddress(host, int(found["port"]))


class MetricsServer(HTTPServer):
    """Answers one request after another. Raises CouldNot where it cannot listen.

    `collect` takes seconds and gives the metrics' text.
    """

    request_queue_size = 16

    def __init__(
        self, address: ListenAddress, collect: Callable[[float], bytes], content_type: str
    ) -> None:
        self.address_family = socket.AF_INET6 if address.ipv6 else socket.AF_INET
        self.collect = collect
        self.content_type = content_type
        try:
            super().__init__((address.host, address.port), _Handler)
        except OSError as error:
            raise CouldNot(f"--listen: {address}: {error.strerror or error}") from error

    def server_bind(self) -> None:
        """An IPv6 address means just that; no name is looked up, which may take long."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if self.allow_reuse_address:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away, or is cut off, is nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    server: MetricsServer
    server_version = "tuned-virt"
    sys_version = ""

    def handle(self) -> None:
        """One request; a client that is slow to send it is cut off."""
        with self._within(REQUEST):
            self.raw_requestline = self.rfile.readline(65537)
            self.requestline = self.request_version = self.command = ""
            if len(self.raw_requestline) > 65536:
                self.send_error(HTTPStatus.REQUEST_URI_TOO_LONG)
                return
            if not self.raw_requestline or not self.parse_request():
                return
        self._answer()

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        if self.command not in ("GET", "HEAD"):
            return self._send(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET and HEAD\n")
        if path == "/":
            return self._send(HTTPStatus.OK, f"tuned-virt: {PATH} has metrics\n".encode())
        if path != PATH:
            return self._send(HTTPStatus.NOT_FOUND, f"only {PATH} is here\n".encode())
        content = self.server.collect(seconds(self.headers.get(TIMEOUT)))
        return self._send(HTTPStatus.OK, content, self.server.content_type)

    def _send(
        self, status: HTTPStatus, content: bytes, kind: str = "text/plain; charset=utf-8"
    ) -> None:
        with self._within(REQUEST):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            if status is HTTPStatus.METHOD_NOT_ALLOWED:
                self.send_header("Allow", "GET, HEAD")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    def _within(self, limit: float) -> contextlib.ExitStack:
        """For so many seconds; then the connection is shut down, whatever it does."""
        stack = contextlib.ExitStack()
        timer = threading.Timer(limit, self._cut)
        timer.daemon = True
        timer.start()
        stack.callback(timer.cancel)
        return stack

    def _cut(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged."""


def seconds(timeout: str | None) -> float:
    """How long a collection may take for a scraper that waits so many seconds."""
    try:
        told = float(timeout or "")
    except ValueError:
        return SCRAPE
    return max(LEAST, min(SCRAPE, told * SPARE)) if told > 0 else SCRAPE
