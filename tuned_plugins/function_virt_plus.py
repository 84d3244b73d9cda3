# SPDX-License-Identifier: GPL-2.0-or-later
"""TuneD's `${f:virt_plus:…}`: what a profile takes from its settings file, without a process."""

from __future__ import annotations

from tuned_virt.cli import profile_questions
from tuned_virt.tuned_api import profile_function


class virt_plus(profile_function.ProfileFunction):  # type: ignore[misc]
    """
    `${f:virt_plus:parts:PROFILE:FILE}`, `${f:virt_plus:value:FILE:NAME:DEFAULT}`,
    `${f:virt_plus:boot:FILE}`, `${f:virt_plus:leave_out:SECTION:SECTION.OPTION}`: profiles to
    include, a setting, kernel arguments, what the stock profile before does not set.
    """

    questions = profile_questions.QUESTIONS
