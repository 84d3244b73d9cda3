# SPDX-License-Identifier: GPL-2.0-or-later
"""What was there before us: originals on disk before the first write, so that any process can undo.

One JSON file in a folder on tmpfs, replaced atomically under a lock. It survives the daemon's
`kill -9`; it does not survive a reboot, when the kernel's values are new as well (it is keyed by
boot id, for a /run that is not tmpfs).
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tuned_virt.core.state_file import (
    FOLDER,
    NOT_THERE,
    WRONG,
    Damaged,
    OfEarlierBoot,
    StateFile,
    UnusableStateError,
)
from tuned_virt.frozen_dataclasses import dataclass, field
from tuned_virt.kernel.errors import PlainError
from tuned_virt.kernel.files import AnyPath, KernelFileError
from tuned_virt.kernel.procfs import start_time


class OriginalsError(PlainError):
    """The originals cannot be read or kept (full or read-only /run), so nothing may be written."""


@dataclass
class PluginOriginals:
    """What is known of one plugin: originals by setting, and why some cannot be put back now.

    `owner` is the process that holds the tuning, as (pid, start time in clock ticks).
    """

    originals: dict[str, str] = field(default_factory=dict)
    pending: dict[str, str] = field(default_factory=dict)
    owner: tuple[int, int] | None = None


@dataclass(frozen=True)
class _Content:
    """The records by plugin, and why the file as it is must not stay."""

    records: dict[str, PluginOriginals] = field(default_factory=dict)
    wrong: UnusableStateError | None = None


class Originals:
    """The originals of all plugins, shared by every process of this boot."""

    def __init__(self, folder: AnyPath = FOLDER, boot: str | None = None) -> None:
        self._file = StateFile(os.path.join(folder, "baseline.json"), _parse, boot)
        self._seen: tuple[tuple[int, ...], dict[str, PluginOriginals]] | None = None
        self._written: tuple[int, ...] = ()  # the file's version as this process wrote it

    def record(self, plugin: str) -> PluginOriginals:
        """What is known of one plugin, to read only; empty where nothing is.

        Raises OriginalsError.
        """
        with self._said("cannot read"):
            version = self._file.version()
        seen = self._seen
        if seen is None or seen[0] != version:
            seen = self._seen = (version, self.all())
        return seen[1].get(plugin, PluginOriginals())

    def all(self) -> dict[str, PluginOriginals]:
        """What is known, by plugin. What is damaged is said and set aside. Raises OriginalsError.

        Another version's file is left where it is, until something is to be kept.
        """
        with self._said("cannot read"):
            found = self._read()
            if isinstance(found.wrong, Damaged):
                with self._file.locked():
                    found = self._mended()
        return found.records

    def remarks(self) -> list[str]:
        """What stands beside the originals and wants somebody to look. Raises OriginalsError."""
        with self._said("cannot read"):
            found = [
                f"{path} was moved aside: restore the values in it by hand, then remove it"
                for path in self._file.aside()
            ]
            wrong = self._read().wrong
        if wrong is not None and not isinstance(wrong, OfEarlierBoot):
            found.append(f"{self._file.path} {wrong}")
        return found

    def keep(self, plugin: str, originals: Mapping[str, str]) -> None:
        """Keep originals that are not kept yet (the first writer wins), and own them.

        Raises OriginalsError.
        """
        if not originals:
            return
        record = self.record(plugin)
        owner = self._this_process()
        if originals.keys() <= record.originals.keys() and record.owner == owner:
            return
        with self._changing(plugin) as records:
            record = records.setdefault(plugin, PluginOriginals())
            record.originals = {**originals, **record.originals}
            record.owner = owner

    def amend(self, plugin: str, originals: Mapping[str, str]) -> None:
        """Keep these in place of what was kept of the same settings. Raises OriginalsError."""
        with self._changing(plugin) as records:
            records.setdefault(plugin, PluginOriginals()).originals.update(originals)

    def forget(self, plugin: str, settings: Iterable[str]) -> None:
        """Drop settings whose originals are back. Raises OriginalsError."""
        with self._changing(plugin) as records:
            record = records.get(plugin, PluginOriginals())
            for setting in settings:
                record.originals.pop(setting, None)
                record.pending.pop(setting, None)
            if not record.originals:
                records.pop(plugin, None)

    def set_pending(self, plugin: str, reasons: Mapping[str, str]) -> None:
        """Say which kept originals cannot be put back now, and why. Raises OriginalsError."""
        if self.record(plugin).pending == reasons:
            return
        with self._changing(plugin) as records:
            if plugin in records:
                records[plugin].pending = dict(reasons)

    def release(self, plugin: str) -> None:
        """No process holds this plugin's tuning any more. Raises OriginalsError."""
        if self.record(plugin).owner is None:
            return
        with self._changing(plugin) as records:
            if plugin in records:
                records[plugin].owner = None

    def take(self, plugin: str) -> None:
        """Own what is kept of a plugin, whoever did before. Raises OriginalsError."""
        record = self.record(plugin)
        if not record.originals:
            return
        owner = self._this_process()
        if record.owner == owner:
            return
        with self._changing(plugin) as records:
            if plugin in records:
                records[plugin].owner = owner

    @contextlib.contextmanager
    def writing(self, plugin: str) -> Iterator[None]:
        """Around each write of a setting. Raises OriginalsError before one that must not be."""
        yield

    def holder(self, plugin: str) -> int | None:
        """Pid of the live process that holds this plugin's tuning, else None.

        Raises OriginalsError.
        """
        return self._alive(self.record(plugin))

    def _alive(self, record: PluginOriginals) -> int | None:
        owner = record.owner
        with self._said("cannot read"):
            return owner[0] if owner and start_time(owner[0]) == owner[1] else None

    def _this_process(self) -> tuple[int, int]:
        with self._said("cannot keep originals in"):
            return _process(os.getpid())

    @contextlib.contextmanager
    def _changing(self, plugin: str) -> Iterator[dict[str, PluginOriginals]]:
        with self._said("cannot keep originals in"), self._file.locked():
            records = self._own_copy() or self._mended().records
            self._check(plugin, records)
            yield records
            self._replace(records)
            self._written = self._file.version()
            self._seen = (self._written, records)

    def _own_copy(self) -> dict[str, PluginOriginals]:
        """Under the lock: the records, to be changed, if this process wrote them last."""
        seen = self._seen
        if seen is None or not self._written == seen[0] == self._file.version():
            return {}
        return {
            name: PluginOriginals(dict(one.originals), dict(one.pending), one.owner)
            for name, one in seen[1].items()
        }

    def _check(self, plugin: str, records: Mapping[str, PluginOriginals]) -> None:
        """Under the lock, before a change: this process may make it. Raises OriginalsError."""

    @contextlib.contextmanager
    def _said(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, KernelFileError) as error:
            raise OriginalsError(f"{what} {self._file.path}: {error}") from error

    def _read(self) -> _Content:
        try:
            found = self._file.read()
        except UnusableStateError as error:
            return _Content(wrong=error)
        return _Content() if found is NOT_THERE else found

    def _mended(self) -> _Content:
        """Under the lock: the content; one that must not stay has been set aside, and said."""
        found = self._read()
        if found.wrong is None:
            return found
        self._file.set_aside(found.wrong)
        self._replace(found.records)
        return _Content(found.records)

    def _replace(self, records: Mapping[str, PluginOriginals]) -> None:
        if records:
            self._file.write({"plugins": {name: vars(record) for name, record in records.items()}})
        else:
            self._file.remove()


