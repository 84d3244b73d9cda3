# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from tuned_virt.cli.findings import VerifyLine, differing, parse, summary

LOG = """\
INFO     tuned.daemon.daemon: verifying profile(s): virtual-host-plus
INFO     tuned.plugins.base: verify: passed: 'vm.swappiness' = '10'
INFO     tuned.plugins.base: verify: passed: device vda: 'readahead' = '4096'
ERROR    tuned.plugins.base: verify: failed: device cpu0: 'boost' = 'None', expected '1'
INFO     tuned.plugins.base: verify: skipped, missing: device cpu0: 'governor'
ERROR    tuned.plugins.plugin_modules: verify: failed: 'module 'x' is not loaded'
ERROR    tuned: verify: failed: 'ksm run' = '0', expected '1' (cannot write)
INFO     tuned: verify: note: ksm: this kernel has no KSM
""".splitlines()


def test_lines_are_taken_apart() -> None:
    lines = parse(LOG)
    assert lines[0] == VerifyLine(
        "passed", "'vm.swappiness' = '10'", None, "vm.swappiness", found="10", wanted="10"
    )
    assert (lines[2].device, lines[2].option, lines[2].found, lines[2].wanted) == (
        *("cpu0", "boost", "None", "1"),
    )
    assert lines[3].result == "missing"
    assert lines[5].option == "ksm run"
    assert lines[6] == VerifyLine("note", "ksm: this kernel has no KSM")


def test_the_device_of_a_guest_plugin_is_a_guest() -> None:
    [placed, left] = parse(
        [
            "ERROR    tuned: verify: failed: device web 1: 'vm_pinning' = 'x', expected 'y' (z)",
            "INFO     tuned: verify: note: device web 1: not placed: policy=none",
        ]
    )
    assert (placed.guest, placed.device, placed.found, placed.wanted) == (
        "web 1",
        "web 1",
        "x",
        "y",
    )
    assert (left.device, left.option) == ("web 1", None)
    assert left.name == left.text == "device web 1: not placed: policy=none"


def test_a_line_of_a_settings_file_is_named_by_its_setting() -> None:
    """Which plugin it is for says little to whoever has written the file; once is enough."""
    file = "/etc/tuned/virtual-host-plus-variables.conf"
    wrong = "is not a setting: did you mean ksm_mode?"
    log = [
        *(f"ERROR tuned: verify: failed: '{one}': {file}: line 1: 'observ=1' x" for one in "ab"),
        f"ERROR tuned: verify: failed: 'ksm': {file}: line 271: 'ksm_mod=off' {wrong}",
        f"ERROR tuned: verify: failed: 'vm_pinning': {file}: line 2: 'vm_policy.db*=x' {wrong}",
        f"ERROR tuned: verify: failed: 'ksm': {file}: line 3: '[x]' is no section",
    ]
    assert differing(parse(log)) == ["observ", "ksm_mod", "vm_policy.db*", "ksm"]


def test_of_many_names_the_first_few() -> None:
    assert summary(["a", "b"]) == "a, b"
    assert summary([str(number) for number in range(9)]) == "0, 1, 2, 3, 4, 5 and 3 more"


def test_those_that_differ_are_named() -> None:
    assert differing(parse(LOG)) == ["boost of cpu0", "module ", "ksm run"]
