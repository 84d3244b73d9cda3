# SPDX-License-Identifier: GPL-2.0-or-later
"""perf's command lines, as perf-kvm(1) and the guide have them."""

from __future__ import annotations

import shlex

import pytest

from tuned_virt.cli.perf_command import PerfAction, command, copied, mounted

FILES = "--host --guest --guestkallsyms=/d/kallsyms --guestmodules=/d/modules"


@pytest.mark.parametrize(
    ("action", "line"),
    [
        ("record", f"perf kvm {FILES} record --pid 42 -g sleep 10"),
        ("top", f"perf kvm {FILES} top --pid 42 -g sleep 10"),
        ("report", f"perf kvm {FILES} report -g sleep 10"),
        ("stat", "perf kvm stat live --pid 42 -g sleep 10"),
        ("stat-record", "perf kvm stat record --pid 42 -g sleep 10"),
        ("stat-report", "perf kvm stat report -g sleep 10"),
    ],
)
def test_each_action(action: str, line: str) -> None:
    made = command(PerfAction(action), copied("/d"), 42, ["-g", "sleep", "10"])
    assert shlex.join(made) == line


def test_a_mounted_root() -> None:
    made = command(PerfAction.RECORD, mounted("/d"), 42, [])
    assert shlex.join(made) == "perf kvm --host --guest --guestmount=/d record --pid 42"


def test_a_folder_with_spaces_is_one_argument() -> None:
    assert "--guestkallsyms=/a b;c/kallsyms" in command(PerfAction.TOP, copied("/a b;c"), 1, [])
