# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest

from tuned_virt.kernel.systemd import decide_role, is_restart


@pytest.mark.parametrize(
    ("hypervisor", "runs_guests", "role"),
    [("none", False, "host"), ("", False, "host"), ("kvm", False, "guest"), ("kvm", True, "host")],
)
def test_roles(hypervisor: str, runs_guests: bool, role: str) -> None:
    assert decide_role(hypervisor, runs_guests) == role


@pytest.mark.parametrize(
    ("jobs", "restart"),
    [
        ("1234 tuned.service restart running\n", True),
        ("1 a.service start waiting\n77 tuned.service restart waiting\n", True),
        ("1234 tuned.service stop running\n", False),
        ("1234 tuned-other.service restart running\n", False),
        ("", False),
    ],
)
def test_systemds_job_list(jobs: str, restart: bool) -> None:
    assert is_restart(jobs) is restart
