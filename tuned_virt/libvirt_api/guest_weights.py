# SPDX-License-Identifier: GPL-2.0-or-later
"""Running guests' block I/O weights: read and set through libvirt, as virsh blkiotune does.

Each call has a connection of its own and may hang with libvirtd: it is for a thread that nobody
waits for without a limit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tuned_virt.libvirt_api import binding
from tuned_virt.libvirt_api.follower import Hypervisor
from tuned_virt.model.guest import printable

WEIGHT = "weight"
DEVICE_WEIGHT = "device_weight"
"""libvirt's names (VIR_DOMAIN_BLKIO_WEIGHT, VIR_DOMAIN_BLKIO_DEVICE_WEIGHT)."""


class WeightError(Exception):
    """libvirt refused, or is not to be had: its reason."""


@dataclass(frozen=True)
class Weights:
    """One running guest's weights.

    run       libvirt's number of this run of the guest
    weight    of the whole guest, None where libvirt has no cgroup for it
    devices   by path of a block device
    owned     whether its definition sets weights of its own
    """

    uuid: str
    run: int
    name: str
    weight: int | None = None
    devices: Mapping[str, int] = field(default_factory=dict)
    owned: bool = False


@contextlib.contextmanager
def _connection(uri: str, writable: bool) -> Iterator[Any]:
    why = binding.missing(uri)
    if why:
        raise WeightError(why)
    binding.quiet()
    libvirt = binding.libvirt
    try:
        opened = libvirt.open(uri) if writable else libvirt.openReadOnly(uri)
        try:
            yield opened
        finally:
            opened.close()
    except libvirt.libvirtError as error:
        raise WeightError(printable(str(error))) from error


class GuestWeights:
    """The weights of one libvirt's running guests."""

    def __init__(self, uri: str = binding.SYSTEM) -> None:
        self._uri = uri

    def read(self) -> list[Weights]:
        """Those of all running guests. Raises WeightError."""
        with _connection(self._uri, writable=False) as connection:
            domains = connection.listAllDomains(binding.libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
            found = [_read(domain) for domain in domains]
        return [weights for weights in found if weights is not None]

    def write(self, uuid: str, run: int, parameter: str, value: int | str) -> None:
        """Set one parameter of one run of a guest, live. Raises WeightError.

        libvirt takes a device's weight away by writing 0, which cgroup v2's io.weight refuses: the
        device gets the guest's own weight then, which has the same effect.
        """
        live = binding.libvirt.VIR_DOMAIN_AFFECT_LIVE
        with _connection(self._uri, writable=True) as connection:
            domain = connection.lookupByUUIDString(uuid)
            if domain.ID() != run:
                raise WeightError("the guest has been restarted meanwhile")
            try:
                domain.setBlkioParameters({parameter: value}, live)
            except binding.libvirt.libvirtError:
                device, _, weight = str(value).rpartition(",")
                if parameter != DEVICE_WEIGHT or weight != "0":
                    raise
                own = domain.blkioParameters(live)[WEIGHT]
                domain.setBlkioParameters({parameter: f"{device},{own}"}, live)

    def follow(self, changed: Callable[[str], None]) -> Hypervisor:
        """What tells of guests that start and stop."""
        return Hypervisor(changed, self._uri)


def _read(domain: Any) -> Weights | None:
    """One guest's; None for one that has gone meanwhile."""
    libvirt = binding.libvirt
    try:
        uuid, run, name = domain.UUIDString(), domain.ID(), domain.name()
        persistent = domain.isPersistent()
        owned = persistent and has_weights(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    except libvirt.libvirtError:
        return None
    try:
        parameters = domain.blkioParameters(libvirt.VIR_DOMAIN_AFFECT_LIVE)
    except libvirt.libvirtError:
        return Weights(uuid, run, name, owned=owned)
    return Weights(
        uuid,
        run,
        name,
        parameters.get(WEIGHT) or None,
        device_weights(parameters.get(DEVICE_WEIGHT) or ""),
        owned,
    )


def has_weights(xml: str) -> bool:
    """Whether a guest's XML sets weights; XML that cannot be read is taken to."""
    try:
        root = binding.SafeTree.fromstring(xml, forbid_dtd=True)
    except (binding.SafeTree.ParseError, ValueError):
        return True
    tune = root.find("blkiotune")
    return tune is not None and (
        tune.find("weight") is not None or tune.find("device/weight") is not None
    )


def device_weights(text: str) -> dict[str, int]:
    """Weights by device, from libvirt's "/dev/sda,500,/dev/sdb,200"."""
    words = text.split(",")
    return {path: int(weight) for path, weight in zip(words[::2], words[1::2]) if weight.isdigit()}
