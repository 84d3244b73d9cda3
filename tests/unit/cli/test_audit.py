# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt audit: what is chosen, printed and suppressed, and how it ends."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.published.sources import LIBVIRT
from tests.unit.audit.scenes import guest
from tuned_virt.audit.check import check
from tuned_virt.audit.rule import all_rules
from tuned_virt.cli import audit, audit_input, disks, main
from tuned_virt.kernel.files import KernelFS
from tuned_virt.libvirt_api import guest_configurations
from tuned_virt.libvirt_api.guest_configurations import Configurations, GuestConfiguration
from tuned_virt.model.host_facts import Fact

ROOT = Path(__file__).parents[3]
HOST = str(ROOT / "tests/data/hosts/two-nodes.xml")
LARGE = guest(name="large", vcpus=17)
XEN = "<domain type='xen'><name>x</name><memory>1</memory></domain>"


@pytest.fixture(autouse=True)
def nothing_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "SUPPRESSIONS", "/no/such/file")


def saved(folder: Path, **documents: str) -> list[str]:
    """Files with these texts."""
    for name, text in documents.items():
        (folder / f"{name}.xml").write_text(text)
    return [str(folder / f"{name}.xml") for name in documents]


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code = main(["audit", "--host", HOST, *words, "--json"])
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return code, content


def test_text_is_by_guest_worst_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = guest(name="small", cpu="")
    files = saved(tmp_path, small=small, large=LARGE, good=guest(name="good"))
    assert main(["audit", "--rule", "cpu", "--host", HOST, "--guest", *files]) == 1
    text = capsys.readouterr().out
    assert text.index("guest large") < text.index("guest small") < text.index("\nhost")
    assert "  error   cpu-over-host: 17 vCPUs on a host with 16 CPUs\n" in text
    assert "command: virt-xml large --edit --vcpus maxvcpus=16,vcpu.current=16," in text
    assert "source:  guide 3.3.1; https://" in text
    assert "guest good" not in text
    summary = "a host with 16 CPUs in 2 NUMA nodes and 3 guests: 1 error, 1 warning, 1 info"
    assert text.splitlines()[-1] == summary


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = saved(tmp_path, large=LARGE, xen=XEN, broken="<domain", net="<network/>", no=guest())
    large, xen, broken, net, good = files
    for guests, words, code in (
        ([good], [], 0),
        ([large], [], 1),
        ([large], ["--skip", "cpu-over-host"], 0),
        ([large], ["--skip", "cpu-over-host", "--fail-on", "info"], 1),
        ([large], ["--rule", "cpu-over-host", "--fail-on", "error"], 1),
        ([large], ["--rule", "cpu-over-host,cpu-model-*", "--skip", "cpu-over-host"], 0),
        ([xen, good], [], 0),
        ([xen], [], 2),
        ([xen], ["--rule", "cpu-over-host"], 2),
        ([broken, good], [], 2),
        ([net], [], 2),
        (["/no/such/file"], [], 2),
        ([good], ["--rule", "no-such-rule"], 2),
    ):
        chosen = words if "--rule" in words else ["--rule", "cpu", *words]
        assert main(["audit", "--host", HOST, "--guest", *guests, *chosen]) == code, guests
    assert main(["audit", "--guest", good, "--rule", "cpu-over-host"]) == 2, "no host to compare"
    out = capsys.readouterr().out
    assert f"not checked: {xen}: it is not a KVM guest (its type is xen)\n" in out
    assert f"could not be read: {broken}: line 1:" in out
    assert "not checked: cpu-over-host for vm1: no host is given" in out


def test_json_has_what_was_not_checked_and_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = saved(tmp_path, tcg=guest(type="qemu"), xen=XEN)
    code, content = printed(capsys, "--guest", *files, "--rule", "cpu-emulated", "cpu-over-host")
    assert code == 0
    assert [one["guest"] for one in content["guests"]] == ["vm1"]
    told = {(one["rule"], one["guest"]): one["why"] for one in content["not_checked"]}
    assert told == {
        ("cpu-emulated", "vm1"): "only the host itself can tell, and files were given",
        (None, files[1]): "it is not a KVM guest (its type is xen)",
    }


