# SPDX-License-Identifier: GPL-2.0-or-later
"""The policy in force, on tmpfs: `tuned-virt disks` says what it wants, to anybody."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from tuned_virt.core.state_file import FOLDER, StateFile
from tuned_virt.frozen_dataclasses import typed
from tuned_virt.kernel.files import AnyPath
from tuned_virt.plugins.blk_elevator_virt.policy import DiskPolicy, MachineRole, SchedulerRule

FILE = "disks.json"


class PolicyInForce:
    """Says to others what is asked of disks."""

    def __init__(self, folder: AnyPath = FOLDER) -> None:
        self._file = StateFile(os.path.join(folder, FILE), _policy)
        self.load = self._file.load
        self.remove = self._file.discard

    def save(self, policy: DiskPolicy) -> None:
        """Keep a policy; one that cannot be kept stops nobody."""
        rules = [
            {**vars(rule), "role": rule.role.value, "words": dict(rule.words)}
            for rule in policy.rules
        ]
        self._file.save({"sections": rules, "conflicting": dict(policy.conflicting)})


def _policy(content: Mapping[str, Any]) -> DiskPolicy:
    rules = tuple(
        typed(SchedulerRule(**{**section, "role": MachineRole(section["role"])}))
        for section in content["sections"]
    )
    return DiskPolicy(rules, dict(content["conflicting"]))
