# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine of a soak: TuneD, libvirtd, guests and disks; its steps, and what must hold."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import dbus
import libvirt

from tests import loopdev
from tests.faults.switches import Size, daemon
from tests.faults.world import PROFILE, differing, kept
from tests.libvirtd import Libvirtd
from tests.pinners import affinities
from tests.sandbox import REPO, Sandbox, wait_for
from tests.soak.steps import Step

ALL = PROFILE.replace("devices=g2\n", "")
OTHER = ALL.replace("pages_2M=0:64", "pages_2M=0:32").replace("cpu_shares=55", "cpu_shares=77")
"""All guests have what the profile says."""

SWAPPINESS = Path("/proc/sys/vm/swappiness")

ALWAYS = ("g1", "g2", "owned")
"""Guests that run from the beginning to the end; the last one's vCPU is pinned by its owner."""

OWNED_XML = "<cputune><vcpupin vcpu='0' cpuset='1'/></cputune>"
OWNED_CPUS = "1"

COME_AND_GO = re.compile(r"worker|IO tasks|vnc|SPICE")
"""Threads of QEMU that nobody pins."""

BACK, SETTLED = 30.0, 40.0
"""Seconds until all is as before, and until nothing is still being applied."""

SETTLED_SWITCHES = 10
"""Switches after which a daemon has loaded everything."""

MORE_LOG = 64 << 10
"""Bytes that a step may add to TuneD's log."""

KEPT_SHOWN = 2000
"""Characters of what is still kept, in a message."""

MERGEABLE_MIB = 192
FEW_DESCRIPTORS = 6
LITTLE_MEMORY = 48 << 20
"""Bytes that the daemon's address space may grow by."""

ERRORS_OF_STEPS = ("few descriptors", "little memory")
"""Steps after which the log may have an exception of TuneD's own."""


class Broken(Exception):
    """An invariant does not hold; the text says which."""


