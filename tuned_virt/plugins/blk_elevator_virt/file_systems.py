# SPDX-License-Identifier: GPL-2.0-or-later
"""From a mounted file system to the block devices that it is on, or to what it is instead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.kernel import procfs
from tuned_virt.kernel.files import KernelFS
from tuned_virt.model.guest import printable
from tuned_virt.plugins.blk_elevator_virt.storage import (
    NOWHERE,
    Storage,
    not_answered,
    not_followed,
    on_devices,
    on_network,
    together,
)
from tuned_virt.plugins.blk_elevator_virt.zfs import PoolSilent, PoolUnknown, ZfsPools

NETWORK: Mapping[str, str] = {
    "nfs": "NFS",
    "nfs4": "NFS",
    "cifs": "SMB",
    "smb3": "SMB",
    "ceph": "CephFS",
    "fuse.ceph": "CephFS",
    "fuse.ceph-fuse": "CephFS",
    "fuse.glusterfs": "GlusterFS",
    "lustre": "Lustre",
    "beegfs": "BeeGFS",
    "orangefs": "OrangeFS",
    "fuse.juicefs": "JuiceFS",
    "fuse.mfs": "MooseFS",
    "fuse.sshfs": "SSHFS",
    "9p": "9p",
    "virtiofs": "virtiofs",
}
"""File systems of other machines, by their kind in mountinfo."""

MEMORY = frozenset({"tmpfs", "ramfs", "hugetlbfs", "devtmpfs"})
"""File systems that are on no disk."""


@dataclass(frozen=True)
class FilesystemMount:
    """A line of mountinfo (proc(5)): device number, mount point, type and source."""

    number: str
    point: str
    kind: str
    source: str


def mounts(text: str) -> dict[str, FilesystemMount]:
    """Mounts by their id."""
    found = {}
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, rest = before.split(), after.split()
        if len(fields) > 4 and len(rest) > 1:
            found[fields[0]] = FilesystemMount(
                fields[2], procfs.unescaped(fields[4]), rest[0], procfs.unescaped(rest[1])
            )
    return found


def mount_of(path: str, all_mounts: Iterable[FilesystemMount]) -> FilesystemMount | None:
    """The mount that a path lies on: the last of those with the longest mount point."""
    found = None
    for mount in all_mounts:
        point = mount.point.rstrip("/")
        fits = path == point or path.startswith(f"{point}/")
        if fits and (found is None or len(mount.point) >= len(found.point)):
            found = mount
    return found


class FileSystems:
    """Follows mounts to block devices, each once until `look_again`.

    Anything may raise KernelFileError.
    """

    def __init__(self, fs: KernelFS, pools: ZfsPools) -> None:
        self._fs = fs
        self._pools = pools
        self._several: Mapping[str, Callable[[FilesystemMount], Storage]] = {
            "btrfs": self._btrfs,
            "bcachefs": self._bcachefs,
            "zfs": self._zfs,
        }
        self.look_again()

    def look_again(self) -> None:
        """Mounts and pools may be on other devices by now."""
        self._mounts: dict[FilesystemMount, Storage] = {}
        self._by_pool: dict[str, Storage] = {}

    def under(self, mount: FilesystemMount) -> Storage:
        """What a file system is on."""
        if mount not in self._mounts:
            self._mounts[mount] = self._under(mount)
        return self._mounts[mount]

    def _under(self, mount: FilesystemMount) -> Storage:
        if mount.kind in NETWORK:
            return on_network(f"{NETWORK[mount.kind]} {printable(mount.source)}")
        if mount.kind in MEMORY:
            return NOWHERE
        follow = self._several.get(mount.kind)
        found = follow(mount) if follow else on_devices([self._one(mount)])
        if found == NOWHERE:
            what = f"{printable(mount.point)} is {printable(mount.kind)}"
            return not_followed(f"{what} of {printable(mount.source)}")
        return found

    def named(self, number: str) -> str:
        """The name of the block device with a number, "" where there is none."""
        link = self._fs.link(f"/sys/dev/block/{number}") or ""
        return link.rpartition("/")[2]

    def device(self, path: str, node: str) -> str:
        """The name of a block device, by its path, else by what is open; "" for other devices."""
        name = path.removeprefix("/dev/").removesuffix(" (deleted)").replace("/", "!")
        if self._fs.exists(f"/sys/class/block/{name}"):
            return name
        number = self._fs.block_number(node)
        return self.named(number) if number else ""

    def _one(self, mount: FilesystemMount) -> str:
        return self.named(mount.number) or self._source(mount.source)

    def _source(self, path: str) -> str:
        return self.device(self._fs.resolved(path), path) if path.startswith("/dev/") else ""

    def _btrfs(self, mount: FilesystemMount) -> Storage:
        """All members: mountinfo names one of them (kernel's Documentation/ABI, fs/btrfs)."""
        name = self._one(mount)
        folders = self._fs.glob(f"/sys/fs/btrfs/*/devices/{name}") if name else []
        members = [one for path in folders for one in self._fs.names(path.rpartition("/")[0])]
        return on_devices([name, *members])

    def _bcachefs(self, mount: FilesystemMount) -> Storage:
        """All members: mountinfo names them with colons between, or some of them."""
        sources = mount.source.split(":")
        named = {self._source(one) or one.rpartition("/")[2] for one in sources}
        for members in self._bcachefs_members().values():
            if named & members:
                return on_devices(members)
        return on_devices(self._source(one) for one in sources)

    def _bcachefs_members(self) -> dict[str, set[str]]:
        """Names of the block devices of each bcachefs, by its folder in sysfs."""
        found: dict[str, set[str]] = {}
        for path in self._fs.glob("/sys/fs/bcachefs/*/dev-*/block"):
            name = (self._fs.link(path) or "").rpartition("/")[2]
            found.setdefault(path.split("/")[4], set()).add(name)
        return found

    def _zfs(self, mount: FilesystemMount) -> Storage:
        return self.pool(mount.source.partition("/")[0].partition("@")[0])

    def pool(self, name: str) -> Storage:
        """What a ZFS pool is on; its members may be files."""
        if name not in self._by_pool:
            self._by_pool[name] = self._pool(name)
        return self._by_pool[name]

    def _pool(self, name: str) -> Storage:
        try:
            return together(self._member(path) for path in self._pools.members(name))
        except PoolSilent as error:
            return not_answered(printable(str(error)))
        except PoolUnknown as error:
            return not_followed(printable(str(error)))

    def volume(self, name: str) -> Storage:
        """What a zvol is on."""
        try:
            return self.pool(self._pools.of_volume(name))
        except PoolUnknown as error:
            return not_followed(printable(str(error)))

    def _member(self, path: str) -> Storage:
        name = self._source(path)
        if name:
            return on_devices([name])
        own = mounts(self._fs.read_optional("/proc/self/mountinfo") or "").values()
        mount = mount_of(path, own)
        return self.under(mount) if mount else not_followed(f"{printable(path)} is on no mount")
