# SPDX-License-Identifier: GPL-2.0-or-later
"""Real TuneD daemons of several versions, each in its own mount, process and network namespace.

    with Sandbox("2.25", profiles={"mine": "[main]\\nsummary=…\\n"}) as t:
        t.switch("mine"); assert t.verify(); t.off(); t.kill9(); t.start()

The kernel is the machine's own: what TuneD writes under /sys/kernel and /proc/sys/vm is real, and
is put back when the sandbox closes, whatever the test did. The machine's TuneD, D-Bus and files are
never touched: the root is a copy-on-write view with the wanted TuneD laid over it.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dbus
import dbus.bus

from tests import debian
from tests.debian import CACHE
from tests.stacked import Stacked

REPO = Path(__file__).resolve().parent.parent
PYTHON = "/usr/bin/python3"

SUITES = {"2.20": "bookworm", "2.25": "trixie", "latest": "sid"}
"""TuneD generation as tests name it → the Debian suite that carries it."""

APPLIED = "' applied\n"
"""The end of TuneD's line about a profile; errors of ours may end in the word as well."""

REPLACED_FOLDERS = ("usr/lib/python3/dist-packages/tuned", "usr/lib/tuned", "etc/tuned")
"""Folders of the unpacked package that hide, not join, those of the machine."""


def tuned_layer(version: str) -> Path:
    """Folder with one TuneD version unpacked as an overlay layer; downloaded once, then kept.

    Raises debian.Unavailable.
    """
    layer = CACHE / "tuned" / SUITES[version]
    if not (layer / "ready").exists():
        shutil.rmtree(layer, ignore_errors=True)
        suite = debian.Suite(SUITES[version], CACHE)
        suite.update()
        root = suite.unpack("tuned", layer)
        if (root / "lib").exists():  # would hide the machine's /lib symlink
            shutil.copytree(root / "lib", root / "usr/lib", dirs_exist_ok=True)
            shutil.rmtree(root / "lib")
        for folder in REPLACED_FOLDERS:
            os.setxattr(root / folder, "trusted.overlay.opaque", b"y")
        (layer / "ready").touch()
    if not (layer / "compiled").exists():
        compile_all(layer / "root")
        (layer / "compiled").touch()
    return layer / "root"


def compile_all(root: Path) -> None:
    """Byte-code for what a root has for Python, as packages bring it: each start is without it
    a second slower, since a sandbox keeps nothing."""
    folder = root / "usr/lib/python3/dist-packages"
    command = [PYTHON, "-m", "compileall", "-q", "-s", str(root), "-p", "/", str(folder)]
    subprocess.run(command, check=True)


INSTALLED = (
    "usr/bin/tuned-virt",
    "usr/lib/python3/dist-packages/tuned_virt",
    "usr/lib/systemd/system/tuned.service.d",
)
"""What `make install` puts outside of REPLACED_FOLDERS."""