@dataclass
class Scene:
    """What runs, and what it was before.

    nobody_waits  guests are to be restored, libvirtd was not there, and the TuneD that waited for
                  it has ended: only `tuned-virt restore` or the next profile brings them back
    """

    t: Sandbox
    libvirt: Libvirtd
    before: dict[str, str] = field(default_factory=dict)
    limits: dict[str, str] = field(default_factory=dict)
    guests: dict[str, int] = field(default_factory=dict)
    disks: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    tuned: bool = True
    libvirtd: bool = True
    profile: str = ""
    nobody_waits: bool = False
    first: Size | None = None
    switches: int = 0

    # --- what is ----------------------------------------------------------------------------

    def settings(self) -> dict[str, str]:
        """The kernel's, the mount and its folder. Disks that come and go are left out of `before`
        until they are there."""
        found = self.t.snapshot()
        mounts = Path(f"/proc/{self.t.pid}/mounts").read_text()
        found["mount"] = str(re.findall(r"^\S+ /run/hp .*", mounts, re.M))
        found["folder"] = str((self.t.root / "run/hp").exists())
        return found

    def changed_guests(self) -> str:
        """Threads that may not run everywhere, and limits that differ; "" where there are none."""
        everywhere = Path("/sys/devices/system/cpu/online").read_text().strip()
        found = []
        for name, pid in self.guests.items():
            for thread, cpus in affinities(pid).items():
                owned = name == "owned" and thread.startswith("CPU ")
                if not COME_AND_GO.match(thread) and cpus != (OWNED_CPUS if owned else everywhere):
                    found.append(f"{name} {thread} on {cpus}")
            limits = differing(self.limits, self._limits(name))
            found += [f"{name} {limits}"] if limits else []
        return ", ".join(found)

    def _limits(self, name: str) -> dict[str, str]:
        with self.libvirt.connection() as link:
            domain = link.lookupByName(name)
            told = {**domain.memoryParameters(0), **domain.schedulerParameters()}
        return {key: str(told.get(key)) for key in ("soft_limit", "cpu_shares")}

    # --- invariants -------------------------------------------------------------------------

    def check(self, step: Step) -> None:
        """What must hold after each step. Raises Broken."""
        self._owners_pins()
        self._log(step)
        if not self.profile and self.libvirtd and self._let_go(step):
            self._all_back()
            if self.tuned:
                self._flat()

    def _let_go(self, step: Step) -> bool:
        """Whether everything must be as it was: TuneD is off, or was restored while it is not
        running."""
        return self.tuned or step.kind == "restore"

    def _owners_pins(self) -> None:
        cpus = {
            cpus
            for thread, cpus in affinities(self.guests["owned"]).items()
            if thread.startswith("CPU ")
        }
        if cpus != {OWNED_CPUS}:
            raise Broken(f"the owner's pin is {', '.join(cpus)} instead of {OWNED_CPUS}")

    def _log(self, step: Step) -> None:
        log = self.t.log()
        if len(log) > MORE_LOG:
            raise Broken(f"{len(log) >> 10} KiB were logged, ending in {log[-2000:]}")
        found = re.search(r"Traceback|please report it", log)
        if found and step.kind not in ERRORS_OF_STEPS:
            raise Broken(f"the log has {log[max(0, found.start() - 300) : found.start() + 2000]}")
        with contextlib.suppress(FileNotFoundError):
            os.truncate(self.t.root / "var/log/tuned/tuned.log", 0)

    def _all_back(self) -> None:
        until = time.monotonic() + BACK
        while wrong := self._wrong():
            if time.monotonic() > until:
                raise Broken(f"not as before: {wrong}")
            time.sleep(0.1)

    def _wrong(self) -> str:
        found = [differing(self.before, self.settings())]
        if not self.nobody_waits:
            found += [self.changed_guests(), self._kept()]
        return "; ".join(one for one in found if one)

    def _kept(self) -> str:
        left = kept(self.t)
        file = self.t.root / "run/tuned-virt/baseline.json"
        content = file.read_text()[:KEPT_SHOWN] if left and file.exists() else ""
        return f"still kept: {left} {content}" if left else ""

    def _flat(self) -> None:
        size = Size.of(daemon(self.t))
        if self.first is None:
            if self.switches >= SETTLED_SWITCHES:
                self.first = size
        elif size.grown(self.first, self.switches):
            raise Broken(f"TuneD has {size} after {self.switches} switches; at first {self.first}")

    # --- steps ------------------------------------------------------------------------------

    def take(self, step: Step) -> None:
        """One step; returns when what it does has settled, as far as it can."""
        getattr(self, f"_{step.kind.replace(' ', '_')}")(*([step.about] if step.about else []))

    def _switch(self, profile: str) -> None:
        self.nobody_waits = False
        self.t.switch(profile)
        self.profile = profile
        self.switches += 1
        if self.libvirtd:
            wait_for("all is applied", self._settled, SETTLED)

    def _settled(self) -> bool:
        self.t.verify()
        return "still being applied" not in self.t.verify_lines

    def _off(self) -> None:
        self.t.off()
        self.profile = ""

    def _verify(self) -> None:
        self.t.verify()

    def _drift(self) -> None:
        """An administrator's change is named by verify, and he takes it back himself."""
        ours = SWAPPINESS.read_text()
        SWAPPINESS.write_text("77")
        passed, lines = self.t.verify(), self.t.verify_lines
        SWAPPINESS.write_text(ours)
        if passed or "77" not in lines:
            raise Broken(f"verify does not name vm.swappiness = 77: {lines}")

    def _kill_tuned(self) -> None:
        self.t.kill9()
        self._ended()

    def _terminate_tuned(self) -> None:
        self.t.terminate()
        self._ended()

    def _ended(self) -> None:
        self.tuned, self.first, self.switches = False, None, 0
        self._left_without_libvirtd()

    def _left_without_libvirtd(self) -> None:
        if not self.profile and not self.libvirtd and kept(self.t):
            self.nobody_waits = True

    def _start_tuned(self) -> None:
        self.t.start()
        self.tuned = True
        if self.profile and self.libvirtd:
            wait_for("all is applied", self._settled, SETTLED)

    def _reload_tuned(self) -> None:
        self.t.sighup()
        if self.libvirtd:
            wait_for("all is applied", self._settled, SETTLED)

    def _restore(self) -> None:
        """Beside a running TuneD it changes nothing; without one, all is back."""
        before = self.settings() if self.tuned and self.profile else {}
        done = self.t.run(["tuned-virt", "restore"], check=False)
        if self.tuned and self.profile:
            self._refused(done, before)
        elif self.libvirtd and done.returncode:
            raise Broken(f"restore: exit status {done.returncode}: {done.stdout}{done.stderr}")
        elif not self.tuned:
            self.t.run(["sh", "-c", ": >/etc/tuned/active_profile"])
            self.profile = ""
            self._left_without_libvirtd()
        if not self.profile and self.libvirtd:
            self.nobody_waits = False

    def _refused(self, done: subprocess.CompletedProcess[str], before: Mapping[str, str]) -> None:
        if not done.returncode or "manages" not in done.stderr:
            raise Broken(f"restore beside TuneD: {done.returncode}: {done.stdout}{done.stderr}")
        moving = {path: text for path, text in before.items() if "/mm/ksm/" not in path}
        if changed := differing(moving, self.settings()):
            raise Broken(f"restore beside TuneD has changed {changed}")

    def _few_descriptors(self) -> None:
        pid = daemon(self.t)
        few = len(os.listdir(f"/proc/{pid}/fd")) + FEW_DESCRIPTORS
        self._limited(pid, resource.RLIMIT_NOFILE, few)

    def _little_memory(self) -> None:
        pid = daemon(self.t)
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
        self._limited(pid, resource.RLIMIT_AS, pages * resource.getpagesize() + LITTLE_MEMORY)

    def _limited(self, pid: int, what: int, few: int) -> None:
        """A switch with so little, then an off with all again; a daemon that ends is restored."""
        soft, hard = resource.prlimit(pid, what)
        resource.prlimit(pid, what, (few, hard))
        self.switches += 1
        try:
            self.t.call("switch_profile", "all")
            time.sleep(1)
            resource.prlimit(pid, what, (soft, hard))
            self.t.off()
        except (dbus.DBusException, ProcessLookupError):
            self.t.wait_until_gone()
            self._ended()
            self.profile = "all"
            self._restore()
            self._start_tuned()
        self.profile = ""

    def _kill_libvirtd(self) -> None:
        self.libvirt.kill9()
        self.libvirtd = False

    def _start_libvirtd(self) -> None:
        self.libvirt.start()
        self.libvirtd = True

    def _hang_libvirtd(self) -> None:
        with self.libvirt.frozen():
            time.sleep(2)

    def _start_guest(self, name: str) -> None:
        self.libvirt.start_guest(name, extra_xml="<iothreads>1</iothreads>")
        self.guests[name] = self.libvirt.guest_pid(name)

    def _stop_guest(self, name: str) -> None:
        """A libvirtd that has just been started may lose the guest meanwhile, and its QEMU ends."""
        pid = self.guests.pop(name)
        try:
            self.libvirt.stop_guest(name)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _pause_guest(self, name: str) -> None:
        with self.libvirt.connection() as link:
            link.lookupByName(name).suspend()

    def _resume_guest(self, name: str) -> None:
        with self.libvirt.connection() as link:
            link.lookupByName(name).resume()

    def _add_disk(self, number: str) -> None:
        name = loopdev.add(int(number))
        self.disks.callback(_gone, name)
        queue = f"/sys/block/{name}/queue"
        found = {path: text for path, text in self.t.snapshot().items() if path.startswith(queue)}
        self.before.update(found)

    def _remove_disk(self, number: str) -> None:
        queue = f"/sys/block/loop{number}/queue"
        for path in [one for one in self.before if one.startswith(queue)]:
            del self.before[path]
        loopdev.remove(f"loop{number}")

    def _pressure(self) -> None:
        """Two processes write equal pages, and end."""
        holder = subprocess.Popen(
            [sys.executable, str(REPO / "tests/system/ksm_memory.py"), str(MERGEABLE_MIB), "2"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert holder.stdin
        assert holder.stdout
        holder.stdout.readline()
        time.sleep(1)
        holder.stdin.close()
        holder.wait()
        holder.stdout.close()


def _gone(name: str) -> None:
    with contextlib.suppress(OSError):
        loopdev.remove(name)


@contextlib.contextmanager
def scene(version: str) -> Iterator[Scene]:
    """A machine on which nothing is applied yet."""
    profiles = {"all": ALL, "other": OTHER}
    with contextlib.ExitStack() as stack:
        stack.enter_context(loopdev.loops(2))
        sandbox = Sandbox(version, profiles=profiles, start=False)
        t = stack.enter_context(sandbox)
        libvirt = stack.enter_context(Libvirtd(t, controllers='"cpu","memory"'))
        made = Scene(t, libvirt)
        stack.enter_context(made.disks)
        for name in ALWAYS:
            own = OWNED_XML if name == "owned" else ""
            libvirt.start_guest(name, extra_xml=f"{own}<iothreads>1</iothreads>")
            made.guests[name] = libvirt.guest_pid(name)
        t.start()
        made.before = made.settings()
        made.limits = made._limits("g1")
        yield made
