# SPDX-License-Identifier: GPL-2.0-or-later
"""Nothing is left out of the packages: files, and what the code imports."""

from __future__ import annotations

import ast
import functools
import re
import sys
from pathlib import Path

import pytest

from scripts import layout, release, spdx

ROOT = Path(__file__).parents[2]

STDLIB: frozenset[str] = getattr(sys, "stdlib_module_names", frozenset())

PROVIDED_BY = {
    "configobj": "python3-configobj",
    "dbus": "python3-dbus",
    "defusedxml": "python3-defusedxml",
    "libvirt": "python3-libvirt",
    "libvirt_qemu": "python3-libvirt",
    "jinja2": "python3-jinja2",
    "jsonschema": "python3-jsonschema",
    "argcomplete": "python3-argcomplete",
    "tuned": "tuned",
    "pyudev": "tuned",
    "prometheus_client": "python3-prometheus[-_]client",
}
"""Import to package, of the same name in Debian and Fedora but for the last; pyudev is TuneD's."""


def everything() -> layout.Layout:
    packages = (*layout.BY_DEFAULT, *layout.ON_DEMAND)
    return layout.Layout("", "/usr", "/site", packages=packages)


def test_every_file_of_the_product_is_installed_once() -> None:
    entries = [*everything().files(), *everything().variables()]
    installed = [entry.source for entry in entries]
    targets = [entry.target for entry in entries]
    assert len(set(installed)) == len(installed)
    assert len(set(targets)) == len(targets)
    folders = ("tuned_virt", "tuned_plugins", "profiles")
    product = {file for folder in folders for file in (ROOT / folder).rglob("*") if file.is_file()}
    assert {file for file in product if "__pycache__" not in file.parts} <= set(installed)


def test_each_package_has_something_and_no_file_is_in_two() -> None:
    for package in (*layout.BY_DEFAULT, *layout.ON_DEMAND):
        alone = layout.Layout("", "/usr", "/site", packages=(package,))
        assert list(alone.files())
        assert {entry.package for entry in alone.files()} == {package}


@pytest.mark.parametrize("prefix", ["/usr", "/usr/local", "/opt/virt"])
def test_whatever_names_the_command_names_where_it_is(prefix: str, tmp_path: Path) -> None:
    """A unit that names another one does nothing, in silence: its ExecStopPost= has a `-`."""
    layout.install(layout.Layout(str(tmp_path), prefix, "/site"))
    command = f"{prefix}/bin/tuned-virt"
    assert (tmp_path / command.lstrip("/")).is_file()
    files = [file for file in tmp_path.rglob("*") if file.suffix in (".conf", ".service")]
    texts = {str(file): file.read_text() for file in files}
    found = {name: set(re.findall(r"/[\w/]+/tuned-virt\b", text)) for name, text in texts.items()}
    naming = {Path(name).name for name in found if found[name]}
    assert {"tuned-virt.conf", "tuned-virt-verify.service", "tuned-virt-metrics.service"} <= naming
    assert {path for paths in found.values() for path in paths} == {command}


@functools.lru_cache(maxsize=1)
def third_party() -> set[str]:
    """Top-level names that the product imports and Python does not have."""
    names = set()
    for folder in ("tuned_virt", "tuned_plugins"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Import):
                    names |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    names.add(node.module.split(".")[0])
    return names - set(STDLIB) - {"tuned_virt", "tuned_plugins"}


@pytest.mark.skipif(not STDLIB, reason="Python 3.9 does not know which modules are its own")
@pytest.mark.parametrize("file", ["rpm/tuned-virt-plus.spec", "debian/control"])
def test_packages_need_what_the_code_imports(file: str) -> None:
    text = (ROOT / file).read_text()
    for name in third_party():
        assert name in PROVIDED_BY, f"say which package has {name}, and need it"
        pattern = rf"^(?:Requires:|Recommends:|Depends:)?\s*{PROVIDED_BY[name]}\b(?!-)"
        assert re.search(pattern, text, re.MULTILINE), f"{file} does not need {PROVIDED_BY[name]}"


@pytest.mark.parametrize(
    ("file", "heading"),
    [
        ("rpm/tuned-virt-plus.spec", "%package host\n"),
        ("debian/control", "Package: tuned-virt-plus-host\n"),
    ],
)
def test_the_hosts_package_brings_libvirts_binding(file: str, heading: str) -> None:
    text = (ROOT / file).read_text().split(heading)[1]
    needed = re.split(r"^%?[Dd]escription", text, maxsplit=1, flags=re.MULTILINE)[0]
    assert re.search(r"^(Requires:)?\s+python3-libvirt\b", needed, re.MULTILINE)


def test_the_changelog_has_this_version_and_those_before_once() -> None:
    text = (release.SOURCE / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## (.*)$", text, re.MULTILINE)
    released = [name for name in versions if name != "Unreleased"]
    assert released[0] == release.version()
    assert released == sorted(set(released), key=lambda name: name.split("."), reverse=True)
    assert "Unreleased" not in versions[1:]


def test_the_collection_has_the_projects_version() -> None:
    """Its archive's name, what installs it, its changelog, and since when its modules are there."""
    folder = ROOT / "ansible"
    galaxy = (folder / "galaxy.yml").read_text()
    assert re.findall(r"^version: (\S+)$", galaxy, re.MULTILINE) == [release.version()]
    named = re.findall(r"tuned_virt-plus-(\S+)\.tar\.gz", (folder / "README.md").read_text())
    assert set(named) == {release.version()}
    headings = re.findall(r"^## (\S+)$", (folder / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == release.version()
    plugins = [file.read_text() for file in folder.glob("plugins/*/*.py")]
    since = {one for text in plugins for one in re.findall(r"^version_added: (\S+)", text, re.M)}
    assert since and since <= set(headings)


def test_every_source_file_names_its_licence() -> None:
    names = [str(file.relative_to(ROOT)) for file in spdx.lacking()]
    assert names == [], "run /usr/bin/python3 scripts/spdx.py"


NAMESPACES = re.compile(
    r"Private|Protect|Read(Only|Write)Paths|Inaccessible|Bind|Temporary|Root|Dynamic"
)
"""Options of a unit for which systemd gives it mounts of its own (systemd.exec(5))."""


def test_what_binds_tuned_gives_it_no_mounts_of_its_own() -> None:
    """Huge pages that it mounts there would be seen by no guest."""
    text = (ROOT / "scripts/tuned.service.conf").read_text()
    options = re.findall(r"^(\w+)=", text, re.MULTILINE)
    assert {"RestrictSUIDSGID", "SystemCallFilter", "CapabilityBoundingSet"} <= set(options)
    assert [one for one in options if NAMESPACES.match(one)] == []
