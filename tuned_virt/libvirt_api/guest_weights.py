# SPDX-License-Identifier: GPL-2.0-or-later
"""Running guests' block I/O weights: read and set through libvirt, as virsh blkiotune does."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import TypeVar
from xml.etree.ElementTree import Element

from tuned_virt.frozen_dataclasses import dataclass, field, replace
from tuned_virt.kernel import io_weights, timeouts
from tuned_virt.kernel.files import KernelFS
from tuned_virt.libvirt_api import binding, resource_tag
from tuned_virt.libvirt_api.connection import Connection, Domain
from tuned_virt.libvirt_api.errors import GuestGone, LibvirtError, NoAnswer, Unanswered
from tuned_virt.libvirt_api.follower import GuestFollower
from tuned_virt.libvirt_api.guest_pins import CallBatch
from tuned_virt.libvirt_api.resource_tag import ResourceTag
from tuned_virt.libvirt_api.running_guests import RunningGuestReader
from tuned_virt.libvirt_api.tagging import tag
from tuned_virt.libvirt_api.worker import GuestsView, OneShotClient, libvirt_worker
from tuned_virt.model import xml as safexml
from tuned_virt.model.xml import XmlError

T = TypeVar("T")

WEIGHT = "weight"
DEVICE_WEIGHT = "device_weight"
"""libvirt's names (VIR_DOMAIN_BLKIO_WEIGHT, VIR_DOMAIN_BLKIO_DEVICE_WEIGHT)."""


class WeightError(Exception):
    """libvirt refused, or is unavailable: its reason."""


class NoWeightsTold(WeightError):
    """libvirt is there, and did not answer in time, or with an error."""


@dataclass(frozen=True)
class Weights:
    """One running guest's weights.

    run       libvirt's number of this run of the guest
    weight    of the whole guest, not scaled for BFQ; None where libvirt has no cgroup for it
    devices   by path of a block device
    owned     whether its definition sets weights of its own
    """

    uuid: str
    run: int
    name: str
    weight: int | None = None
    devices: Mapping[str, int] = field(default_factory=dict)
    owned: bool = False


class GuestWeights:
    """The weights of one libvirt's running guests. Each call waits a while for libvirt.

    events  tells of guests that start and stop
    """

    def __init__(self, uri: str = binding.SYSTEM, fs: KernelFS | None = None) -> None:
        self._uri = uri
        self._fs = fs or KernelFS()
        self.events = GuestFollower(RunningGuestReader(), uri)

    def read(self, uuid: str = "") -> list[Weights]:
        """Those of all running guests, or of one, as libvirt was given them. Raises WeightError."""

        def read(view: GuestsView) -> list[Weights]:
            asked = [guest for guest in view.guests.values() if uuid in ("", guest.uuid)]
            found = (_read(view.connection, guest) for guest in asked)
            return [weights for weights in found if weights is not None]

        guests = self._ask(read)
        given = io_weights.of_guests(self._fs)
        return [
            replace(guest, weight=io_weights.given(guest.weight, given.get(guest.run)))
            if guest.weight is not None
            else guest
            for guest in guests
        ]

    def write(self, uuid: str, run: int, parameter: str, value: int | str) -> None:
        """Set one parameter of one run of a guest, live. Raises WeightError."""

        def write(view: GuestsView) -> str:
            guest = view.guests.get(uuid)
            if guest is None:
                return "the guest has stopped meanwhile"
            if guest.id != run:
                return "the guest has been restarted meanwhile"
            _write(view.connection, guest, parameter, value)
            return ""

        refused = self._ask(write)
        if refused:
            raise WeightError(refused)

    def _ask(self, question: Callable[[GuestsView], T]) -> T:
        why = binding.missing(self._uri)
        if why:
            raise WeightError(why)
        with OneShotClient(libvirt_worker(self._uri)) as client:
            try:
                return client.ask(question, timeouts.GUEST_WEIGHTS)
            except NoAnswer as error:
                raise NoWeightsTold(str(error)) from error
            except Unanswered as error:
                raise WeightError(str(error)) from error


def _read(connection: Connection, guest: Domain) -> Weights | None:
    """One guest's; None for one that has gone meanwhile."""
    libvirt, domain = binding.libvirt(), guest.domain
    try:
        with connection.asking():
            persistent = domain.isPersistent()
            owned = persistent and has_weights(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    except LibvirtError:
        return None
    try:
        with connection.asking():
            parameters = domain.blkioParameters(libvirt.VIR_DOMAIN_AFFECT_LIVE)
    except LibvirtError:
        return Weights(guest.uuid, guest.id, guest.name, owned=owned)
    return Weights(
        guest.uuid,
        guest.id,
        guest.name,
        parameters.get(WEIGHT) or None,
        device_weights(parameters.get(DEVICE_WEIGHT) or ""),
        owned,
    )


def _write(connection: Connection, guest: Domain, parameter: str, value: int | str) -> None:
    """Set one parameter. Raises LibvirtError.

    libvirt takes a device's weight away by writing 0, which cgroup v2's io.weight refuses: the
    device gets the guest's own weight then, which has the same effect.
    """
    live, domain = binding.libvirt().VIR_DOMAIN_AFFECT_LIVE, guest.domain
    _tag(connection, guest, parameter, value)
    try:
        with connection.asking():
            domain.setBlkioParameters({parameter: value}, live)
    except LibvirtError:
        device, _, weight = str(value).rpartition(",")
        if parameter != DEVICE_WEIGHT or weight != "0":
            raise
        with connection.asking():
            own = domain.blkioParameters(live)[WEIGHT]
            domain.setBlkioParameters({parameter: f"{device},{own}"}, live)


def _tag(connection: Connection, guest: Domain, parameter: str, value: int | str) -> None:
    """Say that it is ours; a refusal keeps no weight from being set, which only outlives a move."""
    device, _, weight = str(value).rpartition(",")
    name = resource_tag.DEVICE + device if parameter == DEVICE_WEIGHT else parameter
    with contextlib.suppress(GuestGone):  # the weight is refused next
        tag(CallBatch(connection, guest), ResourceTag.WEIGHTS, {name: int(weight)})


def has_weights(xml: str) -> bool:
    """Whether a guest's XML sets weights; XML that cannot be read is taken to."""
    try:
        return safexml.read(xml, "domain", _has_weights, XmlError)
    except XmlError:
        return True


def _has_weights(root: Element) -> bool:
    return (
        root.find("blkiotune/weight") is not None
        or root.find("blkiotune/device/weight") is not None
    )


def device_weights(text: str) -> dict[str, int]:
    """Weights by device, from libvirt's "/dev/sda,500,/dev/sdb,200"."""
    words = text.split(",")
    return {path: int(weight) for path, weight in zip(words[::2], words[1::2]) if weight.isdigit()}
