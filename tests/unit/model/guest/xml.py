# SPDX-License-Identifier: GPL-2.0-or-later
"""Small domains for single elements of a guest's XML."""

from __future__ import annotations

import pytest

from tuned_virt.model.guest import Guest, GuestError, read_guest

MEMORY = "<memory unit='GiB'>1</memory>"
UUID = "<uuid>00000000-1111-2222-3333-444444444444</uuid>"


def guest(inside: str = MEMORY, vcpu: str = "<vcpu>4</vcpu>", more: str = "") -> Guest:
    """What is read of a guest with these elements."""
    return read_guest(f"<domain type='kvm'>\n<name>a</name>{inside}{vcpu}\n{more}</domain>")


def refused(inside: str = MEMORY, vcpu: str = "<vcpu>4</vcpu>", more: str = "") -> str:
    """Why such a guest is not read."""
    with pytest.raises(GuestError) as caught:
        guest(inside, vcpu, more)
    return str(caught.value)
