# SPDX-License-Identifier: GPL-2.0-or-later
"""A function for TuneD's profiles, `${f:NAME:QUESTION:…}`, that always has an answer.

TuneD evaluates it in its own process, and leaves the text of a call as it is where there is no
answer; an exception would end the switch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from tuned.profiles.functions import base

from tuned_virt.tuned_api.common import contained

log = logging.getLogger("tuned")


class ProfileFunction(base.Function):  # type: ignore[misc]
    """Answers questions; "" for one that there is not, or that cannot be answered."""

    questions: Mapping[str, Callable[..., str]]

    def __init__(self) -> None:
        super().__init__(type(self).__name__, 0, 1)

    def execute(self, args: list[str]) -> str:
        """The answer to the question that the first argument names."""
        name = type(self).__name__
        with contained(name):
            question, *rest = args
            if question in self.questions:
                return self.questions[question](*rest)
            there_are = ", ".join(sorted(self.questions))
            log.error(
                "%s: no such question: '%s'; use %s", type(self).__name__, question, there_are
            )
        return ""
