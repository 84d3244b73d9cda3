# SPDX-License-Identifier: GPL-2.0-or-later
"""The host and its running guests as XML, asked once, read-only, for planning."""

from __future__ import annotations

import contextlib
import threading

from tuned_virt.libvirt_api import binding
from tuned_virt.libvirt_api.follower import ONE_SHOT_PATIENCE


def descriptions(uri: str = binding.SYSTEM) -> tuple[str, dict[str, str]] | None:
    """The capabilities XML and the running guests' XML by name; None if libvirt does not tell."""
    found: list[tuple[str, dict[str, str]]] = []

    def ask() -> None:
        libvirt = binding.libvirt
        with contextlib.suppress(libvirt.libvirtError):
            binding.quiet()
            connection = libvirt.openReadOnly(uri)
            try:
                active = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
                domains = {domain.name(): domain.XMLDesc(0) for domain in active}
                found.append((connection.getCapabilities(), domains))
            finally:
                connection.close()

    if binding.missing(uri):
        return None
    thread = threading.Thread(target=ask, name="virt-libvirt-ask", daemon=True)
    thread.start()
    thread.join(ONE_SHOT_PATIENCE)
    return found[0] if found else None
