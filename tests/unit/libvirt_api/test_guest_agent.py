# SPDX-License-Identifier: GPL-2.0-or-later
"""What guest agents answer, what is said of those that do not, and files read in parts."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.libvirt_api.fake_binding import URI, FakeDomain, FakeError, install
from tests.unit.seen import COSTLY
from tuned_virt.libvirt_api import binding, guest_agent
from tuned_virt.libvirt_api.guest_agent import AgentError

KALLSYMS = "/proc/kallsyms"


class Agent:
    """A guest's agent: its files, commands that it has disabled, or an error at one command."""

    def __init__(
        self,
        files: dict[str, bytes] | None = None,
        fails: str = "",
        error: str = "",
        disabled: tuple[str, ...] = (),
        most: int = 1 << 30,
    ) -> None:
        self.files = files or {}
        self.fails, self.error, self.disabled, self.most = fails, error, disabled, most
        self.commands: list[str] = []
        self.opened: dict[int, bytes] = {}

    def answer(self, _domain: Any, command: str, _seconds: int) -> str:
        asked = json.loads(command)
        name, arguments = asked["execute"], asked["arguments"]
        self.commands.append(name)
        if name == self.fails:
            raise FakeError(self.error)
        if name in self.disabled:
            raise FakeError(f"Command {name} has been disabled: the command is not allowed")
        return json.dumps({"return": getattr(self, f"_{name.replace('-', '_')}")(**arguments)})

    def _guest_info(self) -> dict[str, Any]:
        names = (*guest_agent.READING, "guest-exec")
        return {"supported_commands": [self._known(name) for name in names]}

    def _known(self, name: str) -> dict[str, Any]:
        return {"name": name, "enabled": name not in self.disabled}

    def _guest_file_open(self, path: str, mode: str) -> int:
        if path not in self.files:
            raise FakeError(f"failed to open file '{path}': No such file or directory")
        handle = 1000 + len(self.opened)
        self.opened[handle] = self.files[path]
        return handle

    def _guest_file_read(self, handle: int, count: int) -> dict[str, Any]:
        if count > 48 << 20:  # qga/commands-posix.c: GUEST_FILE_READ_COUNT_MAX
            raise FakeError("Invalid parameter 'count'")
        left = self.opened[handle]
        part, self.opened[handle] = left[: min(count, self.most)], left[min(count, self.most) :]
        text, ended = base64.b64encode(part).decode(), not self.opened[handle]
        return {"count": len(part), "buf-b64": text, "eof": ended and len(part) < count}

    def _guest_file_close(self, handle: int) -> dict[str, Any]:
        return {}


def use(monkeypatch: pytest.MonkeyPatch, answer: Callable[..., str]) -> list[str]:
    """One running guest, whose agent answers so; how libvirt is opened."""
    fake = install(monkeypatch)
    fake.domains = [FakeDomain(1)]
    monkeypatch.setattr(binding, "agent_command", answer)
    monkeypatch.setattr(binding, "missing", lambda uri: "")
    return fake.opened


def profile(text: str = "virtual-guest\n") -> dict[str, bytes]:
    return {guest_agent.PROFILE: text.encode()}