def test_suppressions_have_a_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def with_skip(skip: str) -> str:
        own = f"<metadata><audit xmlns='urn:tuned-virt-plus:audit:1'>{skip}</audit></metadata>"
        return guest(name="large db", vcpus=17, metadata=own)

    accepted = tmp_path / "accepted"
    accepted.write_text('# known\n\ncpu-over* "large *" it\'s a test of  the scheduler\n')
    words = ["--rule", "cpu-over-host", "--suppressions", str(accepted), "--guest"]
    by_file = saved(tmp_path, file=with_skip(""))
    code, content = printed(capsys, *words, *by_file)
    assert code == 0
    [one] = content["findings"]
    reason = "it's a test of  the scheduler"
    assert one["suppressed"] == {"where": f"{accepted}:3", "reason": reason}
    assert content["counts"]["error"] == 0
    for skip, suppressed in (
        ("<skip rule='cpu-over-host' reason='a lab'/>", True),
        ("<skip xmlns='urn:tuned-virt-plus:audit:1' rule='cpu-*' reason='a lab'/>", True),
        ("<skip rule='cpu-over-host'/>", False),
        ("<skip rule='cpu-over-hots' reason='a lab'/>", False),
    ):
        files = saved(tmp_path, own=with_skip(skip))
        code, content = printed(capsys, "--rule", "cpu-over-host", "--guest", *files)
        assert code == (0 if suppressed else 1), skip
        assert bool(content["notes"]) is not suppressed, skip


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("cpu-over-host large", "line 1: write RULE GUEST REASON"),
        ("cpu-over-hots * why", "line 1: no rule is named cpu-over-hots"),
    ],
)
def test_a_wrong_suppression_is_said(
    line: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "accepted").write_text(line)
    assert main(["audit", "--host", HOST, "--suppressions", str(tmp_path / "accepted")]) == 2
    assert said in capsys.readouterr().err


