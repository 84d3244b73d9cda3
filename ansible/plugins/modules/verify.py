#!/usr/bin/python
# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt verify, as a module that fails where the machine differs from its profile."""

from __future__ import annotations

DOCUMENTATION = r"""
module: verify
short_description: Compare every setting of the active profile with the machine
version_added: 0.2.0
description:
  - Runs C(tuned-virt verify --json). Fails where a setting differs, with what differs.
  - Changes nothing.
options:
  ignore_missing:
    description: Whether settings that this machine or its kernel does not have pass.
    type: bool
    default: false
author:
  - tuned-virt-plus developers
"""

EXAMPLES = r"""
- name: Verify the profile
  tuned_virt.plus.verify:
"""

RETURN = r"""
content:
  description: What the command printed, see tuned-virt-json(7).
  returned: success
  type: dict
failed_lines:
  description: What differs, one text for each setting.
  returned: always
  type: list
  elements: str
notes:
  description: What is pending, and what another program or a guest's owner controls.
  returned: always
  type: list
  elements: str
rc:
  description: 0 where all is as it should be, 1 where something is not.
  returned: always
  type: int
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tuned_virt.plus.plugins.module_utils.command import run


def main() -> None:
    """Run it."""
    spec = {"ignore_missing": {"type": "bool", "default": False}}
    module = AnsibleModule(spec, supports_check_mode=True)
    done = run(module, "verify", ["--ignore-missing"] if module.params["ignore_missing"] else [])
    lines = done["content"]["lines"]
    told = {
        kind: [line["text"] for line in lines if line["result"] == result]
        for kind, result in (("failed_lines", "failed"), ("notes", "note"))
    }
    if done["rc"]:
        why = told["failed_lines"] or told["notes"] or ["TuneD gave no reason, see its log"]
        msg = f"{done['content']['profile']} is not verified: {'; '.join(why)}"
        module.fail_json(msg=msg, rc=done["rc"], **told)
    module.exit_json(changed=False, **told, **done)


if __name__ == "__main__":
    main()
