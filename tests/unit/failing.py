# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that fail to open or to be read, as at a limit of descriptors or on a bad medium."""

from __future__ import annotations

import builtins
import errno
import os
from typing import Any

import pytest

AT = ("open", "read")
CODES = (errno.EMFILE, errno.EIO, errno.EACCES, errno.ENOMEM)


class _Unreadable:
    """An open file that gives nothing but an error."""

    def __init__(self, code: int) -> None:
        self._code = code

    def __enter__(self) -> _Unreadable:
        return self

    def __exit__(self, *_error: object) -> None:
        """Nothing to close."""

    def read(self, *_size: int) -> bytes:
        """Fails."""
        raise OSError(self._code, os.strerror(self._code))


def fail(patch: pytest.MonkeyPatch, at: str, code: int, name: str = "baseline.json") -> None:
    """Have every read of a file of this name fail when it is opened, or once it is read."""
    real = builtins.open

    def opened(path: Any, *how: Any, **named: Any) -> Any:
        if os.path.basename(str(path)) != name:
            return real(path, *how, **named)
        if at == "read":
            return _Unreadable(code)
        raise OSError(code, os.strerror(code), str(path))

    patch.setattr(builtins, "open", opened)
