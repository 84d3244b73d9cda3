# SPDX-License-Identifier: GPL-2.0-or-later
"""JSON of the command, compared with the schemas that are shipped with it."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jsonschema

from tuned_virt.cli import json_output


@functools.cache
def _validator(kind: str) -> Any:
    file = Path(json_output.SCHEMAS, f"{kind}.json")
    assert file.is_file(), f"write the schema of {kind}: {file}"
    schema = json.loads(file.read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


def valid(content: Any) -> dict[str, Any]:
    """The content, which its schema describes in full; a dataclass or a tuple is as in JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(content))
    _validator(plain["kind"]).validate(plain)
    return plain
