# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt report on a live host: TuneD, libvirtd and guests, one of them badly named."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.libvirtd import Libvirtd
from tests.pages import checked
from tests.sandbox import Sandbox, wait_for

BAD = "<img src=x onerror=alert(1)>"


def test_every_section_is_there(tuned: Callable[..., Sandbox]) -> None:
    t = tuned("latest")
    t.switch("virtual-host-plus")
    with Libvirtd(t) as libvirtd:
        for name in ("web", BAD):
            libvirtd.start_guest(name)
        wait_for("placed", lambda: t.verify() and t.verify_lines.count("'vm_pinning' = ") == 2)
        t.run(["tuned-virt", "report", "-o", "/tmp/report.html"])
        t.run(["tuned-virt", "snapshot", "-o", "/tmp/host.json"])
        t.run(["tuned-virt", "report", "--snapshot", "/tmp/host.json", "-o", "/tmp/saved.html"])
    text = t.read("/tmp/report.html")
    parts = checked(text)
    assert "Not known" not in text
    assert "virtual-host-plus, verified" in parts.texts["dd"]
    assert re.search(r"last switch</dt><dd>20\d\d-", text)
    assert "2 guests were checked" in text
    rows = re.findall(r'<tr data-row="\d?"><td data-label="guest">(.*?)</td>.*?</tr>', text)
    assert sorted(rows) == ["&lt;img src=x onerror=alert(1)&gt;", "web"]
    delays = re.findall(r'<td data-label="delay %" data-sort="([\d.]+)"', text)
    assert len(delays) == 2, "measured"
    placed = re.findall(r'<td data-label="placed by">tuned-virt: (\w+)</td>', text)
    assert len(placed) == 2
    saved = t.read("/tmp/saved.html")
    checked(saved)
    assert sorted(re.findall(r'<td data-label="placed by">tuned-virt: (\w+)</td>', saved)) == placed
