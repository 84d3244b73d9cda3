# SPDX-License-Identifier: GPL-2.0-or-later
"""Boot the cells of the matrix, two at a time, and print one table.

    python -m tests.matrix [CELLS…]

Exit status: 0 when all passed, 1 when some failed, 2 when some could not be booted or named.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tests import debian
from tests.matrix import images, machine, table
from tests.matrix.cells import ALL_PAIRS, Cell, chosen
from tests.vm.boot import NotRunError

AT_ONCE = 2


def cells(text: str) -> Sequence[Cell]:
    """As `chosen`, for argparse."""
    try:
        return chosen(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def one(cell: Cell) -> table.Result:
    """Run a cell and say at once what came of it."""
    result = machine.run_cell(cell)
    print(
        f"{cell}: {'passed' if result.passed else 'FAILED'} in {result.seconds:.0f} s", flush=True
    )
    return result


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="tests.matrix", description="Boot the matrix's cells.")
    parser.add_argument(
        "cells", type=cells, nargs="?", default=ALL_PAIRS, help="see tests/matrix/cells.py"
    )
    parser.add_argument("--at-once", type=int, default=AT_ONCE)
    arguments = parser.parse_args()
    try:
        for cell in arguments.cells:
            machine.learned_disk(cell)
        with ThreadPoolExecutor(arguments.at_once) as pool:
            results = list(pool.map(one, arguments.cells))
    except (
        NotRunError,
        debian.Unavailable,
        OSError,
        RuntimeError,
        subprocess.SubprocessError,
    ) as error:
        print(f"the matrix could not be run: {error}", file=sys.stderr)
        return 2
    for result in results:
        if not result.passed:
            folder = images.FOLDER / "cells" / str(result.cell).replace("/", "-")
            print(
                f"\n{result.cell}\n"
                + "\n".join(result.failures)
                + f"\nits console:\n{machine.tail(folder)}"
            )
    text = table.shown(results)
    (images.FOLDER / "table.txt").write_text(text)
    print(f"\n{text}", end="")
    return 0 if all(result.passed for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
