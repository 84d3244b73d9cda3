# SPDX-License-Identifier: GPL-2.0-or-later
"""What guest agents answer, and what is said of those that do not."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.unit.libvirt_api.fake_binding import URI, FakeDomain, FakeError, install
from tuned_virt.libvirt_api import binding, guest_agent


class Agent:
    """A guest's agent: a file, or an error at one command."""

    def __init__(self, text: str = "virtual-guest\n", fails: str = "", error: str = "") -> None:
        self.text, self.fails, self.error = text, fails, error
        self.commands: list[str] = []

    def answer(self, _domain: Any, command: str, _seconds: int) -> str:
        asked = json.loads(command)
        self.commands.append(asked["execute"])
        if asked["execute"] == self.fails:
            raise FakeError(self.error)
        content = {"count": 1, "buf-b64": base64.b64encode(self.text.encode()).decode()}
        return json.dumps(
            {
                "return": {"guest-file-open": 1000, "guest-file-read": content}.get(
                    asked["execute"], {}
                )
            }
        )


@pytest.mark.parametrize(
    ("agent", "value", "why"),
    [
        (Agent(), "virtual-guest", ""),
        (Agent(text=""), "", ""),
        (Agent(fails="guest-file-open", error="… No such file or directory"), "", ""),
        (
            Agent(fails="guest-file-open", error="Guest agent is not connected"),
            None,
            "the guest agent does not tell: Guest agent is not connected",
        ),
        (
            Agent(fails="guest-file-read", error="Command guest-file-read has been disabled"),
            None,
            "the guest agent does not tell: Command guest-file-read has been disabled",
        ),
    ],
)
def test_the_profile_inside_a_guest(
    agent: Agent, value: str | None, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = install(monkeypatch)
    fake.domains = [FakeDomain(1)]
    monkeypatch.setattr(binding, "agent_command", agent.answer)
    found = guest_agent.profiles(["uuid1", "gone"], URI)
    assert (found["uuid1"].value, found["uuid1"].why) == (value, why)
    assert found["gone"].why == "the guest does not run any more"
    opened = agent.fails != "guest-file-open"
    assert ("guest-file-close" in agent.commands) is opened, "no descriptor is left in the guest"
    assert fake.opened == ["read-write"]


def test_an_answer_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch).domains = [FakeDomain(1)]
    monkeypatch.setattr(binding, "agent_command", lambda *_: "{}")
    assert "is not understood" in guest_agent.profiles(["uuid1"], URI)["uuid1"].why
