"""The Python side of tuned-virt-plus: the library and the `tuned-virt` command.

TuneD itself is not on the package index (a project of that name there is something else) and so is
no requirement here: it comes from the distribution. `make install` puts the plugins and profiles
where the distribution's TuneD looks for them.
"""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "tuned_virt/__init__.py").read_text())
assert VERSION

setup(
    name="tuned-virt-plus",
    version=VERSION.group(1),
    description="TuneD plugins and profiles for KVM hosts and guests, undone exactly",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="GPL-2.0-or-later",
    packages=find_packages(include=["tuned_virt", "tuned_virt.*"]),
    python_requires=">=3.9",
    install_requires=["configobj", "defusedxml", "rich"],
    entry_points={"console_scripts": ["tuned-virt = tuned_virt.cli:entry"]},
)
