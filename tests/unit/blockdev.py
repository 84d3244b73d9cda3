# SPDX-License-Identifier: GPL-2.0-or-later
"""A sysfs of block devices in a folder, with queues that behave as the kernel's block/elevator.c.

The unit tier runs without root and without such disks; tests/vm and tests/system try the real ones.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from tuned_virt.kernel.files import KernelFileError, KernelFS

MQ = "none mq-deadline kyber bfq"
SQ = "noop deadline cfq"

FRESH = {
    "none": {},
    "mq-deadline": {"read_expire": "500", "write_expire": "5000", "fifo_batch": "16"},
    "bfq": {"slice_idle": "8", "timeout_sync": "124"},
    "kyber": {"read_lat_nsec": "2000000"},
    "noop": {},
    "deadline": {"read_expire": "500"},
    "cfq": {"slice_idle": "8"},
}

PCI = "/sys/devices/pci0000:00/0000:00:{slot:02x}.0"


class FakeDisks(KernelFS):
    """`add` puts disks there; `writes` has what was written, `refuse` answers with an errno."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.__dict__.update(
            writes=[],
            numbers={},
            refuse=None,
            before_write=None,
            seq=itertools.count(1),
            slots=itertools.count(1),
        )
        (root / "sys/block").mkdir(parents=True)
        (root / "sys/class/block").mkdir(parents=True)

    seq: itertools.count[int]
    numbers: dict[str, int]
    writes: list[tuple[str, str]]
    refuse: Callable[[str, str], int] | None
    before_write: Callable[[str], None] | None

    def entries(self, path: str) -> dict[str, int]:
        """As sysfs numbers them: a folder elsewhere gives numbers of what is gone to others."""
        return {name: self.numbers.get(name, 0) for name in super().entries(path)}

    def file(self, path: str, text: str) -> None:
        real = Path(self.root) / path.lstrip("/")
        real.parent.mkdir(parents=True, exist_ok=True)
        real.write_text(text + "\n")

    def link_to(self, path: str, target: str) -> None:
        """A link of sysfs, such as that of a device to its driver."""
        real = Path(self.root) / path.lstrip("/")
        real.parent.mkdir(parents=True, exist_ok=True)
        real.symlink_to(os.path.relpath(target, real.parent))

    def add(
        self,
        name: str,
        path: str,
        offered: str = MQ,
        active: str = "none",
        queues: int = 1,
        **files: str,
    ) -> str:
        """A disk at a path of sysfs ("{pci}" is a new PCI function); its queue's folder."""
        path = path.replace("{pci}", PCI.format(slot=next(self.seq)))
        (Path(self.root) / path.lstrip("/")).mkdir(parents=True)
        target = os.path.relpath(path, "/sys/block")
        (Path(self.root) / f"sys/block/{name}").symlink_to(target)
        (Path(self.root) / f"sys/class/block/{name}").symlink_to(
            os.path.relpath(path, "/sys/class/block")
        )
        self.numbers[name] = next(self.seq)
        for file, text in files.items():
            self.file(f"{path}/{file.replace('__', '/')}", text)
        if offered:
            self._switch(f"{path}/queue", offered.split(), active)
            for number in range(queues):
                (Path(self.root) / f"{path}/mq/{number}".lstrip("/")).mkdir(parents=True)
        else:
            self.file(f"{path}/queue/scheduler", "none")
        return f"{path}/queue"

    def controller(self, name: str, **files: str) -> None:
        """Files of the PCI function that a disk hangs from."""
        function = re.match(
            r".*/0000:[0-9a-f:.]+", os.path.realpath(Path(self.root) / f"sys/block/{name}")
        )
        assert function
        for file, text in files.items():
            Path(function[0], file).write_text(text + "\n")

    def pull(self, name: str) -> None:
        """The disk is gone."""
        gone = Path(self.root) / f"gone-{name}"
        os.rename(os.path.realpath(Path(self.root) / f"sys/block/{name}"), gone)  # all at once
        shutil.rmtree(gone, ignore_errors=True)
        (Path(self.root) / f"sys/block/{name}").unlink()
        (Path(self.root) / f"sys/class/block/{name}").unlink()

    def partition(self, disk: str, name: str, number: str) -> None:
        """A partition of a disk, with its device number."""
        path = Path(os.path.realpath(Path(self.root) / f"sys/block/{disk}")) / name
        path.mkdir()
        (path / "partition").write_text("1\n")
        link = Path(self.root) / f"sys/class/block/{name}"
        link.symlink_to(os.path.relpath(path, link.parent))
        self.number(name, number)

    def number(self, name: str, number: str) -> None:
        """Give a device its number, in /sys/dev/block."""
        link = Path(self.root) / f"sys/dev/block/{number}"
        link.parent.mkdir(parents=True, exist_ok=True)
        target = os.path.realpath(Path(self.root) / f"sys/class/block/{name}")
        link.symlink_to(os.path.relpath(target, link.parent))

    def slaves(self, name: str, *below: str) -> None:
        """What a layered device is made of."""
        for one in below:
            self.file(f"/sys/block/{name}/slaves/{one}", "")

    def scheduler(self, name: str) -> str:
        return re.sub(r".*\[(.+)].*", r"\1", self.read(f"/sys/block/{name}/queue/scheduler"))

    def state(self) -> dict[str, str]:
        """Every file of every queue."""
        found = {}
        for disk in (Path(self.root) / "sys/block").iterdir():
            for file in sorted((disk / "queue").rglob("*")):
                if file.is_file():
                    name = f"{disk.name}/{file.relative_to(disk / 'queue')}"
                    found[name] = file.read_text().strip()
        return found

    def write(self, path: str, value: str) -> None:
        if self.before_write:
            self.before_write(path)
        code = self.refuse(path, value) if self.refuse else 0
        if code:
            raise KernelFileError(path, os.strerror(code), value, code)
        self.writes.append((path, value))
        if path.endswith("/queue/scheduler"):
            offered = self.read(path).replace("[", "").replace("]", "").split()
            if value not in offered:
                raise KernelFileError(path, os.strerror(errno.EINVAL), value, errno.EINVAL)
            self._switch(path.rpartition("/")[0], offered, value)
        else:
            super().write(path, value)

    def _switch(self, queue: str, offered: list[str], active: str) -> None:
        words = " ".join(f"[{word}]" if word == active else word for word in offered)
        shutil.rmtree(Path(self.root) / f"{queue}/iosched".lstrip("/"), ignore_errors=True)
        self.file(f"{queue}/scheduler", words)
        self.file(f"{queue}/nr_requests", "64" if active == "none" else "256")
        for file, text in FRESH[active].items():
            self.file(f"{queue}/iosched/{file}", text)


VIRTIO = "{pci}/virtio0/block/"
AHCI = "{pci}/ata1/host0/target0:0:0/0:0:0:0/block/"
LOOP = "/sys/devices/virtual/block/"


def hba(fs: FakeDisks, name: str, host: int, driver: str = "megaraid_sas", **named: str) -> None:
    """A SCSI disk on a controller of its own."""
    path = f"{{pci}}/host{host}/target{host}:0:0/{host}:0:0:0/block/{name}"
    fs.add(name, path, device__vendor=named.pop("vendor", "DELL"), **named)  # type: ignore[arg-type]
    fs.file(f"/sys/class/scsi_host/host{host}/proc_name", driver)
    fs.controller(name, vendor="0x1000", device="0x005d", subsystem_vendor="0x1028")