@functools.lru_cache(maxsize=1)
def product_layer() -> Path:
    """This checkout as `make install` lays it out, for the sandbox's root."""
    stage = Path(tempfile.mkdtemp(prefix="tuned-virt-stage-"))
    atexit.register(shutil.rmtree, stage, ignore_errors=True)
    stage.chmod(0o755)  # it becomes the sandbox's /
    subprocess.run(
        [
            "make",
            "--silent",
            "install",
            f"DESTDIR={stage}",
            "SITELIB=/usr/lib/python3/dist-packages",
        ],
        cwd=REPO,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    compile_all(stage)
    for path in INSTALLED:
        if (stage / path).is_dir():
            os.setxattr(stage / path, "trusted.overlay.opaque", b"y")
    return stage


@functools.lru_cache(maxsize=1)
def bare_layer() -> Path:
    """Whiteouts (overlayfs.rst) for what `make up` may have put on this machine."""
    layer = Path(tempfile.mkdtemp(prefix="tuned-virt-bare-"))
    atexit.register(shutil.rmtree, layer, ignore_errors=True)
    layer.chmod(0o755)
    for path in INSTALLED:
        (layer / path).parent.mkdir(parents=True, exist_ok=True)
        os.mknod(layer / path, stat.S_IFCHR)
    return layer


def wait_for(what: str, condition: Callable[[], bool], seconds: float = 20) -> None:
    """Poll until a condition holds. Raises TimeoutError naming it."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(0.02)


class Sandbox(Stacked):
    """One TuneD of a given generation with this checkout installed beside it.

    `profiles` maps a profile's name to the text of its tuned.conf; `files` maps absolute paths to
    texts laid over the root; `setup` are shell lines run inside before the daemon starts. Without
    `installed` there are neither this checkout's files nor a D-Bus, and no daemon is started.
    """

    INIT = "plain"

    def __init__(
        self,
        version: str,
        profiles: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
        plugins: Sequence[Path] = (),
        setup: str = "",
        start: bool = True,
        installed: bool = True,
    ) -> None:
        self.version = version
        self._profiles = dict(profiles or {})
        self._files = dict(files or {})
        self._plugins = plugins
        self._setup = setup
        self._start = start and installed
        self._installed = installed
        self._stack = contextlib.ExitStack()
        self._daemon: subprocess.Popen[bytes] | None = None
        self._bus: dbus.bus.BusConnection | None = None

    def __enter__(self) -> Sandbox:
        with contextlib.ExitStack() as stack:
            base = stack.enter_context(tempfile.TemporaryDirectory(prefix="tuned-sandbox-"))
            init = self._enter_namespaces(base, stack)
            self.pid = int(Path(f"/proc/{init.pid}/task/{init.pid}/children").read_text())
            self.root = Path(f"/proc/{self.pid}/root")
            self.upper = Path(f"/proc/{init.pid}/root{base}/upper")
            self._write_files()
            before = self.snapshot()
            stack.callback(self._put_kernel_back, before)
            if self._setup:
                self.run(["sh", "-euc", self._setup])
            if self._installed:
                self._start_bus(stack)
            if self._start:
                self.start()
            self._stack = stack.pop_all()
        return self

    def _enter_namespaces(self, base: str, stack: contextlib.ExitStack) -> subprocess.Popen[str]:
        layers = [str(tuned_layer(self.version))]
        layers.append(str(product_layer() if self._installed else bare_layer()))
        init = subprocess.Popen(
            [
                *("unshare", "--mount", "--pid", "--net", "--ipc", "--cgroup"),
                *("--fork", "--kill-child", "--propagation", "private"),
                *(str(REPO / "tests/sandbox-init.sh"), self.INIT, str(REPO), base, *layers),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert init.stdout is not None
        stack.callback(init.wait)
        stack.callback(init.stdout.close)
        stack.callback(init.kill)
        self._wait_for_init(init)
        return init

    def _wait_for_init(self, init: subprocess.Popen[str]) -> None:
        assert init.stdout is not None
        if init.stdout.readline() != "ready\n":
            raise RuntimeError("the sandbox's namespaces could not be set up; its stderr says why")

    def _write_files(self) -> None:
        for name, text in self._profiles.items():
            for folder in ("/etc/tuned", "/etc/tuned/profiles"):
                self.write(f"{folder}/{name}/tuned.conf", text)
        for path, text in self._files.items():
            self.write(path, text)
        for plugin in self._plugins:
            self.write(
                f"/usr/lib/python3/dist-packages/tuned/plugins/{plugin.name}", plugin.read_text()
            )

    def _start_bus(self, stack: contextlib.ExitStack) -> None:
        self.run(["dbus-daemon", "--system", "--fork"])
        self._connect(stack)

    def _connect(self, stack: contextlib.ExitStack) -> None:
        socket = self.root / "run/dbus/system_bus_socket"
        self._bus = dbus.bus.BusConnection(f"unix:path={socket}")
        self._bus.set_exit_on_disconnect(False)
        stack.callback(self._bus.close)

    def _put_kernel_back(self, before: Mapping[str, str]) -> None:
        for _ in range(2):  # pages_to_scan may be refused until advisor_mode is back
            for path, value in self.snapshot().items():
                if before.get(path, value) != value:
                    write = ["sh", "-c", f'printf %s "$1" > {path}', "sh", before[path]]
                    self.run(write, check=False)

    def command(self, argv: Sequence[str]) -> list[str]:
        """The argument vector that runs a command inside."""
        inside = ["nsenter", "-t", str(self.pid), "-m", "-p", "-n", "-i", "-r", "--wdns=/", "--"]
        return [*inside, *argv]

    def run(
        self, argv: Sequence[str], check: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside and wait. Its output is captured and shown when it fails."""
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/root"}
        done = subprocess.run(
            self.command(argv),
            capture_output=True,
            text=True,
            timeout=timeout,
            env=environment,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{argv} → {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def write(self, path: str, text: str) -> None:
        """Write a file inside, folders included."""
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def read(self, path: str) -> str:
        """Text of a file inside, stripped. For /proc/sys/net use `run`: it shows the reader's."""
        return (self.root / path.lstrip("/")).read_text().strip()

    def snapshot(self) -> dict[str, str]:
        """Every kernel value that a part of the profiles may write, by path."""
        text = self.run([PYTHON, "-IS", str(REPO / "tests/kernel_snapshot.py")]).stdout
        values: dict[str, str] = json.loads(text)
        return values

    # --- the daemon -------------------------------------------------------------------------

    def start(self, wait: bool = True) -> None:
        """Start tuned as its service does; by default until it has applied and answers."""
        self._daemon = subprocess.Popen(
            self.command(["tuned", "-l", "-P"]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if wait:
            self.wait_until_up()

    def wait_until_up(self) -> None:
        """Until the daemon answers: it has its name before it has methods, and a running loop.

        One that is stopped before its loop runs hangs: `DBusExporter.stop` tells the loop to quit,
        which then begins, and waits for its end.
        """

        def answers() -> bool:
            with contextlib.suppress(dbus.DBusException):
                self.call("is_running")
                return True
            return False

        wait_for("tuned on the bus", answers)

    def _signal(self, name: str) -> None:
        self.run(["pkill", f"-{name}", "-f", "/usr/sbin/tuned -l"])

    def kill9(self) -> None:
        """kill -9, and wait until it is gone."""
        self._signal("KILL")
        self.wait_until_gone()

    def terminate(self) -> float:
        """SIGTERM as systemd sends it; seconds until the process is gone."""
        started = time.monotonic()
        self._signal("TERM")
        self.wait_until_gone()
        return time.monotonic() - started

    def sighup(self) -> None:
        """SIGHUP, and wait until the profile has been applied again."""
        applied = self.log().count(APPLIED)
        self._signal("HUP")
        wait_for("reload after SIGHUP", lambda: self.log().count(APPLIED) > applied)

    def wait_until_gone(self) -> None:
        """Until the daemon's process has ended."""
        assert self._daemon is not None
        self._daemon.wait(timeout=60)
        self._daemon = None

    def call(self, method: str, *arguments: Any) -> Any:
        """A D-Bus method of TuneD."""
        assert self._bus is not None
        proxy = self._bus.get_object("com.redhat.tuned", "/Tuned", introspect=False)
        return proxy.get_dbus_method(method, "com.redhat.tuned.control")(*arguments, timeout=60)

    def switch(self, profile: str) -> None:
        """tuned-adm profile NAME, over D-Bus; returns when its static tuning is applied."""
        applied = self.log().count(APPLIED)
        done, message = self.call("switch_profile", profile)
        assert done, str(message)
        if not self.call("is_running"):
            assert self.call("start")
        wait_for(f"{profile} applied", lambda: self.log().count(APPLIED) > applied)

    def off(self) -> None:
        """tuned-adm off, over D-Bus."""
        assert self.call("disable")

    def verify(self, ignore_missing: bool = False) -> bool:
        """tuned-adm verify, over D-Bus; its lines are kept in `verify_lines`.

        TuneD logs that a profile is applied a moment before it believes so itself.
        """
        method = "verify_profile_ignore_missing" if ignore_missing else "verify_profile"
        verified = False

        def believed() -> bool:
            nonlocal verified
            token = self.call("log_capture_start", 20, 20)
            verified = bool(self.call(method))
            self.verify_lines = str(self.call("log_capture_finish", token))
            return "profile is not applied" not in self.verify_lines

        wait_for("TuneD believes that the profile is applied", believed)
        return verified

    def verify_but(self, *settings: str) -> bool:
        """The same, but for settings of stock profiles that this machine's kernel does not have."""
        self.verify()
        lines = self.verify_lines.splitlines()
        failed = [line for line in lines if "verify: failed" in line]
        passed = any("verify: passed" in line for line in lines)
        return passed and all(any(one in line for one in settings) for line in failed)

    def active(self) -> str:
        """The active profile's name, or ""."""
        return str(self.call("active_profile"))

    @property
    def log_file(self) -> Path:
        """tuned.log."""
        return self.root / "var/log/tuned/tuned.log"

    def log(self) -> str:
        """All of tuned.log."""
        file = self.log_file
        return file.read_text() if file.exists() else ""

    @contextlib.contextmanager
    def log_of(self) -> Iterator[list[str]]:
        """Lines that tuned.log gains inside the with block, filled in at its end."""
        before = len(self.log())
        lines: list[str] = []
        yield lines
        lines.extend(self.log()[before:].splitlines())


class SystemdSandbox(Sandbox):
    """A sandbox whose first process is a real systemd, which runs D-Bus and TuneD as services."""

    INIT = "systemd"

    def _wait_for_init(self, init: subprocess.Popen[str]) -> None:
        children = Path(f"/proc/{init.pid}/task/{init.pid}/children")
        wait_for("the first process", lambda: children.read_text() != "")
        self.pid = int(children.read_text())
        name = Path(f"/proc/{self.pid}/comm")
        wait_for("systemd started", lambda: name.read_text() == "systemd\n")

        def running() -> bool:
            state = self.run(["systemctl", "is-system-running"], check=False, timeout=10)
            return state.stdout.strip() == "running"

        wait_for("systemd done", running, seconds=60)

    def _start_bus(self, stack: contextlib.ExitStack) -> None:
        self._connect(stack)

    def start(self, wait: bool = True) -> None:
        """systemctl start tuned."""
        self.run(["systemctl", "start", "tuned"])

    def restart(self) -> None:
        """systemctl restart tuned."""
        self.run(["systemctl", "restart", "tuned"])

    def terminate(self) -> float:
        """systemctl stop tuned; seconds until it is done."""
        started = time.monotonic()
        self.run(["systemctl", "stop", "tuned"])
        return time.monotonic() - started

    def terminate_alone(self) -> None:
        """SIGTERM to TuneD's process alone, and wait until the service has ended.

        `systemctl stop` may also hit the command by which TuneD asks whether the system goes down.
        It takes that for yes (daemon.py, _full_rollback_required), and does not read `rollback`.
        """
        self.run(["systemctl", "kill", "--kill-who=main", "--signal=TERM", "tuned"])

        def ended() -> bool:
            done = self.run(["systemctl", "is-active", "tuned"], check=False)
            return done.stdout.strip() == "inactive"

        wait_for("the service ended", ended)

    def kill9(self) -> None:
        """kill -9 of TuneD, and wait until systemd has done what it does then."""
        self.run(["systemctl", "kill", "--signal=KILL", "tuned"])

        def failed() -> bool:
            done = self.run(["systemctl", "is-failed", "tuned"], check=False)
            return done.stdout.strip() == "failed"

        wait_for("the service failed", failed)
