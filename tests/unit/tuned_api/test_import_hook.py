# SPDX-License-Identifier: GPL-2.0-or-later
"""How TuneD finds our plugins where pip has put them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[3]


def line_of_the_pth() -> str:
    """The line that setup.py writes."""
    for node in ast.walk(ast.parse((REPO / "setup.py").read_text())):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LINE":
            return str(ast.literal_eval(node.value))
    raise AssertionError("setup.py has no LINE")


def test_the_interpreter_runs_the_line_when_it_starts(tmp_path: Path) -> None:
    (tmp_path / "tuned-virt-plus.pth").write_text(line_of_the_pth())
    code = (
        "import site, sys\n"
        f"sys.path.insert(0, {str(REPO)!r})\n"
        f"site.addsitedir({str(tmp_path)!r})\n"
        "print(type(sys.meta_path[-1]).__name__)\n"
        "print(sys.meta_path[-1].find_spec('tuned.plugins.plugin_ksm', None).origin)\n"
        "print(sys.meta_path[-1].find_spec('tuned.plugins.plugin_sysctl', None))\n"
        "functions = 'tuned.profiles.functions.function_'\n"
        "print(sys.meta_path[-1].find_spec(functions + 'virt_plus', None).origin)\n"
        "print(sys.meta_path[-1].find_spec(functions + 'exec', None))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ours = [f"{REPO}/tuned_plugins/{name}.py" for name in ("plugin_ksm", "function_virt_plus")]
    assert done.stdout.split() == ["PluginFinder", ours[0], "None", ours[1], "None"]
