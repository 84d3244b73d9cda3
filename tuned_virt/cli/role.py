# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt role: print whether this machine is a KVM host or a guest (a host if it is both)."""

from __future__ import annotations

import argparse

from tuned_virt.cli import json_output
from tuned_virt.cli.common import FINE, CouldNot
from tuned_virt.kernel import systemd
from tuned_virt.kernel.files import KernelFS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    json_output.add_option(parser)


def run(options: argparse.Namespace) -> int:
    """Print host or guest. Raises CouldNot."""
    try:
        role = systemd.role(KernelFS())
    except systemd.RoleUnknown as error:
        raise CouldNot(str(error)) from error
    if options.json:
        json_output.emit("role", {"role": role})
    else:
        print(role)
    return FINE
