#!/usr/bin/python
# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt plan, as a module."""

from __future__ import annotations

DOCUMENTATION = r"""
module: plan
short_description: Show where the threads and the memory of guests would be placed
version_added: 0.2.0
description:
  - Runs C(tuned-virt plan --json) and returns its object. Changes nothing.
options:
  policy:
    description: Plan as vm_pinning would with this settings file of the host.
    type: path
  set:
    description: Single options, such as C(policy=dedicated).
    type: dict
    default: {}
author:
  - tuned-virt-plus developers
"""

EXAMPLES = r"""
- name: Plan a CPU for each vCPU
  tuned_virt.plus.plan:
    set:
      policy: dedicated
  register: planned
"""

RETURN = r"""
content:
  description: What the command printed, see tuned-virt-json(7).
  returned: success
  type: dict
rc:
  description: 0 where all guests are placed as requested, 1 where some are not.
  returned: success
  type: int
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tuned_virt.plus.plugins.module_utils.command import run


def main() -> None:
    """Run it."""
    spec = {"policy": {"type": "path"}, "set": {"type": "dict", "default": {}}}
    module = AnsibleModule(spec, supports_check_mode=True)
    arguments = ["--policy", module.params["policy"]] if module.params["policy"] else []
    if module.params["set"]:
        arguments += ["--set", *(f"{name}={text}" for name, text in module.params["set"].items())]
    module.exit_json(changed=False, **run(module, "plan", arguments))


if __name__ == "__main__":
    main()
