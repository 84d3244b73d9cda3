# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine that the tests run on may be in use: its kernel is brought to what it boots with for
the time of a session, its own TuneD lets go meanwhile, and both are as they were afterwards.

What is to be put back is in a file under /run before the first write, so that a session that was
killed is undone by the next one.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dbus
import dbus.bus

from tests.kernel_snapshot import KSM, active_word, differing, snapshot
from tuned_virt.core.originals import Originals
from tuned_virt.core.state_file import FOLDER

STATE = Path("/run/tuned-virt-tests.json")
ORIGINALS = Path(FOLDER)
BUS = Path("/run/dbus/system_bus_socket")
PID = Path("/run/tuned/tuned.pid")

SHARED = Path(f"{KSM}/pages_sharing")
LETS_GO_SECONDS = 60.0
ENDS = (signal.SIGTERM, signal.SIGHUP)

BOOTED: Mapping[str, str] = {
    f"{KSM}/advisor_mode": "none",
    f"{KSM}/merge_across_nodes": "1",
    f"{KSM}/max_page_sharing": "256",
    f"{KSM}/use_zero_pages": "0",
    f"{KSM}/pages_to_scan": "100",
    f"{KSM}/sleep_millisecs": "20",
    f"{KSM}/smart_scan": "1",
    f"{KSM}/advisor_max_cpu": "70",
    f"{KSM}/advisor_target_scan_time": "200",
    f"{KSM}/advisor_min_pages_to_scan": "500",
    f"{KSM}/advisor_max_pages_to_scan": "30000",
    f"{KSM}/stable_node_chains_prune_millisecs": "2000",
    "/sys/kernel/mm/transparent_hugepage/enabled": "madvise",
    "/sys/devices/system/memory/auto_online_blocks": "offline",
    "/proc/sys/vm/swappiness": "60",
    "/proc/sys/vm/dirty_ratio": "20",
    "/proc/sys/vm/dirty_background_ratio": "10",
    "/proc/sys/net/ipv4/conf/all/arp_filter": "0",
    "/proc/sys/net/ipv4/conf/default/arp_filter": "0",
}
"""What tests take for granted, in the order in which the kernel takes it; ksmd is stopped first."""


class Unusable(Exception):
    """The machine cannot be brought to a known state; the text says why, and what to do."""


def put(path: str, value: str) -> str:
    """Write a setting unless it is so already; why it was refused, or ""."""
    try:
        if active_word(Path(path).read_text().strip()) != value:
            Path(path).write_text(value)
    except OSError as error:
        return f"{path} = {value}: {error.strerror}"
    return ""


def put_back(before: Mapping[str, str]) -> None:
    """All settings as they were, KSM's `run` last. Raises Unusable naming what was refused."""
    if f"{KSM}/run" in differing(before, snapshot()):
        unmerge()
    for _ in range(2):  # one of a pair may be in the other's way
        for path, value in sorted(
            differing(before, snapshot()).items(), key=lambda item: item[0] == f"{KSM}/run"
        ):
            put(path, value)
    left = differing(before, snapshot())
    if left:
        raise Unusable(f"not put back on this machine: {left}")


def unmerge() -> None:
    """Stop ksmd and unmerge. Raises Unusable where that does not fit into memory."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    wanted = int(SHARED.read_text()) * 4
    if wanted > available // 2:
        raise Unusable(
            f"KSM saves {wanted} KiB here and {available} KiB are available: unmerging may not fit;"
            " stop guests before the tests"
        )
    Path(f"{KSM}/run").write_text("2")
    Path(f"{KSM}/run").write_text("0")


def bring_to_boot_values() -> None:
    """The values of BOOTED, as far as this kernel has them. Raises Unusable."""
    if SHARED.exists():
        unmerge()
    refused = [put(path, value) for path, value in BOOTED.items() if Path(path).exists()]
    if any(refused):
        raise Unusable(f"the kernel refuses {', '.join(filter(None, refused))}")


# --- the machine's own TuneD ---------------------------------------------------------------------


Call = Callable[..., Any]


@contextlib.contextmanager
def _tuned() -> Iterator[Call | None]:
    """Calls methods of the machine's TuneD; None where none runs. Raises Unusable."""
    bus = None
    with contextlib.suppress(dbus.DBusException):
        bus = dbus.bus.BusConnection(f"unix:path={BUS}")
        bus.set_exit_on_disconnect(False)
    try:
        if bus is not None and bus.name_has_owner("com.redhat.tuned"):
            yield _caller(bus)
            return
        pid = PID.read_text().strip() if PID.exists() else ""
        if pid and Path(f"/proc/{pid}/status").exists():
            raise Unusable(f"TuneD runs (pid {pid}) and does not answer on D-Bus: stop it first")
        yield None
    finally:
        if bus is not None:
            bus.close()


