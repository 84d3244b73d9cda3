# SPDX-License-Identifier: GPL-2.0-or-later
"""A sandbox's TuneD with guests, pools, disks, KSM and limits, of which one call can fail."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults import injected
from tests.faults.plan import Fault, Outcome
from tests.libvirtd import Libvirtd
from tests.loopdev import loops
from tests.pinners import affinities
from tests.sandbox import Sandbox, wait_for

FOLDER = "/run/faults"
"""Where the sandbox's TuneD finds which call is to fail."""

PACKAGES = "/usr/lib/python3/dist-packages"

PROFILE = """[main]
summary=all that can be put back
[crash_guard]
priority=-100
files=/proc/sys/vm/swappiness
[sysctl]
vm.swappiness=13
[ksm]
mode=auto
eager=1
[hugepages_numa]
pages_2M=0:64
mount_2M=/run/hp
transparent_hugepages=never
[blk_elevator_virt]
role=host
devices=loop4???
host_other=bfq
[vm_blkio]
[dedicated]
type=vm_pinning
devices=g1
policy=dedicated
housekeeping=0
running=place
[vm_pinning]
devices=g2
policy=node
housekeeping=0
running=place
[vm_limits]
memory_soft_limit=64M
cpu_shares=55
"""

GUESTS = ("g1", "g2")

SETTINGS = (
    "/sys/kernel/mm/ksm/run",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages",
    "/proc/sys/vm/swappiness",
)

SET_BACK_ONLY = (
    "/sys/kernel/mm/ksm/pages_to_scan",
    "/sys/kernel/mm/ksm/sleep_millisecs",
)
"""What KSM's controller moves while the profile is applied."""

APPLIED, BACK, STAYS_WRONG = 25.0, 20.0, 3.0
"""Seconds: for an apply, for all to be back, and for verify to notice or the retry to mend."""

NOT_OURS = ("baseline.lock",)
"""Files below /run/tuned-virt that may stay."""

PREVIOUS = re.compile(r"Traceback|please report it")


class NotPrepared(Exception):
    """The world is not as it has to be for a round."""


