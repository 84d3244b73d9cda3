#!/usr/bin/python
# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt audit, as a module."""

from __future__ import annotations

DOCUMENTATION = r"""
module: audit
short_description: Check a host and its guests by the rules of tuned-virt audit
version_added: 0.2.0
description:
  - Runs C(tuned-virt audit --json) and returns its object. Changes nothing.
  - Findings do not fail the task; what could not be read is a warning.
options:
  rules:
    description: Only these rules, as ids, topics or patterns of ids.
    type: list
    elements: str
    default: []
  skip:
    description: All rules but these.
    type: list
    elements: str
    default: []
author:
  - tuned-virt-plus developers
"""

EXAMPLES = r"""
- name: Check the disks of all guests
  tuned_virt.plus.audit:
    rules: [disks]
  register: audited
"""

RETURN = r"""
content:
  description: What the command printed, see tuned-virt-json(7).
  returned: success
  type: dict
rc:
  description:
    - 0 without findings of the severity warning or worse, 1 with some.
    - 2 where something could not be read.
  returned: success
  type: int
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tuned_virt.plus.plugins.module_utils.command import run


def main() -> None:
    """Run it."""
    names = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule({"rules": names, "skip": names}, supports_check_mode=True)
    arguments = []
    for option, key in (("--rule", "rules"), ("--skip", "skip")):
        if module.params[key]:
            arguments += [option, *module.params[key]]
    module.exit_json(changed=False, **run(module, "audit", arguments))


if __name__ == "__main__":
    main()
