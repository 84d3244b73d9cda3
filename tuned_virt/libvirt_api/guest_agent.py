# SPDX-License-Identifier: GPL-2.0-or-later
"""TuneD's active profile inside running guests, read through their guest agents."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Collection
from typing import Any

from tuned_virt.core.options import SYSTEM
from tuned_virt.libvirt_api import binding
from tuned_virt.libvirt_api.connection import PROBING
from tuned_virt.libvirt_api.errors import LibvirtError, Unanswered
from tuned_virt.libvirt_api.worker import GuestsView, LibvirtWorker, OneShotClient
from tuned_virt.model.host_facts import Fact

PROFILE = "/etc/tuned/active_profile"
MOST = 4096
"""Bytes of it that are read."""

PATIENCE = 2
"""Seconds that an agent has for each of three answers."""

ABSENT = "No such file or directory"


def profiles(uuids: Collection[str], uri: str = SYSTEM) -> dict[str, Fact[str]]:
    """By UUID; it takes a connection that may change guests, hence root."""
    found: dict[str, Fact[str]] = {}
    with OneShotClient(LibvirtWorker(uri)) as client:
        for uuid in uuids:
            try:
                found[uuid] = client.ask(functools.partial(_profile, uuid), 4 * PATIENCE)
            except Unanswered as error:
                found[uuid] = Fact(None, f"the guest agent is not asked: {error}")
    return found


def _profile(uuid: str, view: GuestsView) -> Fact[str]:
    guest = view.guests.get(uuid)
    if guest is None:
        return Fact(None, "the guest does not run any more")
    try:
        with view.connection.asking(PROBING):
            return Fact(_read(guest.domain), "")
    except LibvirtError as error:
        if ABSENT in str(error):
            return Fact("", "")
        return Fact(None, f"the guest agent does not tell: {error}")
    except (ValueError, KeyError, TypeError):
        return Fact(None, "the guest agent's answer is not understood")


def _read(domain: Any) -> str:
    """The file's text. Raises the binding's errors, ValueError, KeyError or TypeError."""
    handle = _command(domain, "guest-file-open", {"path": PROFILE, "mode": "r"})
    try:
        content = _command(domain, "guest-file-read", {"handle": handle, "count": MOST})
    finally:
        _command(domain, "guest-file-close", {"handle": handle})
    return base64.b64decode(content["buf-b64"]).decode(errors="replace").strip()


def _command(domain: Any, name: str, arguments: dict[str, Any]) -> Any:
    asked = json.dumps({"execute": name, "arguments": arguments})
    return json.loads(binding.agent_command(domain, asked, PATIENCE))["return"]
