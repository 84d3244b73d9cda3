# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of running guests, read through their guest agents: one session for one guest.

What an agent answers is a guest's text: sizes and times have limits, and an answer that is not as
the protocol has it is an error (QEMU's qapi-schema for qemu-ga). libvirt passes on at most 4 MiB of
an answer, and agents refuse to read over 48 MiB at once: larger files are read in parts.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from tuned_virt.core.options import SYSTEM
from tuned_virt.kernel.errors import PlainError
from tuned_virt.libvirt_api import binding
from tuned_virt.libvirt_api.errors import Unanswered
from tuned_virt.libvirt_api.worker import GuestsView, LibvirtWorker, OneShotClient
from tuned_virt.model.host_facts import Fact

PROFILE = "/etc/tuned/active_profile"
MOST = 4096
"""Bytes of it that are read."""

PART = 1 << 20
"""Bytes of a larger file that are read at once."""

PATIENCE = 2
"""Seconds that an agent has for an answer, where several guests are asked for one small file."""

PART_PATIENCE = 10
"""The same for a part of a larger file, in a guest that may be busy."""

TOTAL = 120.0
"""Seconds for all of one guest's files."""

ABSENT = "No such file or directory"
READING = ("guest-file-open", "guest-file-read", "guest-file-close")


class AgentError(PlainError):
    """A guest agent is not there, refuses, or its answer is not understood; the text says which."""


def profiles(uuids: Collection[str], uri: str = SYSTEM) -> dict[str, Fact[str]]:
    """TuneD's active profile by UUID; it takes a connection that may change guests, hence root."""
    found: dict[str, Fact[str]] = {}
    with OneShotClient(LibvirtWorker(uri)) as client:
        for uuid in uuids:
            agent = _Agent(client, uuid, PATIENCE)
            try:
                text = agent.file(PROFILE, MOST)
            except AgentError as error:
                found[uuid] = Fact(None, f"the guest agent does not tell: {error}")
            else:
                found[uuid] = Fact((text or b"").decode(errors="replace").strip(), "")
    return found


def read_files(uuid: str, most: Mapping[str, int], uri: str = SYSTEM) -> dict[str, bytes | None]:
    """Files of one guest by path, each read to its end; None for one that is not there.

    most  the largest size of each, in bytes

    Raises AgentError.
    """
    if why := binding.missing(uri):
        raise AgentError(f"libvirt is unavailable: {why}")
    with OneShotClient(LibvirtWorker(uri)) as client:
        agent = _Agent(client, uuid, PART_PATIENCE)
        agent.need(READING)
        return {path: agent.file(path, size) for path, size in most.items()}


class _Agent:
    """The agent of a guest; each method may raise AgentError."""

    def __init__(self, client: OneShotClient, uuid: str, patience: int) -> None:
        self._client, self._uuid, self._patience = client, uuid, patience
        self._until = time.monotonic() + TOTAL

    def need(self, commands: Collection[str]) -> None:
        """Commands that will be used: an agent may have any of them disabled, and says so."""
        with _understood():
            known = {
                str(one["name"]): one["enabled"]
                for one in self._ask("guest-info")["supported_commands"]
            }
        disabled = [name for name in commands if not known.get(name)]
        if disabled:
            raise AgentError(f"the guest agent has these commands disabled: {', '.join(disabled)}")

    def file(self, path: str, most: int) -> bytes | None:
        """A file, read to its end: a file of /proc has no size; None if it is not there."""
        try:
            handle = self._ask("guest-file-open", path=path, mode="r")
        except AgentError as error:
            if ABSENT in str(error):
                return None
            raise
        try:
            return self._content(handle, path, most)
        finally:
            with contextlib.suppress(AgentError):
                self._ask("guest-file-close", handle=handle)

    def _content(self, handle: Any, path: str, most: int) -> bytes:
        content = bytearray()
        while time.monotonic() < self._until:
            part = self._ask("guest-file-read", handle=handle, count=min(PART, most + 1))
            with _understood():
                read = base64.b64decode(part["buf-b64"], validate=True)
                ended = not read or part.get("eof") is True
            content += read
            if len(content) > most:
                raise AgentError(f"{path} in the guest is larger than {most} bytes")
            if ended:
                return bytes(content)
        raise AgentError(f"{path} in the guest is not read after {TOTAL:g} s")

    def _ask(self, command: str, **arguments: Any) -> Any:
        asked = json.dumps({"execute": command, "arguments": arguments})
        question = functools.partial(_answer, self._uuid, asked, self._patience)
        try:
            text = self._client.ask(question, 2.0 * self._patience)
        except Unanswered as error:
            raise AgentError(str(error)) from error
        with _understood():
            return json.loads(text)["return"]


@contextlib.contextmanager
def _understood() -> Iterator[None]:
    """Around what takes an agent's answer apart. Raises AgentError."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise AgentError("the guest agent's answer is not understood") from error


def _answer(uuid: str, command: str, patience: int, view: GuestsView) -> str:
    guest = view.guests.get(uuid)
    if guest is None:
        raise AgentError("libvirt has no such running guest")
    with view.connection.asking(patience + 1.0):
        return binding.agent_command(guest.domain, command, patience)