def test_commands_name_odd_guests_safely(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uuid = "<uuid>00000000-0000-4000-8000-000000000009</uuid>"
    for name, handle in (
        ("a b; rm -rf /", "'a b; rm -rf /'"),
        ("-x", "00000000-0000-4000-8000-000000000009"),
        ("12", "00000000-0000-4000-8000-000000000009"),
    ):
        files = saved(tmp_path, odd=guest(name=name, vcpus=17, body=uuid))
        _, content = printed(capsys, "--rule", "cpu-over-host", "--guest", *files)
        assert content["findings"][0]["command"].startswith(f"virt-xml {handle} --edit")
    for target, command in (
        ("$(reboot)", "virt-xml vm1 --edit target='$(reboot)' --disk cache=none"),
        ("a&#10;reboot&#x9b;2J", None),
    ):
        driver = "<driver name='qemu' type='raw' cache='unsafe'/>"
        disk = f"<disk type='file'>{driver}<target dev='{target}' bus='virtio'/></disk>"
        files = saved(tmp_path, odd=guest(disks=disk))
        _, content = printed(capsys, "--rule", "disk-cache-unsafe", "--guest", *files)
        [one] = content["findings"]
        assert one["command"] == command
        assert one["found"].isprintable()


def test_a_managers_guest_is_changed_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nova = "<instance xmlns='http://openstack.org/xmlns/libvirt/nova/1.1'/>"
    made = guest(name="i1", vcpus=17, metadata=f"<metadata>{nova}</metadata>")
    _, content = printed(capsys, "--rule", "cpu-over-host", "--guest", *saved(tmp_path, i1=made))
    [one] = content["findings"]
    assert one["command"] is None
    assert one["advice"].endswith("; in OpenStack Nova, which owns it")


def test_sarif(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = saved(tmp_path, large=LARGE, broken="<domain")
    words = ["--rule", "cpu", "--guest", *files, "--sarif"]
    assert main(["audit", "--host", HOST, *words]) == 2
    made = json.loads(capsys.readouterr().out)
    assert made["version"] == "2.1.0"
    [run] = made["runs"]
    rules = run["tool"]["driver"]["rules"]
    result = run["results"][0]
    assert rules[result["ruleIndex"]]["id"] == result["ruleId"] == "cpu-over-host"
    assert result["level"] == "error"
    place = result["locations"][0]
    assert place["logicalLocations"] == [{"name": "large", "kind": "resource"}]
    assert place["physicalLocation"]["artifactLocation"]["uri"] == f"file://{files[0]}"
    [invocation] = run["invocations"]
    assert invocation["executionSuccessful"] is False
    assert files[1] in invocation["toolExecutionNotifications"][0]["message"]["text"]


def test_rules_are_listed_and_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--list", "--rule", "cpu-over-host"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("cpu-over-host  error")
    assert main(["audit", "--explain", "cpu-over-host"]) == 0
    text = capsys.readouterr().out
    assert "command     virt-xml GUEST --edit --vcpus maxvcpus=CPUS," in text
    assert main(["audit", "--list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "audit-rules"
    assert main(["audit", "--explain", "cpu-over-hots"]) == 2
    assert "did you mean cpu-over-host?" in capsys.readouterr().err


def test_a_snapshot_is_read_anywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = saved(tmp_path, large=LARGE)
    file = str(tmp_path / "host.json")
    assert main(["snapshot", "--host", HOST, "--guest", *files, "-o", file]) == 0
    assert main(["audit", "--snapshot", file, "--rule", "cpu-over-host", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["findings"][0]["guest"] == "guest-1"
    assert main(["audit", "--snapshot", file, "--host", HOST]) == 2


def test_this_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Configurations by libvirt; without it, guest rules are not checked, and why is said."""
    known = Configurations(
        Path(HOST).read_text(), (GuestConfiguration("large", LARGE, running=False),)
    )
    monkeypatch.setattr(guest_configurations, "read", lambda uri: known)
    monkeypatch.setattr(disks, "backing", lambda fs: Fact({}, ""))
    scene = audit_input.here(KernelFS("/no/such/root")).scene
    assert [one.running for one in scene.guests] == [False]
    assert scene.running == ()
    monkeypatch.setattr(guest_configurations, "read", lambda uri: None)
    scene = audit_input.here(KernelFS()).scene
    assert scene.without_guests.startswith("libvirt is unavailable")


def test_twenty_documents(capsys: pytest.CaptureFixture[str]) -> None:
    """What is found in each, as a KVM expert would sign it: tests/data/golden/audit.txt."""
    documents = sorted((ROOT / "tests/data/audit").glob("*.xml"))
    assert len(documents) == 20
    text = "".join(line for file in documents for line in told(file, capsys))
    golden = ROOT / "tests/data/golden/audit.txt"
    if os.environ.get("REGENERATE_GOLDEN") == "1":
        golden.write_text(text)
    assert text == golden.read_text(), "REGENERATE_GOLDEN=1 writes it anew"


def told(file: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[str]:
    """A document's findings and commands, and what was not checked of all of it."""
    code, content = printed(capsys, "--guest", str(file))
    yield f"{file.stem}: exit {code}\n"
    for one in content["findings"]:
        subject = "" if one["guest"] else "host: "
        yield f"  {one['severity']:7} {one['rule']}: {subject}{one['found']}\n"
        if one["command"]:
            yield f"          {one['command']}\n"
    for one in content["not_checked"]:
        if one["rule"] is None:
            yield f"  not checked: {one['why'].replace(str(file), file.name)}\n"


@pytest.mark.large
def test_documents_of_libvirts_own_tests() -> None:
    """Over 1,100 without an exception, and within ten seconds of CPU time."""
    if LIBVIRT.missing:
        pytest.skip(LIBVIRT.missing)
    files = LIBVIRT.files(LIBVIRT.domains)
    began = time.process_time()
    gathered = audit_input.gather(HOST, list(map(str, files)), None)
    result = check(gathered.scene, all_rules().values())
    assert time.process_time() - began < 10
    assert len(files) >= 1100
    assert len(gathered.scene.guests) > 1000
    assert len(result.findings) > 1000
    answered = {one.rule.id for one in result.findings}
    assert len(answered) > 40, "rules that find something on what others have written"
