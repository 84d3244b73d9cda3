# SPDX-License-Identifier: GPL-2.0-or-later
"""The ksm plugin's loop: real TuneD, real libvirtd, real QEMU guests (TCG), this machine's ksmd."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import debian
from tests.debian import CACHE
from tests.libvirtd import Libvirtd
from tests.sandbox import Sandbox, SystemdSandbox, wait_for

KSM = "/sys/kernel/mm/ksm"
AUTO = "[main]\nsummary=auto\n[ksm]\nmode=auto\neager=1\nmax_cpu=20\n"
KSMTUNED = "[main]\nsummary=ksmtuned\n[ksm]\nmode=ksmtuned\nthres_coef=100\nmonitor_interval=1\n"
KSMTUNED_SUITE = "trixie"
"""From there on its units lie under /usr/lib."""

TIMED = "2.25"
"""Where the generation makes no difference, one is enough."""

pytestmark = pytest.mark.usefixtures("nothing_merged")


@pytest.fixture
def nothing_merged() -> Iterator[None]:
    """Every test starts, and leaves, ksmd stopped and nothing merged."""
    yield
    Path(f"{KSM}/run").write_text("2")
    Path(f"{KSM}/run").write_text("0")


def values(t: Sandbox) -> dict[str, str]:
    return {
        path.rpartition("/")[2]: value
        for path, value in t.snapshot().items()
        if path.startswith(KSM)
    }


def poke(t: Sandbox, name: str, value: str) -> None:
    t.run(["sh", "-c", f"echo {value} > {KSM}/{name}"])


def logged(t: Sandbox, text: str) -> Callable[[], bool]:
    return lambda: text in t.log()


@contextlib.contextmanager
def in_burst(t: Sandbox) -> Iterator[Libvirtd]:
    """A libvirtd beside a TuneD whose loop has begun a burst for the guest "first"."""
    with Libvirtd(t) as libvirt:
        libvirt.start_guest("first")
        t.switch("auto")
        wait_for("burst", logged(t, "ksm: burst: "))
        yield libvirt


def test_a_guests_start_wakes_the_loop_and_off_puts_all_back(
    tuned: Callable[..., Sandbox], version: str
) -> None:
    t = tuned(version, profiles={"auto": AUTO})
    before = t.snapshot()
    with in_burst(t) as libvirt:
        time.sleep(1)
        libvirt.start_guest("web1")
        started = time.monotonic()
        wait_for("woken", logged(t, "ksm: burst: guest web1 (process "), seconds=1)
        assert time.monotonic() - started < 1
        assert values(t)["run"] == "1"
        assert t.verify()
        assert "verify: note: ksm: burst: guest web1 (process " in t.verify_lines
        t.off()
        assert t.snapshot() == before
        libvirt.start_guest("late")
        time.sleep(1.5)
        assert t.snapshot() == before, "the loop has ended"


def test_dynamic_tuning_makes_no_difference(tuned: Callable[..., Sandbox], version: str) -> None:
    for setting in ("0", "1"):
        main = f"daemon = 1\ndynamic_tuning = {setting}\nsleep_interval = 1\nupdate_interval = 10\n"
        t = tuned(version, profiles={"auto": AUTO}, files={"/etc/tuned/tuned-main.conf": main})
        with in_burst(t):
            assert t.verify()
            t.off()


def test_the_daemons_end_is_not_held_up(tuned: Callable[..., Sandbox]) -> None:
    t = tuned(TIMED, profiles={"auto": AUTO, "empty": "[main]\nsummary=nothing\n"})
    before = t.snapshot()
    t.switch("empty")
    without = t.terminate()
    t.start()
    with in_burst(t) as libvirt, libvirt.frozen():
        seconds = t.terminate()
    print(
        f"SIGTERM to the end: {seconds:.2f} s in a burst with libvirtd hung, {without:.2f} s idle"
    )
    assert seconds < without + 2
    assert t.snapshot() == before


def tuned_process(t: Sandbox) -> Path:
    """/proc's folder of the daemon, as the machine sees it."""
    [inside] = t.run(["pgrep", "-f", "/usr/sbin/tuned -l"]).stdout.split()
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
            same = os.readlink(status.parent / "ns/pid") == os.readlink(f"/proc/{t.pid}/ns/pid")
        except OSError:
            continue
        numbers = next(line for line in text.splitlines() if line.startswith("NSpid:")).split()
        if same and numbers[-1] == inside:
            return status.parent
    raise AssertionError("TuneD is not to be seen")


@dataclass(frozen=True)
class Burden:
    """Threads, open files of its own, those of guests' memory, and KiB that are resident."""

    threads: int
    files: int
    guests_files: int
    resident: int


