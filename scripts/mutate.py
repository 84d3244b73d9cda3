# SPDX-License-Identifier: GPL-2.0-or-later
"""Change the pure modules, one small thing at a time, and see whether the unit tests notice.

mutmut makes the mutants; scripts/try_mutants.py runs each against those unit tests that reach its
function. All happens below build/mutate, where results are kept: what was noticed is tried again
only when its function changes, what was not, each time.
`make mutate MUTATE="placement/* kernel/cpuset"` tries those modules alone; globs are below
tuned_virt, without .py. FRESH=1 tries everything again.

A mutant that no test can notice (equivalent, or of speed alone) is listed with its reason in
tests/mutants.tsv; all other survivors are written to build/mutate/survivors.tsv in the same form.
"""

from __future__ import annotations

import argparse
import difflib
import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build/mutate"
REVIEWED = ROOT / "tests/mutants.tsv"
SURVIVORS = WORK / "survivors.tsv"
ENOUGH = 90

PURE = (
    "placement/*",
    "metrics/*",
    "recommend/*",
    "*/planner",
    "*/policy",
    "core/options",
    "core/device_filter",
    "core/next_profile",
    "core/stock_files",
    "kernel/cpuset",
    "libvirt_api/own_elements",
    "libvirt_api/placement_tag",
    "libvirt_api/resource_tag",
    "model/pins",
    "model/memory_units",
    "model/xml_values",
    "model/guest/devices",
    "model/guest/machines",
    "model/guest/model",
    "model/guest/reader",
    "model/guest/user_pins",
    "model/topology/grid",
    "model/topology/host",
    "plugins/blk_elevator_virt/classify",
    "plugins/hugepages_numa/demand",
    "plugins/hugepages_numa/setting_types",
    "plugins/hugepages_numa/targets",
    "plugins/ksm/auto",
    "plugins/ksm/decision",
    "plugins/ksm/ksmtuned",
    "plugins/ksm/speed",
    "plugins/vm_pinning/already_running",
    "plugins/vm_pinning/placement_controller",
)
"""Modules that decide and touch nothing, as globs below tuned_virt."""

LEFT_OUT = (
    "cli/test_*.py",
    "core/test_engine_words.py",
    "core/test_plan_runner.py",
    "core/test_worker_pool.py",
    "libvirt_api/test_follower.py",
    "libvirt_api/test_worker*.py",
    "model/guest/test_guest.py::test_ten_thousand_guests",
    "model/guest/test_reader_generated.py::test_they_have_every_feature",
    "model/guest/test_reader_published.py",
    "model/topology/test_host_generated.py",
    "model/topology/test_sysfs_published.py",
    "placement/test_balanced_properties.py",
    "placement/test_planner_properties.py",
    "plugins/blk_elevator_virt/test_backing.py",
    "plugins/blk_elevator_virt/test_udev_events.py",
    "plugins/ksm/test_auto.py::test_never_outside_its_bounds",
    "plugins/ksm/test_auto.py::test_never_two_bursts_without_cause",
    "plugins/ksm/test_auto.py::test_settles_for_every_constant_input",
    "plugins/ksm/test_controller.py",
    "test_design.py",
    "test_docs.py",
    "test_layers.py",
    "test_manuals.py",
    "test_mutate.py",
    "test_packaging.py",
    "test_published_sources.py",
    "test_quick.py",
    "test_registry.py",
    "test_scripts.py",
    "test_trouble.py",
    "test_words.py",
    "tuned_api/test_*.py",
)
"""Unit tests that read the checkout, run commands, wait for threads, or try so many cases that each
survivor takes ten seconds: what they alone notice, no test of a rule states.

Globs below tests/unit, or single tests."""

COPIED = (
    "tests",
    "ansible",
    "bench",
    "monitoring",
    "scripts",
    "hooks",
    "profiles",
    "docs",
    "tuned_plugins",
    "README.md",
)
"""What the tests need besides the library."""

KILLED, SURVIVED = (1, -24), (0, 33)
"""Exit codes: tests failed or went on forever; they passed, or there are none."""


@dataclass(frozen=True)
class Mutant:
    """What was changed where."""

    module: str
    function: str
    before: str
    after: str

    @property
    def row(self) -> tuple[str, str, str, str]:
        """As it stands in the lists."""
        return self.module, self.function, self.before, self.after


