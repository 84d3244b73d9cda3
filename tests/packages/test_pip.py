# SPDX-License-Identifier: GPL-2.0-or-later
"""pip install into a virtual environment that sees the distribution's TuneD."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from scripts import release
from tests.packages.conftest import copy_of_the_source
from tests.sandbox import PYTHON, REPO

TUNED = Path("/usr/lib/python3/dist-packages/tuned")


def run(*command: str | Path) -> str:
    done = subprocess.run(
        list(map(str, command)), cwd="/", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def files(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pip") / "venv"
    run(PYTHON, "-m", "venv", "--system-site-packages", folder)
    return folder


@pytest.fixture(scope="module")
def before(venv: Path) -> tuple[set[str], dict[str, bytes]]:
    return files(venv), {name: (TUNED / name).read_bytes() for name in files(TUNED)}


@pytest.fixture(scope="module")
def installed(
    venv: Path,
    before: tuple[set[str], dict[str, bytes]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    source = copy_of_the_source(tmp_path_factory.mktemp("source"))
    run(venv / "bin/pip", "install", "--quiet", "--disable-pip-version-check", source)
    return venv


def test_the_command_works(installed: Path) -> None:
    assert run(installed / "bin/tuned-virt", "--version") == f"tuned-virt-plus {release.version()}"
    assert run(installed / "bin/tuned-virt", "role") in ("host", "guest")


PLUGINS = sorted(file.stem for file in REPO.glob("tuned_plugins/plugin_*.py"))


@pytest.mark.parametrize("plugin", PLUGINS)
def test_tuneds_own_loader_loads_each_plugin(installed: Path, plugin: str) -> None:
    code = f"""
from tuned.plugins.repository import Repository
loader = Repository.__new__(Repository)
loader._set_loader_parameters()
found = loader.load_plugin({plugin[len("plugin_") :]!r})
print(found.get_config_options_hints() is not None, __import__("tuned").__file__)
"""
    assert run(installed / "bin/python", "-c", code) == f"True {TUNED}/__init__.py"


def test_tuned_finds_the_function_of_the_profiles(installed: Path) -> None:
    code = """
from tuned.profiles.variables import Variables
print(Variables().expand("<${f:virt_plus:value:/nowhere:swappiness:10}>"))
"""
    assert run(installed / "bin/python", "-c", code) == "<10>"


def test_tuneds_own_plugins_stay_its_own(installed: Path) -> None:
    code = "from tuned import plugins; from tuned.plugins import plugin_sysctl as stock"
    show = "print(stock.__file__, *plugins.__path__)"
    found = run(installed / "bin/python", "-c", f"{code}; {show}")
    assert found == f"{TUNED}/plugins/plugin_sysctl.py {TUNED}/plugins"


def test_no_file_of_tuned_is_shadowed_or_changed(
    installed: Path, before: tuple[set[str], dict[str, bytes]]
) -> None:
    assert not [path for path in installed.rglob("site-packages/tuned/**/*") if path.is_file()]
    assert {name: (TUNED / name).read_bytes() for name in before[1]} == before[1]
    assert files(TUNED) == before[1].keys()


def test_starting_the_interpreter_imports_nothing_of_tuned(installed: Path) -> None:
    code = "import sys; print([m for m in sys.modules if m.startswith('tuned.')])"
    assert run(installed / "bin/python", "-c", code) == "[]"


def test_uninstalling_leaves_nothing(
    installed: Path, before: tuple[set[str], dict[str, bytes]]
) -> None:
    run(installed / "bin/pip", "uninstall", "--quiet", "--yes", "tuned-virt-plus")
    assert files(installed) == before[0]
