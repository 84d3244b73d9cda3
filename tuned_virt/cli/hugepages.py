# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt hugepages: show huge pages by node, plan them, or print them for the command line."""

from __future__ import annotations

import argparse
import time
from collections.abc import Collection, Mapping
from typing import Any

from tuned_virt.cli import hugepages_plan, json_output, table
from tuned_virt.cli.common import FINE
from tuned_virt.frozen_dataclasses import dataclass
from tuned_virt.kernel import procfs
from tuned_virt.kernel.files import KernelFileError, KernelFS
from tuned_virt.model import topology
from tuned_virt.model.guest import printable, qemu_process
from tuned_virt.plugins.hugepages_numa import mounts
from tuned_virt.plugins.hugepages_numa import pools as hugepages
from tuned_virt.plugins.hugepages_numa.pools import size_name

ABSENT = "this kernel has no huge pages"
NOT_ROOT = "run as root to see which guest uses them"
NOT_TOLD = "this kernel does not show which guest uses them: it has no /proc/PID/numa_maps"

POOLS = ("node", "size", "total", "persistent", "free", "surplus", "MiB")
GUESTS = ("<guest", "pid", "node", "size", "pages", "MiB")
OTHERS = ("<other process", *GUESTS[1:])
"""Columns of the tables, see `table.show`."""


@dataclass(frozen=True)
class PageUse:
    """A guest's huge pages.

    mapped_mib  MiB of all of them, None where the kernel does not say
    pages       their number by node and size in KiB, None where that cannot be read
    """

    guest: str
    uuid: str
    pid: int
    mapped_mib: int | None
    pages: Mapping[tuple[int, int], int] | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    parser.add_argument(
        "action",
        nargs="?",
        choices=("show", "plan", "cmdline"),
        default="show",
        help="show the pools (the default); plan: what a request would do, without changing"
        " anything; cmdline: print the kernel arguments for pages of 1G and more",
    )
    hugepages_plan.add_arguments(parser)
    parser.add_argument(
        "--no-newline",
        action="store_true",
        help="cmdline: print no newline, for use inside a longer command line",
    )
    json_output.add_option(parser)


def run(options: argparse.Namespace) -> int:
    """Gather and print; changes nothing. Raises CouldNot."""
    if options.action == "plan":
        return hugepages_plan.run(options)
    if options.action == "cmdline":
        return hugepages_plan.run_cmdline(options, "" if options.no_newline else "\n")
    content = gather(KernelFS())
    if options.json:
        json_output.emit("hugepages", content)
    else:
        _print(content)
    return FINE


def gather(fs: KernelFS) -> dict[str, Any]:
    """All of it, as JSON has it."""
    pools = hugepages.read(fs)
    uses, remark = guests(fs) if pools else ([], "")
    return {
        "pools": [
            {
                "size": size_name(pool.size_kib),
                **pool._asdict(),
                "persistent": pool.persistent,
                "mib": pool.mib,
            }
            for pool in pools
        ],
        "reserved": {size_name(kib): count for kib, count in hugepages.reserved(fs).items()},
        "guests": list(map(_guest, uses)),
        "guests_remark": remark,
        "others": list(map(_other, others(fs, [use.pid for use in uses]) if pools else [])),
        "mounts": _mounts(fs),
        "transparent": _transparent(fs),
    }


def guests(fs: KernelFS) -> tuple[list[PageUse], str]:
    """The guests by name, and a remark where it cannot be read what one of them uses."""
    found = qemu_process.QemuProcesses(fs).guests(time.monotonic())
    uses = [
        use
        for guest in found
        if (use := _use(fs, guest.pid, guest.name or str(guest.pid), guest.uuid)) is not None
    ]
    remark = ""
    for use in uses:
        if use.pages is None:
            remark = NOT_ROOT if fs.exists(f"/proc/{use.pid}/numa_maps") else NOT_TOLD
    return sorted(uses, key=lambda use: (use.guest, use.pid)), remark


def others(fs: KernelFS, known: Collection[int]) -> list[PageUse]:
    """Processes that are no guests of QEMU's and have pages mapped, by name: a DPDK switch, a
    database."""
    uses = []
    for pid in procfs.pids(fs) - set(known):
        if hugepages.mapped(fs, pid):
            name = printable(fs.read_permitted(f"/proc/{pid}/comm") or str(pid))
            use = _use(fs, pid, name, "")
            uses += [use] if use else []
    return sorted(uses, key=lambda use: (use.guest, use.pid))


