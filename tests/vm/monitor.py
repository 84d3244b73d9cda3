# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's own monitor, reached from inside the machine through a serial port of virtio."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

PORT = "monitor"
PORTS = Path("/sys/class/virtio-ports")

CHUNK = 4096


def qemu_options(folder: Path) -> list[str]:
    """Options of QEMU: its monitor listens on a socket, and the serial port connects to that."""
    socket = folder / "monitor"
    return [
        *("-chardev", f"socket,id=listening,path={socket},server=on,wait=off"),
        *("-mon", "chardev=listening,mode=control"),
        *("-device", "virtio-serial-pci,id=ports"),
        *("-chardev", f"socket,id=inside,path={socket}"),
        *("-device", f"virtserialport,bus=ports.0,chardev=inside,name={PORT}"),
    ]


class Monitor:
    """Takes the commands that people type (QMP's human-monitor-command). Hangs where QEMU does."""

    def __init__(self) -> None:
        subprocess.run(["modprobe", "virtio_console"], check=True)
        (name,) = [
            file.parent.name for file in PORTS.glob("*/name") if file.read_text().strip() == PORT
        ]
        self._port = os.open(f"/dev/{name}", os.O_RDWR)
        self._unread = b""
        self._read()  # its greeting
        self._execute("qmp_capabilities")

    def close(self) -> None:
        """Hang up."""
        os.close(self._port)

    def type(self, command: str) -> str:
        """What a command prints, which is nothing where device_add or device_del went well."""
        answer = self._execute("human-monitor-command", **{"command-line": command})
        return str(answer["return"]).strip()

    def _execute(self, command: str, **arguments: str) -> dict[str, Any]:
        request = json.dumps({"execute": command, "arguments": arguments})
        os.write(self._port, f"{request}\n".encode())
        while True:
            answer = self._read()
            assert "error" not in answer, (request, answer)
            if "return" in answer:
                return answer

    def _read(self) -> dict[str, Any]:
        """The next line: an answer, or an event."""
        while b"\n" not in self._unread:
            self._unread += os.read(self._port, CHUNK)
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer
