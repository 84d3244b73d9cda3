#!/usr/bin/python
# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt status, as a module."""

from __future__ import annotations

DOCUMENTATION = r"""
module: status
short_description: Show the active profile, what differs from it, KSM, guests and NUMA nodes
version_added: 0.2.0
description:
  - Runs C(tuned-virt status --json) and returns its object. Changes nothing.
author:
  - tuned-virt-plus developers
"""

EXAMPLES = r"""
- name: Read what is active
  tuned_virt.plus.status:
  register: current
"""

RETURN = r"""
content:
  description: What the command printed, see tuned-virt-json(7).
  returned: success
  type: dict
rc:
  description: 0 where all is as it should be, 1 where not, 2 where it could not be verified.
  returned: success
  type: int
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tuned_virt.plus.plugins.module_utils.command import run


def main() -> None:
    """Run it."""
    module = AnsibleModule({}, supports_check_mode=True)
    module.exit_json(changed=False, **run(module, "status"))


if __name__ == "__main__":
    main()
