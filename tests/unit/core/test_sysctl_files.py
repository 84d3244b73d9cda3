# SPDX-License-Identifier: GPL-2.0-or-later
"""Which line of the system's sysctl files counts, as TuneD reads them."""

from __future__ import annotations

from pathlib import Path

from tuned_virt.core import sysctl_files
from tuned_virt.kernel.files import KernelFS


def test_the_last_line_in_tuneds_order_counts(tmp_path: Path) -> None:
    def write(path: str, text: str) -> None:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def last(*names: str) -> tuple[str, str] | None:
        found = sysctl_files.last_line(KernelFS(tmp_path), names)
        return (str(found), sysctl_files.value(found)) if found else None

    assert last("vm.swappiness") is None
    write("etc/sysctl.d/20.conf", "vm.swappiness=20\n#vm.swappiness=1\n;vm.swappiness=2\n")
    write("run/sysctl.d/10.conf", "vm.swappiness = 10\nnet/ipv4/conf/eth0.1/x=3\n")
    write("etc/sysctl.d/no.txt", "vm.swappiness=9\n")
    assert last("vm.swappiness") == ("/etc/sysctl.d/20.conf:1", "20")
    assert last("kernel.x", "vm.dirty_bytes") is None
    write("run/sysctl.d/20.conf", "vm.swappiness=21\n")
    assert last("vm.swappiness") == ("/etc/sysctl.d/20.conf:1", "20"), "that of /etc counts"
    (tmp_path / "etc/sysctl.d/15.conf").mkdir()
    write("etc/sysctl.conf", "vm/swappiness=5\nvm.swappiness\n")
    assert last("vm.dirty_bytes", "vm.swappiness") == ("/etc/sysctl.conf:1", "5")
