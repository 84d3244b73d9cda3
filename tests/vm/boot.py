# SPDX-License-Identifier: GPL-2.0-or-later
"""Run tests/vm inside booted Debian kernels with four NUMA nodes, emulated by QEMU without KVM.

    python tests/vm/boot.py --kernels "6.1 6.12" [-- PYTEST_ARGS]

Exit status: 0 when all tests passed, 1 when tests failed, 2 when some kernel could not be had or
booted, or pytest could not run in it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT))

from tests import debian  # noqa: E402
from tests.vm import disks, monitor  # noqa: E402

CACHE = debian.CACHE.resolve()
PASSED, FAILED, NOT_RUN = 0, 1, 2

SUITES = {"5.10": "bullseye", "6.1": "bookworm", "6.12": "trixie", "7": "sid"}
"""Kernel series, or major version → the Debian suite that carries it."""

PARTS = ("image", "base", "binary", "modules")
"""Debian's packages of one kernel version are named after these."""

PROGRAMS = {
    "apt-get": "apt",
    "busybox": "busybox-static",
    "depmod": "kmod",
    "file": "file",
    "qemu-system-x86_64": "qemu-system-x86",
    "vng": "virtme-ng, from PyPI",
}
"""Program → the package to install for it."""

CPUS = "8,sockets=8,cores=1,threads=1"
"""A socket is a last-level cache here: each node has two."""

NODES = ("1G,cpus=0-1", "1G,cpus=2-3", "1G,cpus=4-5", "6G,cpus=6-7")
MEMORY = "9G"
DISTANCES = ("0,1=12", "2,3=12", "0,2=21", "0,3=21", "1,2=21", "1,3=21")

SPARE = (
    *("-m", "slots=1,maxmem=12G", "-numa", "node,nodeid=4"),
    *(word for node in range(4) for word in ("-numa", f"dist,src={node},dst=4,val=31")),
    *("-object", "memory-backend-memfd,id=spare,size=512M,share=on"),
    *("-device", "pc-dimm,id=dimm,memdev=spare,node=4"),
)
"""Node 4 has no CPU, and a memory module that is left offline until somebody wants it."""

LEFT_OFFLINE = "memhp_default_state=offline"

HUGE = "hugepagesz=1G hugepages=3:1"
"""Pages of 1 GiB from the boot on, on the node that has room for more of them (-cpu max: and a CPU
that knows them)."""


@dataclass(frozen=True)
class Memory:
    """A machine's memory: all of it and by node in QEMU's words, more of QEMU's options about it,
    and what the kernel is told of it."""

    all: str
    nodes: tuple[str, ...]
    options: tuple[str, ...] = ()
    kernel: str = ""


TESTED = Memory(MEMORY, NODES, SPARE, f"{HUGE} {LEFT_OFFLINE}")

TOOLS = (
    *("udev", "libsystemd-shared", "libudev1", "dmsetup", "libdevmapper1.02.1", "libaio1"),
    *("lvm2", "liblvm2cmd2.03", "libdevmapper-event1.02.1", "libedit2", "mdadm"),
    *("open-iscsi", "libopeniscsiusr", "libisns0", "tgt", "libconfig-general-perl"),
    *("librdmacm1", "libibverbs1", "libnl-3-200", "libnl-route-3-200"),
    *("bcache-tools", "drbd-utils"),
)
"""Debian packages that the guest alone gets, unpacked over its root. Installed on the machine, udev
would start with every boot and load all drivers (119 s instead of 6), and services with every
sandbox."""

TOOLS_SUITE = "bookworm"

GUEST_TOOLS = "/run/tuned-virt-tools"

GUEST_RESULTS = "/run/tuned-virt-vm"
"""Where the guest has the folder of a boot's results; the checkout it has where the host does."""

PRODUCT = "product"
"""Folder beside a boot's results with this checkout as installed, for the guest to copy."""

QEMU = "qemu"
"""Folder beside a boot's results with what libvirt knows of QEMU there; kept for the next boot."""

