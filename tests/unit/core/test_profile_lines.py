# SPDX-License-Identifier: GPL-2.0-or-later
"""Which line of a profile says something."""

from __future__ import annotations

from tuned_virt.core.profile_lines import ProfileLine, find

PARENT = """[main]
summary=x = y

[sysctl]
vm.swappiness = 10   # late
#vm.swappiness=3
/sys/kernel/mm/ksm/run=2
"""
CHILD = "[sysctl]\nvm.dirty_ratio=40\n\n[sysctl]\nvm.swappiness=${swappiness}\n[cpu]\n"
FILES = [("/p/tuned.conf", PARENT), ("/c/tuned.conf", CHILD)]


def test_the_later_file_wins() -> None:
    line = ProfileLine("/c/tuned.conf", 5, "vm.swappiness=${swappiness}")
    assert find(FILES, "sysctl", "vm.swappiness") == line
    assert find(reversed(FILES), "sysctl", "vm.swappiness") == ProfileLine(
        "/p/tuned.conf", 5, "vm.swappiness = 10   # late"
    )


def test_a_line_of_another_section_is_not_taken() -> None:
    assert find([("/a", "[vm]\nx=1\n[sysctl]\n")], "sysctl", "x") == ProfileLine(
        "/a", 3, "[sysctl]"
    )


def test_a_section_without_the_option_is_named_by_its_header() -> None:
    assert str(find(FILES, "cpu", "governor")) == "/c/tuned.conf:6"
    assert find(FILES, "disk") is None


def test_paths_are_options_too() -> None:
    assert str(find(FILES, "sysctl", "/sys/kernel/mm/ksm/run")) == "/p/tuned.conf:7"