@dataclass
class Score:
    """What became of a module's mutants."""

    killed: int = 0
    untried: list[Mutant] = field(default_factory=list)
    survivors: list[Mutant] = field(default_factory=list)
    made: bool = True

    @property
    def tried(self) -> int:
        """Of how many it is known."""
        return self.killed + len(self.survivors)

    @property
    def percent(self) -> float:
        """The share of these that was noticed."""
        return 100 * self.killed / self.tried if self.tried else 100.0

    @property
    def enough(self) -> bool:
        """Whether all were tried, and so many noticed."""
        return self.made and not self.untried and self.percent >= ENOUGH


def modules(wanted: Sequence[str]) -> list[Path]:
    """Files of the pure modules that were asked for, below the project's folder."""
    package = ROOT / "tuned_virt"
    files = {str(file.relative_to(package).with_suffix("")): file for file in package.rglob("*.py")}
    for glob in PURE:
        if not fnmatch.filter(files, glob):
            sys.exit(f"mutate.py: no module is {glob}; see PURE")
    names = [name for name in sorted(files) if _is_one_of(name, PURE) and "__init__" not in name]
    chosen = [name for name in names if _is_one_of(name, wanted)]
    if not chosen:
        sys.exit(f"mutate.py: no pure module is {' '.join(wanted)}; there are {' '.join(names)}")
    return [files[name].relative_to(ROOT) for name in chosen]


def left_out() -> Iterator[str]:
    """Arguments for pytest about the unit tests that are not run."""
    for glob in LEFT_OUT:
        name, _, test = glob.partition("::")
        files = sorted((ROOT / "tests/unit").glob(name))
        if not files or (test and f"\ndef {test}(" not in files[0].read_text()):
            sys.exit(f"mutate.py: no unit test is {glob}; see LEFT_OUT")
        for file in files:
            path = file.relative_to(ROOT)
            yield f"--deselect={path}::{test}" if test else f"--ignore={path}"


def _is_one_of(name: str, globs: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(name, glob) for glob in globs)


