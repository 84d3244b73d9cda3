#!/usr/bin/python
# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt check-settings of a text, as a module that fails where something is wrong in it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: check_settings
short_description: Check the text of a settings file before it is written
version_added: 0.2.0
description:
  - Runs C(tuned-virt check-settings --json) on a temporary file. Fails where something is wrong.
  - Changes nothing.
  - Where tuned-virt is not installed yet, in check mode, it is skipped.
options:
  text:
    description: The text of the file.
    type: str
    required: true
  profile:
    description: The profile that it is for.
    type: str
    required: true
    choices: [virtual-host-plus, virtual-guest-plus]
author:
  - tuned-virt-plus developers
"""

EXAMPLES = r"""
- name: Check settings
  tuned_virt.plus.check_settings:
    text: "ksm_mode=off\n"
    profile: virtual-host-plus
"""

RETURN = r"""
errors:
  description: What is wrong, with the line, what is valid and what was probably meant.
  returned: always
  type: list
  elements: str
"""

import os
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tuned_virt.plus.plugins.module_utils.command import installed, run


def main() -> None:
    """Run it."""
    profiles = {
        "type": "str",
        "required": True,
        "choices": ["virtual-host-plus", "virtual-guest-plus"],
    }
    spec = {"text": {"type": "str", "required": True}, "profile": profiles}
    module = AnsibleModule(spec, supports_check_mode=True)
    if module.check_mode and not installed(module):
        module.exit_json(
            skipped=True, msg="tuned-virt is not installed yet: nothing can be checked"
        )
    profile = module.params["profile"]
    with tempfile.TemporaryDirectory(dir=module.tmpdir) as folder:
        file = os.path.join(folder, f"{profile}-variables.conf")
        with open(file, "w", encoding="utf-8") as opened:
            opened.write(module.params["text"])
        done = run(module, "check-settings", ["--profile", profile, file])
    [checked] = done["content"]["files"]
    errors = [one["text"].replace(f"{folder}/", "") for one in checked["errors"]]
    if errors:
        module.fail_json(msg="\n".join(errors), errors=errors)
    module.exit_json(changed=False, errors=[])


if __name__ == "__main__":
    main()