def _caller(bus: dbus.bus.BusConnection) -> Call:
    proxy = bus.get_object("com.redhat.tuned", "/Tuned", introspect=False)

    def call(method: str, *arguments: Any) -> Any:
        run = proxy.get_dbus_method(method, "com.redhat.tuned.control")
        return run(*arguments, timeout=LETS_GO_SECONDS)

    return call


def held_profile() -> str:
    """The profile that the machine's TuneD holds, or ""."""
    with _tuned() as call:
        return str(call("active_profile")) if call is not None and call("is_running") else ""


def suspend_tuned() -> None:
    """Let the machine's TuneD put everything back.

    By `stop`, which keeps the choice of profile on disk: where the tests are killed, TuneD's next
    start applies it. Raises Unusable where originals are still kept after a minute.
    """
    with _tuned() as call:
        if call is None:
            return
        call("stop")
        deadline = time.monotonic() + LETS_GO_SECONDS
        while kept():
            if time.monotonic() > deadline:
                raise Unusable(f"TuneD has not put back {kept()}: see tuned-virt status")
            time.sleep(0.1)


def kept() -> list[str]:
    """Plugins of ours whose originals are not put back."""
    return [name for name, known in Originals(ORIGINALS).all().items() if known.originals]


def resume_tuned(profile: str, say: Callable[[str], None]) -> None:
    """Let the machine's TuneD apply its profile again. Raises Unusable."""
    with _tuned() as call:
        if call is None or not call("start"):
            raise Unusable(f"TuneD has not taken {profile} up again: tuned-adm profile {profile}")
        deadline = time.monotonic() + LETS_GO_SECONDS
        while "profile is not applied" in _verified(call):
            if time.monotonic() > deadline:
                raise Unusable(f"TuneD has not applied {profile} again: see its log")
            time.sleep(0.1)
        say(f"this machine's TuneD has applied {profile} again")


def _verified(call: Call) -> str:
    token = call("log_capture_start", 20, 20)
    call("verify_profile")
    return str(call("log_capture_finish", token))


# --- a session -----------------------------------------------------------------------------------


def undo(say: Callable[[str], None]) -> None:
    """What STATE says is put back: of this session, or of one that was killed. Raises Unusable."""
    state = json.loads(STATE.read_text())
    try:
        put_back(state.get("before", {}))
    finally:
        if state["profile"]:
            resume_tuned(state["profile"], say)
    STATE.unlink()


def _keep(state: Mapping[str, Any]) -> None:
    new = STATE.with_suffix(".new")
    new.write_text(json.dumps(state))
    os.replace(new, STATE)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def known_state(say: Callable[[str], None]) -> Iterator[None]:
    """The kernel as it boots, and nobody who changes it, for the length of the with block.

    SIGTERM and SIGHUP end the tests as Ctrl-C does, so that all is put back. Raises Unusable.
    """
    if STATE.exists():
        say("tests that were killed have left this machine as they had it: it is put back first")
        undo(say)
    handlers = {number: signal.signal(number, _interrupt) for number in ENDS}
    profile = held_profile()
    _keep({"profile": profile})
    try:
        if profile:
            say(f"this machine's TuneD lets go of {profile} until the tests have ended")
            suspend_tuned()
        _keep({"profile": profile, "before": snapshot()})
        bring_to_boot_values()
        yield
    finally:
        undo(say)
        for number, handler in handlers.items():
            signal.signal(number, handler)
