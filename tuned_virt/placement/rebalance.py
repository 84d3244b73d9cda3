"""Moves of guests that are placed already, only where the policy asks for some."""

from __future__ import annotations

from collections.abc import Mapping

from tuned_virt.placement.board import Board
from tuned_virt.placement.outcome import Outcome


def move(board: Board, outcomes: Mapping[str, Outcome]) -> None:
    """Move at most as many guests as `rebalance` says, each time the one that gains most."""
