# SPDX-License-Identifier: GPL-2.0-or-later
"""Every command of the documentation, as it is written there, where systemd has booted."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.documents import commands
from tests.sandbox import REPO, SystemdSandbox

ELSEWHERE = {
    "dnf ": "tests/packages/test_rpm.py",
    "apt-get ": "tests/packages/test_deb.py",
    "make ": "the tiers themselves; make up and uninstall: tests/system/test_make.py",
    "sudo ": "the same, and this file",
    "scripts/": "Makefile",
    "build/venv/bin/": "the tiers themselves",
    "/usr/bin/python3": "tests/system/test_service.py, the sandbox's own daemon",
    "tuned-virt guests --watch": "goes on until it is stopped: tests/unit/cli/test_guests.py",
    "tuned-virt metrics --listen": "the same: tests/unit/cli/test_metrics_listen.py",
}
"""Commands that this file leaves out, and what runs them."""

FOLDER = "/srv/docs"
"""Where commands are run that name files of no folder."""

UNIT = "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
KSMTUNED = "KSM_NPAGES_MAX=2500\n"
GUEST = """<domain type='kvm'><name>web</name><memory unit='GiB'>1</memory><vcpu>2</vcpu>
<uuid>0d2a8ba2-9b06-4a3f-8a1e-6a0f2f3c1d01</uuid><os><type>hvm</type></os></domain>
"""
SYSROOT = """
mkdir -p /mnt/sysroot/etc /mnt/sysroot/usr/lib/systemd/system /etc/udev/rules.d
mkdir -p /srv/snapshots /var/lib/prometheus/node-exporter
cp -a /etc/tuned /mnt/sysroot/etc
cp -a /usr/lib/tuned /mnt/sysroot/usr/lib
cp /lib/systemd/system/tuned.service /mnt/sysroot/usr/lib/systemd/system
"""


def here() -> list[str]:
    """Each command once; what turns everything off comes last."""
    found = {c.text for c in commands() if not c.text.startswith(tuple(ELSEWHERE))}
    return sorted(found, key=lambda text: ("disable" in text.split()[1:2], " off" in text, text))


@pytest.fixture(scope="module")
def machine() -> Iterator[SystemdSandbox]:
    """One machine for all commands, with what they take for granted."""
    files = {f"/etc/systemd/system/{name}.service": UNIT for name in ("numad", "ksm", "ksmtuned")}
    host = (REPO / "tests/data/hosts/two-nodes.xml").read_text()
    files |= {f"{FOLDER}/host.xml": host, f"{FOLDER}/guest.xml": GUEST}
    files |= {f"{FOLDER}/new.conf": "", "/etc/ksmtuned.conf": KSMTUNED}
    t = SystemdSandbox("2.25", files=files)
    with t:
        t.run(["sh", "-ec", SYSROOT])
        t.run(["systemctl", "daemon-reload"])
        for folder in (FOLDER, "/srv/snapshots"):
            t.run(["tuned-virt", "snapshot", "-o", f"{folder}/host.json"])
        t.switch("virtual-host-plus")
        yield t


CANNOT = {
    "tuned-virt restore": re.compile(r"TuneD \(pid \d+\) manages .*: to restore: tuned-adm off"),
    "tuned-virt perf ": re.compile(r"no running guest is named|there is no file kallsyms"),
    "tuned-virt guests ": re.compile(r"no running guest is named '\w+': no guest is running"),
}
"""What commands say that cannot do what they should here."""


@pytest.mark.parametrize("text", here())
def test_it_runs(text: str, machine: SystemdSandbox) -> None:
    """With 0, or 1 where there is something to report; some may say why they cannot."""
    done = machine.run(["bash", "-c", f"cd {FOLDER}; {text}"], check=False)
    said = done.stdout + done.stderr
    cannot = next((why for command, why in CANNOT.items() if text.startswith(command)), None)
    if cannot and done.returncode == 2:
        assert cannot.search(said), said
    else:
        assert done.returncode in (0, 1), said
    assert "Traceback" not in said
