# SPDX-License-Identifier: GPL-2.0-or-later
"""Chromium over the DevTools protocol's pipe: JSON messages that end with NUL, on descriptors 3
and 4 of the browser (`--remote-debugging-pipe`). No port, no library, no network."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")

PATIENCE = 60.0
"""Seconds that an answer may take on a loaded machine."""

FLAGS = (
    "--headless",
    "--no-sandbox",  # as root, and in containers, there is none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
    "--proxy-server=127.0.0.1:9",  # nobody listens: what would be loaded fails
)


def program() -> str:
    """The browser. Raises FileNotFoundError."""
    for name in PROGRAMS:
        if found := shutil.which(name):
            return found
    raise FileNotFoundError(
        f"none of {', '.join(PROGRAMS)} is installed: scripts/dependencies browser"
    )


class Chromium:
    """One browser with one page at a time."""

    def __init__(self, process: subprocess.Popen[bytes], to: int, back: int) -> None:
        self._process = process
        self._to = to
        self._back = back
        self._number = 0
        self._rest = b""
        self._session = ""
        self.errors: list[str] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its answer; events in between are looked at for errors."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + PATIENCE
        while True:
            answer = self._next(until)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._event(answer)

    def _next(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._back], [], [], left)[0]:
                raise TimeoutError("Chromium does not answer")
            part = os.read(self._back, 1 << 20)
            if not part:
                raise RuntimeError(f"Chromium has ended: {self._process.poll()}")
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def _event(self, event: dict[str, Any]) -> None:
        """Whatever a console would show, and every attempt to load something."""
        method, parameters = event.get("method", ""), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(parameters["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled":
            self.errors.append(json.dumps(parameters["args"]))
        elif method == "Log.entryAdded":
            self.errors.append(parameters["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            url = parameters["request"]["url"]
            if not url.startswith("file:"):
                self.errors.append(f"loads {url}")

    def open(
        self, file: Path, width: int = 1280, dark: bool = False, media: str = "screen"
    ) -> None:
        """A new page of this width with the file, loaded and laid out."""
        self.close()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._target, self._session, self.errors = target, session, []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.call("Page.navigate", url=file.as_uri())
        ready = (
            "new Promise(done => document.readyState === 'complete' ? done(location.href)"
            " : addEventListener('load', () => done(location.href)))"
        )
        until = time.monotonic() + PATIENCE
        while self.evaluate(ready) != file.as_uri():
            if time.monotonic() > until:
                raise TimeoutError(f"{file} is not loaded")

    def close(self) -> None:
        """The page, if one is open."""
        if self._session:
            self._session = ""
            self.call("Target.closeTarget", targetId=self._target)

    def evaluate(self, script: str) -> Any:
        """What an expression gives, as JSON; a promise is waited for."""
        answer = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def screenshot(self, file: Path) -> None:
        """The whole page as PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))

    def pdf(self) -> bytes:
        """The page as it is printed."""
        self.call("Emulation.setEmulatedMedia", media="")
        printed = self.call("Page.printToPDF", preferCSSPageSize=True)
        return base64.b64decode(printed["data"])


@contextlib.contextmanager
def running() -> Iterator[Chromium]:
    """A browser with a profile of its own, which is gone at the end. Raises FileNotFoundError."""
    with tempfile.TemporaryDirectory() as folder:
        command = [program(), *FLAGS, f"--user-data-dir={folder}", "about:blank"]
        there, to = os.pipe()
        back, from_there = os.pipe()
        process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{there} 4>&{from_there}', "bash", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(there, from_there),
            start_new_session=True,
        )
        os.close(there)
        os.close(from_there)
        try:
            yield Chromium(process, to, back)
        finally:
            os.close(to)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.close(back)