@functools.lru_cache(maxsize=1)
def shared_originals() -> Originals:
    """The process's own: what one plugin has read or written, the next need not read."""
    return Originals()


@functools.lru_cache(maxsize=1)
def _process(pid: int) -> tuple[int, int]:
    """This process, which may have been forked. Raises KernelFileError."""
    return pid, start_time(pid) or 0


class UnheldOriginals(Originals):
    """The originals as `tuned-virt restore` has them: only what no other process holds.

    Whoever else takes a plugin's tuning, a TuneD that is started meanwhile, has it from then on:
    this is checked under the lock, before each change and at the moment of each write.
    """

    def take_free(self, plugin: str) -> int | None:
        """Own what is kept of a plugin unless another process holds it: that one.

        Raises OriginalsError.
        """
        owner = self._this_process()
        with self._said("cannot keep originals in"), self._file.locked():
            records = self._mended().records
            holder = self._alive(records.get(plugin, PluginOriginals()))
            if holder is None and plugin in records:
                records[plugin].owner = owner
                self._replace(records)
            return holder

    @contextlib.contextmanager
    def writing(self, plugin: str) -> Iterator[None]:
        """See `Originals`: nobody else takes the plugin's tuning before the block has ended."""
        with contextlib.ExitStack() as stack:
            with self._said("cannot read"):
                stack.enter_context(self._file.locked())
                records = self._mended().records
                self._check(plugin, records)
            if plugin not in records:
                raise OriginalsError(f"another process has restored {plugin} meanwhile")
            yield

    def _check(self, plugin: str, records: Mapping[str, PluginOriginals]) -> None:
        owner = records[plugin].owner if plugin in records else None
        if owner is not None and owner != self._this_process():
            raise OriginalsError(f"process {owner[0]} has taken over {plugin} meanwhile")


def _parse(content: Mapping[str, Any]) -> _Content:
    """Records one by one: a damaged one does not take the others with it."""
    records, wrong = {}, []
    for name, entry in content["plugins"].items():
        try:
            records[name] = _record(entry)
        except WRONG as error:
            wrong.append(f"{name}: {type(error).__name__}: {error}")
    return _Content(records, Damaged(f"is damaged ({'; '.join(wrong)})") if wrong else None)


def _record(entry: Any) -> PluginOriginals:
    owner = entry["owner"]
    record = PluginOriginals(
        originals=dict(entry["originals"]),
        pending=dict(entry["pending"]),
        owner=(int(owner[0]), int(owner[1])) if owner else None,
    )
    if not all(isinstance(value, str) for value in record.originals.values()):
        raise TypeError("an original that is not text")
    return record
