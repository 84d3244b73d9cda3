# SPDX-License-Identifier: GPL-2.0-or-later
"""What is kept of guests before they are changed: one original a run, in the baseline.

The key names the run by the guest's UUID and its process's start time, so that a restarted guest is
not given another's past; where its process is not to be seen, by libvirt's number of the run.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar

from tuned_virt.core.originals import Originals, OriginalsError
from tuned_virt.core.plan import Values
from tuned_virt.frozen_dataclasses import asdict, dataclass, typed
from tuned_virt.kernel.procfs import start_time
from tuned_virt.model.guest import printable

log = logging.getLogger("tuned")

SEPARATOR = "/"

MOST = 1 << 63
"""Numbers of runs, processes and moments are below this."""


@dataclass(frozen=True)
class GuestOriginal:
    """How one run of a guest was found.

    id          libvirt's number of the run
    pid, start  its process (0: not to be seen here), and the clock tick at which that started
    """

    uri: str
    uuid: str
    name: str
    id: int = 0
    pid: int = 0
    start: int = 0

    @property
    def key(self) -> str:
        """The setting's name among the originals."""
        return key(self.uuid, self.id, self.start)

    def text(self) -> str:
        """As it is kept."""
        return json.dumps(asdict(self))


O = TypeVar("O", bound=GuestOriginal)  # noqa: E741


def checked(one: O) -> O:
    """What was read of a guest, if it is of the types that were kept. Raises ValueError."""
    try:
        typed(one)
    except TypeError as error:
        raise ValueError(f"{error}") from error
    if not all(abs(number) < MOST for number in (one.id, one.pid, one.start)):
        raise ValueError("its number, process or start is beyond all that the kernel has")
    return one


def key(uuid: str, number: int, start: int) -> str:
    """A run's name in the baseline."""
    return f"{uuid}{SEPARATOR}{start or f'#{number}'}"


def runs(one: GuestOriginal) -> bool:
    """Whether a kept guest's process still runs; False where it cannot be seen."""
    return one.pid != 0 and start_time(one.pid) == one.start


def may_run(one: GuestOriginal) -> bool:
    """Whether it still runs, as far as this process can know."""
    return one.pid == 0 or runs(one)


class GuestOriginals(Generic[O]):
    """The originals of one plugin, on disk and, for one libvirt, at hand."""

    def __init__(
        self, plugin: str, parse: Callable[[str], O], baseline: Originals, uri: str | None = None
    ) -> None:
        self._plugin = plugin
        self._parse = parse
        self._baseline = baseline
        self._uri = uri
        self._guests: dict[str, O] | None = None
        self._returned: set[str] = set()  # they are back, and not forgotten yet

    @property
    def guests(self) -> Mapping[str, O]:
        """By key; read from the disk once."""
        return self._loaded()

    def _loaded(self) -> dict[str, O]:
        if self._guests is None:
            originals = self._baseline.record(self._plugin).originals
            found = {name: self._read(name, text) for name, text in originals.items()}
            self._guests = {
                name: one
                for name, one in found.items()
                if one is not None and self._uri in (None, one.uri)
            }
        return self._guests

    def _read(self, name: str, text: str) -> O | None:
        if SEPARATOR not in name:  # a kernel setting, not a guest
            return None
        try:
            return self._parse(text)
        except ValueError as error:
            log.error("%s: %s cannot be read: %s", self._plugin, name, error)
            return None

    def keep(self, new: Mapping[str, O]) -> bool:
        """Keep guests before they are changed; False, and said, if that cannot be."""
        return self._write(self._baseline.keep, new)

    def amend(self, changed: Mapping[str, O]) -> bool:
        """Keep this of guests that are kept; False, and said, if that cannot be."""
        return self._write(self._baseline.amend, changed)

    def _write(self, write: Callable[[str, Values], None], new: Mapping[str, O]) -> bool:
        try:
            self._forget_returned()
            write(self._plugin, {name: one.text() for name, one in new.items()})
        except OriginalsError as error:
            log.error("%s: nothing is changed: %s", self._plugin, error)
            return False
        self._loaded().update(new)
        return True

    def let_go(self, keys: Iterable[str]) -> None:
        """They are put back, or run no more; where that cannot be written now, it is later."""
        gone = set(keys) & self._loaded().keys()
        for name in gone:
            del self._loaded()[name]
        self._returned |= gone
        try:
            self._forget_returned()
        except OriginalsError as error:
            log.error("%s: %s", self._plugin, error)

    def _forget_returned(self) -> None:
        """Raises OriginalsError."""
        if self._returned:
            self._baseline.forget(self._plugin, self._returned)
            self._returned = set()

    @property
    def settled(self) -> bool:
        """Whether nothing is kept any more, of which nobody has to put back anything."""
        return not self._loaded() and not self._returned

    def take(self) -> None:
        """Own what an earlier process has kept. Raises OriginalsError."""
        self._baseline.take(self._plugin)

    def set_pending(self, reasons: Mapping[str, str]) -> None:
        """Say which cannot be put back now, and why."""
        told = {
            name: f"guest {printable(one.name)}: {reasons[name]}"
            for name, one in dict(self._loaded()).items()
            if name in reasons
        }
        try:
            record = self._baseline.record(self._plugin)
            self._baseline.set_pending(
                self._plugin,
                {
                    name: why
                    for name, why in {**record.pending, **told}.items()
                    if name in record.originals
                },
            )
        except OriginalsError as error:
            log.error("%s: %s", self._plugin, error)

    def set_all_pending(self, why: str) -> None:
        """The same for each of them."""
        self.set_pending(dict.fromkeys(self.guests, why))

    def uris(self) -> set[str]:
        """Each libvirt of whose guests something is kept."""
        return {one.uri for one in self.guests.values()}
