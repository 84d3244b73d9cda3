# SPDX-License-Identifier: GPL-2.0-or-later
"""The design's import rules: tuned_api alone knows TuneD, hypervisor libvirt; no arrow up."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "tuned_virt"

LAYERS = (
    {
        "cpuset",
        "following",
        "kernelfs",
        "lanes",
        "mempolicy",
        "options",
        "plan",
        "guestselection",
        "safexml",
        "selection",
        "tags",
        "tools",
        "units",
        "__init__",
    },
    {"baseline", "journal", "topology", "guest", "service", "hypervisor", "numamaps", "movepages"},
    {"engine", "qemu", "threads", "guesttuner", "guestkeeping", "roster"},
    {"placement", "ksm", "guard", "system", "hugepages", "disks", "blkio", "steward", "watch"}
    | {"guestundo", "pinning", "limits"},
    {"tuners", "pluginpath"},
    {"tuned_api", "cli", "audit", "__main__"},
)
"""From the bottom up: a module imports from its own layer and those below."""


def modules() -> dict[str, Path]:
    return {str(path.relative_to(PACKAGE).with_suffix("")): path for path in PACKAGE.rglob("*.py")}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the package"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def layer(module: str) -> int:
    top = module.split("/", maxsplit=1)[0]
    return next(number for number, names in enumerate(LAYERS) if top in names)


@pytest.mark.parametrize("module", modules())
def test_only_tuned_api_imports_tuned_and_only_hypervisor_imports_libvirt(module: str) -> None:
    tops = {name.split(".")[0] for name in imported(modules()[module])}
    top = module.split("/", maxsplit=1)[0]
    assert top == "tuned_api" or "tuned" not in tops
    assert top == "hypervisor" or "libvirt" not in tops


@pytest.mark.parametrize("module", modules())
def test_no_arrow_points_up(module: str) -> None:
    for name in imported(modules()[module]):
        parts = name.split(".")
        known = {path.split("/")[0] for path in modules()}
        if parts[0] == "tuned_virt" and len(parts) > 1 and parts[1] in known:
            assert layer(parts[1]) <= layer(module), f"{module} imports {name}"


def test_plugins_hold_no_policy() -> None:
    for path in (PACKAGE.parent / "tuned_plugins").glob("*.py"):
        tree = ast.parse(path.read_text())
        [plugin] = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        assert not [n for n in ast.walk(tree) if isinstance(n, (ast.If, ast.For, ast.FunctionDef))]
        assert ast.get_docstring(plugin), "TuneD shows it"