@dataclass
class World:
    """One TuneD, its kernel settings and its guests."""

    t: Sandbox
    libvirt: Libvirtd
    disks: list[str]
    pids: dict[str, int]

    def guests(self) -> dict[str, str]:
        """Threads' CPUs and limits of each guest; threads that come and go are left out."""
        found = {}
        with self.libvirt.connection() as link:
            for name in GUESTS:
                for thread, cpus in affinities(self.pids[name]).items():
                    if not re.match(r"worker|IO tasks|vnc|SPICE", thread):
                        found[f"{name} {thread}"] = cpus
                domain = link.lookupByName(name)
                limits = {**domain.memoryParameters(0), **domain.schedulerParameters()}
                for limit in ("soft_limit", "cpu_shares"):
                    found[f"{name} {limit}"] = str(limits.get(limit))
        return found

    def settings(self, also: tuple[str, ...] = ()) -> dict[str, str]:
        """The kernel's settings, the mount and its folder."""
        found = {path: Path(path).read_text().strip() for path in (*SETTINGS, *also)}
        for name in self.disks:
            found[name] = Path(f"/sys/block/{name}/queue/scheduler").read_text().strip()
        mounts = Path(f"/proc/{self.t.pid}/mounts").read_text()
        found["mount"] = str(re.findall(r"^\S+ /run/hp .*", mounts, re.M))
        found["folder"] = str((self.t.root / "run/hp").exists())
        return found

    def tuned(self) -> dict[str, str]:
        """All that an apply sets and that stays so; guests may have changed places."""
        guests = self.guests()
        vcpus = [name for name in guests if re.match(r"\S+ CPU \d", name)]
        placed = {"vCPUs of all": str(sorted(guests.pop(name) for name in vcpus))}
        return {**self.settings(), **guests, **placed}

    def untuned(self) -> dict[str, str]:
        """All that an off puts back."""
        return {**self.settings(SET_BACK_ONLY), **self.guests()}

    def kept(self) -> str:
        """What still says that something is tuned, or was."""
        return kept(self.t)

    # --- which call fails -------------------------------------------------------------------

    def _file(self, name: str) -> Path:
        return self.t.root / FOLDER.lstrip("/") / name

    def arm(self, fault: Fault) -> None:
        """From now on this call is to fail."""
        self._file("fired").unlink(missing_ok=True)
        self._control(label=fault.label, nth=fault.nth, error=fault.error)

    def disarm(self) -> bool:
        """No call fails any more; whether one has."""
        self._control()
        return self._file("fired").exists()

    @contextlib.contextmanager
    def traced(self) -> Iterator[list[str]]:
        """Labels of the calls in the with block, filled in at its end."""
        self._file("trace").unlink(missing_ok=True)
        self._control(trace=True)
        calls: list[str] = []
        yield calls
        self._control()
        calls += self._file("trace").read_text().splitlines()

    def _control(self, **content: Any) -> None:
        new = self._file("control.new")
        new.write_text(json.dumps(content))
        new.rename(self._file("control"))

    # --- TuneD's steps ----------------------------------------------------------------------

    def forget_log(self) -> None:
        """Begin its log anew: TuneD would rotate it at 1 MB, after some 300 rounds, and then what
        is counted in it is less than before."""
        os.truncate(self.t.root / "var/log/tuned/tuned.log", 0)

    def apply(self, profile: str = "all") -> None:
        """Switch to a profile, and wait until nothing is still being applied."""
        self.t.switch(profile)
        wait_for("all is applied", self._settled, APPLIED)

    def _settled(self) -> bool:
        self.t.verify()
        return "still being applied" not in self.t.verify_lines

    def wait_until(self, wanted: Mapping[str, str], now: Callable[[], dict[str, str]]) -> str:
        """What differs still after a while; "" as soon as nothing does."""
        until = time.monotonic() + BACK
        while differences := differing(wanted, now()):
            if time.monotonic() > until:
                return differences
            time.sleep(0.05)
        return ""


