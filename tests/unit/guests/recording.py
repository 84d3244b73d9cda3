# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest tuner that only records what it is asked to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from tuned_virt.core.engine import Finding, Result
from tuned_virt.core.options import BadOptions, OptionError, OptionSpec
from tuned_virt.core.section_settings import SettingNames
from tuned_virt.guests.manager import Claim, GuestController, GuestTuner, Run
from tuned_virt.libvirt_api.worker import GuestsView, LibvirtWorker

Claims = Mapping[Run, Claim[str]]


class RecordingController(GuestController[str]):
    """`adjusted` has the claims of each turn."""

    def __init__(self) -> None:
        self.adjusted: list[Claims | None] = []
        self.deferred: list[str] = []
        self.left = False

    def adjust(self, view: GuestsView, claims: Claims | None) -> float | None:
        self.adjusted.append(claims)
        return None

    def findings(
        self, claims: Claims, asked: LibvirtWorker, ignore_missing: bool
    ) -> Iterable[Finding]:
        return [
            Finding(Result.PASSED, f"{claim.device} {claim.policy}") for claim in claims.values()
        ]

    def defer_restore(self, why: str) -> None:
        self.deferred.append(why)

    @property
    def idle(self) -> bool:
        return not self.left


class RecordingTuner(GuestTuner[str, Any]):
    """Has one option, `policy`, which may be anything but "bad"."""

    name = "vm_recorder"
    options = MappingProxyType({"policy": OptionSpec("what is recorded")})
    setting_names = SettingNames("vm_")

    def __init__(self) -> None:
        self.controller = RecordingController()
        self.uri = ""

    def parse(self, options: Mapping[str, str]) -> str:
        if options.get("policy") == "bad":
            raise BadOptions([OptionError("policy", "bad", "anything else")])
        return options.get("policy", "none")

    def guests(self, uri: str) -> GuestController[str]:
        self.uri = uri
        return self.controller

    def uris(self) -> Iterable[str]:
        return ()

    def keeps(self) -> bool:
        return True

    def original(self, text: str) -> Any:
        raise NotImplementedError

    def put_back_run(self, *_: Any, **__: Any) -> Mapping[str, str]:
        raise NotImplementedError


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)
