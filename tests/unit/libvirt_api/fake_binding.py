# SPDX-License-Identifier: GPL-2.0-or-later
"""A libvirt at the binding's edge: the unit tier has no libvirtd.

It has what tuned_virt.libvirt_api uses of the module `libvirt`, and of its connections and domains;
what that does with a real libvirtd is tried in tests/system.
"""

from __future__ import annotations

import queue
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tuned_virt.kernel import cpuset
from tuned_virt.libvirt_api import binding
from tuned_virt.libvirt_api.connection import Connection, Domain

URI = "fake:///system"
NO_DOMAIN, INVALID = 42, 55

UNLIMITED = 9007199254740991
FREE = {"hard_limit": UNLIMITED, "soft_limit": UNLIMITED, "swap_hard_limit": UNLIMITED}


class FakeError(Exception):
    """libvirtError."""

    def __init__(self, text: str, code: int = 1) -> None:
        self.code = code
        super().__init__(text)

    def get_error_code(self) -> int:
        return self.code


CHANGES = (
    *("pinVcpu", "pinEmulator", "pinIOThread", "setNumaParameters", "setMetadata", "pinVcpuFlags"),
    *("setMemoryParameters", "setSchedulerParametersFlags", "setBlkioParameters"),
)


def metadata(call: tuple[Any, ...]) -> str:
    """<metadata> as libvirt writes it after a call of setMetadata."""
    _, _, text, key, uri, _ = call
    names = re.sub(r"<(/?)", rf"<\1{key}:", text)
    declared = re.sub("[ >]", rf" xmlns:{key}={uri!r}\g<0>", names, count=1)
    return f"<metadata>{declared}</metadata>"


class FakeDomain:
    """A guest; `calls` has what changed it, `refuses` calls or limits that it does not take."""

    def __init__(
        self, number: int = 1, name: str = "", xml: str = "<domain/>", uuid: str = ""
    ) -> None:
        self.number = number
        self.called = name or f"guest{number}"
        self.uuid = uuid or f"uuid{number}"
        self.xml = self.inactive = xml
        self.memory = 1024
        self.starting = self.gone = self.persistent = False
        self.limits = dict(FREE)
        self.shares = 100
        self.weights: dict[str, Any] = {"weight": 100, "device_weight": ""}
        self.refuses: set[str] = set()
        self.calls: list[tuple[Any, ...]] = []
        self.asked: list[str] = []

    def UUIDString(self) -> str:
        return self.uuid

    def ID(self) -> int:
        return self.number

    def name(self) -> str:
        return self.called

    def __getattr__(self, name: str) -> Any:
        """A call that asks libvirtd: `_name` has the answer, or for CHANGES does the change."""
        answer = object.__getattribute__(self, f"_{name}" if name not in CHANGES else "_change")

        def call(*arguments: Any) -> Any:
            if self.gone:
                raise FakeError("no domain", NO_DOMAIN)
            self.asked.append(name)
            return answer(name, *arguments) if name in CHANGES else answer(*arguments)

        return call

    def _isActive(self) -> int:
        return int(self.number >= 0)

    def _isPersistent(self) -> int:
        return int(self.persistent)

    def _state(self) -> list[int]:
        return [3, 11] if self.starting else [1, 1]

    def _info(self) -> list[int]:
        return [1, self.memory, self.memory, 1, 0]

    def _XMLDesc(self, flags: int) -> str:
        return self.inactive if flags & FakeLibvirt.VIR_DOMAIN_XML_INACTIVE else self.xml

    def _vcpuPinInfo(self, flags: int) -> list[tuple[bool, ...]]:
        return [(True,) * 4] * 2

    def _emulatorPinInfo(self, flags: int) -> tuple[bool, ...]:
        """As its XML has it, on a host of four CPUs."""
        pinned = re.search(r"<emulatorpin cpuset=['\"]([^'\"]+)", self.xml)
        return tuple(cpu in cpuset.parse(pinned[1]) if pinned else True for cpu in range(4))

    def _vcpus(self) -> tuple[list[tuple[int, ...]], list[tuple[bool, ...]]]:
        return [(0, 1, 0, 0), (1, 1, 0, 0)], [(True, True, False, False)] * 2

    def _memoryParameters(self, flags: int) -> dict[str, int]:
        return dict(self.limits)

    def _schedulerParameters(self) -> dict[str, int]:
        if "cpu controller" in self.refuses:
            raise FakeError("cgroup CPU controller is not mounted", INVALID)
        if "schedulerParameters" in self.refuses:
            raise FakeError("cannot acquire state change lock", 68)
        return {"cpu_shares": self.shares}

    def _blkioParameters(self, flags: int) -> dict[str, Any]:
        if "blkioParameters" in self.refuses:
            raise FakeError("cgroup: no blkio controller")
        return dict(self.weights)

    def _change(self, name: str, *arguments: Any) -> None:
        self.calls.append((name, *arguments))
        settings = arguments[0] if arguments and isinstance(arguments[0], Mapping) else {}
        if self.refuses & {name, *settings, *map(str, settings.values())}:
            raise FakeError("cgroup: no controller", 38)
        if name == "setMemoryParameters":
            self.limits.update(settings)
        elif name == "setSchedulerParametersFlags":
            self.shares = settings["cpu_shares"]
        elif name == "setBlkioParameters":
            self.weights.update(settings)

    @property
    def written(self) -> list[str]:
        """Names of limits and weights, as they were set."""
        return [name for call in self.calls if isinstance(call[1], Mapping) for name in call[1]]

    def listed(self) -> Domain:
        """As the inventory has it."""
        return Domain(self.uuid, self.number, self.called, self.xml, self)


