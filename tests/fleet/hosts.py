# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts of a fleet: machines booted by systemd in namespaces, with sshd on a network of their own.

    with Fleet({"web1": {"tuned_virt_kind": "guest"}, "web2": {}}) as fleet:
        done = fleet.play(PLAY); assert done.ok, done.output

The kernel is one for all: what a play sets has to touch nothing, or only its own host.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.sandbox import REPO, Sandbox, SystemdSandbox
from tests.stacked import Stacked

VENV = REPO / "build/venv-ansible/bin"
COLLECTIONS = REPO / "build/ansible"

SSHD = """
HostKey /etc/ssh/fleet_key
AuthorizedKeysFile /etc/ssh/fleet_authorized
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
PidFile none
Subsystem sftp internal-sftp
"""

ARP_FILTER = "net.ipv4.conf.all.arp_filter"
"""Each network namespace has one of its own, so hosts on one kernel do not meet there."""

RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.M)


@dataclass(frozen=True)
class Recap:
    """What ansible-playbook counts of a host."""

    ok: int
    changed: int
    unreachable: int
    failed: int


@dataclass(frozen=True)
class Played:
    """A play that has ended: its exit status, all that it printed, and what it counted by host."""

    status: int
    output: str

    @property
    def ok(self) -> bool:
        """Whether it has succeeded on all hosts."""
        return self.status == 0

    @property
    def recap(self) -> Mapping[str, Recap]:
        """By host."""
        return {name: Recap(*map(int, counts)) for name, *counts in RECAP.findall(self.output)}


class Networked(Sandbox):
    """A sandbox that ssh reaches; `number` is unique on this machine while it runs."""

    number = 0
    booted = False

    @property
    def address(self) -> str:
        """Of the host."""
        return f"10.213.{self.number}.2"

    def state(self) -> tuple[str, str, str]:
        """What the role may change: the profile, a value, the settings files."""
        value = self.run(["sysctl", "-n", ARP_FILTER]).stdout.strip()
        files = self.run(["sh", "-c", "cat /etc/tuned/virtual-*-plus-variables.conf"]).stdout
        return self.read("/etc/tuned/active_profile"), value, files

    def connect(self, stack: contextlib.ExitStack, public_key: str) -> None:
        """A cable from this machine into the host, and sshd at its end."""
        outside, inside = f"tvfleet{self.number}", f"tvfleet{self.number}i"
        _ip("link", "add", outside, "type", "veth", "peer", inside, "netns", str(self.pid))
        stack.callback(_ip, "link", "del", outside)
        _ip("addr", "add", f"10.213.{self.number}.1/30", "dev", outside)
        _ip("link", "set", outside, "up")
        self.run(["ip", "addr", "add", f"{self.address}/30", "dev", inside])
        self.run(["ip", "link", "set", inside, "up"])
        self.write("/etc/ssh/fleet_config", SSHD)
        self.write("/etc/ssh/fleet_authorized", public_key)
        self.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/etc/ssh/fleet_key"])
        self.run(["sh", "-euc", "mkdir -p /run/sshd; sed -i 's/^root:[^:]*:/root:*:/' /etc/shadow"])
        self.run(["/usr/sbin/sshd", "-f", "/etc/ssh/fleet_config"])


class Host(Networked, SystemdSandbox):
    """A machine that systemd has booted, with TuneD as its service."""

    booted = True


class Image(Networked):
    """A system that is being built: nothing has booted it, and no daemon runs."""


class Fleet(Stacked):
    """Several hosts, an inventory of them, and plays against it; `variables` are by host."""

    def __init__(
        self,
        variables: Mapping[str, Mapping[str, Any]],
        profiles: Mapping[str, str] | None = None,
        images: Collection[str] = (),
        installed: bool = True,
    ) -> None:
        self._variables = variables
        self._profiles = profiles
        self._images = images
        self._installed = installed
        self._stack = contextlib.ExitStack()
        self.hosts: dict[str, Networked] = {}

    def __enter__(self) -> Fleet:
        with contextlib.ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet-")))
            key = self._key()
            public_key = key.with_suffix(".pub").read_text()
            for number, name in enumerate(self._variables, 1 + os.getpid() % 200):
                host = self._host(name)
                host.number = number
                stack.enter_context(host)
                self.hosts[name] = host
                host.connect(stack, public_key)
            self._write_inventory(key)
            self._stack = stack.pop_all()
        return self

    def _key(self) -> Path:
        key = self.folder / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        return key

    def _host(self, name: str) -> Networked:
        if name in self._images:
            return Image("latest", profiles=self._profiles, start=False)
        return Host("latest", profiles=self._profiles, installed=self._installed)

    def _write_inventory(self, key: Path) -> None:
        options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        hosts = {
            name: {"ansible_host": host.address, **self._variables[name]}
            for name, host in self.hosts.items()
        }
        common = {
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(key),
            "ansible_ssh_common_args": f"{options} -o ControlPath={self.folder}/%C",
            "ansible_python_interpreter": "/usr/bin/python3",
        }
        inventory = {"all": {"hosts": hosts, "vars": common}}
        (self.folder / "hosts.json").write_text(json.dumps(inventory))

    def states(self) -> dict[str, tuple[str, str, str]]:
        """Of all hosts."""
        return {name: host.state() for name, host in self.hosts.items()}

    def play(self, play: str, *arguments: str, **variables: Any) -> Played:
        """Run a playbook, its text or a name such as tuned_virt.plus.rollout."""
        if "\n" in play:
            (self.folder / "play.yml").write_text(play)
            play = str(self.folder / "play.yml")
        command = [str(VENV / "ansible-playbook"), "-i", str(self.folder / "hosts.json"), play]
        command += ["-e", json.dumps(variables), *arguments]
        environment = {
            **os.environ,
            "PATH": f"{VENV}:{os.environ['PATH']}",
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_HOME": str(self.folder / "home"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_LOCALHOST_WARNING": "0",
        }
        done = subprocess.run(
            command,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=300,
            check=False,
            cwd=self.folder,
        )
        return Played(done.returncode, done.stdout)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
