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


def milliseconds(command: Sequence[str]) -> float:
    """One call, which must give an answer."""
    begin = time.perf_counter()
    done = subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, cwd="/", check=False
    )
    took = 1000 * (time.perf_counter() - begin)
    if done.returncode or done.stderr:
        raise RuntimeError(f"{command}: {done.returncode} {done.stderr}")
    return took


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


def say(what: str, times: Sequence[float]) -> None:
    """One line: median and worst."""
    print(
        f"{what:32} median {statistics.median(times):7.1f} ms, worst {max(times):7.1f}"
        f" ({len(times)} calls)"
    )


def compare() -> None:
    """All of them in turn, so that what else the machine does hits all alike."""
    ended = threading.Event()
    pinned = [threading.Thread(target=ended.wait, daemon=True) for _ in range(64)]
    for one in pinned:
        one.start()
    threads = [one.native_id or 0 for one in pinned]
    times: dict[str, list[float]] = {}
    for guests in GUESTS:
        start(guests, threads)
        for _ in range(RUNS):
            ADVISED.unlink(missing_ok=True)
            times.setdefault("bare Python", []).append(milliseconds([*PYTHON, "-c", "pass"]))
            times.setdefault(f"ours, {guests} guests", []).append(milliseconds(OURS))
    ended.set()
    for what, some in times.items():
        say(f"{what}, aim {AIM_MS}" if str(GUESTS[-1]) in what else what, some)
    numad = shutil.which("numad")
    if numad is None or Path(numad).read_bytes().startswith(b"#!"):
        print("numad itself is not installed (package numad): it is not compared")
        return
    say("numad", [milliseconds([numad, *ASKED]) for _ in range(NUMADS)])


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
