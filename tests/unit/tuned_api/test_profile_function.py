# SPDX-License-Identifier: GPL-2.0-or-later
"""Our function for profiles never raises, and never leaves the text of its call."""

from __future__ import annotations

import pytest
from tuned.profiles.variables import Variables

from tuned_virt.cli import profile_questions
from tuned_virt.tuned_api import import_hook


@pytest.fixture
def expand(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """TuneD's own expansion, which finds our function as pip has it found."""
    import_hook.install()

    def fails(*_arguments: str) -> str:
        raise RuntimeError("broken")

    asked = {"echo": "-".join, "say": lambda *words: "-".join(words), "fails": fails}
    from tuned.profiles.functions import function_virt_plus

    monkeypatch.setattr(function_virt_plus.virt_plus, "questions", asked)
    return Variables().expand


def test_it_answers(expand) -> None:  # type: ignore[no-untyped-def]
    assert expand("a ${f:virt_plus:say:x:/y} b") == "a x-/y b"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("${f:virt_plus:nothing:x}", "no such question: 'nothing'; use echo, fails, say"),
        ("${f:virt_plus:fails}", "internal error"),
        ("${f:virt_plus:echo}", "internal error"),
    ],
)
def test_what_has_no_answer_is_nothing_and_is_said(  # type: ignore[no-untyped-def]
    expand, call: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert expand(f"<{call}>") == "<>"
    assert said in caplog.text


def test_the_profiles_questions_are_its_own() -> None:
    import_hook.install()
    from tuned.profiles.functions.function_virt_plus import virt_plus

    assert virt_plus.questions is profile_questions.QUESTIONS
