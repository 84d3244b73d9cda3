# SPDX-License-Identifier: GPL-2.0-or-later
"""How long libvirt waits for an advice: our numad with many guests, bare Python, and numad itself.

make bench-numad    (root: in a mount namespace, so that neither libvirt's nor our files change)
"""

from __future__ import annotations

import itertools
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

REPO = Path(__file__).resolve().parent.parent
STATE = Path("/run/libvirt/qemu")
ADVISED = Path("/run/tuned-virt/numad.json")

PYTHON = ["/usr/bin/python3", "-s"]
ASKED = ["-w", "4:1024"]
OURS = [*PYTHON, str(REPO / "scripts/numad"), *ASKED]
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONPATH": str(REPO)}

GUESTS = (0, 100, 1000)
VCPUS = 4
RUNS = 25
NUMADS = 20
"""numad watches the CPUs for two seconds before it answers."""

AIM_MS = 50

BEGINNING = """<!--
WARNING: THIS IS AN AUTO-GENERATED FILE. CHANGES TO IT ARE LIKELY TO BE
OVERWRITTEN AND LOST. Changes to this xml configuration should be made using:
  virsh edit {name}
or other application using the libvirt API.
-->

<domstatus state='running' reason='booted' pid='{pid}'>
  <monitor path='/var/lib/libvirt/qemu/domain-{number}-{name}/monitor.sock' type='unix'/>
  <namespaces>
    <mount/>
  </namespaces>
  <vcpus>
{vcpus}
  </vcpus>
  <qemuCaps>
"""
REST = "    <flag name='virtio-net.tx_queue_size'/>\n" * 500 + "  </qemuCaps>\n</domstatus>\n"
"""Such a file has some 25 KiB."""

INSIDE = "--inside"
PREPARE = 'mount -t tmpfs none /run && mount -t tmpfs none /var/log && exec "$@"'


class Call(NamedTuple):
    """Milliseconds that a call took, and how long it had a CPU: the rest it waited for one."""

    wall: float
    cpu: float


def call(command: Sequence[str]) -> Call:
    """One call, which must give an answer."""
    before, begin = os.times(), time.perf_counter()
    done = subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, cwd="/", check=False
    )
    wall, after = time.perf_counter() - begin, os.times()
    if done.returncode or done.stderr:
        raise RuntimeError(f"{command}: {done.returncode} {done.stderr}")
    cpu = sum(after[2:4]) - sum(before[2:4])
    return Call(1000 * wall, 1000 * cpu)


def start(guests: int, threads: Sequence[int]) -> None:
    """Files of state of so many guests; their vCPUs are threads of this process."""
    shutil.rmtree(STATE, ignore_errors=True)
    STATE.mkdir(parents=True)
    endless = itertools.cycle(threads)
    for number in range(guests):
        name = f"guest{number:04}"
        vcpus = "\n".join(f"    <vcpu id='{n}' pid='{next(endless)}'/>" for n in range(VCPUS))
        text = BEGINNING.format(name=name, pid=os.getpid(), number=number, vcpus=vcpus)
        (STATE / f"{name}.xml").write_text(text + REST)


def say(what: str, calls: Sequence[Call]) -> None:
    """One line: median and worst, and the mean of CPU time, which has steps of 10 ms."""
    walls = [one.wall for one in calls]
    cpu = statistics.mean(one.cpu for one in calls)
    print(
        f"{what:24} median {statistics.median(walls):7.1f} ms, worst {max(walls):7.1f},"
        f" of a CPU {cpu:5.1f} ({len(calls)} calls)"
    )


def compare() -> None:
    """All of them in turn, so that what else the machine does hits all alike."""
    ended = threading.Event()
    vcpus = [threading.Thread(target=ended.wait, daemon=True) for _ in range(64)]
    for one in vcpus:
        one.start()
    threads = [one.native_id or 0 for one in vcpus]
    calls: dict[str, list[Call]] = {}
    for guests in GUESTS:
        start(guests, threads)
        for _ in range(RUNS):
            ADVISED.unlink(missing_ok=True)
            calls.setdefault("bare Python", []).append(call([*PYTHON, "-c", "pass"]))
            calls.setdefault(f"ours, {guests} guests", []).append(call(OURS))
    ended.set()
    for what, some in calls.items():
        say(what, some)
    print(f"aim: {AIM_MS} ms with {GUESTS[-1]} guests")
    numad = shutil.which("numad")
    if numad is None or Path(numad).read_bytes().startswith(b"#!"):
        print("numad itself is not installed (package numad): it is not compared")
        return
    say("numad", [call([numad, *ASKED]) for _ in range(NUMADS)])


def main() -> None:
    """In namespaces of its own."""
    if INSIDE in sys.argv:
        compare()
        return
    if os.geteuid():
        sys.exit("bench-numad needs root: it mounts a /run of its own")
    again = [sys.executable, "-m", "bench.numad", INSIDE]
    own = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", PREPARE, "sh"]
    sys.exit(subprocess.run([*own, *again], cwd=REPO, check=False).returncode)


if __name__ == "__main__":
    main()
