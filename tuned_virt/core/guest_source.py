# SPDX-License-Identifier: GPL-2.0-or-later
"""What knows libvirt's guests and follows them, for those who need not know how; and nobody."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

G = TypeVar("G")
G_co = TypeVar("G_co", covariant=True)


class EventSource(Protocol):
    """What tells of events, from its start to its stop; it may be started again."""

    def start(self, changed: Callable[[str], None]) -> None:
        """Begin to call this, with what has happened in words."""

    def stop(self) -> None:
        """End, at once."""


class GuestSource(EventSource, Protocol[G_co]):
    """Follows guests, from its start to its stop."""

    @property
    def guests(self) -> Mapping[str, G_co] | None:
        """The guests by UUID; None while libvirt is unavailable, or they are not followed."""

    @property
    def unavailable(self) -> str:
        """Why `guests` is None."""


class FixedGuests(Generic[G]):
    """Follows nobody: guests that libvirt was asked for once, or None and why."""

    def __init__(
        self, guests: Mapping[str, G] | None = None, unavailable: str = "libvirt is not queried"
    ) -> None:
        self.guests = guests
        self.unavailable = unavailable if guests is None else ""

    def start(self, changed: Callable[[str], None]) -> None:
        """Nothing to begin."""

    def stop(self) -> None:
        """Nothing to end."""


NO_GUESTS: FixedGuests[Any] = FixedGuests()
"""For where libvirt is not queried."""
