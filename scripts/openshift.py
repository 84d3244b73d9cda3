# SPDX-License-Identifier: GPL-2.0-or-later
"""openshift/*.yaml for the Node Tuning Operator, made of the same profiles as all else.

usage: openshift.py [--performance-profile NAME]

Without plugins of ours the operator's own TuneD can set what virt-plus-host and virt-plus-guest set
through TuneD's plugins, with the defaults of their variables. That is a profile of its own here;
another one includes it beside what the platform sets. With a PerformanceProfile's name it prints a
manifest for that profile's nodes, where the plugins are.
"""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent
TARGET = SOURCE / "openshift"
ROLES = {
    "host": {"kubevirt.io/schedulable": "true"},
    "guest": {"tuned-virt-plus/guest": "true"},
}
"""Role → the label of its nodes. KubeVirt's virt-handler sets the first where guests can run."""

PRIORITY = 25
"""Before the operator's own profiles for control planes (30) and nodes (40), after a
PerformanceProfile's (20): its nodes keep it."""

BEFORE_PERFORMANCE = 15

PLATFORM = "openshift-node"

VARIABLE = re.compile(r"^virt_plus_(\w+)=\$\{f:virt_plus:value:[^}]*:([^:}]*)\}$")
SECTIONS = re.compile(r"^\[(\w+)\]\n(.*?)(?=^\[|\Z)", re.MULTILINE | re.DOTALL)

HEAD = """# SPDX-License-Identifier: GPL-2.0-or-later
# Made by scripts/openshift.py from the profiles of tuned-virt-plus {how}. See docs/openshift.md.
apiVersion: tuned.openshift.io/v1
kind: Tuned
metadata:
  name: {name}
  namespace: openshift-cluster-node-tuning-operator
spec:
  profile:
"""

NOT_OURS = ("ksm", "vm_pinning", "vm_limits", "vm_blkio")
"""KubeVirt has a libvirt in each guest's pod, places guests itself (dedicatedCpuPlacement), and
configures KSM itself (ksmConfiguration)."""

ADDED = "[virt_system]\nload_modules=vhost_net\n[blk_elevator_virt]\nrole=host\n"
"""What a PerformanceProfile leaves open and the plugins can do."""


def variables(text: str) -> dict[str, tuple[str, list[str]]]:
    """Of each variable of a section its default, and the comment that gives its reason."""
    found: dict[str, tuple[str, list[str]]] = {}
    reason: list[str] = []
    for line in text.splitlines():
        if match := VARIABLE.match(line):
            found[match[1]] = match[2], reason
        reason = [*reason, line] if line.startswith("#") else []
    return found


def plain_sections(role: str) -> Iterator[tuple[str, list[str]]]:
    """Sections of TuneD's own plugins with their values, and the reason of each before it."""
    sections = dict(
        SECTIONS.findall((SOURCE / f"profiles/virt-plus-{role}/tuned.conf").read_text())
    )
    known = variables(sections["variables"])
    for name in sections.keys() - {"main", "variables"}:
        yield name, [line for one in sections[name].splitlines() for line in _plain(one, known)]


def _plain(line: str, known: Mapping[str, tuple[str, list[str]]]) -> Iterator[str]:
    """A line with its variable's default; nothing where that would not change anything."""
    found = re.match(r"(\S+?)=(>?)\$\{virt_plus_(\w+)\}$", line)
    if found is None:
        yield from filter(None, [line])
        return
    value, reason = known[found[3]]
    if not (found[2] and value == "0"):
        yield from (*reason, f"{found[1]}={found[2]}{value}")


def without_plugins(role: str) -> str:
    """A profile that needs nothing but TuneD."""
    lines = [
        "[main]",
        f"summary=virtual-{role}-plus, as far as TuneD's own plugins go",
        f"include=virtual-{role}",
    ]
    for name, content in sorted(plain_sections(role)):
        lines += [f"[{name}]", *content]
    return "\n".join(lines) + "\n"


def manifest(role: str) -> str:
    """The Tuned object of a role without plugins of ours."""
    base, name = f"virtual-{role}-plus-without-plugins", f"openshift-virtual-{role}-plus"
    whole = f"[main]\nsummary=A KVM {role} on OpenShift\ninclude={PLATFORM},{base}\n"
    return written(role, name, {base: without_plugins(role), name: whole}, "without its plugins")


def written(role: str, name: str, profiles: dict[str, str], how: str) -> str:
    """A Tuned object that has these profiles and recommends the one of its name."""
    text = HEAD.format(name=name, how=how)
    for one, data in profiles.items():
        text += f"    - name: {one}\n      data: |\n{textwrap.indent(data, ' ' * 8)}"
    [(label, value)] = ROLES[role].items()
    text += f"  recommend:\n    - priority: {PRIORITY}\n      profile: {name}\n"
    return text + f'      match:\n        - label: {label}\n          value: "{value}"\n'


def with_plugins() -> str:
    """The Tuned object for a TuneD image that has the plugins (openshift/Containerfile)."""
    name = "openshift-virtual-host-plus"
    data = f"[main]\nsummary=A KVM host on OpenShift\ninclude={PLATFORM},virtual-host-plus\n"
    data += "".join(f"[{section}]\nenabled=0\n" for section in NOT_OURS)
    return written("host", name, {name: data}, "for an image with its plugins")


def beside_performance_profile(of: str) -> str:
    """The same for the nodes of a PerformanceProfile, whose profile is included."""
    name = f"openshift-virtual-host-plus-{of}"
    data = "[main]\nsummary=A KVM host on OpenShift, with a PerformanceProfile\n"
    data += f"include=openshift-node-performance-{of}\n{ADDED}"
    text = written("host", name, {name: data}, "for an image with its plugins")
    return text.replace(f"priority: {PRIORITY}", f"priority: {BEFORE_PERFORMANCE}")


def files() -> dict[str, str]:
    """What is in openshift/, by name."""
    made = {f"{role}.yaml": manifest(role) for role in ROLES}
    return {**made, "host-with-plugins.yaml": with_plugins()}


def main() -> None:
    """Write them, or one for a PerformanceProfile."""
    parser = argparse.ArgumentParser(prog="openshift.py")
    parser.add_argument("--performance-profile", metavar="NAME")
    told = parser.parse_args()
    if told.performance_profile:
        print(beside_performance_profile(told.performance_profile), end="")
        return
    for name, text in files().items():
        (TARGET / name).write_text(text)


if __name__ == "__main__":
    main()
