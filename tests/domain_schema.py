# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt's schema of a domain, where it is installed: what its attributes and texts may be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

FOLDER = Path("/usr/share/libvirt/schemas")
RELAX = "{http://relaxng.org/ns/structure/1.0}"

NUMBERS = {
    *("unsignedInt", "int", "positiveInteger", "unsignedLong", "integer", "double", "short"),
    *("unsignedShort", "long", "value"),
}
SHORT = (
    "([bB]",
    "([0-9]+(-[0-9]+)?|",
    "(-|\\+)?[0-9]",
    "(vepa|",
    "(sync_pt|",
    "(ipv4)|",
    "(0x)?[0-9",
    "[0-9]",
)
"""How patterns begin that allow few words, or numbers."""

Place = tuple[str, str]


def missing() -> str:
    """Why it cannot be read, "" where it can."""
    return "" if (FOLDER / "domaincommon.rng").exists() else f"no schema in {FOLDER}"


def unbounded() -> tuple[set[Place], set[str]]:
    """(element, attribute) and elements whose value or text may be more than words and numbers."""
    schema = _Schema()
    for one in schema.definitions["domain"]:
        schema.visit(one, "")
    return (
        {place for place, kinds in schema.attributes.items() if any(map(_free, kinds))},
        {element for element, kinds in schema.texts.items() if any(map(_free, kinds))},
    )


def _free(kind: str) -> bool:
    name, _, pattern = kind.partition(":")
    return name not in NUMBERS and not pattern.startswith(SHORT)


class _Schema:
    """What was found of attributes and texts; `visit` follows references once."""

    def __init__(self) -> None:
        self.definitions: dict[str, list[Element]] = defaultdict(list)
        for file in sorted(FOLDER.glob("*.rng")):
            for one in ElementTree.parse(file).getroot().iter(f"{RELAX}define"):
                self.definitions[one.get("name", "")].append(one)
        self.attributes: dict[Place, set[str]] = defaultdict(set)
        self.texts: dict[str, set[str]] = defaultdict(set)
        self._seen: set[Place] = set()

    def visit(self, node: Element, element: str) -> None:
        """What is below a node that is in an element."""
        for child in node:
            tag, name = child.tag.replace(RELAX, ""), child.get("name", "*")
            if tag == "element":
                self.texts[name] |= set(self._kinds(child))
                self.visit(child, name)
            elif tag == "attribute":
                self.attributes[element, name] |= set(self._kinds(child)) or {"text"}
            elif tag != "ref":
                self.visit(child, element)
            elif (name, element) not in self._seen:
                self._seen.add((name, element))
                for one in self.definitions[name]:
                    self.visit(one, element)

    def _kinds(self, node: Element, seen: tuple[str, ...] = ()) -> Iterator[str]:
        """Types of what may be in it."""
        for child in node:
            tag, name = child.tag.replace(RELAX, ""), child.get("name", "")
            if tag == "data":
                patterns = [one.text or "" for one in child if one.get("name") == "pattern"]
                yield f"{child.get('type')}:{'|'.join(patterns)}"
            elif tag in ("text", "value"):
                yield tag
            elif tag == "ref" and name not in seen:
                for one in self.definitions[name]:
                    yield from self._kinds(one, (*seen, name))
            elif tag not in ("attribute", "element", "ref"):
                yield from self._kinds(child, seen)
