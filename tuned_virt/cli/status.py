# SPDX-License-Identifier: GPL-2.0-or-later
"""tuned-virt status: show the active profile, what differs from it, KSM, guests and NUMA nodes."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tuned_virt.cli import activation, findings, json_output, ksm_report, ksm_table, table
from tuned_virt.cli.common import COULD_NOT, FINE, TO_REPORT, CouldNot
from tuned_virt.cli.daemon import Daemon, NotPermitted
from tuned_virt.core import active_profile
from tuned_virt.core.originals import Originals, OriginalsError
from tuned_virt.core.plan import shown
from tuned_virt.core.state_file import FOLDER, HUGE_PAGES_PROGRESS, PLACEMENTS
from tuned_virt.kernel.files import KernelFS
from tuned_virt.model import topology
from tuned_virt.model.guest import printable
from tuned_virt.plugins import ksm

RUN_WORDS: Mapping[str, str] = {"0": "stopped", "1": "merging", "2": "stopped, all pages unmerged"}


GUESTS = ("<guest", "pid", "MiB", "mergeable MiB", "merged MiB", "profit MiB")
NODES = ("node", "<CPUs", "MiB", "free MiB", "distances")
"""Columns of the tables, see `table.show`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    json_output.add_option(parser)
    parser.add_argument(
        "--ksm",
        action="store_true",
        help="KSM only, in full: every variable with its meaning, savings, cost, last decisions",
    )


def run(options: argparse.Namespace) -> int:
    """Gather and print; 1 where something is not as it should be, 2 where that cannot be told."""
    if options.ksm:
        return _run_ksm(options.json)
    content = gather(KernelFS())
    if options.json:
        json_output.emit("status", content)
    else:
        _print(content)
    return _exit_code(content)


def gather(fs: KernelFS) -> dict[str, Any]:
    """All of it, as JSON has it."""
    content = _tuned()
    content["returns_to"] = _returns_to(content["profile"])
    content["ungranted"] = _ungranted()
    content.update(_machine(fs))
    content.update(_originals(Originals()))
    return content


def _exit_code(content: dict[str, Any]) -> int:
    """As verify's; 1 also where an original is pending, or something is not granted."""
    if content["verified"] is None:
        return COULD_NOT
    wrong = content["pending"] or content["originals"] or content["ungranted"]
    return FINE if content["verified"] and not wrong else TO_REPORT


def _ungranted() -> list[dict[str, str]]:
    """What was requested for guests, by a profile or by their owners, and is not so."""
    if not os.path.exists(os.path.join(FOLDER, PLACEMENTS)):
        return []  # the plugin takes time to import
    from tuned_virt.plugins.vm_pinning import held_placements

    held = (one for guests in held_placements.everything().values() for one in guests)
    return [
        {
            "guest": printable(one.name),
            "uuid": one.uuid,
            "asked": one.ungranted,
            "why": printable(one.placement.why),
        }
        for one in held
        if one.ungranted
    ]


def _originals(kept: Originals) -> dict[str, Any]:
    """What is pending, and what stands in the way of putting back."""
    try:
        pending = {
            f"{plugin} {setting}": reason
            for plugin, record in kept.all().items()
            for setting, reason in record.pending.items()
        }
        return {"pending": pending, "originals": kept.remarks()}
    except OriginalsError as error:
        return {"pending": {}, "originals": [str(error)]}


def _returns_to(profile: str) -> dict[str, Any] | None:
    """What `tuned-virt disable` makes active; None where no profile of ours is."""
    found = activation.disabling(profile.split())
    if found is None:
        return None
    then, notes = found
    return {"profiles": list(then.all), "mode": active_profile.mode(then), "notes": notes}


def _run_ksm(for_programs: bool) -> int:
    content = ksm_report.gather(KernelFS())
    if for_programs:
        json_output.emit("ksm", {"ksm": content})
    else:
        print("\n".join(ksm_report.lines(content)))
    return FINE


def _tuned() -> dict[str, Any]:
    nothing = {
        "profile": "",
        "verified": False,
        "unverified": "",
        "differing": [],
        "notes": [],
    }
    try:
        daemon = Daemon()
        profile = daemon.active_profile()
    except CouldNot as error:
        return {**nothing, "tuned": str(error)}
    known = {**nothing, "tuned": "running", "profile": profile}
    try:
        verified, log = daemon.verify(ignore_missing=False) if profile else (False, [])
    except NotPermitted:
        return {**known, "verified": None, "unverified": "run as root to verify"}
    except CouldNot as error:
        return {**known, "verified": None, "unverified": f"could not be verified: {error}"}
    lines = findings.parse(log)
    return {
        **known,
        "verified": verified,
        "differing": findings.differing(lines),
        "notes": [line.text for line in lines if line.result == "note"],
    }


