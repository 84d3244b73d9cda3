# SPDX-License-Identifier: GPL-2.0-or-later
"""A bill of materials: what a release is, and what its packages need at run time.

`make sbom` writes build/dist/tuned-virt-plus-VERSION.cdx.json (CycloneDX 1.5): the source archive
with its SHA-256 and licence, and what the RPM spec requires of the distribution. Nothing of others
is bundled. The same tree gives the same bytes.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from scripts import release

LICENSE = "GPL-2.0-or-later"
VERSION = SchemaVersion.V1_5
STRENGTHS = ("Requires", "Recommends")
OURS = "%{name}"


def required() -> Iterator[tuple[str, str, str]]:
    """What the spec asks of a distribution: package of ours, how strongly, and requirement."""
    package = release.NAME
    for line in (release.SOURCE / release.SPEC).read_text().splitlines():
        if found := re.match(r"%package (\S+)", line):
            package = f"{release.NAME}-{found[1]}"
        strength, _, what = line.partition(":")
        if strength in STRENGTHS and OURS not in what:
            yield package, strength, what.strip()


def bom(archive: Path) -> Bom:
    """The release and its requirements."""
    made = datetime.fromtimestamp(release.epoch(), timezone.utc)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    whole = Component(
        name=release.NAME,
        version=release.version(),
        type=ComponentType.APPLICATION,
        bom_ref=release.NAME,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
        licenses=[LicenseExpression(LICENSE)],
    )
    needed: dict[str, Component] = {}
    for package, strength, what in required():
        name = what.split()[0]
        one = needed.setdefault(
            name, Component(name=name, bom_ref=name, type=ComponentType.LIBRARY)
        )
        one.properties.add(Property(name=f"{package}:{strength}", value=what))
    serial = uuid.uuid5(uuid.NAMESPACE_OID, f"{release.NAME} {release.version()} {digest}")
    content = Bom(components=needed.values(), serial_number=serial)
    content.metadata.component = whole
    content.metadata.timestamp = made
    content.register_dependency(whole, needed.values())
    return content


def main() -> None:
    """Write the file; what the schema refuses is a failure."""
    archive = release.dist()
    target = archive.with_name(archive.name.removesuffix(".tar.gz") + ".cdx.json")
    text = make_outputter(bom(archive), OutputFormat.JSON, VERSION).output_as_string(indent=2)
    error = JsonStrictValidator(VERSION).validate_str(text)
    if error is not None:
        raise SystemExit(f"make sbom: {error}")
    target.write_text(text + "\n")
    print(target.relative_to(release.SOURCE))


if __name__ == "__main__":
    main()
