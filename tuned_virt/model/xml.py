# SPDX-License-Identifier: GPL-2.0-or-later
"""XML of others: bounded, without DTD and entities, and with the line of what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar
from xml.etree.ElementTree import Element, ParseError, TreeBuilder

Built = TypeVar("Built")

MOST_CHARACTERS = 4 << 20
"""Longest text that is read: capabilities of 8,192 CPUs have 0.9 MiB, libvirt's own limit is 16."""

MOST_TAGS = 100_000
"""Most "<" in it; a tree of so many elements takes 30 MB and a second."""


class XmlError(ValueError):
    """Why XML is not read, and the line where that is known."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        self.reason = reason
        self.line = line
        super().__init__(f"line {line}: {reason}" if line else reason)


class ElementError(ValueError):
    """What is wrong with one element; `read` adds the line."""

    def __init__(self, element: Element, reason: str) -> None:
        self.element = element
        self.reason = reason
        super().__init__(reason)


def read(
    text: str,
    tag: str,
    build: Callable[[Element], Built],
    error: Callable[[str, int | None], XmlError],
) -> Built:
    """What `build` makes of the root element, which must be a <tag>.

    Whatever is wrong, with the text or with an element (`ElementError`), is raised as what `error`
    makes of the reason and the line.
    """
    try:
        root = _parse(text, tag)
        try:
            return build(root)
        except ElementError as wrong:
            raise _at(text, root, wrong) from wrong
    except XmlError as wrong:
        raise error(wrong.reason, wrong.line) from wrong


def _parse(text: str, tag: str) -> Element:
    """The root element, which must be a <tag>. Raises XmlError; does not bound the depth.

    Nothing here or in ElementTree's find and iter recurses, so that depth costs nothing.
    """
    if len(text) > MOST_CHARACTERS:
        raise XmlError(f"longer than {MOST_CHARACTERS} characters")
    if text.count("<") > MOST_TAGS:
        raise XmlError(f"more than {MOST_TAGS} tags")
    root = _fed(text, TreeBuilder())
    if root.tag != tag:
        raise _at(text, root, ElementError(root, f"<{_short(root.tag)}> is no <{tag}>"))
    return root


def _at(text: str, root: Element, error: ElementError) -> XmlError:
    """The error with the line of its element: the text is read again for that, which is rare."""
    number = next(i for i, element in enumerate(root.iter()) if element is error.element)
    builder = _Locating()
    _fed(text, builder)
    return XmlError(error.reason, builder.lines[number])


def _fed(text: str, builder: TreeBuilder) -> Element:
    import defusedxml.ElementTree as SafeTree  # type: ignore[import-untyped]
    from defusedxml.common import DefusedXmlException  # type: ignore[import-untyped]

    parser = SafeTree.DefusedXMLParser(target=builder, forbid_dtd=True)
    if isinstance(builder, _Locating):
        builder.expat = parser.parser
    try:
        parser.feed(text)
        root: Element = parser.close()
    except ParseError as error:
        reason = re.sub(r": line .*", "", str(error))
        if reason == "junk after document element":
            reason = "a second document starts here: only one per file"
        raise XmlError(reason, error.position[0]) from error
    except DefusedXmlException as error:
        raise XmlError("it has a DTD or entities, which are not allowed") from error
    except UnicodeEncodeError as error:
        raise XmlError(f"it is not Unicode text: {error.reason}") from error
    return root


class _Locating(TreeBuilder):
    """Notes the line of every element, in document order."""

    def __init__(self) -> None:
        super().__init__()
        self.expat: Any = None
        self.lines: list[int] = []

    def start(self, tag: Any, attrs: dict[Any, Any]) -> Element:
        self.lines.append(self.expat.CurrentLineNumber)
        return super().start(tag, attrs)


def _short(text: str, most: int = 40) -> str:
    return text if len(text) <= most else f"{text[:most]}…"
