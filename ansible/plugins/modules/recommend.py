#!/usr/bin/python
# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt recommend, as a module."""

from __future__ import annotations

DOCUMENTATION = r"""
module: recommend
short_description: Show the settings that serve a host and its guests, and why
version_added: 0.2.0
description:
  - Runs C(tuned-virt recommend --json) and returns its object. Changes nothing.
author:
  - tuned-virt-plus developers
"""

EXAMPLES = r"""
- name: Ask what is advised
  tuned_virt.plus.recommend:
  register: advised
"""

RETURN = r"""
content:
  description: What the command printed, see tuned-virt-json(7).
  returned: success
  type: dict
rc:
  description:
    - 0 where all that is recommended can be set, or is; 1 where an own line differs, or a need is
      not served; 2 where it could not tell.
  returned: success
  type: int
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tuned_virt.plus.plugins.module_utils.command import run


def main() -> None:
    """Run it."""
    module = AnsibleModule({}, supports_check_mode=True)
    module.exit_json(changed=False, **run(module, "recommend"))


if __name__ == "__main__":
    main()