def prepare(chosen: Sequence[Path]) -> None:
    """Links to the checkout and mutmut's settings in the folder in which it works."""
    WORK.mkdir(parents=True, exist_ok=True)
    for name in ("tuned_virt", *COPIED):
        if not (WORK / name).is_symlink():
            (WORK / name).symlink_to(Path("../..") / name)
    settings = {
        "source_paths": ["tuned_virt"],
        "only_mutate": [str(file) for file in chosen],
        "also_copy": [name for name in COPIED if name != "tests"],
        "pytest_add_cli_args": ["--hypothesis-profile=mutants", "-p", "no:cacheprovider"],
        "pytest_add_cli_args_test_selection": ["tests/unit", *left_out()],
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    (WORK / "pyproject.toml").write_text("\n".join(["[tool.mutmut]", *lines, ""]))


def forget(chosen: Sequence[Path]) -> None:
    """What is no more in the checkout goes, and survivors have not been tried.

    mutmut takes a file that it has copied, or not written to its end, for one that it has mutated,
    and the reverse, so those go too. It writes a file's spans last.
    """
    mutants = WORK / "mutants"
    for name in COPIED:
        if (mutants / name).is_dir():
            shutil.rmtree(mutants / name)
    for file in (mutants / "tuned_virt").rglob("*.py"):
        path = file.relative_to(mutants)
        spans, meta = file.with_name(f"{file.name}.spans"), file.with_name(f"{file.name}.meta")
        mutated = spans.exists() and spans.stat().st_mtime >= file.stat().st_mtime
        if mutated != (path in chosen) or not (ROOT / path).exists():
            file.unlink()
        if path in chosen and meta.exists():
            found = json.loads(meta.read_text())
            codes = found["exit_code_by_key"]
            codes.update({name: None for name, code in codes.items() if code not in KILLED})
            meta.write_text(json.dumps(found))


def run() -> None:
    """Make the mutants and try those that were not tried yet."""
    here = sysconfig.get_path("purelib")  # for tests that run mutants by the system's interpreter
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": here}
    command = [sys.executable, str(ROOT / "scripts/try_mutants.py")]
    if subprocess.run(command, cwd=WORK, env=environment, check=False).returncode:
        sys.exit("mutate.py: not all mutants were tried; see above")


def score(file: Path) -> Score:
    """What mutmut found for a module, from the file that it keeps."""
    found = Score(made=(WORK / f"mutants/{file}.meta").exists())
    if not found.made:
        return found
    codes = json.loads((WORK / f"mutants/{file}.meta").read_text())["exit_code_by_key"]
    source = (WORK / "mutants" / file).read_text().splitlines()
    spans = json.loads((WORK / f"mutants/{file}.spans").read_text())["spans"]
    for name, code in codes.items():
        if code in KILLED:
            found.killed += 1
        else:
            alive = found.survivors if code in SURVIVED else found.untried
            alive.append(_mutant(file, name.rpartition(".")[2], source, spans))
    return found


def _mutant(file: Path, name: str, source: Sequence[str], spans: dict[str, list[int]]) -> Mutant:
    mangled = name.partition("__mutmut_")[0]
    function = mangled.replace("xǁ", "").replace("ǁ", ".").removeprefix("x_")
    before, after = (
        source[first - 1 : last] for first, last in (spans[f"{mangled}__mutmut_orig"], spans[name])
    )
    changed = list(difflib.ndiff(_plain(before), _plain(after)))
    lines = [" ".join(one[2:] for one in changed if one.startswith(sign)) for sign in ("- ", "+ ")]
    module = str(file.relative_to("tuned_virt").with_suffix(""))
    return Mutant(module, function, lines[0], lines[1])


def _plain(lines: Sequence[str]) -> list[str]:
    """Without indentation, and without mutmut's names of the function and its copies."""
    return [re.sub(r"def x\S+__mutmut_\w+", "def", line.strip()) for line in lines]


def reviewed() -> Iterator[Mutant]:
    """Those of which someone said why no test can notice them."""
    for line in REVIEWED.read_text().splitlines()[1:]:
        module, function, before, after, reason = line.split("\t")
        if not reason:
            sys.exit(f"mutate.py: {REVIEWED.name} has no reason for {line}")
        yield Mutant(module, function, before, after)


def report(scores: dict[str, Score]) -> bool:
    """Print the table, write the survivors; is it enough everywhere?"""
    known = set(reviewed())
    print(f"\n{'module':36} {'tried':>7} {'killed':>7} {'share':>7} {'reason':>7} {'left':>5}")
    left = []
    for name, one in scores.items():
        rest = [mutant for mutant in one.survivors if mutant not in known]
        left += rest
        explained = len(one.survivors) - len(rest)
        share = f"{one.tried:7} {one.killed:7} {one.percent:6.1f}%"
        print(f"{name:36} {share} {explained:7} {len(rest):5}", end="")
        untried = str(len(one.untried)) if one.made else "all"
        print("" if untried == "0" else f"  {untried} not tried")
    rows = [("module", "function", "before", "after"), *(one.row for one in left)]
    SURVIVORS.write_text("".join("\t".join(row) + "\n" for row in rows))
    alive = {mutant for one in scores.values() for mutant in [*one.survivors, *one.untried]}
    for mutant in sorted(known - alive, key=lambda one: one.row):
        if mutant.module in scores:
            print(f"{REVIEWED.name}: this one is noticed, or is no more: {' | '.join(mutant.row)}")
    print(f"{len(left)} survivors without a reason: {SURVIVORS.relative_to(ROOT)}")
    return all(one.enough for one in scores.values())


def main() -> int:
    """Try the modules that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--fresh", action="store_true", help="forget what was found before")
    parser.add_argument("--report", action="store_true", help="only print what was found before")
    parser.add_argument("modules", nargs="*", default=["*"], help="globs of modules")
    asked = parser.parse_args()
    chosen = modules(asked.modules)
    if asked.fresh and WORK.exists():
        shutil.rmtree(WORK)
    if not asked.report:
        prepare(chosen)
        forget(chosen)
        run()
    names = {file: str(file.relative_to("tuned_virt").with_suffix("")) for file in chosen}
    return 0 if report({names[file]: score(file) for file in chosen}) else 1


if __name__ == "__main__":
    sys.exit(main())
