# SPDX-License-Identifier: GPL-2.0-or-later
"""The policy in force, on tmpfs: `tuned-virt disks` says what it wants, to anybody."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from pathlib import Path
from typing import Any

from tuned_virt.core.originals import FOLDER, only_root_writes
from tuned_virt.plugins.blk_elevator_virt.policy import DiskPolicy, MachineRole, SchedulerRule

log = logging.getLogger("tuned")

FILE = "disks.json"


class PolicyInForce:
    """Says to others what is asked of disks."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._file = folder / FILE
        self._new = folder / f"{FILE}.new"

    def save(self, policy: DiskPolicy) -> None:
        """Keep a policy; one that cannot be kept stops nobody."""
        content = {
            "sections": [
                {**vars(rule), "role": rule.role.value, "words": dict(rule.words)}
                for rule in policy.rules
            ],
            "conflicting": dict(policy.conflicting),
        }
        try:
            self._file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            with open(self._new, "w", opener=only_root_writes) as file:
                file.write(json.dumps(content) + "\n")
            os.replace(self._new, self._file)
        except OSError as error:
            log.warning("blk_elevator_virt: %s", error)

    def load(self) -> DiskPolicy | None:
        """The policy kept; None where there is none that can be read."""
        try:
            content: Any = json.loads(self._file.read_text())
            rules = tuple(
                SchedulerRule(**{**section, "role": MachineRole(section["role"])})
                for section in content["sections"]
            )
            return DiskPolicy(rules, dict(content["conflicting"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def remove(self) -> None:
        """Nothing is asked any more."""
        with contextlib.suppress(OSError):
            self._file.unlink(missing_ok=True)
