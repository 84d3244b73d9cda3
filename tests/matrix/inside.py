# SPDX-License-Identifier: GPL-2.0-or-later
"""The steps of one cell, over two boots of the machine that is booted for it.

Each is reported as a line of JSON on the second serial port; the machine is then switched off. With
`matrix=learn` on the kernel command line libvirt only learns what its QEMU can do.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from tests.matrix.state import State, differences, of_every_boot, state, virsh

HOST, OTHER = "virtual-host-plus", "virtual-guest-plus"
REPORT = Path("/dev/ttyS1")
SAVED = Path("/var/lib/tuned-virt-matrix.json")
LOG = Path("/var/log/tuned/tuned.log")
GUESTS = ("floating", "dedicated")
SLOW_SECONDS = 240

FIRMWARE = Path("/var/lib/libvirt/halt.rom")
HALT = b"\xfa\xf4\xeb\xfd"
"""`cli`, then `hlt` for ever: a BIOS would only take the emulated CPUs' time."""

ROM_BYTES, RESET_BYTES = 64 << 10, 16
"""Length of a ROM; how far before its end an x86 begins."""

GUEST = """
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>24</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <loader readonly='yes' type='rom'>{firmware}</loader>
  </os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <video><model type='none'/></video>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='/var/lib/libvirt/images/{name}.img'/>
      <target dev='vda' bus='virtio'/>
    </disk>
  </devices>
</domain>
"""


class Failed(AssertionError):
    """A step's condition does not hold; the message says which."""


@functools.lru_cache(maxsize=1)
def port() -> IO[str]:
    """To the host; it stays open, as opening it moves its interrupt."""
    return REPORT.open("w", buffering=1)


def report(**what: object) -> None:
    """One line for the host."""
    port().write(json.dumps(what) + "\n")


def run(*command: str, status: int | None = 0) -> str:
    """What a command prints. Raises Failed unless it ends with the status; None is any."""
    started = time.monotonic()
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    print(f"{time.monotonic() - started:.1f} s: {' '.join(command)}", flush=True)
    if status is not None and done.returncode != status:
        raise Failed(f"{' '.join(command)} → {done.returncode}\n{done.stdout}")
    return done.stdout


@contextlib.contextmanager
def step(name: str, since: float | None = None) -> Iterator[None]:
    """Report how long a step takes, and why it fails; the next ones are taken all the same."""
    started = time.monotonic() if since is None else since
    failure = ""
    try:
        yield
    except Exception as error:
        failure = str(error) if isinstance(error, Failed) else traceback.format_exc()
        print(f"{name}: {failure}", flush=True)
    report(step=name, seconds=time.monotonic() - started, failure=failure)


def wait_for(what: Callable[[], str], seconds: float = SLOW_SECONDS) -> None:
    """Poll until nothing is said to be missing. Raises Failed with what was said last."""
    deadline = time.monotonic() + seconds
    while missing := what():
        if time.monotonic() > deadline:
            raise Failed(f"not in {seconds:g} s: {missing}")
        time.sleep(0.5)


# --- what the steps do ------------------------------------------------------------------------


def booted() -> None:
    """systemd is done, libvirtd and TuneD answer. Raises Failed where a unit has failed."""
    state_of_systemd = run("systemctl", "is-system-running", "--wait", status=None).strip()
    virsh("version")
    port()
    print(f"systemd: {state_of_systemd}, {time.monotonic():.0f} s", flush=True)
    if state_of_systemd != "running":
        raise Failed(
            f"{state_of_systemd}: {run('systemctl', '--failed', '--no-legend', '--plain')}"
        )


def rom() -> bytes:
    """A firmware that halts at its first instruction."""
    return bytes(ROM_BYTES - RESET_BYTES) + HALT.ljust(RESET_BYTES, b"\0")


def define_guests() -> None:
    """Guests that start now and with each boot."""
    FIRMWARE.write_bytes(rom())
    for name in GUESTS:
        Path(f"/var/lib/libvirt/images/{name}.img").write_bytes(bytes(1 << 20))
        Path("/run/guest.xml").write_text(GUEST.format(name=name, firmware=FIRMWARE))
        virsh("define", "/run/guest.xml")
        virsh("autostart", name)
        virsh("start", name)


