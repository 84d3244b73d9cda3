# SPDX-License-Identifier: GPL-2.0-or-later
"""What vm_pinning costs: from a guest's start to its last pin, many guests, leaks, idle, memory.

    make bench-pinning

Real QEMU guests on a private libvirtd, and 200 guests of libvirt's test driver; medians of five.
The rival is bare libvirt: the same calls in a loop, as a hook script would make them. At the end
TuneD itself, with its stock profile and with ours and guests pinned: memory, and CPU while idle.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
import uuid as uuids
from collections.abc import Callable
from pathlib import Path

import libvirt

from tests.libvirtd import GUEST as REAL_GUEST
from tests.libvirtd import Libvirtd
from tests.pinners import Pinner, pinning
from tests.sandbox import Sandbox, wait_for

RUNS = 5
STARTS = 1000
IDLE_SECONDS = 60
DRIVER = "test:///default"
GUEST = """<domain type='test'><name>{}</name><memory>8192</memory><vcpu>2</vcpu>
<os><type>hvm</type></os></domain>"""


def rss_mib() -> float:
    """This process's resident memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def wait_held(pinner: Pinner, uuid: str) -> None:
    """Until a guest is held with pins; the file is read only when it is new, for we share a GIL."""
    seen = 0
    while True:
        now = pinner.file.stat().st_mtime_ns if pinner.file.exists() else 0
        if now != seen:
            seen, held = now, pinner.held()
            if uuid in held and held[uuid].pins:
                return
        time.sleep(0.001)


def started(libvirtd: Libvirtd, pinner: Pinner, vcpus: int) -> tuple[float, float]:
    """Seconds from the end of createXML to the last pin; and of the bare calls alone."""
    name = f"v{vcpus}"
    topology = f"<cpu><topology sockets='1' cores='{vcpus}' threads='1'/></cpu>"
    with libvirtd.connection() as connection:
        xml = REAL_GUEST.format(name=name, uuid=uuids.uuid4(), mib=16, extra_xml=topology)
        domain = connection.createXML(xml.replace("<vcpu>1<", f"<vcpu>{vcpus}<"), 1)
        began = time.perf_counter()
        wait_held(pinner, domain.UUIDString())
        pinned = time.perf_counter() - began

        def bare() -> None:
            for number in range(vcpus):
                domain.pinVcpu(number, (False, True))
            domain.pinEmulator((True, False), 0)

        alone = seconds(bare)
        domain.destroy()
    return pinned, alone


def real_guests() -> None:
    """From start to last pin."""
    with Libvirtd() as libvirtd, pinning(libvirtd.uri) as pinner:
        started(libvirtd, pinner, 1)
        for vcpus in (1, 4, 16, 64):
            found = [started(libvirtd, pinner, vcpus) for _ in range(RUNS)]
            ours, bare = (statistics.median(each) * 1e3 for each in zip(*found))
            limit = 20 + 1.2 * vcpus
            print(
                f"{vcpus} vCPUs: pinned after {ours:.1f} ms (at most {limit:.1f}),"
                f" bare calls {bare:.1f} ms, ratio {ours / bare:.2f}",
                flush=True,
            )


def many_guests() -> None:
    """200 at once, and verify of them."""
    connection = libvirt.open(DRIVER)
    for domain in connection.listAllDomains():
        domain.destroy()
    domains = [connection.createXML(GUEST.format(f"t{number}")) for number in range(200)]
    with tempfile.TemporaryDirectory() as folder:
        pinner = Pinner(DRIVER, Path(folder), running="place")
        began = time.perf_counter()
        pinner.start()
        wait_for("all", lambda: sum(bool(one.pins) for one in pinner.held().values()) == 200)
        print(f"200 guests applied in {time.perf_counter() - began:.2f} s", flush=True)
        verify = statistics.median(seconds(pinner.verify) for _ in range(RUNS))
        print(f"200 guests verified in {verify:.2f} s")
        print(f"200 guests put back in {seconds(pinner.off):.2f} s")
    for domain in domains:
        domain.destroy()


def leaks() -> None:
    """Starts and stops."""
    connection = libvirt.open(DRIVER)
    with pinning(DRIVER, running="place") as pinner:
        for number in range(100):
            connection.createXML(GUEST.format(f"warm{number}")).destroy()
        before = rss_mib(), threading.active_count(), len(os.listdir("/proc/self/fd"))
        for number in range(STARTS):
            domain = connection.createXML(GUEST.format(f"s{number}"))
            if number % 50 == 0:
                pinner.wait_pinned(domain.UUIDString())
            domain.destroy()
        wait_for("all forgotten", lambda: not pinner.held())
        after = rss_mib(), threading.active_count(), len(os.listdir("/proc/self/fd"))
        print(
            f"{STARTS} starts and stops: RSS {before[0]:.1f} to {after[0]:.1f} MiB, threads"
            f" {before[1]} to {after[1]}, descriptors {before[2]} to {after[2]}",
            flush=True,
        )


PINNING = "[main]\nsummary=stock and vm_pinning\ninclude=virtual-host\n[vm_pinning]\n"
SETTLE = 5.0
"""Seconds after the last verify until idle begins."""

DAEMON = "p=$(pgrep -o -x tuned); grep VmRSS /proc/$p/status; cat /proc/$p/task/*/schedstat"
"""Inside a sandbox: TuneD's resident memory, and ns on a CPU of each of its threads."""


def daemon(t: Sandbox) -> tuple[float, float]:
    """TuneD's resident memory in MiB, and the seconds that it was on a CPU."""
    rss, *threads = t.run(["sh", "-c", DAEMON]).stdout.splitlines()
    return int(rss.split()[1]) / 2**10, sum(int(line.split()[0]) for line in threads) / 1e9


def tuned() -> None:
    """TuneD with the stock profile; with vm_pinning and with all of ours, and eight guests."""
    with Sandbox("2.25") as t:
        t.switch("virtual-host")
        stock, _ = daemon(t)
    print(f"TuneD with virtual-host: {stock:.1f} MiB", flush=True)
    for name in ("pinning", "virtual-host-plus"):
        with Sandbox("2.25", profiles={"pinning": PINNING}) as t, Libvirtd(t) as libvirtd:
            t.switch(name)
            for number in range(8):
                libvirtd.start_guest(f"web{number}")
            wait_for("eight held", lambda t=t: all_held(t))  # type: ignore[misc]
            time.sleep(SETTLE)
            _, before = daemon(t)
            time.sleep(IDLE_SECONDS)
            rss, used = daemon(t)
        print(
            f"TuneD with {name} and eight guests: {rss:.1f} MiB ({rss - stock:+.1f}),"
            f" idle {(used - before) / IDLE_SECONDS:.3%} of one CPU over {IDLE_SECONDS} s",
            flush=True,
        )


def all_held(t: Sandbox) -> bool:
    """Whether verify finds eight guests in their places."""
    t.verify()
    return t.verify_lines.count("'vm_pinning' = 'shared on node 0") == 8


def main() -> None:
    """All of it."""
    real_guests()
    many_guests()
    leaks()
    tuned()


if __name__ == "__main__":
    main()