@pytest.mark.parametrize(
    ("agent", "value", "why"),
    [
        (Agent(profile()), "virtual-guest", ""),
        (Agent(profile("")), "", ""),
        (Agent(), "", ""),
        (
            Agent(fails="guest-file-open", error="Guest agent is not connected"),
            None,
            "the guest agent does not tell: Guest agent is not connected",
        ),
        (
            Agent(profile(), disabled=("guest-file-read",)),
            None,
            "the guest agent does not tell: Command guest-file-read has been disabled: the command"
            " is not allowed",
        ),
    ],
)
def test_the_profile_inside_a_guest(
    agent: Agent, value: str | None, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = use(monkeypatch, agent.answer)
    found = guest_agent.profiles(["uuid1", "gone"], URI)
    assert (found["uuid1"].value, found["uuid1"].why) == (value, why)
    assert found["gone"].why.endswith("libvirt has no such running guest")
    assert ("guest-file-close" in agent.commands) is bool(agent.opened), "none is left open"
    assert opened == ["read-write"]


NONSENSE = ("{}", "[]", "3", "", '{"return": 1', "[" * 100_000)


@pytest.mark.parametrize("answer", NONSENSE)
def test_an_answer_that_is_none(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, lambda *_: answer)
    assert "is not understood" in guest_agent.profiles(["uuid1"], URI)["uuid1"].why


@pytest.mark.parametrize("answer", [*NONSENSE, '{"return": {"supported_commands": [[]]}}'])
def test_no_answer_of_an_agent_is_trusted(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, lambda *_: answer)
    with pytest.raises(AgentError, match="is not understood"):
        guest_agent.read_files("uuid1", {KALLSYMS: 10}, URI)


@pytest.mark.large
@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3_000_000])
@pytest.mark.parametrize("most", [1 << 30, 700_001])
def test_a_file_is_read_to_its_end_in_parts(
    size: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part fits through libvirt, which ends a connection over 4 MiB of text."""
    content = bytes(number % 251 for number in range(size))
    agent = Agent({KALLSYMS: content}, most=most)
    use(monkeypatch, agent.answer)
    found = guest_agent.read_files("uuid1", {KALLSYMS: 4 << 20, "/proc/modules": 10}, URI)
    assert found == {KALLSYMS: content, "/proc/modules": None}
    assert agent.commands.count("guest-file-close") == 1


@given(st.lists(st.binary(max_size=30), max_size=6))
@COSTLY
def test_any_division_into_parts(parts: list[bytes]) -> None:
    """An agent may give less than was asked for; the end is what is empty, or said to be."""
    left = [part for part in parts if part]

    def answer(_domain: Any, command: str, _seconds: int) -> str:
        name = json.loads(command)["execute"]
        if name == "guest-info":
            known = [{"name": one, "enabled": True} for one in guest_agent.READING]
            return json.dumps({"return": {"supported_commands": known}})
        part = left.pop(0) if name == "guest-file-read" and left else b""
        return json.dumps({"return": {"buf-b64": base64.b64encode(part).decode()}})

    with pytest.MonkeyPatch.context() as patch:
        use(patch, answer)
        found = guest_agent.read_files("uuid1", {KALLSYMS: 1000}, URI)
    assert found == {KALLSYMS: b"".join(parts)}


def test_a_file_that_is_too_large_is_not_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Agent({KALLSYMS: b"x" * 5_000_000})
    use(monkeypatch, agent.answer)
    with pytest.raises(AgentError, match="kallsyms in the guest is larger than 2000000 bytes"):
        guest_agent.read_files("uuid1", {KALLSYMS: 2_000_000}, URI)
    assert agent.commands.count("guest-file-read") == 2
    assert agent.commands[-1] == "guest-file-close"


def test_an_agent_that_never_ends_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Agent({KALLSYMS: b"x" * 100_000}, most=1)
    use(monkeypatch, agent.answer)
    monkeypatch.setattr(guest_agent, "TOTAL", 0.2)
    with pytest.raises(AgentError, match=r"is not read after 0\.2 s"):
        guest_agent.read_files("uuid1", {KALLSYMS: 1 << 20}, URI)


def test_disabled_commands_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As RHEL's agents are delivered: --allow-rpcs without files (tp-qemu#3887)."""
    agent = Agent({KALLSYMS: b"x"}, disabled=guest_agent.READING)
    use(monkeypatch, agent.answer)
    with pytest.raises(AgentError) as refused:
        guest_agent.read_files("uuid1", {KALLSYMS: 10}, URI)
    assert str(refused.value) == (
        "the guest agent has these commands disabled: guest-file-open, guest-file-read,"
        " guest-file-close"
    )
    assert agent.commands == ["guest-info"], "nothing else is tried"


def test_without_libvirt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "missing", lambda uri: "python3-libvirt is not installed")
    with pytest.raises(AgentError, match="libvirt is unavailable: python3-libvirt is not"):
        guest_agent.read_files("uuid1", {KALLSYMS: 10}, URI)