def differing(wanted: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What differs, in words. Threads that only one of them has are none of our settings."""
    return ", ".join(
        f"{name}: {now[name]} instead of {wanted[name]}"
        for name in sorted(wanted.keys() & now.keys())
        if now[name] != wanted[name]
    )


def kept(t: Sandbox) -> str:
    """Files of ours which say that something is tuned, or was."""
    folder = t.root / "run/tuned-virt"
    names = sorted(os.listdir(folder)) if folder.exists() else []
    return ", ".join(name for name in names if name not in NOT_OURS)


@contextlib.contextmanager
def world(version: str, others: Mapping[str, str] | None = None) -> Iterator[World]:
    """A TuneD of a generation that has nothing applied, with other profiles too, and its guests."""
    source = Path(injected.__file__).read_text()
    files = {
        f"{PACKAGES}/tuned_virt_faults.py": source,
        f"{PACKAGES}/tuned_virt_faults.pth": "import tuned_virt_faults\n",
    }
    with contextlib.ExitStack() as stack:
        disks = stack.enter_context(loops(2))
        profiles = {"all": PROFILE, **(others or {})}
        sandbox = Sandbox(version, profiles=profiles, files=files, start=False)
        t = stack.enter_context(sandbox)
        libvirt = stack.enter_context(Libvirtd(t, controllers='"cpu","memory"'))
        for name in GUESTS:
            libvirt.start_guest(name, extra_xml="<iothreads>1</iothreads>")
        os.environ["TUNED_VIRT_FAULTS"] = FOLDER
        stack.callback(os.environ.pop, "TUNED_VIRT_FAULTS")
        t.start()
        pids = {name: libvirt.guest_pid(name) for name in GUESTS}
        yield World(t, libvirt, disks, pids)


class Rounds:
    """Rounds of one fault each, in a world that is as before after each of them."""

    def __init__(self, made: World) -> None:
        self._world = made
        self._before = made.untuned()
        self.traces: dict[str, list[str]] = {}
        with made.traced() as calls:
            made.apply()
        self.traces["apply"] = calls
        if not made.t.verify():
            raise NotPrepared(f"without any fault verify fails:\n{made.t.verify_lines}")
        self._after = made.tuned()
        with made.traced() as calls:
            made.t.off()
            left = made.wait_until(self._before, made.untuned)
        self.traces["off"] = calls
        if left:
            raise NotPrepared(f"without any fault off leaves {left}")

    def run(self, fault: Fault) -> Outcome:
        """One round."""
        outcome = Outcome(fault)
        self._world.forget_log()
        try:
            if fault.phase == "apply":
                self._apply(fault, outcome)
            else:
                self._world.apply()
                self._world.arm(fault)
            self._off(outcome)
        except Exception as error:  # a round that cannot go on is an outcome, whatever it is
            outcome.fired |= self._world.disarm()
            outcome.broken = f"{type(error).__name__}: {error}"
        log = self._world.t.log()
        found = PREVIOUS.search(log)
        if found:
            outcome.broken += f" the log has: {log[found.start() - 200 : found.start() + 1500]}"
        if outcome.inexact or outcome.kept or outcome.broken:
            self._mend()
        return outcome

    def _apply(self, fault: Fault, outcome: Outcome) -> None:
        """Apply with the fault: after a moment verify fails, or all is as asked."""
        world = self._world
        world.arm(fault)
        world.apply()
        until = time.monotonic() + STAYS_WRONG
        while True:
            passed, differs = world.t.verify(), differing(self._after, world.tuned())
            outcome.named |= not passed
            if not differs or not passed or time.monotonic() > until:
                break
            time.sleep(0.1)
        outcome.fired = world.disarm()
        if passed and differs:
            said = re.findall(r"device g\d: .*", world.t.verify_lines)
            outcome.silent = f"{differs}; verify: {'; '.join(said)}"

    def _off(self, outcome: Outcome) -> None:
        world = self._world
        world.t.off()
        outcome.inexact = world.wait_until(self._before, world.untuned)
        until = time.monotonic() + BACK
        while (kept := world.kept()) and time.monotonic() < until:
            time.sleep(0.05)
        outcome.kept = kept
        outcome.fired |= world.disarm()
        world.t.call("is_running")

    def _mend(self) -> None:
        """As before the round, whatever it has left. Raises NotPrepared."""
        world = self._world
        with contextlib.suppress(Exception):
            world.t.kill9()
        world.t.run(["tuned-virt", "restore"], check=False)
        for path in (*SETTINGS, *SET_BACK_ONLY):
            word = re.sub(r".*\[(.+?)].*", r"\1", self._before[path])
            if Path(path).read_text().strip() != self._before[path]:
                Path(path).write_text(word)
        for name in world.disks:
            word = re.sub(r".*\[(.+?)].*", r"\1", self._before[name])
            Path(f"/sys/block/{name}/queue/scheduler").write_text(word)
        away = "umount /run/hp; rmdir /run/hp; rm -rf /run/tuned-virt; : >/etc/tuned/active_profile"
        world.t.run(["sh", "-c", away], check=False)
        for name in GUESTS:
            world.libvirt.stop_guest(name)
        for name in GUESTS:
            world.libvirt.start_guest(name, extra_xml="<iothreads>1</iothreads>")
            world.pids[name] = world.libvirt.guest_pid(name)
        world.t.start()
        left = differing(self._before, world.settings(SET_BACK_ONLY))
        if left:
            raise NotPrepared(f"this is left of the last round: {left}")
        self._before = world.untuned()
        self._after = self._applied_anew()

    def _applied_anew(self) -> dict[str, str]:
        """How all is, with the new guests' threads, once it is tuned."""
        world = self._world
        world.apply()
        found = world.tuned()
        world.t.off()
        left = world.wait_until(self._before, world.untuned)
        if left:
            raise NotPrepared(f"without any fault off leaves {left}")
        return found