CONSOLE_TAIL = 30
POLL_SECONDS = 0.1


class NotRunError(RuntimeError):
    """The tests could not be run; the message says why."""


class BootError(NotRunError):
    """The kernel ended before it ran anything of ours: not the tests' doing."""


def suite_of(series: str) -> str:
    """Debian suite that carries a kernel series such as 6.1, 7.2 or 7.x."""
    suite = SUITES.get(series) or SUITES.get(series.split(".", maxsplit=1)[0])
    if suite is None:
        raise NotRunError(f"no suite is known for it; known series: {', '.join(SUITES)}")
    return suite


def newest_packages(names: Sequence[str], series: str) -> list[str]:
    """Packages that make up the newest plain kernel of a series: not cloud, rt, unsigned or dbg.

    Since Debian 14 linux-image is empty and depends on linux-base, -binary and -modules.
    """
    prefix = re.escape(series[:-2] if series.endswith(".x") else series)
    plain = re.compile(rf"linux-image-({prefix}\.[^-]+(?:-\d+)?-amd64)")
    versions = [found[1] for name in names if (found := plain.fullmatch(name))]
    if not versions:
        return []
    newest = max(versions, key=lambda version: [int(n) for n in re.findall(r"\d+", version)])
    return [f"linux-{part}-{newest}" for part in PARTS if f"linux-{part}-{newest}" in names]