def _machine(fs: KernelFS) -> dict[str, Any]:
    state = ksm.read(fs)
    rows, remark = ksm_table.gather(fs)
    mib = state.page_size / 2**20
    return {
        "ksm": {
            **state.values,
            "saved_mib": round((state.pages_sharing + state.zero_pages) * mib, 1),
            "shared_mib": round(state.pages_shared * mib, 1),
            "unshared_mib": round(fs.read_number(f"{ksm.FOLDER}/pages_unshared") * mib, 1),
            "zero_pages_mib": round(state.zero_pages * mib, 1),
            "full_scans": fs.read_number(f"{ksm.FOLDER}/full_scans"),
        }
        if state.values
        else None,
        "loop": ksm_report.running() if state.values else None,
        "allocating": _allocating(),
        "guests": list(map(asdict, rows)),
        "guests_remark": remark,
        "nodes": [
            {
                "node": node.id,
                "cpus": node.cpus,
                "total_mib": node.total // 1024,
                "free_mib": node.free // 1024,
                "distances": list(node.distances),
            }
            for node in topology.nodes(fs)
        ],
    }


def _allocating() -> dict[str, Any] | None:
    """Huge pages that are being allocated or given back; the plugin is large and seldom at work."""
    if not os.path.exists(os.path.join(FOLDER, HUGE_PAGES_PROGRESS)):
        return None
    from tuned_virt.plugins.hugepages_numa.progress import ProgressFile

    under_way = ProgressFile().read()
    return asdict(under_way) if under_way else None


def _print(content: dict[str, Any]) -> None:
    print(f"profile   {profile_line(content)}")
    if content["returns_to"]:
        print(f"return    {return_line(content['returns_to'])}")
    for note in content["notes"]:
        print(f"note      {note}")
    for one in content["ungranted"]:
        print(f"guest     {one['guest']}: {one['asked']} is not granted: {one['why']}")
    for setting, reason in content["pending"].items():
        print(f"pending   {shown(setting)}: {reason}")
    for remark in content["originals"]:
        print(f"originals {remark}")
    print(f"KSM       {_ksm_line(content['ksm'], content['loop'])}")
    if content["allocating"]:
        from tuned_virt.plugins.hugepages_numa.progress import Progress

        print(f"pages     being allocated: {Progress(**content['allocating'])}")
    if content["guests_remark"]:
        print(f"guests    {content['guests_remark']}")
    if content["guests"]:
        table.show(GUESTS, map(_guest_cells, content["guests"]))
    table.show(NODES, map(_node_cells, content["nodes"]))


def profile_line(content: Mapping[str, Any]) -> str:
    """The active profile, and whether the machine is as it says."""
    if content["tuned"] != "running":
        return str(content["tuned"])
    if not content["profile"]:
        return "none is active"
    if content["verified"] is None:
        return f"{content['profile']} ({content['unverified']})"
    if content["verified"]:
        return f"{content['profile']}, verified"
    if content["differing"]:
        return (
            f"{content['profile']}: differs from the profile:"
            f" {findings.summary(content['differing'])}"
        )
    return f"{content['profile']}: differs; TuneD does not say where, see /var/log/tuned/tuned.log"


def return_line(then: Mapping[str, Any]) -> str:
    """What `tuned-virt disable` returns to."""
    chosen = "the profile that TuneD chooses, " if then["mode"] == active_profile.AUTOMATIC else ""
    profile = f"{chosen}{' '.join(then['profiles'])}".rstrip(", ") or "no profile"
    return "; ".join([f"tuned-virt disable returns to {profile}", *then["notes"]])


def _ksm_line(values: dict[str, Any] | None, loop: dict[str, Any] | None) -> str:
    if values is None:
        return ksm_report.ABSENT
    doing = loop["phase"] if loop else RUN_WORDS.get(values["run"], values["run"])
    words = [
        f"{doing}, {values['saved_mib']} MiB saved",
        f"{values['pages_to_scan']} pages every {values['sleep_millisecs']} ms",
    ]
    if "merge_across_nodes" in values:
        across = values["merge_across_nodes"] == "1"
        words.append("merges across NUMA nodes" if across else "merges within NUMA nodes")
    return ", ".join(words) + (_why(loop) if loop else "")


def _why(loop: dict[str, Any]) -> str:
    why = f"; {loop['why']} ({ksm_report.clock(loop['when'])})" if loop["why"] else ""
    return why + ksm_report.gone(loop)


def _guest_cells(guest: dict[str, Any]) -> tuple[Any, ...]:
    named = (guest["guest"], guest["pid"], guest["memory_mib"])
    if guest["opted_out"]:
        return (*named, "opted out", None, None)
    return (*named, guest["mergeable_mib"], guest["merged_mib"], guest["profit_mib"])


def _node_cells(node: dict[str, Any]) -> tuple[Any, ...]:
    distances = " ".join(map(str, node["distances"]))
    return (node["node"], node["cpus"] or None, node["total_mib"], node["free_mib"], distances)
