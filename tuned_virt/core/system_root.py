# SPDX-License-Identifier: GPL-2.0-or-later
"""A system's files below a root: the running one, an image, or an ostree commit."""

from __future__ import annotations

import os

from tuned_virt.kernel.errors import PlainError
from tuned_virt.kernel.files import AnyPath


class OutsideRootError(PlainError):
    """A symbolic link leads out of the root; the message says which, and where to."""


class SystemRoot:
    """Names of files as the system has them (/etc/tuned/…), and where these are below the root."""

    def __init__(self, root: AnyPath = "/") -> None:
        self.root = os.fspath(root)

    @property
    def is_commit(self) -> bool:
        """Whether this is an ostree commit: its /etc is usr/etc until it is deployed."""
        etc, of_commit = (os.path.join(self.root, name) for name in ("etc", "usr/etc"))
        return not os.path.exists(etc) and os.path.isdir(of_commit)

    def path(self, name: str) -> str:
        """Where a file is now. Raises OutsideRootError."""
        inside = name.lstrip("/")
        if inside.startswith("etc/") and self.is_commit:
            inside = f"usr/{inside}"
        link = os.path.join(self.root, inside)
        found = os.path.realpath(link)
        if self.root == "/":
            return found
        root = os.path.realpath(self.root)
        if os.path.commonpath([found, root]) != root:
            raise OutsideRootError(f"{link} leads out of {self.root}, to {found}")
        return found

    def text(self, name: str) -> str:
        """A file's text, "" where there is none. Raises OutsideRootError and OSError."""
        try:
            here = name if self.root == "/" else self.path(name)  # a link may lead anywhere from /
            with open(here, encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""