def fetch_kernel(series: str, folder: Path) -> None:
    """Download the newest kernel of a series and unpack it, its modules indexed, in a folder."""
    suite = debian.Suite(suite_of(series), CACHE)
    suite.update()
    packages = newest_packages(suite.names(r"^linux-.*-amd64$"), series)
    if not packages:
        raise NotRunError(f"{suite.name} carries no linux-image-{series}.*-amd64")
    say(f"{series}: downloading {', '.join(packages)} from {suite.name}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as scratch:
        for package in packages:
            root = suite.unpack(package, Path(scratch))
        index_modules(root)
        root.rename(folder)


def index_modules(root: Path) -> None:
    """Run depmod in an unpacked kernel, wherever the package has, and depmod wants, the modules."""
    lib, usr_lib = root / "lib", root / "usr/lib"
    if not lib.exists():
        lib.symlink_to("usr/lib")
    elif not usr_lib.exists():
        usr_lib.parent.mkdir(exist_ok=True)
        usr_lib.symlink_to("../lib")
    for modules in (lib / "modules").iterdir():
        depmod = ["depmod", "-b", str(root), modules.name]
        done = subprocess.run(depmod, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotRunError(f"{shlex.join(depmod)}: {done.stderr.strip()}")


def kernel_image(series: str) -> Path:
    """Kernel of a series, downloaded once, then kept; its modules are where vng looks for them."""
    folder = CACHE / "vm/kernels" / series
    if not folder.exists():
        fetch_kernel(series, folder)
    images = [*folder.glob("boot/vmlinuz-*"), *folder.glob("lib/modules/*/vmlinuz")]
    if not images:
        raise NotRunError(f"no vmlinuz in {folder}")
    return images[0]


def tools() -> Path:
    """Folder with the tools, laid out for the root of a machine; downloaded once, then kept."""
    folder = CACHE / "vm/tools" / f"{TOOLS_SUITE}-{zlib.crc32(' '.join(TOOLS).encode()):08x}"
    if not folder.exists():
        suite = debian.Suite(TOOLS_SUITE, CACHE)
        suite.update()
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as scratch:
            for package in TOOLS:
                root = suite.unpack(package, Path(scratch))
            for name in ("lib", "sbin", "bin"):  # links on a machine
                if (root / name).exists():
                    merged = root / "usr" / name
                    shutil.copytree(root / name, merged, symlinks=True, dirs_exist_ok=True)
                    shutil.rmtree(root / name)
            for name in ("usr/share", "var"):  # in var/lock is a folder, which is a link there
                shutil.rmtree(root / name, ignore_errors=True)
            root.rename(folder)
    return folder


def pytest(arguments: Sequence[str]) -> list[str]:
    """The command that runs tests/vm."""
    return [sys.executable, "-m", "pytest", "tests/vm", "-q", "-p", "no:cacheprovider", *arguments]


def guest_script(series: str, command: Sequence[str]) -> str:
    """Shell script for the guest, which leaves a command's output and exit status in results.

    pytest's plugins stay out because importing them takes longer under emulation than the tests do.
    """
    return (
        f"exec >{GUEST_RESULTS}/output 2>&1\n"
        "export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTEST_DISABLE_PLUGIN_AUTOLOAD=1\n"
        f"export TUNED_VIRT_CACHE={shlex.quote(str(CACHE))}\n"
        f"export TUNED_VIRT_PRODUCT={GUEST_RESULTS}/{PRODUCT} TUNED_VIRT_TOOLS={GUEST_TOOLS}\n"
        f"export TUNED_VIRT_QEMU={GUEST_RESULTS}/{QEMU}\n"
        f"cd {shlex.quote(str(CHECKOUT))} || exit\n"
        f"echo {series}: $(uname -r) is up after $(cut -d. -f1 /proc/uptime) s\n"
        f"{shlex.join(command)}\n"
        f"echo $? >{GUEST_RESULTS}/status\n"
    )


def stage_product(folder: Path) -> None:
    """Install this checkout below a folder, which takes many times longer under emulation."""
    make = ["make", "--silent", "install", f"DESTDIR={folder}"]
    done = subprocess.run(make, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotRunError(f"{shlex.join(make)}: {done.stderr.strip()}")


def devices(results: Path) -> list[str]:
    """Options of QEMU for the disks and the monitor, whose files are in results."""
    return [*monitor.qemu_options(results), *disks.qemu_options(results)]


def vng_command(series: str, image: Path, results: Path, memory: Memory) -> list[str]:
    """Command that boots the machine and runs the script in results."""
    return [
        *("vng", "--run", str(image), "--verbose"),
        *("--disable-kvm", "--disable-microvm", "--force-9p", "--user", "root"),
        *("--cpus", CPUS, "--memory", memory.all, "--qemu-opts=-cpu max"),
        "--qemu-opts=-machine mem-merge=off",  # KSM may be tested on the machine outside
        *(f"--numa={node}" for node in memory.nodes),
        *(f"--numa-distance={distance}" for distance in DISTANCES),
        *("--rodir", str(CHECKOUT), "--rwdir", f"{GUEST_RESULTS}={results}"),
        *("--rodir", f"{GUEST_TOOLS}={tools()}"),
        *("--append", f"tuned_virt_vm={series} {memory.kernel}"),
        f"--qemu-opts={shlex.join([*memory.options, *devices(results)])}",
        *("--exec", shlex.join(["sh", f"{GUEST_RESULTS}/script"])),
    ]


def results_of(series: str) -> Path:
    """Folder with what the last boot of a kernel has left."""
    return CACHE / "vm/results" / series


def run_guest(
    series: str, image: Path, limit: float, command: Sequence[str], memory: Memory = TESTED
) -> int:
    """Boot a kernel, run a command in it, pass on what it prints, and return its exit status.

    Raises NotRunError when the guest leaves no status within the limit.
    """
    results = results_of(series)
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir(parents=True)
    (results / "script").write_text(guest_script(series, command))
    (results / "output").touch()
    stage_product(results / PRODUCT)
    known = CACHE / "vm" / QEMU / series
    known.mkdir(parents=True, exist_ok=True)
    shutil.copytree(known, results / QEMU)
    with (results / "output").open(errors="replace") as output:
        in_time = run_machine(vng_command(series, image, results, memory), results, output, limit)
    shutil.copytree(results / QEMU, known, dirs_exist_ok=True)
    status = results / "status"
    if not status.exists() or not status.read_text().strip():
        reason = "the guest ended without a result" if in_time else f"no result in {limit:g} s"
        console = (results / "console").read_text(errors="replace").splitlines()
        came_up = bool((results / "output").read_text(errors="replace"))
        failure = NotRunError if came_up or not in_time else BootError
        raise failure("\n".join([f"{reason}; its console:", *console[-CONSOLE_TAIL:]]))
    return int(status.read_text())


def boot_twice_at_most(
    series: str, image: Path, limit: float, command: Sequence[str], memory: Memory = TESTED
) -> int:
    """As `run_guest`; a kernel that dies before our script runs is said and booted once more.

    Seen once in a dozen boots of 7.2 under emulation: an oops in update_sd_lb_stats at 1.5 s.
    """
    try:
        return run_guest(series, image, limit, command, memory)
    except BootError as error:
        say(f"{series}: {error}\n{series}: it died while booting; once more")
        return run_guest(series, image, limit, command, memory)


def run_machine(command: Sequence[str], results: Path, output: IO[str], limit: float) -> bool:
    """Run a guest until it ends, or until the limit; return whether it ended by itself.

    The console goes through a pipe because QEMU opens its output several times, which would make
    its writers overwrite each other in a file.
    """
    deadline = time.monotonic() + limit
    machine = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "TMPDIR": str(results)},
        start_new_session=True,
    )
    with machine, (results / "console").open("wb") as console:
        copier = threading.Thread(target=console.writelines, args=(machine.stdout,))
        copier.start()
        try:
            while machine.poll() is None and time.monotonic() < deadline:
                pass_on(output)
                time.sleep(POLL_SECONDS)
            return machine.poll() is not None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(machine.pid, signal.SIGKILL)
            copier.join()
            pass_on(output)


def pass_on(output: IO[str]) -> None:
    """Print what a growing file has gained."""
    print(output.read(), end="", flush=True)


def say(message: str) -> None:
    """Print a line of our own."""
    print(message, flush=True)


def extend_path() -> None:
    """Have programs found that are installed beside this Python, and those of administrators."""
    beside_python = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join([beside_python, os.environ["PATH"], "/usr/sbin", "/sbin"])


def check_programs() -> None:
    """Raise NotRunError when a program that is needed is not installed."""
    missing = [f"{name} ({PROGRAMS[name]})" for name in PROGRAMS if not shutil.which(name)]
    if missing:
        raise NotRunError(f"not installed: {', '.join(missing)}")


def run_series(series: str, limit: float, pytest_args: Sequence[str]) -> int:
    """Run the tests in one kernel and return our exit status for it."""
    started = time.monotonic()
    try:
        check_programs()
        image = kernel_image(series)
        fetched = time.monotonic()
        status = boot_twice_at_most(series, image, limit, pytest(pytest_args))
    except (NotRunError, debian.Unavailable, OSError, subprocess.SubprocessError) as error:
        say(f"{series}: could not run: {error}")
        return NOT_RUN
    say(
        f"{series}: pytest exited {status}; the kernel took {fetched - started:.0f} s to get, "
        f"the machine ran for {time.monotonic() - fetched:.0f} s"
    )
    return status if status in (PASSED, FAILED) else NOT_RUN


def main() -> int:
    """Run the tests in every kernel asked for and return the worst status."""
    parser = argparse.ArgumentParser(description="Run tests/vm in booted NUMA kernels.")
    parser.add_argument("--kernels", required=True, help="series such as '6.1 6.12 7.x'")
    parser.add_argument("--limit", type=float, default=1500, help="seconds for each kernel")
    parser.add_argument("pytest_args", nargs="*", metavar="PYTEST_ARGS", help="after --")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(NOT_RUN))
    extend_path()
    statuses = [
        run_series(series, arguments.limit, arguments.pytest_args)
        for series in arguments.kernels.split()
    ]
    return max(statuses, default=NOT_RUN)


if __name__ == "__main__":
    sys.exit(main())
