# SPDX-License-Identifier: GPL-2.0-or-later
"""Has pages follow their guests, one guest at a time, in a thread of its own.

Reading where a guest's memory is can take seconds, moving it minutes: neither may hold up pins.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence

from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.kernel import migrate_pages, numa_maps, threads
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.kernel.numa_maps import Area
from tuned_virt.kernel.procfs import start_time
from tuned_virt.model.guest import printable

log = logging.getLogger("tuned")

MIB = 1 << 20


@dataclass(frozen=True)
class PageMigration:
    """One guest's memory to bring to nodes; rate and limit in MiB, see `PinningPolicy`."""

    key: str
    name: str
    pid: int
    start: int
    nodes: Sequence[int]
    rate: int
    limit: int | None
    movable: bool = True


class PageMigrator:
    """Moves what it is given; `done(key, remark)` is called after each, from its thread."""

    def __init__(self, fs: KernelFS, done: Callable[[str, str], None]) -> None:
        self._fs = fs
        self._done = done
        self._moves: queue.SimpleQueue[PageMigration] = queue.SimpleQueue()
        self._wanted: dict[str, PageMigration] = {}
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._working = False

    def add(self, move: PageMigration) -> None:
        """Have a guest's pages follow, after those that were given before."""
        with self._lock:
            self._wanted[move.key] = move
            self._moves.put(move)
            if self._working:
                return
            self._working = True
        try:
            threads.start(self._work, "virt-mover")
        except threads.NoThreadError as error:
            with self._lock:
                self._working = False
                del self._wanted[move.key]
            self._done(move.key, f"its memory was not moved: {error}")

    def forget(self, key: str) -> None:
        """A guest has gone, or is put back: its pages stay where they are, from the next batch."""
        with self._lock:
            if self._wanted.pop(key, None) is not None:
                self._stop.set()

    def _next(self) -> PageMigration | None:
        while True:
            with self._lock:
                if self._moves.empty():
                    self._working = False
                    return None
                move = self._moves.get()
                if self._wanted.get(move.key) is move:
                    self._stop = threading.Event()
                    return move

    def _work(self) -> None:
        while (move := self._next()) is not None:
            try:
                remark = self._move(move)
            except KernelFileError as error:
                remark = f"its memory was not moved: {error}"
            except Exception:
                log.exception("vm_pinning: internal error, please report it")
                remark = "its memory was not moved: internal error"
            with self._lock:
                current = self._wanted.get(move.key) is move
                if current:
                    del self._wanted[move.key]
            if current:
                self._done(move.key, remark)

    def _move(self, move: PageMigration) -> str:
        """Move one guest's pages; what is left to say of it."""
        areas = numa_maps.read(self._fs, move.pid)
        remote = [area for area in areas if set(area.nodes) - set(move.nodes)]
        if not remote or start_time(move.pid) != move.start:
            return ""
        locked = numa_maps.locked(self._fs, move.pid)
        why = "locked, encrypted or a device's" if locked or not move.movable else ""
        if why:
            return _stays(remote, move.nodes, why)
        plain = [area for area in remote if not area.huge]
        huge = [area for area in remote if area.huge]
        remark = _stays(huge, move.nodes, "huge pages") if huge else ""
        return "; ".join(filter(None, [self._follow(move, plain), remark])) if plain else remark

    def _follow(self, move: PageMigration, areas: Sequence[Area]) -> str:
        limit = float("inf") if move.limit is None else move.limit * MIB
        pace = migrate_pages.Pace(move.rate * MIB, limit, self._stop)
        ranges = [(area.start, area.end) for area in areas]
        try:
            moved = migrate_pages.move(move.pid, ranges, move.nodes, pace)
        except migrate_pages.CannotMigrate as error:
            return f"its memory was not moved: {error}"
        nodes = ",".join(map(str, move.nodes))
        log.info(
            "vm_pinning: guest %s: %.0f MiB moved to node %s in %.1f s, %.0f MiB not moved%s",
            *(printable(move.name), moved.moved / MIB, nodes, moved.seconds, moved.stayed / MIB),
            f" ({', '.join(moved.why)})" if moved.why else "",
        )
        if moved.stopped and not self._stop.is_set():
            return f"move_limit: only {moved.moved // MIB} MiB of its memory were moved"
        if moved.stayed >= MIB:
            return f"{moved.stayed // MIB} MiB of its memory stay: {', '.join(moved.why)}"
        return ""


def _stays(areas: Sequence[Area], nodes: Sequence[int], why: str) -> str:
    kib = sum(size for area in areas for node, size in area.nodes.items() if node not in set(nodes))
    return f"{kib >> 10} MiB of its memory stay on other nodes: {why}"
