# SPDX-License-Identifier: GPL-2.0-or-later
"""Frozen dataclasses that share their methods are what the standard library's are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuned_virt import frozen_dataclasses


def classes(made_by: Any) -> tuple[Any, Any, Any]:
    """A class, one that inherits from it, and one without fields of its own or any."""

    @made_by.dataclass(frozen=True)
    class Disk:
        name: str
        size: int = 0
        tags: Any = made_by.field(default_factory=list)

    @made_by.dataclass(frozen=True)
    class Named(Disk):
        size: int = 7
        note: str = ""

        def __repr__(self) -> str:
            return f"<{self.name}>"

    @made_by.dataclass(frozen=True)
    class Nothing:
        pass

    return Disk, Named, Nothing


OURS, THEIRS = classes(frozen_dataclasses), classes(dataclasses)

VALUES = st.sampled_from([0, 1, "sda", "", (), (1, 2)])
CALLS = st.tuples(
    st.lists(VALUES, max_size=5),
    st.dictionaries(st.sampled_from(["name", "size", "tags", "note", "other"]), VALUES, max_size=4),
)


def outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (TypeError, AttributeError) as error:
        return type(error)


def told(cls: Any, call: tuple[list[Any], dict[str, Any]]) -> list[Any]:
    """All that can be asked of a class, in values that do not depend on the class."""
    one = outcome(lambda: cls(*call[0], **call[1]))
    if isinstance(one, type):
        return [one]
    again = cls(*call[0], **call[1])
    changed = outcome(lambda: dataclasses.replace(one, size="new"))
    return [
        repr(one),
        dataclasses.asdict(one),
        list(vars(one).items()),
        [one == again, one == changed, one == 1, one == THEIRS[0]("x")],
        outcome(lambda: hash(one) == hash(again)),
        changed if isinstance(changed, type) else vars(changed),
        outcome(lambda: setattr(one, "size", 1)),
        outcome(lambda: delattr(one, "size")),
        cls.__match_args__ if hasattr(cls, "__match_args__") else (),
        [field.name for field in dataclasses.fields(one)],
    ]


@given(CALLS)
def test_they_are_made_compared_shown_and_refused_alike(
    call: tuple[list[Any], dict[str, Any]],
) -> None:
    for ours, theirs in zip(OURS, THEIRS):
        assert told(ours, call) == told(theirs, call)


def test_fields_that_are_neither_compared_nor_shown() -> None:
    """A guest is the same as before though libvirt's binding has made another object for it."""
    made = []
    for made_by in (frozen_dataclasses, dataclasses):
        any_made_by: Any = made_by

        class Domain:
            uuid: str
            handle: Any = any_made_by.field(default=None, compare=False, repr=False)

        of: Any = any_made_by.dataclass(frozen=True)(Domain)
        assert of("a", 1) == of("a", 2) != of("b", 1)
        assert hash(of("a", [])) == hash(of("a", 2))
        made.append(repr(of("a", 1)).rpartition(".")[2])
    assert made == ["Domain(uuid='a')"] * 2


def test_what_is_wrong_with_a_call_is_said() -> None:
    disk = OURS[0]
    with pytest.raises(TypeError, match=r"Disk\(\) is not given name"):
        disk(size=1)
    with pytest.raises(TypeError, match=r"Disk\(\) is given a field twice, or what is no field"):
        disk("sda", kind="scsi")


def test_none_has_a_method_of_its_own() -> None:
    disk, named, _ = OURS
    assert disk.__init__ is named.__init__
    assert disk.__eq__ is named.__eq__


@pytest.mark.parametrize("made_by", [frozen_dataclasses, dataclasses])
def test_what_was_read_is_of_the_types_that_are_written(made_by: Any) -> None:
    @made_by.dataclass(frozen=True)
    class Read:
        name: str = ""
        count: int = 0
        rate: float | None = None
        on: bool = False
        more: Any = None

    for fine in ({}, {"name": "x", "count": 7, "rate": 1, "on": True}, {"rate": 0.5, "more": []}):
        assert frozen_dataclasses.typed(Read(**fine)) == Read(**fine)
    for wrong in ({"name": 7}, {"count": True}, {"count": 1.0}, {"rate": "1"}, {"on": None}):
        with pytest.raises(TypeError, match=f"^{next(iter(wrong))} is "):
            frozen_dataclasses.typed(Read(**wrong))
