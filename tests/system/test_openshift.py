# SPDX-License-Identifier: GPL-2.0-or-later
"""The manifests for OpenShift: their form, and what TuneD's own loader merges of their profiles."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from scripts import openshift
from tests.sandbox import PYTHON, REPO, tuned_layer
from tests.system.test_beside import Merger

MATCH = {
    "type": "object",
    "required": ["label"],
    "additionalProperties": False,
    "properties": {
        "label": {"type": "string"},
        "value": {"type": "string"},
        "type": {"enum": ["node", "pod"]},
        "match": {"type": "array"},
    },
}
TUNED = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "additionalProperties": False,
    "properties": {
        "apiVersion": {"const": "tuned.openshift.io/v1"},
        "kind": {"const": "Tuned"},
        "metadata": {
            "type": "object",
            "required": ["name", "namespace"],
            "properties": {
                "name": {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"},
                "namespace": {"const": "openshift-cluster-node-tuning-operator"},
            },
        },
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "managementState": {"enum": ["Managed", "Unmanaged", "Force", "Removed"]},
                "profile": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["name", "data"],
                        "additionalProperties": False,
                        "properties": {"name": {"type": "string"}, "data": {"type": "string"}},
                    },
                },
                "recommend": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["priority", "profile"],
                        "additionalProperties": False,
                        "properties": {
                            "priority": {"type": "integer", "minimum": 0},
                            "profile": {"type": "string"},
                            "match": {"type": "array", "items": MATCH},
                            "machineConfigLabels": {"type": "object"},
                            "operand": {"type": "object"},
                        },
                    },
                },
            },
        },
    },
}
"""Fields and types of the operator's custom resource definition, tuneds.tuned.openshift.io v1,
written down anew: the definition itself is the operator's."""

OF_PLATFORM = ("kernel.pid_max", "vm.max_map_count", "fs.aio-max-nr", "net.ipv4.tcp_fastopen")


def profiles(manifest: str) -> dict[str, str]:
    """Name → text, as the operator writes them below /etc/tuned."""
    return {one["name"]: one["data"] for one in yaml.safe_load(manifest)["spec"]["profile"]}


class Loaded:
    """The manifests' profiles, loaded by one generation of TuneD."""

    def __init__(self, version: str, folder: Path) -> None:
        stock = tuned_layer(version) / "usr/lib/tuned"
        self.folders = [stock / "profiles" if (stock / "profiles").exists() else stock, folder]
        self._folder = folder
        self._merger = Merger(version, str(REPO))

    def add(self, manifest: str) -> None:
        for name, text in profiles(manifest).items():
            (self._folder / name).mkdir()
            (self._folder / name / "tuned.conf").write_text(text)

    def units(self, name: str) -> dict[str, Any]:
        units: dict[str, Any] = self._merger.ask([str(one) for one in self.folders], name)["units"]
        return units

    def end(self) -> None:
        self._merger.end()


@pytest.fixture
def loaded(version: str, tmp_path: Path) -> Iterator[Loaded]:
    one = Loaded(version, tmp_path)
    yield one
    one.end()


def test_the_files_are_those_that_the_profiles_give() -> None:
    for name, text in openshift.files().items():
        assert (openshift.TARGET / name).read_text() == text, "run scripts/openshift.py"


def test_each_manifest_is_a_tuned_object_that_recommends_its_own_profile() -> None:
    for text in (*openshift.files().values(), openshift.beside_performance_profile("cnf")):
        manifest = yaml.safe_load(text)
        jsonschema.validate(manifest, TUNED)
        names = [one["name"] for one in manifest["spec"]["profile"]]
        assert [one["profile"] for one in manifest["spec"]["recommend"]] == names[-1:]


@pytest.mark.parametrize(
    ("role", "values"),
    [
        ("host", {"vm.swappiness": "10", "vm.dirty_background_ratio": "5"}),
        ("guest", {"vm.swappiness": "30", "vm.dirty_ratio": "30"}),
    ],
)
def test_without_plugins_our_values_win_and_the_platforms_stay(
    role: str, values: dict[str, str], loaded: Loaded
) -> None:
    loaded.add(openshift.manifest(role))
    found = loaded.units(f"openshift-virtual-{role}-plus")
    platform = loaded.units("openshift-node")["sysctl"]["options"]
    options = found["sysctl"]["options"]
    assert {name: options[name] for name in values} == values
    assert {name: options[name] for name in OF_PLATFORM} == {
        name: platform[name] for name in OF_PLATFORM
    }
    assert not found.get("vm", {"options": {}})["options"].keys() & {
        f"dirty_{name}" for name in ("bytes", "ratio") if role == "guest"
    }, "TuneD's own section would set it, too"
    stock = {"sysctl", "sysfs", "vm", "cpu", "disk", "net", "selinux", "scheduler", "acpi", "video"}
    assert {unit["type"] for unit in found.values()} <= stock, "a plugin that TuneD does not have"


def test_with_plugins_what_is_kubevirts_is_left_alone(loaded: Loaded) -> None:
    loaded.folders.append(REPO / "profiles")
    loaded.add(openshift.with_plugins())
    found = loaded.units("openshift-virtual-host-plus")
    off = {name for name, unit in found.items() if str(unit["enabled"]) in ("0", "False")}
    assert off == {"ksm", "vm_pinning", "vm_limits", "vm_blkio"}
    assert {"blk_elevator_virt", "virt_system", "hugepages_numa", "crash_guard"} <= found.keys()


def test_a_performance_profile_keeps_all_that_it_sets(loaded: Loaded) -> None:
    loaded.add(openshift.beside_performance_profile("cnf"))
    performance = loaded.folders[-1] / "openshift-node-performance-cnf"
    performance.mkdir()
    text = "[main]\ninclude=openshift-node\n[sysctl]\nvm.swappiness=1\n[cpu]\nforce_latency=4\n"
    (performance / "tuned.conf").write_text(text)
    alone = loaded.units("openshift-node-performance-cnf")
    found = loaded.units("openshift-virtual-host-plus-cnf")
    assert {name: found[name] for name in alone} == alone
    assert found.keys() - alone.keys() == {"virt_system", "blk_elevator_virt"}


def test_the_command_prints_what_a_performance_profile_needs() -> None:
    command = [PYTHON, str(REPO / "scripts/openshift.py"), "--performance-profile", "cnf"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == openshift.beside_performance_profile("cnf")
