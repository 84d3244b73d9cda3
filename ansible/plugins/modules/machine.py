#!/usr/bin/python
# SPDX-License-Identifier: GPL-2.0-or-later
"""What the role has to know of a machine, read at once."""

from __future__ import annotations

DOCUMENTATION = r"""
module: machine
short_description: Read what the role tuned_virt has to know of a machine
version_added: 0.2.0
description:
  - Reads the machine's kind, whether it is booted, its active profile and its settings files.
  - Changes nothing.
author:
  - tuned-virt-plus developers
"""

EXAMPLES = r"""
- name: Read the machine
  tuned_virt.plus.machine:
  register: machine
"""

RETURN = r"""
kind:
  description: host or guest, as tuned-virt role tells, or would once it is installed.
  returned: success
  type: str
booted:
  description: Whether systemd runs and this is no chroot.
  returned: success
  type: bool
family:
  description: RedHat, Debian, Suse, or the id in /etc/os-release.
  returned: success
  type: str
installed:
  description: Whether the command tuned-virt is there.
  returned: success
  type: bool
active:
  description: Names and mode of the profiles that TuneD is told to apply.
  returned: success
  type: dict
settings:
  description: The text of each profile's settings file, null where it is not there.
  returned: success
  type: dict
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.facts.system.chroot import is_chroot
from ansible_collections.tuned_virt.plus.plugins.module_utils.active import active
from ansible_collections.tuned_virt.plus.plugins.module_utils.command import installed

FAMILIES = {
    "RedHat": {"rhel", "fedora", "centos"},
    "Debian": {"debian", "ubuntu"},
    "Suse": {"suse", "opensuse", "sles"},
}
LIBVIRT = ("/usr/sbin/libvirtd", "/usr/sbin/virtqemud")


def kind(module: AnsibleModule) -> str:
    """host or guest. A virtual machine without libvirt's daemon is a guest."""
    if installed(module):
        rc, out, _ = module.run_command(["tuned-virt", "role"])
        if not rc:
            return out.strip()
    virtual = module.run_command(["systemd-detect-virt", "--vm", "--quiet"])[0] == 0
    return "guest" if virtual and not any(map(os.path.exists, LIBVIRT)) else "host"


def family() -> str:
    """The distribution's family, by os-release(5)."""
    with open("/etc/os-release", encoding="utf-8") as file:
        said = sorted(line for line in file if line.startswith(("ID=", "ID_LIKE=")))
    words = [word for line in said for word in line.partition("=")[2].strip().strip("\"'").split()]
    for name, ids in FAMILIES.items():
        if ids & {word.partition("-")[0] for word in words}:
            return name
    return words[0] if words else ""


def settings(profile: str) -> str | None:
    """The text of a settings file, None where it is not there."""
    try:
        with open(
            f"/etc/tuned/{profile}-variables.conf", encoding="utf-8", errors="replace"
        ) as file:
            return file.read()
    except FileNotFoundError:
        return None


def main() -> None:
    """Read and return."""
    module = AnsibleModule({}, supports_check_mode=True)
    module.exit_json(
        changed=False,
        kind=kind(module),
        booted=os.path.isdir("/run/systemd/system") and not is_chroot(module),
        family=family(),
        installed=installed(module),
        active=active(),
        settings={name: settings(name) for name in ("virtual-host-plus", "virtual-guest-plus")},
    )


if __name__ == "__main__":
    main()
