# SPDX-License-Identifier: GPL-2.0-or-later
"""The system's programs: what they say when they fail is what an administrator reads."""

from __future__ import annotations

import pytest

from tuned_virt.kernel import commands
from tuned_virt.kernel.commands import ToolError


def test_a_program_that_does_its_work_says_nothing() -> None:
    commands.run("true", seconds=10)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("sh", "-c", "echo 'rmmod: ERROR: in use\n  by kvm' >&2; exit 1"), "in use by kvm"),
        (("sh", "-c", "exit 3"), "sh: exit code 3"),
        (("sleep", "9"), "sleep: not done after 0.1 s"),
        (("/nowhere/rmmod",), "/nowhere/rmmod: .*No such file"),
    ],
)
def test_one_that_fails_is_quoted(command: tuple[str, ...], said: str) -> None:
    with pytest.raises(ToolError, match=said):
        commands.run(*command, seconds=0.1 if command[0] == "sleep" else 10)
