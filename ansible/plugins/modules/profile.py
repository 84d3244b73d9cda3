#!/usr/bin/python
# SPDX-License-Identifier: GPL-2.0-or-later
"""Have TuneD apply profiles, or enable them for the next boot."""

from __future__ import annotations

DOCUMENTATION = r"""
module: profile
short_description: Switch TuneD to profiles, or enable them for the next boot
version_added: 0.2.0
description:
  - Switches with C(tuned-adm), or enables with C(tuned-virt enable) where TuneD does not run.
  - In check mode, and with C(--diff), tells each value that the switch changes, as
    C(tuned-virt preview) does.
options:
  names:
    description: The profiles, of which the later takes precedence; none turns TuneD's tuning off.
    type: list
    elements: str
    required: true
  mode:
    description: manual, or auto where TuneD is to choose the profile itself.
    type: str
    choices: [manual, auto]
    default: manual
  state:
    description: Whether TuneD applies the profiles now, or when it starts.
    type: str
    choices: [applied, enabled]
    default: applied
  reapply:
    description: Whether active profiles are applied again, since their settings have changed.
    type: bool
    default: false
  settings_file:
    description: The settings file that settings_text is for.
    type: path
  settings_text:
    description: The text that the settings file would have, for the preview in check mode.
    type: str
author:
  - tuned-virt-plus developers
"""

EXAMPLES = r"""
- name: Tune a host
  tuned_virt.plus.profile:
    names: [virtual-host-plus]
"""

RETURN = r"""
previous:
  description: The names and the mode of the profiles that TuneD was told to apply before.
  returned: always
  type: dict
refused:
  description: What the switch would refuse, as tuned-virt preview tells it.
  returned: in check mode and with diff
  type: list
  elements: str
"""

import os
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tuned_virt.plus.plugins.module_utils.active import (
    AUTOMATIC,
    active,
    text_of,
)
from ansible_collections.tuned_virt.plus.plugins.module_utils.command import installed, run

WITH_SETTINGS = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
"""Run in a mount namespace of its own: only this command sees the other file."""

ARGUMENTS = {
    "names": {"type": "list", "elements": "str", "required": True},
    "mode": {"type": "str", "choices": ["manual", "auto"], "default": "manual"},
    "state": {"type": "str", "choices": ["applied", "enabled"], "default": "applied"},
    "reapply": {"type": "bool", "default": False},
    "settings_file": {"type": "path"},
    "settings_text": {"type": "str"},
}


def differs(module: AnsibleModule, before: object) -> bool:
    """Whether something is to be done."""
    wanted = module.params
    if wanted["mode"] == AUTOMATIC:
        return before["mode"] != AUTOMATIC or wanted["reapply"]
    return before != {"names": wanted["names"], "mode": "manual"} or wanted["reapply"]


def preview(module: AnsibleModule) -> dict[str, Any]:
    """What tuned-virt preview tells of the switch, as diff and refusals; nothing if it cannot."""
    file, text = module.params["settings_file"], module.params["settings_text"]
    if not installed(module) or (file and not os.path.exists(file)):
        return {"refused": [], "msg": "tuned-virt-plus is not installed yet: no preview"}
    if file is None or text is None or text == text_of(file):
        return told(run(module, "preview", module.params["names"])["content"])
    with tempfile.NamedTemporaryFile("w", dir=module.tmpdir, encoding="utf-8") as new:
        new.write(text)
        new.flush()
        os.chmod(new.name, 0o644)
        own = ["unshare", "--mount", "--propagation", "private", "sh", "-c", WITH_SETTINGS, "sh"]
        done = run(module, "preview", module.params["names"], [*own, new.name, file])
    return told(done["content"])


def told(content: dict[str, Any]) -> dict[str, Any]:
    """A preview's changes as Ansible's diff, and what would be refused."""
    sides = {"before": "", "after": ""}
    for change in content["changes"]:
        what = change["path"] or " ".join(filter(None, (change["setting"], change["device"])))
        for side in sides:
            value = change[side] if change[side] is not None else f"({change[f'{side}_is']})"
            sides[side] += f"{what} = {value}\n"
    header = " ".join(content["profiles"])
    refused = [f"{one['plugin']}: {one['reason']}" for one in content["refused"]]
    return {
        "diff": {"before_header": "now", "after_header": header, **sides},
        "refused": refused,
    }


def apply(module: AnsibleModule) -> None:
    """Switch; fails the module with what tuned-adm says."""
    names = module.params["names"]
    if module.params["mode"] == AUTOMATIC:
        command = ["auto_profile"]
    else:
        command = ["profile", *names] if names else ["off"]
    rc, out, err = module.run_command([module.get_bin_path("tuned-adm", required=True), *command])
    if rc:
        module.fail_json(msg=f"tuned-adm {' '.join(command)}: {(out + err).strip()}", rc=rc)


def enable(module: AnsibleModule, before: object) -> bool:
    """Enable for the next boot; whether that changes anything, as far as files tell."""
    if not module.check_mode:
        return run(module, "enable", module.params["names"])["content"]["changed"]
    rc = module.run_command(["systemctl", "is-enabled", "--quiet", "tuned.service"])[0]
    return bool(rc) or differs(module, before)


def main() -> None:
    """Run it."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    before = active()
    if module.params["state"] == "enabled":
        module.exit_json(changed=enable(module, before), previous=before)
    if not differs(module, before):
        module.exit_json(changed=False, previous=before)
    resets = module.params["mode"] == AUTOMATIC or not module.params["names"]
    more = preview(module) if (module.check_mode or module._diff) and not resets else {}
    for one in more.get("refused", []) if module.check_mode else []:
        module.warn(f"would be refused: {one}")
    if not module.check_mode:
        apply(module)
    module.exit_json(changed=True, previous=before, **more)


if __name__ == "__main__":
    main()
