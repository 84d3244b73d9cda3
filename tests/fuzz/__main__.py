# SPDX-License-Identifier: GPL-2.0-or-later
"""Readers of others' text under atheris (libFuzzer): coverage leads it to what is not tried yet.

    python -m tests.fuzz [--minutes 10] [TARGET…]

The minutes are shared by the targets. What was found is in build/fuzz; a text that raised is
printed with its path, and belongs into tests/fuzz/corpus. Exit status: 0 when nothing was found.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build/fuzz"
CORPUS = Path(__file__).parent / "corpus"

SLOWEST, LARGEST, LONGEST = 10, 1024, 65536
"""Seconds and MiB that a reader may take, and bytes that it is given."""


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("targets", nargs="*")
    told = parser.parse_args()
    if told.one:
        return _fuzz(told.one, told.minutes * 60)
    from tests.fuzz.readers import TARGETS

    names = told.targets or list(TARGETS)
    failed = []
    for name in names:
        share = str(told.minutes / len(names))
        command = [sys.executable, "-m", "tests.fuzz", "--one", name, "--minutes", share]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            failed.append(name)
    print(f"{len(names)} readers, {told.minutes:g} minutes; faults in: {', '.join(failed) or '-'}")
    return 1 if failed else 0


def _fuzz(name: str, seconds: float) -> int:
    """One target, in this process, which libFuzzer ends."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["tuned_virt", "configobj", "configparser", "json"]):
        from tests.fuzz.readers import TARGETS, quietly
    target = TARGETS[name]
    found, words = WORK / name, WORK / f"{name}.words"
    found.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (found / f"seed{number}").write_text(seed)
    words.write_text("".join(f"{_word(word)}\n" for word in target.words))
    folders = [str(found), *(str(one) for one in [CORPUS / name] if one.is_dir())]
    arguments = [
        f"-max_total_time={max(1, round(seconds))}",
        f"-timeout={SLOWEST}",
        f"-rss_limit_mb={LARGEST}",
        f"-max_len={LONGEST}",
        f"-dict={words}",
        f"-artifact_prefix={WORK}/{name}-",
        "-print_final_stats=1",
        "-verbosity=0",
        *folders,
    ]
    atheris.Setup([sys.argv[0], *arguments], quietly(target.read))
    atheris.Fuzz()
    return 0


def _word(word: str) -> str:
    """As libFuzzer's dictionaries have it."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in word.encode()[:64]) + '"'


if __name__ == "__main__":
    os.environ.setdefault("PYTHONHASHSEED", "0")
    sys.exit(main())
