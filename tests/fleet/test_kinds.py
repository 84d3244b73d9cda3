# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts that are not booted, or have nothing installed; and the modules that only read."""

from __future__ import annotations

from collections.abc import Callable

from tests.fleet.hosts import Fleet
from tests.fleet.plays import ROLE, SETTINGS, guest

READ = """
- name: Read
  hosts: all
  gather_facts: false
  tasks:
    - name: Audit
      tuned_virt.plus.audit:
        skip: [devices]
      register: audited
    - name: Status
      tuned_virt.plus.status:
      register: current
    - name: Plan
      tuned_virt.plus.plan:
        set: {policy: dedicated}
      register: planned
      failed_when: false
    - name: What they return
      ansible.builtin.assert:
        that:
          - audited.content.kind == 'audit'
          - current.content.kind == 'status'
          - current.content.profile == 'before'
          - planned.content.kind == 'plan' or 'libvirt' in planned.msg
"""


def test_what_is_not_booted_is_enabled_only(fleet: Callable[..., Fleet]) -> None:
    hosts = fleet({"image": guest(arp_filter=True)}, images=["image"])
    preview = hosts.play(ROLE, "--check")
    assert preview.ok and preview.recap["image"].changed == 2, preview.output
    done = hosts.play(ROLE)
    assert done.ok and done.recap["image"].changed == 2, done.output
    image = hosts.hosts["image"]
    assert image.read("/etc/tuned/active_profile") == "own"
    assert image.read(SETTINGS).endswith("arp_filter=1")
    assert image.state()[1] == "0", "nothing is applied"
    again = hosts.play(ROLE)
    assert again.ok and again.recap["image"].changed == 0, again.output


def test_modules_return_what_the_commands_print(fleet: Callable[..., Fleet]) -> None:
    hosts = fleet({"web1": {}})
    done = hosts.play(READ)
    assert done.ok, done.output
    assert done.recap["web1"].changed == 0