def burden(process: Path) -> Burden:
    """What a daemon holds."""
    files = [link for link in map(link_of, (process / "fd").iterdir()) if link]
    of_guests = [link for link in files if link.endswith("/statm")]
    return Burden(
        threads=len(list((process / "task").iterdir())),
        files=len(files) - len(of_guests),
        guests_files=len(of_guests),
        resident=int((process / "statm").read_text().split()[1]) * 4,
    )


def link_of(file: Path) -> str:
    """What an open file is; "" for one that was closed meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        return os.readlink(file)
    return ""


def test_fifty_starts_and_stops_leave_nothing(tuned: Callable[..., Sandbox]) -> None:
    t = tuned(TIMED, profiles={"auto": AUTO})
    with Libvirtd(t) as libvirt:
        t.switch("auto")
        process = tuned_process(t)
        for turn in range(50):
            libvirt.start_guest(f"g{turn}", mib=8)
            libvirt.stop_guest(f"g{turn}")
            if turn == 9:
                time.sleep(1)
                early = burden(process)
        time.sleep(1)
        late = burden(process)
        print(f"{early} after 10, {late} after 50")
        assert (late.threads, late.files) == (early.threads, early.files)
        assert max(early.guests_files, late.guests_files) <= 1, (
            "the last one's, until the next look"
        )
        assert late.resident - early.resident < 2048
        assert "Traceback" not in t.log()


def test_values_changed_behind_our_back_are_said_and_set_again_once(
    tuned: Callable[..., Sandbox],
) -> None:
    t = tuned(TIMED, profiles={"auto": AUTO})
    before = t.snapshot()
    with in_burst(t):
        time.sleep(1)
        poke(t, "run", "0")
        wait_for("said", logged(t, "ksm: run is '0', not '1': changed by another program"))
        wait_for("set again", lambda: values(t)["run"] == "1")
        poke(t, "run", "0")
        time.sleep(3)
        assert values(t)["run"] == "0", "not fought over more than once a minute"
        assert not t.verify()
        assert "'ksm run' = '0', expected '1' (changed by another program)" in t.verify_lines
        poke(t, "run", "2")
        wait_for("hands off", logged(t, "ksm: not managing KSM: run is 2"))
        t.off()
    assert t.snapshot() == before


def test_libvirtd_killed_and_started_again(tuned: Callable[..., Sandbox]) -> None:
    t = tuned(TIMED, profiles={"auto": AUTO})
    with in_burst(t) as libvirt:
        time.sleep(1)
        libvirt.kill9()
        wait_for("said", logged(t, "libvirt is unavailable"))
        assert t.verify()
        libvirt.start()
        wait_for("back", logged(t, "libvirt is available again"), seconds=10)
        libvirt.start_guest("second")
        wait_for("woken", logged(t, "ksm: burst: guest second (process "), seconds=2)


@pytest.mark.parametrize("undo", ["off", "restore"])
def test_killed_in_a_burst(tuned: Callable[..., Sandbox], version: str, undo: str) -> None:
    t = tuned(version, profiles={"auto": AUTO})
    before = t.snapshot()
    with Libvirtd(t) as libvirt:
        libvirt.start_guest("first", mib=64)
        t.switch("auto")
        wait_for("burst", lambda: values(t)["run"] == "1")
        t.kill9()
        assert t.snapshot() != before
        if undo == "restore":
            t.run(["tuned-virt", "restore"], check=False)
        else:
            t.start()
            assert t.verify()
            t.off()
    assert t.snapshot() == before


def test_switching_profiles_keeps_the_loop(tuned: Callable[..., Sandbox], version: str) -> None:
    t = tuned(version, profiles={"auto": AUTO, "same": AUTO})
    with in_burst(t):
        with t.log_of() as lines:
            t.switch("same")
            time.sleep(0.5)
        assert not [line for line in lines if "ksm: burst" in line or "ksm: run" in line]
        assert t.verify()


def test_ksmtuneds_law(tuned: Callable[..., Sandbox], version: str) -> None:
    t = tuned(version, profiles={"ksmtuned": KSMTUNED})
    before = t.snapshot()
    t.switch("ksmtuned")
    wait_for("boost", lambda: values(t)["pages_to_scan"] == "1250", seconds=10)
    assert values(t)["run"] == "1"
    assert values(t)["sleep_millisecs"] == "10"
    assert t.verify()
    t.off()
    assert t.snapshot() == before


def test_ksmtuneds_configuration_is_taken_over(tuned: Callable[..., Sandbox], version: str) -> None:
    t = tuned(version)
    theirs = (debian.unpacked("ksmtuned", KSMTUNED_SUITE, CACHE) / "etc/ksmtuned.conf").read_text()
    ours = "KSM_THRES_COEF=100\nKSM_MONITOR_INTERVAL=1\n# not so fast\nKSM_NPAGES_MAX=333\n"
    t.write("/etc/ksmtuned.conf", theirs + ours)
    said = t.run(["tuned-virt", "import", "ksmtuned"]).stdout
    assert "ksm_npages_max=333" in said
    variables = t.read("/etc/tuned/virtual-host-plus-variables.conf").splitlines()
    assert variables[-2:] == ["# not so fast", "ksm_npages_max=333"]
    before = t.snapshot()
    t.switch("virtual-host-plus")
    wait_for("their law", lambda: values(t)["pages_to_scan"] == "333")
    assert t.verify()
    t.off()
    assert t.snapshot() == before
    assert "nothing to change" in t.run(["tuned-virt", "import", "ksmtuned"]).stdout


def test_status_tells_of_guests_and_decisions(tuned: Callable[..., Sandbox]) -> None:
    t = tuned(TIMED, profiles={"auto": AUTO})
    with Libvirtd(t) as libvirt:
        libvirt.start_guest("web1", mib=64)
        libvirt.start_guest("vault", extra_xml="<memoryBacking><nosharepages/></memoryBacking>")
        t.switch("auto")
        wait_for("burst", logged(t, "ksm: burst: "))
        status = json.loads(t.run(["tuned-virt", "status", "--json"]).stdout)
        guests = {guest["guest"]: guest for guest in status["guests"]}
        assert guests["web1"]["memory_mib"] == 64
        assert guests["web1"]["mergeable_mib"] is not None
        assert (guests["vault"]["opted_out"], guests["web1"]["opted_out"]) == (True, False)
        assert "opted out" in t.run(["tuned-virt", "status"]).stdout
        told = t.run(["tuned-virt", "status", "--ksm"]).stdout
        assert "loop      mode=auto: " in told
        assert re.search(r"burst: guest web1 .*started \(.*\brun=1\)", told), told


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [
        ("off", {"run": "0"}),
        ("unmerge", {"run": "2"}),
        ("kernel", {"run": "1", "advisor_mode": "none [scan-time]"}),
    ],
)
def test_the_other_modes(
    tuned: Callable[..., Sandbox], version: str, mode: str, wanted: dict[str, str]
) -> None:
    t = tuned(version, profiles={"it": f"[main]\nsummary=it\n[ksm]\nmode={mode}\n"})
    poke(t, "run", "1")
    before = t.snapshot()
    t.switch("it")
    assert {name: values(t)[name] for name in wanted} == wanted
    assert t.verify()
    t.off()
    assert t.snapshot() == before


def test_plentiful_memory_is_left_alone(tuned: Callable[..., Sandbox], version: str) -> None:
    t = tuned(version)
    before = t.snapshot()
    t.switch("virtual-host-plus")
    time.sleep(1)
    assert values(t) == {path.rpartition("/")[2]: v for path, v in before.items() if KSM in path}
    assert t.verify()
    assert "verify: note: ksm: idle" in t.verify_lines


def test_hands_off_where_a_service_is_masked(tuned: Callable[..., Sandbox]) -> None:
    t = tuned(TIMED, profiles={"auto": AUTO})
    t.run(["ln", "-s", "/dev/null", "/etc/systemd/system/ksmtuned.service"])
    before = t.snapshot()
    with Libvirtd(t) as libvirt:
        libvirt.start_guest("first")
        t.switch("auto")
        time.sleep(1.5)
        assert t.snapshot() == before
    assert t.verify()
    masked = "ksm: not managing KSM: ksmtuned.service masked: an administrator has disabled KSM"
    assert f"verify: note: {masked}" in t.verify_lines
    assert masked in t.log()


def test_the_services_are_stopped_and_started_again(tuned_service: SystemdSandbox) -> None:
    t = tuned_service
    package = debian.unpacked("ksmtuned", KSMTUNED_SUITE, CACHE)
    for folder in ("usr/sbin", "usr/lib/systemd/system", "etc"):
        for file in (package / folder).iterdir():
            if file.is_file():
                shutil.copy(file, t.root / folder)
    t.run(["systemctl", "daemon-reload"])
    t.run(["systemctl", "start", "ksmtuned"])

    def states() -> list[str]:
        return t.run(["systemctl", "is-active", "ksm", "ksmtuned"], check=False).stdout.split()

    assert states() == ["active", "active"]
    before = t.snapshot()
    t.switch("virtual-host-plus")
    assert states() == ["inactive", "inactive"]
    assert "ksm: ksmtuned.service: 'active' -> 'inactive' (conflicting service)" in t.log()
    assert t.verify()
    t.run(["systemctl", "start", "ksm"])
    assert not t.verify()
    assert "'ksm ksm.service' = 'active', expected 'inactive'" in t.verify_lines
    t.run(["systemctl", "stop", "ksm"])
    t.off()
    assert states() == ["active", "active"]
    assert t.snapshot() == before
    t.switch("virtual-host-plus")
    assert t.terminate() < 10, "a start that waits for TuneD's end is not waited for"
    wait_for("the services back", lambda: states() == ["active", "active"])
    assert t.snapshot() == before
