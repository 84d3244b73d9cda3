# SPDX-License-Identifier: GPL-2.0-or-later
"""Our controller in a process of its own, through the product's own parts, outside TuneD.

`python -m bench.ksm_auto [--log FILE] [OPTION=VALUE …]`: prints "ready" when it is at work, and
puts everything back when its stdin ends. The options are those of the ksm plugin.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

from tuned_virt.core.engine import Engine, Result
from tuned_virt.core.journal import Journal
from tuned_virt.core.originals import Originals
from tuned_virt.core.plan_runner import PlanRunner
from tuned_virt.kernel.files import KernelFS
from tuned_virt.registry import tuner


def log_to(file: Path) -> None:
    """Have what TuneD would log, INFO and above, appended to a file."""
    handler = logging.FileHandler(file)
    handler.setFormatter(logging.Formatter("%(asctime)s.%(msecs)03d %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("tuned")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def main() -> int:
    """Apply, wait, restore; 1 if the policy was not applied as asked."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--log", type=Path)
    arguments.add_argument("options", nargs="*", metavar="OPTION=VALUE")
    given = arguments.parse_args()
    if given.log:
        log_to(given.log)
    options = {"mode": "auto", **dict(option.split("=", 1) for option in given.options)}
    ksm = tuner("ksm")
    policy = ksm.parse(options)
    with tempfile.TemporaryDirectory(prefix="tuned-virt-bench-") as folder:
        kept = Path(folder)
        engine = Engine(ksm, KernelFS(), Originals(kept), Journal(kept / "journal"))
        runner = PlanRunner(engine)
        try:
            runner.apply(policy)
            failed = [f for f in runner.verify(False) if f.result is Result.FAILED]
            for finding in failed:
                print(finding.text, file=sys.stderr)
            if not failed:
                print("ready", flush=True)
                sys.stdin.read()
        finally:
            runner.restore()
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
