# SPDX-License-Identifier: GPL-2.0-or-later
"""An empty qcow2 overlay, without QEMU's tools (QEMU's docs/interop/qcow2.rst)."""

from __future__ import annotations

import struct
from pathlib import Path

CLUSTER_BITS = 16
CLUSTER = 1 << CLUSTER_BITS
SIZE = 1 << 20

HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")

RAW = struct.pack(">II8s", 0xE2792ACA, 3, b"raw") + bytes(8)
"""The header extension that names the backing image's format, and the end of extensions."""


def write_overlay(path: Path, backing: str) -> None:
    """An image of SIZE bytes, none of them its own; a cluster each of header, refcounts, L1."""
    name = backing.encode()
    header = HEADER.pack(
        *(b"QFI\xfb", 3, HEADER.size + len(RAW), len(name), CLUSTER_BITS, SIZE, 0, 1, 3 * CLUSTER),
        *(CLUSTER, 1, 0, 0, 0, 0, 0, 4, HEADER.size),
    )
    refcounts = struct.pack(">Q", 2 * CLUSTER), struct.pack(">4H", 1, 1, 1, 1)
    parts = (header + RAW + name, *refcounts, b"")
    path.write_bytes(b"".join(part.ljust(CLUSTER, b"\0") for part in parts))
