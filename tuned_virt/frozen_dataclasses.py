# SPDX-License-Identifier: GPL-2.0-or-later
"""The standard library's dataclasses, but that frozen ones share their methods.

The library writes and compiles seven methods for each frozen class: 7 KiB and 0.5 ms each, and
TuneD and every command load a hundred of them. The methods here are the same for all classes and
look at the class's fields. An object takes a microsecond or two more to make, so `placement`, which
makes thousands for one plan, has those of the library. To a type checker there is no difference.
"""

from __future__ import annotations

import dataclasses
from dataclasses import MISSING, FrozenInstanceError, asdict, field, fields, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(cls=None, /, *, frozen=False, **how):
        """See dataclasses.dataclass."""

        def made(plain):
            return _frozen(plain) if frozen else dataclasses.dataclass(plain, **how)

        return made if cls is None else made(cls)


__all__ = ["asdict", "dataclass", "field", "fields", "replace", "typed"]

T = TypeVar("T")

PLAIN: dict[str, set[type]] = {
    "str": {str},
    "int": {int},
    "float": {int, float},
    "bool": {bool},
    "None": {type(None)},
}
"""Annotations of which a value's type is looked at."""


def typed(one: T) -> T:
    """What was made of text, if its plain fields are of the types that they are written with.

    Raises TypeError: JSON has whatever was written into it.
    """
    for known in fields(one):  # type: ignore[arg-type]
        words = str(known.type).split(" | ")
        value = getattr(one, known.name)
        plain = all(word in PLAIN for word in words)
        if plain and not any(type(value) in PLAIN[word] for word in words):
            raise TypeError(f"{known.name} is {type(value).__name__}, not {known.type}")
    return one


def _frozen(plain: type) -> Any:
    cls: Any = dataclasses.dataclass(init=False, repr=False, eq=False)(plain)
    names = tuple(one.name for one in fields(cls))
    cls._frozen_names = names
    cls._frozen_known = frozenset(names)
    cls._frozen_required = frozenset(
        one.name for one in fields(cls) if one.default is MISSING and one.default_factory is MISSING
    )
    cls._frozen_defaults = {one.name: one.default for one in fields(cls)}
    cls._frozen_factories = {
        one.name: one.default_factory for one in fields(cls) if one.default_factory is not MISSING
    }
    compared = [one.name for one in fields(cls) if one.compare]
    cls._frozen_values = attrgetter(*compared) if compared else type
    cls._frozen_shown = tuple(one.name for one in fields(cls) if one.repr)
    for name, method in METHODS.items():
        if name not in cls.__dict__:
            setattr(cls, name, method)
    return cls


def _init(self: Any, *values: Any, **named: Any) -> None:
    names = self._frozen_names
    whole = not named and len(values) == len(names)
    for name, value in zip(names, values if whole else _completed(self, values, named).values()):
        object.__setattr__(self, name, value)


def _completed(self: Any, values: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
    """The values of all fields, in their order. Raises TypeError."""
    given = dict(zip(self._frozen_names, values), **named)
    if len(given) < len(values) + len(named) or not given.keys() <= self._frozen_known:
        raise TypeError(f"{type(self).__name__}() is given a field twice, or what is no field")
    if not self._frozen_required <= given.keys():
        lacking = sorted(self._frozen_required - given.keys(), key=self._frozen_names.index)
        raise TypeError(f"{type(self).__name__}() is not given {', '.join(lacking)}")
    found = {**self._frozen_defaults, **given}
    for name, factory in self._frozen_factories.items():
        if name not in given:
            found[name] = factory()
    return found


def _repr(self: Any) -> str:
    values = (f"{name}={getattr(self, name)!r}" for name in self._frozen_shown)
    return f"{type(self).__qualname__}({', '.join(values)})"


def _eq(self: Any, other: object) -> Any:
    if type(self) is not type(other):
        return NotImplemented
    return self._frozen_values(self) == self._frozen_values(other)


def _hash(self: Any) -> int:
    return hash(self._frozen_values(self))


def _refuse(self: object, name: str, *_value: object) -> NoReturn:
    raise FrozenInstanceError(f"{name} of a {type(self).__name__} cannot be changed")


METHODS = {
    "__init__": _init,
    "__repr__": _repr,
    "__eq__": _eq,
    "__hash__": _hash,
    "__setattr__": _refuse,
    "__delattr__": _refuse,
}
