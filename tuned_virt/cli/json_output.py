# SPDX-License-Identifier: GPL-2.0-or-later
"""What commands print with `--json`: one shape for all of them, see docs/json.7.md.

An object with `version` (of this package) and `kind`, which names its JSON Schema in `schemas/`.
The same thing has the same name everywhere: `guest`, `uuid` and `pid` of a guest; `node`, `nodes`
and `cpus` of the host; `disk`; `plugin`, `setting`, `before`, `after` and `why` of a change. Times
are ISO 8601 with their zone.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import Any

from tuned_virt import __version__

SCHEMAS = os.path.join(os.path.dirname(__file__), "schemas")


def add_option(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """`--json`, the same for each command that reports."""
    parser.add_argument("--json", action="store_true", help="print JSON, see tuned-virt-json(7)")


def document(kind: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """A command's content as it is printed; `kind` is the name of its schema."""
    return {"version": __version__, "kind": kind, **content}


def emit(kind: str, content: Mapping[str, Any]) -> None:
    """Print for programs."""
    import json  # a command that prints no JSON starts faster

    print(json.dumps(document(kind, content), indent=2))


def emit_line(kind: str, content: Mapping[str, Any]) -> None:
    """Print one of several documents, each on its line."""
    import json

    print(json.dumps(document(kind, content)))


def moment(seconds: float) -> str:
    """Seconds since the epoch as this machine has it, such as 2026-01-31T14:30:00.250+01:00."""
    from datetime import datetime

    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="milliseconds")