class FakeLibvirt:
    """The module, and its one connection."""

    libvirtError = FakeError
    VIR_DOMAIN_EVENT_ID_LIFECYCLE = 0
    VIR_DOMAIN_EVENT_ID_BALLOON_CHANGE = 17
    VIR_DOMAIN_EVENT_ID_TUNABLE = 19
    VIR_DOMAIN_EVENT_ID_METADATA_CHANGE = 23
    VIR_STORAGE_POOL_EVENT_ID_LIFECYCLE = 0
    VIR_CONNECT_LIST_DOMAINS_ACTIVE = 1
    VIR_CONNECT_LIST_DOMAINS_PERSISTENT = 4
    VIR_DOMAIN_XML_SECURE = 1
    VIR_DOMAIN_XML_INACTIVE = 2
    VIR_DOMAIN_AFFECT_LIVE = 1
    VIR_DOMAIN_AFFECT_CONFIG = 2

    def __init__(self) -> None:
        self.domains: list[FakeDomain] = []
        self.volumes: dict[tuple[str, str], str] = {}
        self.pool_types: dict[str, str] = {}
        self.images: dict[str, str] = {}
        self.callbacks: dict[tuple[str, int], Callable[..., None]] = {}
        self.on_close: Callable[..., None] | None = None
        self.lists = 0
        self.opened: list[str] = []
        self.open_connections = 0
        self.refuses = ""
        self.dead = False
        self.hang: Callable[[], object] = lambda: None
        self.capabilities = ""
        self.defined: list[str] = []

    def open(self, uri: str) -> FakeLibvirt:
        return self._open("read-write")

    def openReadOnly(self, uri: str) -> FakeLibvirt:
        return self._open("read-only")

    def _open(self, how: str) -> FakeLibvirt:
        self.hang()
        if self.refuses:
            raise FakeError(self.refuses)
        self.opened.append(how)
        self.open_connections += 1
        self.dead = False
        return self

    def close(self) -> None:
        self.open_connections -= 1

    def isAlive(self) -> int:
        return int(not self.dead)

    def getCapabilities(self) -> str:
        return self.capabilities

    def listAllDomains(self, flags: int) -> list[FakeDomain]:
        self.hang()
        self.lists += 1
        if self.dead:
            raise FakeError("the connection is gone", 38)
        if flags & self.VIR_CONNECT_LIST_DOMAINS_PERSISTENT:
            return [domain for domain in self.domains if domain.persistent]
        active = bool(flags & self.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
        return [domain for domain in self.domains if domain.number >= 0 or not active]

    def defineXML(self, xml: str) -> None:
        self.defined.append(xml)

    def storagePoolLookupByName(self, pool: str) -> FakePool:
        return FakePool(self, pool)

    def storageVolLookupByPath(self, path: str) -> FakeImage:
        if path not in self.images:
            raise FakeError("no storage vol with matching path", 50)
        return FakeImage(self.images[path])

    def domainEventRegisterAny(
        self, domain: None, event: int, callback: Callable[..., None], opaque: None
    ) -> tuple[str, int]:
        return self._register(("domain", event), callback)

    def storagePoolEventRegisterAny(
        self, pool: None, event: int, callback: Callable[..., None], opaque: None
    ) -> tuple[str, int]:
        return self._register(("pool", event), callback)

    def _register(self, event: tuple[str, int], callback: Callable[..., None]) -> tuple[str, int]:
        assert event not in self.callbacks, "one registration an event and connection"
        self.callbacks[event] = callback
        return event

    def domainEventDeregisterAny(self, event: tuple[str, int]) -> None:
        del self.callbacks[event]

    storagePoolEventDeregisterAny = domainEventDeregisterAny

    def registerCloseCallback(self, callback: Callable[..., None], opaque: None) -> None:
        self.on_close = callback

    def unregisterCloseCallback(self) -> None:
        self.on_close = None

    def setKeepAlive(self, interval: int, count: int) -> None:
        pass

    def registerErrorHandler(self, handler: Callable[..., None], context: None) -> None:
        handler(context, "an error that is raised too")

    # --- what a test does --------------------------------------------------------------------

    def tell(self, domain: FakeDomain, event: int = 0, *more: Any) -> None:
        """A domain's event, as libvirt's loop would bring it."""
        self.callbacks["domain", event](self, domain, *(more or (0, 0)), None)

    def tell_pools(self) -> None:
        """A storage pool has come or gone."""
        self.callbacks["pool", 0](self, None, 0, 0, None)

    def lose(self, reason: int = 1) -> None:
        """The connection ends."""
        self.dead = True
        assert self.on_close is not None
        self.on_close(self, reason, None)


class FakeImage:
    """A volume by its path: its XML."""

    def __init__(self, xml: str) -> None:
        self._xml = xml

    def XMLDesc(self, flags: int) -> str:
        return self._xml


class FakePool:
    """A storage pool, and any of its volumes."""

    def __init__(self, libvirt: FakeLibvirt, pool: str) -> None:
        self._libvirt = libvirt
        self._pool = pool

    def XMLDesc(self, flags: int) -> str:
        return f"<pool type='{self._libvirt.pool_types.get(self._pool, 'dir')}'/>"

    def storageVolLookupByName(self, volume: str) -> FakePool:
        self._volume = volume
        return self

    def path(self) -> str:
        if (self._pool, self._volume) not in self._libvirt.volumes:
            raise FakeError("the pool is not active", INVALID)
        return self._libvirt.volumes[self._pool, self._volume]


def install(monkeypatch: pytest.MonkeyPatch) -> FakeLibvirt:
    """Have tuned_virt.libvirt_api use a fake, without an event loop."""
    fake = FakeLibvirt()
    monkeypatch.setattr(binding, "libvirt", lambda: fake)
    monkeypatch.setattr(binding, "run_loop", lambda: None)
    return fake


def connect() -> Connection:
    """A connection of ours to the fake, without events."""
    return Connection(URI, queue.SimpleQueue(), read_only=True)
