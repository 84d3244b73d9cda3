"""What all tiers share."""

from __future__ import annotations
