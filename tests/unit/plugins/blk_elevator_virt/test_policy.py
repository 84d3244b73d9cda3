# SPDX-License-Identifier: GPL-2.0-or-later
"""What the words of a section mean, and what is not valid in one."""

from __future__ import annotations

import pytest

from tuned_virt.core.options import BadOptions, Section
from tuned_virt.plugins.blk_elevator_virt.policy import parse, parse_sections, resolve

NEW, OLD = ("none", "mq-deadline", "bfq"), ("noop", "deadline", "cfq")


@pytest.mark.parametrize(
    ("word", "queues", "offered", "scheduler"),
    [
        ("queues", 1, NEW, "mq-deadline"),
        ("queues", 2, NEW, "none"),
        ("queues", 1, OLD, "deadline"),
        ("queues", 2, OLD, "noop"),
        ("bfq", 1, NEW, "bfq"),
        ("cfq", 1, NEW, "bfq"),
        ("bfq", 1, ("none",), "bfq"),
        ("bfq", 1, ("noop",), "cfq"),
        ("kyber", 1, ("none",), "kyber"),
        ("kyber", 1, ("noop",), "kyber"),
    ],
)
def test_the_scheduler_that_a_word_means(
    word: str, queues: int, offered: tuple[str, ...], scheduler: str
) -> None:
    """Where it is not offered, the name of the queue's generation: a module may bring it."""
    assert resolve(word, queues, offered) == scheduler


def test_a_section_without_a_name_is_for_all_disks() -> None:
    [rule] = parse({"host_other": "bfq"}).rules
    assert (rule.name, rule.devices, rule.udev_regex) == ("", "", "")


def test_an_expression_that_is_none_is_said() -> None:
    with pytest.raises(BadOptions) as caught:
        parse_sections([Section("a", {"host_other": "bfq"}, udev_regex="ID_BUS=(")], ())
    assert str(caught.value).startswith(
        "option 'devices_udev_regex': 'ID_BUS=(' is not valid: a Python regular expression"
        " (missing ), unterminated subpattern at position 7)"
    )
