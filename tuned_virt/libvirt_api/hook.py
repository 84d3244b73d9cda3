# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt's hook (hooks/qemu.d) as a program: domain XML in, the same without what is ours out.

Nothing comes out where nothing is ours. It runs at each migration and each restore of a guest.
"""

from __future__ import annotations

import sys

from tuned_virt.libvirt_api import placement_tag, resource_tag
from tuned_virt.libvirt_api.own_elements import LARGEST, NotXML
from tuned_virt.libvirt_api.resource_tag import ResourceTag


def strip(xml: bytes) -> bytes | None:
    """A domain's XML without pins, limits and weights of ours; None where none is.

    Raises NotXML.
    """
    left = placement_tag.strip(xml)
    for tag in ResourceTag:
        less = resource_tag.strip(xml if left is None else left, tag)
        left = left if less is None else less
    return left


def main() -> int:
    """The hook: exit code 0 always, for a guest must start whatever we think of its XML."""
    try:
        stripped = strip(sys.stdin.buffer.read(LARGEST + 1))
    except NotXML as error:
        print(f"tuned-virt hook: the XML is not changed: {error}", file=sys.stderr)
        return 0
    if stripped is not None:
        sys.stdout.buffer.write(stripped)
    return 0


if __name__ == "__main__":
    sys.exit(main())