def _use(fs: KernelFS, pid: int, name: str, uuid: str) -> PageUse | None:
    """What a process uses; None for one that has ended meanwhile."""
    kib = hugepages.mapped(fs, pid)
    pages = _pages(fs, pid, kib)
    if pages is None and not fs.exists(f"/proc/{pid}"):
        return None
    return PageUse(name, uuid, pid, None if kib is None else kib // 1024, pages)


def _pages(fs: KernelFS, pid: int, kib: int | None) -> dict[tuple[int, int], int] | None:
    """What a guest uses by numa_maps, which is read only where it has huge pages.

    The kernel walks all its memory for that, which can hold up a large guest of small pages.
    """
    if kib == 0:
        return {}
    try:
        return hugepages.used(fs.read(f"/proc/{pid}/numa_maps"))
    except KernelFileError:
        return None


def _mounts(fs: KernelFS) -> list[dict[str, str]]:
    found = mounts.read(fs, topology.meminfo(fs).get("Hugepagesize", 0))
    return [{"path": one.path, "size": size_name(one.size_kib)} for one in found if one.size_kib]


def _other(use: PageUse) -> dict[str, Any]:
    content = _guest(use)
    del content["uuid"]
    return {"process": content.pop("guest"), **content}


def _guest(use: PageUse) -> dict[str, Any]:
    places = None
    if use.pages is not None:
        places = [
            {
                "node": node,
                "size": size_name(kib),
                "size_kib": kib,
                "pages": count,
                "mib": count * kib // 1024,
            }
            for (node, kib), count in use.pages.items()
        ]
    return {
        "guest": use.guest,
        "uuid": use.uuid,
        "pid": use.pid,
        "mapped_mib": use.mapped_mib,
        "used": places,
    }


def _transparent(fs: KernelFS) -> dict[str, Any] | None:
    thp = hugepages.transparent(fs)
    if thp is None:
        return None
    content = {"enabled": thp.enabled, "defrag": thp.defrag, "anonymous_mib": thp.anonymous // 1024}
    content |= {"shmem_enabled": thp.shmem} if thp.shmem else {}
    sizes = {size_name(kib): word for kib, word in thp.sizes.items()}
    return {**content, "sizes": sizes} if sizes else content


def _print(content: dict[str, Any]) -> None:
    if content["pools"]:
        table.show(POOLS, ([pool[title.lower()] for title in POOLS] for pool in content["pools"]))
        counts = ", ".join(f"{size}: {count}" for size, count in content["reserved"].items())
        print(f"reserved  {counts} (free pages that are already promised, on all nodes together)")
    else:
        print(f"pools     {ABSENT}")
    print(f"THP       {transparent_line(content['transparent'])}")
    if content["guests_remark"]:
        print(f"guests    {content['guests_remark']}")
    rows = [row for guest in content["guests"] for row in use_rows(guest)]
    if rows:
        table.show(GUESTS, rows)
    elif content["guests"]:
        print(f"guests    {len(content['guests'])} running, none uses pages of these pools")
    named = [{**one, "guest": one["process"]} for one in content["others"]]
    if named:
        table.show(OTHERS, [row for one in named for row in use_rows(one)])
    for mount in content["mounts"]:
        print(f"mount     {mount['path']}: pages of {mount['size']}")


def transparent_line(thp: Mapping[str, Any] | None) -> str:
    """How transparent huge pages are set, and how many are in use."""
    if thp is None:
        return "no transparent huge pages in this kernel"
    words = f"enabled={thp['enabled']}, defrag={thp['defrag']}"
    if "shmem_enabled" in thp:
        words += f", shmem_enabled={thp['shmem_enabled']}"
    own = {size: word for size, word in thp.get("sizes", {}).items() if word != "never"}
    words += "".join(f", {size}: {word}" for size, word in own.items())
    return f"{words}, {thp['anonymous_mib']} MiB in use (AnonHugePages)"


def use_rows(guest: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """A guest's huge pages by node and size, as the columns GUESTS have them."""
    named = (guest["guest"], guest["pid"])
    if guest["used"] is None:
        return [(*named, None, None, None, guest["mapped_mib"])]
    return [(*named, at["node"], at["size"], at["pages"], at["mib"]) for at in guest["used"]]
