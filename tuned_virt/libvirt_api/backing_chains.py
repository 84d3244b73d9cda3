# SPDX-License-Identifier: GPL-2.0-or-later
"""Backing chains of images, as libvirt says them; no image is opened here.

libvirt's XML has a guest's whole chain while the guest runs, and often none of it while it is off.
So what it said is kept, by the path of the top image. Of a guest that has not run since the boot
the storage pools are asked: only where the guest's XML gives the image a format that is not raw,
and the pool finds the same one. A guest writes all of a raw image, so that what stands in there
would be its own word about files of the host.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from tuned_virt.core.state_file import FOLDER, StateFile
from tuned_virt.frozen_dataclasses import asdict, typed
from tuned_virt.kernel.files import AnyPath
from tuned_virt.libvirt_api.connection import Connection
from tuned_virt.libvirt_api.errors import LibvirtError
from tuned_virt.model.guest.disk_sources import RAW, DiskSource, VolumeFormat, place, read_volume
from tuned_virt.model.xml import XmlError

FILE = "disk_chains.json"

LONGEST = 200
"""Images in a chain: libvirt follows no more (VIR_STORAGE_SOURCE_MAX_DEPTH is as many)."""

Chain = tuple[DiskSource, ...]


class BackingChains:
    """The chains of images by their paths, as they were when their guests ran."""

    def __init__(self, folder: AnyPath = FOLDER) -> None:
        self._file = StateFile(os.path.join(folder, FILE), _chains)
        self._known: dict[str, Chain] | None = None
        self._saved: dict[str, Chain] = {}

    def of(self, path: str) -> Chain | None:
        """The images below one; None where that is not known."""
        return self._chains().get(path)

    def learn(self, path: str, chain: Chain) -> None:
        """A running guest's chain."""
        if chain:
            self._chains()[path] = chain
        else:
            self._chains().pop(path, None)

    def save(self, used: Collection[str]) -> None:
        """Write down the chains of images that are in use; forget the others'."""
        known = {path: chain for path, chain in self._chains().items() if path in used}
        self._known = known
        if known != self._saved:
            self._saved = dict(known)
            content = {path: [asdict(one) for one in chain] for path, chain in known.items()}
            self._file.save({"chains": content})

    def _chains(self) -> dict[str, Chain]:
        if self._known is None:
            self._known = self._file.load() or {}
            self._saved = dict(self._known)
        return self._known


def _chains(content: Mapping[str, Any]) -> dict[str, Chain]:
    return {
        str(path): tuple(typed(DiskSource(**one)) for one in chain)
        for path, chain in content["chains"].items()
    }


def from_pools(connection: Connection, path: str, image_format: str) -> Chain:
    """The images below one, as far as active storage pools know them. Raises LibvirtError."""
    return tuple(_from_pools(connection, path, image_format))


def _from_pools(connection: Connection, path: str, image_format: str) -> Iterator[DiskSource]:
    for _ in range(LONGEST):
        if image_format in ("", RAW):
            return
        volume = _volume(connection, path)
        if volume is None or volume.format != image_format:
            return
        source = place(volume.backing)
        if source is None:
            return
        yield source
        path, image_format = source.path, volume.backing_format
        if not path:
            return


def _volume(connection: Connection, path: str) -> VolumeFormat | None:
    """What the pools say of an image; None where none has it, or its XML cannot be read."""
    try:
        with connection.asking():
            xml: str = connection.handle.storageVolLookupByPath(path).XMLDesc(0)
        return read_volume(xml)
    except XmlError:
        return None
    except LibvirtError:
        if not connection.alive():
            raise
        return None
