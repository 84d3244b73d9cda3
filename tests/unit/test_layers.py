# SPDX-License-Identifier: GPL-2.0-or-later
"""The design's import rules: tuned_api alone knows TuneD, libvirt_api libvirt; no arrow up."""

from __future__ import annotations

import ast
import collections
import functools
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "tuned_virt"

LONGEST = 400
"""Lines of a file."""

LAYERS = (
    {"__init__", "frozen_dataclasses"},
    {"kernel"},
    {"model"},
    {"core"},
    {"placement"},
    {"audit"},
    {"libvirt_api"},
    {"guests", "tuned_api"},
    {"plugins"},
    {"registry", "recommend", "metrics"},
    {"cli", "__main__", "numad"},
)
"""From the bottom up: a module imports from its own layer and those below."""


@functools.lru_cache(maxsize=1)
def modules() -> dict[str, Path]:
    return {str(path.relative_to(PACKAGE).with_suffix("")): path for path in PACKAGE.rglob("*.py")}


def top(module: str) -> str:
    return module.split("/", maxsplit=1)[0]


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@functools.cache
def imported(path: Path) -> set[str]:
    """Every module that a file imports, and every name it takes from one."""
    names = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the package"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def layer(name: str) -> int:
    return next(number for number, names in enumerate(LAYERS) if name in names)


def test_layers_name_what_there_is() -> None:
    assert {top(module) for module in modules()} == set().union(*LAYERS)


@pytest.mark.parametrize(("library", "where"), [("tuned", "tuned_api"), ("libvirt", "libvirt_api")])
def test_one_layer_alone_imports(library: str, where: str) -> None:
    tops = {name: {one.split(".")[0] for one in imported(path)} for name, path in modules().items()}
    assert {top(module) for module, found in tops.items() if library in found} == {where}


def test_no_error_of_libvirts_binding_leaves_libvirt_api() -> None:
    leaks = ("libvirtError", "binding.libvirt")
    for module, path in modules().items():
        if top(module) != "libvirt_api":
            uses = [ast.unparse(n) for n in ast.walk(parsed(path)) if isinstance(n, ast.Attribute)]
            assert not [use for use in uses if use.endswith(leaks)], module
            assert "tuned_virt.libvirt_api.binding.libvirt" not in imported(path), module


def test_no_arrow_points_up() -> None:
    known = set().union(*LAYERS)
    for module, path in modules().items():
        for name in imported(path):
            parts = name.split(".")
            if parts[0] == "tuned_virt" and len(parts) > 1 and parts[1] in known:
                assert layer(parts[1]) <= layer(top(module)), f"{module} imports {name}"


@pytest.mark.parametrize("plugin", sorted(one.name for one in (PACKAGE / "plugins").glob("*/")))
def test_a_plugins_list_of_its_modules_is_whole(plugin: str) -> None:
    """Where a plugin's package lists its modules, it names those that there are, and all."""
    package = PACKAGE / "plugins" / plugin / "__init__.py"
    text = ast.get_docstring(ast.parse(package.read_text())) if package.exists() else ""
    if text and "policy " in text:
        there = {file.stem for file in package.parent.glob("*.py")} - {"__init__"}
        assert {name for name in there if re.search(rf"\b{name}\b", text)} == there


def test_no_file_is_too_long() -> None:
    lines = {module: len(path.read_text().splitlines()) for module, path in modules().items()}
    assert {module: number for module, number in lines.items() if number > LONGEST} == {}


def test_one_class_name_means_one_thing() -> None:
    """Private names count as well; what two modules share, one of them imports."""
    found = collections.Counter(
        node.name
        for path in modules().values()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, times in found.items() if times > 1] == []


def test_plugins_hold_no_policy() -> None:
    for path in (PACKAGE.parent / "tuned_plugins").glob("*.py"):
        tree = ast.parse(path.read_text())
        [plugin] = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        assert not [n for n in ast.walk(tree) if isinstance(n, (ast.If, ast.For, ast.FunctionDef))]
        assert ast.get_docstring(plugin), "TuneD shows it"


def test_a_test_file_is_named_after_what_it_tests() -> None:
    """tests/unit/FOLDER/test_MODULE.py or test_MODULE_WHAT.py; a folder's own is test_FOLDER.py.

    Files directly in tests/unit are about the project as a whole: packages, manuals, layers.
    """
    tests = PACKAGE.parent / "tests/unit"
    for file in tests.rglob("*/test_*.py"):
        folder = PACKAGE / file.parent.relative_to(tests)
        there = {one.stem.rstrip("_") for one in folder.glob("*.py")} | {folder.name}
        assert any(f"{file.stem}_".startswith(f"test_{one}_") for one in there), file


def test_frozen_dataclasses_share_their_methods() -> None:
    """See tuned_virt/frozen_dataclasses.py, which says why `placement` has the library's."""
    for module, path in modules().items():
        if top(module) not in ("placement", "frozen_dataclasses"):
            own = "@dataclass(frozen=True)" in path.read_text()
            assert not own or "dataclasses.dataclass" not in imported(path), module


def test_what_tuned_loads_needs_no_pathlib() -> None:
    """It brings urllib.parse and ipaddress with it: 0.6 MiB of TuneD's memory."""
    command = ("cli/__init__", "cli/common", "cli/profile_questions", "cli/settings_file")
    for module, path in modules().items():
        if top(module) != "cli" or module in command:
            assert "pathlib" not in imported(path), module
