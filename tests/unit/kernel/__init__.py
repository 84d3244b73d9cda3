# SPDX-License-Identifier: GPL-2.0-or-later
from tests.unit.fake_ksm import FRESH, FakeKsm

__all__ = ("FRESH", "FakeKsm")
