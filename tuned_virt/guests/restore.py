# SPDX-License-Identifier: GPL-2.0-or-later
"""`tuned-virt restore` for guest plugins: guests restored without TuneD."""

from __future__ import annotations

import contextlib
import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Originals
from tuned_virt.core.tuner import Registered
from tuned_virt.guests.originals import SEPARATOR, GuestOriginal, GuestOriginals, may_run
from tuned_virt.kernel import timeouts
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.libvirt_api.errors import GuestGone, LibvirtError, Unanswered
from tuned_virt.libvirt_api.worker import GuestsView, LibvirtWorker, OneShotClient
from tuned_virt.model.guest import printable

log = logging.getLogger("tuned")

O = TypeVar("O", bound=GuestOriginal)  # noqa: E741


class LibvirtQuestions(contextlib.ExitStack):
    """Asks each libvirt; one that has not answered once is not waited for again.

    Its connections are its own: one that others wait for would not be tried anew for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._clients: dict[str, OneShotClient] = {}
        self._silent: dict[str, str] = {}

    def ask(self, uri: str, question: Callable[[GuestsView], str]) -> str:
        """The answer. Raises Unanswered."""
        if uri in self._silent:
            raise Unanswered(self._silent[uri])
        if uri not in self._clients:
            self._clients[uri] = self.enter_context(OneShotClient(LibvirtWorker(uri)))
        try:
            return self._clients[uri].ask(question, timeouts.ONE_SHOT)
        except Unanswered as error:
            self._silent[uri] = str(error)
            raise


class GuestRestore(Registered, Generic[O]):
    """Restores every guest of which one plugin keeps an original."""

    restore_order = 4
    kernel_settings: frozenset[str] = frozenset()
    """Names of the kernel's settings that the plugin has too."""

    @abstractmethod
    def parse(self, options: Mapping[str, str]) -> Any:
        """The policy that options ask for. Raises BadOptions, naming all that is wrong."""

    @abstractmethod
    def original(self, text: str) -> O:
        """What is kept of one guest. Raises ValueError."""

    @abstractmethod
    def put_back(self, view: GuestsView, fs: KernelFS, kept: O) -> str:
        """In libvirt's worker: restore one guest; why it is not, or "".

        Raises GuestGone and LibvirtError.
        """

    def without_libvirt(self, fs: KernelFS, kept: O) -> str:
        """What could be done although libvirt does not answer, in words."""
        return ""

    def restore_kernel(self, fs: KernelFS, originals: Originals, journal: Journal) -> None:
        """Restore `kernel_settings`."""

    def restored(self) -> None:
        """Everything is back: what else says that something is in force goes."""

    def strange(self, settings: Iterable[str]) -> set[str]:
        """Those that are no settings of this plugin: there is nothing to restore."""
        return {one for one in settings if SEPARATOR not in one} - self.kernel_settings

    def restore(
        self, fs: KernelFS, originals: Originals, journal: Journal, libvirt: LibvirtQuestions
    ) -> None:
        """Restore all; what cannot be is said, and stays pending.

        Of a guest that runs no more there is nothing to restore. Raises OriginalsError.
        """
        self.restore_kernel(fs, originals, journal)  # again, where it failed
        known = originals.record(self.name).originals
        originals.forget(self.name, self.strange(known))
        kept = GuestOriginals(self.name, self.original, originals)
        pending: dict[str, str] = {}
        for key, one in list(kept.guests.items()):
            with originals.writing(self.name):
                pass  # a hung libvirt must not keep the lock
            why = self._restore(fs, one, libvirt) if may_run(one) else ""
            if why:
                pending[key] = why
                told = (self.name, printable(one.name), why)
                log.warning("%s: guest %s is not restored yet: %s", *told)
            else:
                kept.let_go([key])
        kept.set_pending(pending)
        originals.release(self.name)
        if not originals.record(self.name).originals:
            self.restored()

    def _restore(self, fs: KernelFS, kept: O, libvirt: LibvirtQuestions) -> str:
        """Restore one guest; why it is not, or not wholly, or ""."""

        def put_back(view: GuestsView) -> str:
            try:
                return self.put_back(view, fs, kept)
            except GuestGone:
                return ""
            except (LibvirtError, KernelFileError) as error:
                return str(error)

        try:
            return libvirt.ask(kept.uri, put_back)
        except Unanswered as error:
            return "; ".join(filter(None, [str(error), self.without_libvirt(fs, kept)]))
