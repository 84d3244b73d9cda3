# SPDX-License-Identifier: GPL-2.0-or-later
"""irqbalance's socket, answered as irqbalance.c answers."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from tuned_virt.kernel.files import NotDone
from tuned_virt.kernel.irqbalance import Irqbalance


class Answering:
    """An irqbalance that has banned some CPUs, and takes others at its next round."""

    def __init__(self, folder: Path, mask: str) -> None:
        self.mask = mask
        self.asked: list[str] = []
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(str(folder / "irqbalance77.sock"))
        self._listening.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            peer, _ = self._listening.accept()
            with peer:
                self.asked.append(peer.recv(4096).decode())
                if self.asked[-1] == "setup":
                    peer.sendall(f"SLEEP 10 BANNED {self.mask}".encode())


def test_it_tells_and_takes_what_is_banned(tmp_path: Path) -> None:
    other = Answering(tmp_path, "00000000,0000000c")
    one = Irqbalance(str(tmp_path))
    assert one.banned() == frozenset({2, 3})
    one.ban("2-7")
    assert one.banned() == frozenset(range(2, 8)), "though it takes it at its next round only"
    one.ban("")
    assert other.asked[-1] == "settings cpus NULL", "an empty list would not be its own again"
    assert one.banned() == frozenset({2, 3})


def test_none_runs(tmp_path: Path) -> None:
    one = Irqbalance(str(tmp_path))
    assert one.banned() is None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as ended:
        ended.bind(str(tmp_path / "irqbalance1.sock"))
    assert one.banned() is None, "the socket of one that has ended"
    with pytest.raises(NotDone, match="does not take it"):
        one.ban("4")
