# SPDX-License-Identifier: GPL-2.0-or-later
"""irqbalance's own interface: a socket that tells and takes the CPUs that get no interrupts.

Source: irqbalance's README (Socket API) and irqbalance.c. It answers root alone, by the credentials
beside the request; it takes a list of CPUs since 1.8, and looks at it each time that it balances.
"NULL" gives it back to its own configuration and to the kernel's isolcpus.
"""

from __future__ import annotations

import glob
import os
import re
import socket
import struct
import time

from tuned_virt.kernel import cpuset
from tuned_virt.kernel.files import NotDone

FOLDER = "/run/irqbalance"

TIMEOUT = 2.0
"""Seconds; it answers between two rounds of balancing."""

ROUNDS = 2.5
"""Of its rounds (10 s each, or as its --interval says), so many until what it was told is done."""


class Irqbalance:
    """The irqbalance that runs, if one does."""

    def __init__(self, folder: str = FOLDER) -> None:
        self._folder = folder
        self._round = 10
        self._told: tuple[frozenset[int], float] | None = None

    def banned(self) -> frozenset[int] | None:
        """The CPUs that get no interrupts; None where none runs, or where it does not tell.

        What it has just been told to ban is, until it has had the time to take it.
        """
        answer = self._ask("setup")
        found = re.search(r"SLEEP (\d+) .*BANNED ([0-9a-fA-F,]+)", answer or "")
        if not found:
            return None
        self._round = int(found[1])
        if self._told and time.monotonic() < self._told[1]:
            return self._told[0]
        return cpuset.parse_mask(found[2])

    def ban(self, cpus: str) -> None:
        """Have these CPUs get none, as a list; "" for those of its own configuration.

        Raises NotDone.
        """
        if self._ask(f"settings cpus {cpus or 'NULL'}") is None:
            raise NotDone(self._folder, "irqbalance does not take it", cpus)
        told = cpuset.parse(cpus)
        self._told = (told, time.monotonic() + ROUNDS * self._round) if cpus else None

    def _ask(self, request: str) -> str | None:
        for path in sorted(glob.glob(f"{glob.escape(self._folder)}/irqbalance*.sock")):
            try:
                return _exchange(path, request)
            except OSError:
                continue  # of one that has ended, or is ending
        return None


def _exchange(path: str, request: str) -> str:
    identity = struct.pack("3i", os.getpid(), os.geteuid(), os.getegid())
    beside = [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, identity)]
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(TIMEOUT)
        peer.connect(path)
        peer.sendmsg([request.encode()], beside)
        answer = b""
        while some := peer.recv(1 << 12):
            answer += some
    return answer.decode(errors="replace")
