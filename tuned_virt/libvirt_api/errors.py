# SPDX-License-Identifier: GPL-2.0-or-later
"""What this package raises; no error of libvirt's binding leaves it."""

from __future__ import annotations


class LibvirtError(Exception):
    """libvirt refused a call, or the connection has ended; the message is printable.

    code: libvirt's (virErrorNumber)
    """

    def __init__(self, text: str, code: int = 0) -> None:
        self.code = code
        super().__init__(text)


class GuestGone(Exception):
    """The guest does not run any more."""


class Unanswered(Exception):
    """libvirt did not answer a question in time, or is unavailable: the message says which."""


class NoAnswer(Unanswered):
    """libvirt is there, and did not answer in time, or with an error."""
