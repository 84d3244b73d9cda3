# SPDX-License-Identifier: GPL-2.0-or-later
"""A real libvirtd asks our numad where a guest should start, and vm_pinning keeps it there."""

from __future__ import annotations

import json

from tests.libvirtd import Libvirtd
from tests.sandbox import REPO, Sandbox, wait_for

AUTO = "<numatune><memory mode='strict' placement='auto'/></numatune>"
NUMAD = "/usr/bin/numad"
COUNTED = """
from tuned_virt.kernel.files import KernelFS
from tuned_virt.numad import running_guests
print(sum(len(guest.masks) for guest in running_guests.read(KernelFS())[0].running))
"""
"""vCPUs in libvirt's own files of state, whose threads the kernel knows."""

HELD = "/run/tuned-virt/vm_pinning.json"


def test_libvirt_asks_it_and_the_guest_stays(version: str) -> None:
    files = {NUMAD: (REPO / "scripts/numad").read_text()}
    with Sandbox(version, files=files) as t, Libvirtd(t) as libvirt:
        t.run(["chmod", "755", NUMAD])
        t.switch("virtual-host-plus")
        for name in ("one", "two"):
            libvirt.start_guest(name, extra_xml=AUTO)
        advised = json.loads(t.read("/run/tuned-virt/numad.json"))["advised"]
        assert [(one["nodes"], one["vcpus"], one["mib"]) for one in advised] == [([0], 1, 16)] * 2
        wait_for("both are held", lambda: t.read(HELD).count('"device"') == 2)
        assert t.verify(), t.verify_lines
        assert t.run(["/usr/bin/python3", "-c", COUNTED]).stdout == "2\n"
        t.off()