def verify_says(status: int) -> str:
    """All that verify prints. Raises Failed where it does not end with the status."""
    return run("tuned-virt", "verify", status=status)


def verified(profile: str) -> None:
    """Soon all is as a profile has it: slow work goes on after TuneD says that it is applied."""

    def differs() -> str:
        try:
            said = verify_says(0)
        except Failed as failed:
            return str(failed)
        return "" if re.search(rf"^{profile}: verified", said, re.MULTILINE) else said

    wait_for(differs)


def switch(profile: str) -> None:
    """Have TuneD apply a profile."""
    run("tuned-adm", "profile", profile)


def back(before: State, now: Callable[[], State]) -> None:
    """Soon all is as before. Raises Failed with what is not."""
    wait_for(lambda: "\n".join(differences(before, now())), 60)


def off(before: State, now: Callable[[], State]) -> None:
    """Switch TuneD off, after which all is as before."""
    run("tuned-adm", "off")
    back(before, now)


class Drift:
    """What an administrator changes by hand, and how verify names it."""

    def __init__(self) -> None:
        self.swappiness = Path("/proc/sys/vm/swappiness")
        self.pool = Path("/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages")
        self.found = [(path, path.read_text()) for path in (self.swappiness, self.pool)]
        self.pins = virsh("vcpupin", "dedicated", "0").split()[-1]

    def make(self) -> None:
        """Change a sysctl, a pool and a guest's pin."""
        self.swappiness.write_text("77")
        self.pool.write_text("3")
        virsh("vcpupin", "dedicated", "0", "0-3", "--live")

    def named(self) -> None:
        """Raises Failed unless verify fails and names all three."""
        said = verify_says(1)
        failed = "\n".join(line for line in said.splitlines() if "failed" in line)
        for word in ("swappiness", "hugepages", "dedicated"):
            if word not in failed:
                raise Failed(f"verify does not name {word}:\n{said}")

    def mend(self) -> None:
        """Put back what was found."""
        for path, text in self.found:
            path.write_text(text)
        virsh("vcpupin", "dedicated", "0", self.pins, "--live")


# --- the two boots ----------------------------------------------------------------------------


def now() -> State:
    """The machine's state, with its guests."""
    return state(GUESTS)


def first_boot() -> None:
    """All steps up to the reboot."""
    before: State = {}
    with step("boot", since=0):
        booted()
        define_guests()
        before = now()
    with step("switch"):
        switch(HOST)
    with step("verify"):
        verified(HOST)
    with step("drift"):
        drift = Drift()
        drift.make()
        drift.named()
    with step("mended"):
        drift.mend()
        verified(HOST)
    with step("other"):
        switch(OTHER)
        verified(OTHER)
    with step("off"):
        off(before, now)
    with step("kill -9"):
        switch(HOST)
        verified(HOST)
        run("systemctl", "kill", "--signal=KILL", "tuned.service")
        wait_for(
            lambda: (
                "" if run("systemctl", "is-active", "tuned", status=None) == "failed\n" else "dead"
            )
        )
        run("systemctl", "start", "tuned.service")
        off(before, now)
    switch(HOST)
    print(LOG.read_text(), flush=True)
    SAVED.write_text(json.dumps(of_every_boot(before)))
    run("systemctl", "reboot")


def second_boot() -> None:
    """The profile was enabled: guests have started and are placed, and off is still exact."""
    with step("reboot", since=0):
        booted()
        active = set(virsh("list", "--name").split())
        if active != set(GUESTS):
            raise Failed(f"started: {', '.join(active) or 'no guest'}")
        verified(HOST)
    with step("off"):
        off(json.loads(SAVED.read_text()), lambda: of_every_boot(state()))
    print(LOG.read_text(), flush=True)
    run("systemctl", "poweroff", "--force")  # the disk keeps nothing


def learn() -> None:
    """Have libvirt ask its QEMU, which takes longer than all steps."""
    define_guests()
    for name in GUESTS:
        virsh("destroy", name)
        virsh("undefine", name)
    report(learned=True)
    run("systemctl", "poweroff")


def main() -> None:
    """See the module."""
    if "matrix=learn" in Path("/proc/cmdline").read_text().split():
        learn()
    elif SAVED.exists():
        second_boot()
    else:
        first_boot()


if __name__ == "__main__":
    main()
