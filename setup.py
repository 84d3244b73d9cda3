# SPDX-License-Identifier: GPL-2.0-or-later
"""The Python side of tuned-virt-plus: the library, the plugins and the `tuned-virt` command.

TuneD itself is not on the package index (a project of that name there is something else) and so is
no requirement here: it comes from the distribution, and so do the profiles, by package or by
`make install`. The plugins are found from a virtual environment by
tuned_virt/tuned_api/import_hook.py.
"""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "tuned_virt/__init__.py").read_text())
assert VERSION


class BuildWithPath(build_py):
    """Adds the line that the interpreter runs when it starts."""

    PTH = "tuned-virt-plus.pth"
    LINE = "import tuned_virt.tuned_api.import_hook as hook; hook.install()\n"

    def run(self) -> None:
        """Build, and write the .pth file: of its lines, site runs those that begin with import."""
        super().run()
        (Path(self.build_lib) / self.PTH).write_text(self.LINE)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """With the .pth file, so that pip takes it away again."""
        return [*super().get_outputs(include_bytecode), str(Path(self.build_lib) / self.PTH)]


setup(
    name="tuned-virt-plus",
    version=VERSION.group(1),
    description="TuneD plugins and profiles for KVM hosts and guests, with exact undo",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="GPL-2.0-or-later",
    packages=[*find_packages(include=["tuned_virt", "tuned_virt.*"]), "tuned_plugins"],
    python_requires=">=3.9",
    install_requires=["configobj", "defusedxml", "jinja2", "jsonschema"],
    package_data={"tuned_virt.cli": ["schemas/*.json", "templates/*.[cj]*"]},
    extras_require={"completion": ["argcomplete"], "metrics": ["prometheus_client"]},
    entry_points={"console_scripts": ["tuned-virt = tuned_virt.cli:entry"]},
    cmdclass={"build_py": BuildWithPath},
)
