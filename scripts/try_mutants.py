# SPDX-License-Identifier: GPL-2.0-or-later
"""Make mutants with mutmut and try them, for scripts/mutate.py, in its folder build/mutate.

mutmut itself begins a pytest session for each mutant, which takes several times as long as the
tests that notice it. Here one session collects all tests; then each mutant has a child of it, which
runs the tests that reach its function until one fails: first those that noticed another mutant of
the function, then the fastest. Results go where mutmut keeps its own.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import io
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Optional

import pytest
from mutmut import __main__ as mutmut
from mutmut.configuration import config
from mutmut.mutation.trampoline import get_mutant_under_test, set_mutant_under_test
from mutmut.state import state

PASSED, FAILED, UNREACHED = 0, 1, 33
"""Exit codes, as mutmut has them."""

WORKERS = os.cpu_count() or 1

MEMORY = 4 << 30
"""Bytes of address space that a mutant may take."""

LEAST, TIMES = 5, 5
"""Seconds of CPU that a mutant may take, and times those of its tests; ten times as many by the
clock."""

SPENT = "spent.json"
"""Seconds and functions reached by test."""

NOTICED = "noticed"
"""Name of the test that noticed a mutant, in the folder of the mutant's process."""

Codes = dict[str, Optional[int]]
"""Exit codes by mutant; None where it was not tried."""


def generate() -> list[Path]:
    """Make the mutants of what has changed; the modules' files below mutants/."""
    set_mutant_under_test("mutant_generation")
    Path("mutants").mkdir(exist_ok=True)
    with contextlib.redirect_stdout(io.StringIO()):
        mutmut.copy_src_dir()
        mutmut.copy_also_copy_files()
        mutmut.setup_source_paths()
        mutmut.create_mutants(WORKERS)
    set_mutant_under_test("")
    return sorted(mutmut.walk_mutatable_files())


class Trial:
    """A pytest plugin that tries mutants where pytest would run the tests it has collected."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._files = files
        self._running: dict[int, tuple[Codes, str, list[pytest.Item]]] = {}
        self._folder = Path(tempfile.mkdtemp(prefix="mutants-"))

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """In place of pytest's own loop."""
        if session.testsfailed:
            return False  # some could not be collected
        self._session = session
        gc.freeze()
        try:
            self._try_all(self._measure())
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        return True

    def _measure(self) -> dict[str, list[pytest.Item]]:
        """The tests that reach each function, the fastest first; all of them must pass."""
        pid = self._child(self._reach, "stats", 600)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != PASSED:
            pytest.exit("a test fails without any mutant", returncode=FAILED)
        spent = json.loads(Path(SPENT).read_text())
        reaching = defaultdict(list)
        for item in sorted(self._session.items, key=lambda item: spent[item.nodeid][0]):
            for function in spent[item.nodeid][1]:
                reaching[function].append(item)
        self._seconds = {test: seconds for test, (seconds, _) in spent.items()}
        return reaching

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Say which test fails without any mutant; nobody would see it of the others."""
        if report.failed and get_mutant_under_test() == "stats":
            print(f"\n{report.nodeid}\n{report.longreprtext}", flush=True)

    def _reach(self) -> int:
        spent = {}
        for item in self._session.items:
            state()._stats.clear()
            begun = time.process_time()
            if self._failed([item]):
                return FAILED
            spent[item.nodeid] = (time.process_time() - begun, sorted(state()._stats))
        Path(SPENT).write_text(json.dumps(spent))
        return PASSED

    def _failed(self, items: Iterable[pytest.Item]) -> int:
        for item in items:
            item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
            if self._session.testsfailed:
                (self._own() / NOTICED).write_text(item.nodeid)
                return FAILED
        return PASSED

    def _own(self, pid: int | None = None) -> Path:
        return self._folder / str(pid or os.getpid())

    def _try_all(self, reaching: dict[str, list[pytest.Item]]) -> None:
        for file in self._files:
            with _results(file) as codes:
                try:
                    for name in [name for name, code in codes.items() if code is None]:
                        self._try(codes, name, reaching[name.rpartition("__mutmut_")[0]])
                finally:
                    while self._running:
                        self._wait()
            print(f"{file}: {len(codes)} mutants", flush=True)

    def _try(self, codes: Codes, name: str, items: list[pytest.Item]) -> None:
        if not items:
            codes[name] = UNREACHED
            return
        while len(self._running) >= WORKERS:
            self._wait()
        limit = LEAST + TIMES * int(sum(self._seconds[item.nodeid] for item in items))
        pid = self._child(lambda: self._failed(items), name, limit)
        self._running[pid] = codes, name, items

    def _wait(self) -> None:
        pid, status = os.wait()
        codes, name, items = self._running.pop(pid)
        codes[name] = os.waitstatus_to_exitcode(status)
        if (self._own(pid) / NOTICED).exists():
            by = (self._own(pid) / NOTICED).read_text()
            items.sort(key=lambda item: item.nodeid != by)
        shutil.rmtree(self._own(pid), ignore_errors=True)

    def _child(self, run: Callable[[], int], mutant: str, limit: int) -> int:
        """A process that runs tests with a mutant, and exits with what they yield."""
        pid = os.fork()
        if pid:
            return pid
        try:
            if mutant != "stats":
                nothing = os.open(os.devnull, os.O_RDWR)
                for stream in range(3):
                    os.dup2(nothing, stream)
                resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            set_mutant_under_test(mutant)
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
            faulthandler.dump_traceback_later(10 * limit, exit=True)
            self._own().mkdir()
            temporary = self._session.config._tmp_path_factory  # type: ignore[attr-defined]
            temporary._basetemp = self._own()
            code = run()
        finally:
            os._exit(code if "code" in locals() else FAILED)


@contextlib.contextmanager
def _results(file: Path) -> Iterator[Codes]:
    """Exit codes by mutant; what has been tried is kept also when this is interrupted."""
    kept = Path(f"{file}.meta")
    found = json.loads(kept.read_text())
    try:
        yield found["exit_code_by_key"]
    finally:
        kept.write_text(json.dumps(found))


def main() -> int:
    """Make them and try those that have no result yet."""
    files = generate()
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
    arguments = [*config().pytest_add_cli_args, *config().pytest_add_cli_args_test_selection]
    quiet = ("-q", "-s", "--tb=native")  # other traces parse all mutants of the module
    os.chdir("mutants")
    os.environ["PY_IGNORE_IMPORTMISMATCH"] = "1"
    return int(pytest.main([*quiet, "--rootdir=.", *arguments], plugins=[Trial(files)]))


if __name__ == "__main__":
    sys.exit(main())
