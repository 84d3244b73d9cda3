"""Kernel samepage merging: its settings, what the kernel does not check, and the order of writing.

Sources: the kernel's Documentation/admin-guide/mm/ksm.rst and mm/ksm.c; the guide's chapters 8.4
and 9.4. merge_across_nodes and max_page_sharing are refused (EBUSY) while any page is shared, and
only run=2, which needs the memory that merging saved, changes that. advisor_mode=none sets
pages_to_scan to 100; pages_to_scan is refused (EINVAL) while the advisor chooses it. run=2 makes
the copies in the context of the process that writes it, so they come to the NUMA node of the CPU it
runs on: measured with two processes on nodes 0 and 2, all of whose pages were on node 3 afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from tuned_virt import mempolicy, topology
from tuned_virt import options as opt
from tuned_virt.engine import Tuner
from tuned_virt.kernelfs import KernelFS, active_word
from tuned_virt.options import BadOptions, Choice, Described, Number, OptionError, Wanted
from tuned_virt.plan import Change, Plan, Values

FOLDER = "/sys/kernel/mm/ksm"

MARGIN = 1.2
"""Unmerging wants this many times the merged memory to be available."""

SETTINGS: Mapping[str, Number | Choice] = MappingProxyType(
    {
        "merge_across_nodes": Choice(("0", "1", "auto")),
        "max_page_sharing": Number(2, 2**31 - 1, "virtual pages for one physical page"),
        "use_zero_pages": Choice(("0", "1")),
        "smart_scan": Choice(("0", "1")),
        "stable_node_chains_prune_millisecs": Number(1, 2**32 - 1, "ms"),
        "advisor_min_pages_to_scan": Number(1, 1_000_000, "pages a batch"),
        "advisor_max_pages_to_scan": Number(1, 1_000_000, "pages a batch"),
        "advisor_target_scan_time": Number(1, 86_400, "s"),
        "advisor_max_cpu": Number(1, 100, "percent of one CPU"),
        "advisor_mode": Choice(("none", "scan-time")),
        "pages_to_scan": Number(1, 1_000_000, "pages a batch"),
        "sleep_millisecs": Number(1, 3_600_000, "ms"),
        "run": Choice(("0", "1", "2")),
    }
)
"""What each file takes, in the order of writing: the advisor before pages_to_scan, run last.

The kernel takes more (0 or 4294967295 pages, no sleep, an advisor of 1000 %): ksmd then does
nothing or takes a whole CPU.
"""

UNMERGED_FIRST = ("merge_across_nodes", "max_page_sharing")
"""The kernel refuses to change these while pages are shared."""

OPTIONS: Mapping[str, Described] = MappingProxyType(
    {
        "run": Described("0: stop merging, 1: merge, 2: stop and unmerge all (needs the memory)"),
        "merge_across_nodes": Described(
            "0: merge only pages of the same NUMA node, 1: of all nodes, auto: 0 where there are"
            " several nodes"
        ),
        "max_page_sharing": Described("most virtual pages that share one physical page"),
        "use_zero_pages": Described("1: merge empty pages with the kernel's zero page"),
        "pages_to_scan": Described("pages scanned before each sleep; > and < as in TuneD"),
        "sleep_millisecs": Described("sleep between batches in ms; > and < as in TuneD"),
        "smart_scan": Described("1: skip pages that were not merged in earlier scans"),
        "advisor_mode": Described(
            "scan-time: the kernel chooses pages_to_scan, none: pages_to_scan holds"
        ),
        "advisor_max_cpu": Described("most CPU the advisor lets ksmd use, percent of one CPU"),
        "advisor_target_scan_time": Described("seconds in which the advisor scans all memory once"),
        "advisor_min_pages_to_scan": Described("pages a batch that the advisor begins with"),
        "advisor_max_pages_to_scan": Described("most pages a batch that the advisor chooses"),
        "stable_node_chains_prune_millisecs": Described(
            "how often chains of fully shared pages are searched for stale entries, in ms"
        ),
        "unmerge": Described(
            "allow: unmerge all pages where a setting needs it and the memory is there, which"
            " spreads them over all NUMA nodes; never: leave such a setting alone and say so",
            "never",
        ),
        "observe": opt.OBSERVE,
    }
)


class Unmerge(str, Enum):
    """Whether all pages may be unmerged for a setting that needs it."""

    NEVER = "never"
    ALLOW = "allow"


@dataclass(frozen=True)
class KsmPolicy:
    """What a profile asks of KSM: settings by name, and whether it may unmerge for them."""

    settings: Mapping[str, Wanted | str]
    unmerge: Unmerge = Unmerge.NEVER


@dataclass(frozen=True)
class KsmState:
    """KSM as the kernel shows it; `values` is empty in a kernel without KSM.

    Counters are the kernel's, in pages of `page_size` bytes; `available` is MemAvailable in KiB,
    read only where pages are shared; `merging` counts the pages that live processes have merged
    (None: not told, by an old kernel or in a container).
    """

    values: Values
    pages_shared: int = 0
    pages_sharing: int = 0
    zero_pages: int = 0
    merging: int | None = None
    available: int = 0
    page_size: int = 4096
    nodes: int = 1

    @property
    def saved(self) -> int:
        """KiB that unmerging everything would take."""
        if self.merging == 0:
            return self.zero_pages * self.page_size // 1024
        return (self.pages_sharing + self.zero_pages) * self.page_size // 1024


def parse(options: Mapping[str, str]) -> KsmPolicy:
    """The policy of a profile's options (empty ones ask for nothing). Raises BadOptions."""
    errors: list[OptionError] = []
    settings: dict[str, Wanted | str] = {}
    unmerge = Unmerge.NEVER
    for name, text in opt.given(options).items():
        try:
            if name in SETTINGS:
                settings[name] = SETTINGS[name].parse(name, text)
            elif name == "unmerge":
                unmerge = Unmerge(Choice(tuple(Unmerge)).parse(name, text))
        except OptionError as error:
            errors.append(error)
    errors += _contradictions(settings)
    if errors:
        raise BadOptions(errors)
    return KsmPolicy(settings, unmerge)


def _contradictions(settings: Mapping[str, Wanted | str]) -> Iterable[OptionError]:
    if settings.get("advisor_mode") == "scan-time" and "pages_to_scan" in settings:
        yield OptionError(
            "pages_to_scan",
            _text(settings["pages_to_scan"]),
            "leave it out while advisor_mode=scan-time chooses it",
        )
    low, high = (settings.get(f"advisor_{end}_pages_to_scan") for end in ("min", "max"))
    if isinstance(low, Wanted) and isinstance(high, Wanted) and low.value > high.value:
        yield OptionError(
            "advisor_min_pages_to_scan",
            _text(low),
            f"at most advisor_max_pages_to_scan, which is {high.value}",
        )


def _text(wanted: Wanted | str) -> str:
    return wanted if isinstance(wanted, str) else f"{wanted.modifier.value}{wanted.value}"


def read(fs: KernelFS) -> KsmState:
    """KSM's state from the kernel."""
    values = {}
    for name in SETTINGS:
        text = fs.read_optional(f"{FOLDER}/{name}")
        if text is not None:
            values[name] = active_word(text)
    pages_shared = fs.read_number(f"{FOLDER}/pages_shared")
    return KsmState(
        values=values,
        pages_shared=pages_shared,
        pages_sharing=fs.read_number(f"{FOLDER}/pages_sharing"),
        zero_pages=fs.read_number(f"{FOLDER}/ksm_zero_pages"),
        merging=_merging(fs) if pages_shared else 0,
        available=topology.meminfo(fs).get("MemAvailable", 0) if pages_shared else 0,
        page_size=topology.page_size(),
        nodes=len(topology.memory_nodes(fs)),
    )


def _merging(fs: KernelFS) -> int | None:
    if not fs.exists("/proc/self/ksm_merging_pages") or not fs.sees_all_processes():
        return None
    return sum(fs.read_number(path) for path in fs.glob("/proc/[0-9]*/ksm_merging_pages"))


def decide(policy: KsmPolicy, state: KsmState, originals: Values) -> Plan:
    """The writes that take KSM from `state` to the policy, with kept originals put back.

    Settings of `originals` that the policy does not name are put back; what the kernel or the
    memory does not allow now is refused (if asked for) or pending (if an original).
    """
    if not state.values:
        absent = "this kernel has no KSM"
        return Plan(notes=(absent,), pending=dict.fromkeys(originals, absent))
    asked, missing = _asked(policy, state, originals)
    back = {name: value for name, value in originals.items() if name not in asked}
    targets = {**back, **asked}
    hindered = _hindered(policy, state, targets, asked)
    targets = {name: value for name, value in targets.items() if name not in hindered}
    changes = _changes(state, targets, asked)
    return Plan(
        changes=tuple(changes),
        originals=_claimed(asked, state, originals),
        wanted={name: value for name, value in asked.items() if name not in hindered},
        refused={name: why for name, why in hindered.items() if name in _insisted(policy)},
        missing=missing,
        pending={name: why for name, why in hindered.items() if name in back},
        notes=tuple(why for name, why in hindered.items() if _lenient(policy, name)),
    )


def _asked(
    policy: KsmPolicy, state: KsmState, originals: Values
) -> tuple[dict[str, str], dict[str, str]]:
    asked: dict[str, str] = {}
    missing: dict[str, str] = {}
    for name, wanted in policy.settings.items():
        if name not in state.values:
            missing[name] = f"this kernel has no {FOLDER}/{name}"
        elif isinstance(wanted, Wanted):
            asked[name] = wanted.against(originals.get(name, state.values[name]))
        elif wanted != "auto":
            asked[name] = wanted
        elif state.nodes > 1:
            asked[name] = "0"
    return asked, missing


def _insisted(policy: KsmPolicy) -> set[str]:
    return {name for name in policy.settings if not _lenient(policy, name)}


def _lenient(policy: KsmPolicy, name: str) -> bool:
    return policy.settings.get(name) == "auto"


def _claimed(asked: Values, state: KsmState, originals: Values) -> dict[str, str]:
    """Values to keep: what is asked for, and what the kernel changes along with it."""
    claimed = {name: state.values[name] for name in asked}
    advised = state.values.get("advisor_mode") == "scan-time"
    if "advisor_mode" in asked and (not advised or "pages_to_scan" in originals):
        claimed["pages_to_scan"] = state.values["pages_to_scan"]
    return claimed


def _hindered(policy: KsmPolicy, state: KsmState, targets: Values, asked: Values) -> dict[str, str]:
    """Settings that cannot be written now, with the reason."""
    return {
        **_hindered_by_advisor(state, targets, asked),
        **_hindered_by_merged(policy, state, targets),
    }


def _hindered_by_advisor(state: KsmState, targets: Values, asked: Values) -> dict[str, str]:
    then = {**state.values, **targets}
    if "advisor_mode" not in then:
        return {}
    hindered = {}
    if then["advisor_mode"] == "scan-time" and "pages_to_scan" in asked:
        hindered["pages_to_scan"] = (
            "the kernel's advisor chooses it (advisor_mode is scan-time); add advisor_mode=none"
        )
    low, high = "advisor_min_pages_to_scan", "advisor_max_pages_to_scan"
    if int(then[low]) > int(then[high]):
        blamed = low if low in asked else high
        hindered[blamed] = f"{low} would be {then[low]}, over {high}, which would be {then[high]}"
    return hindered


def _hindered_by_merged(policy: KsmPolicy, state: KsmState, targets: Values) -> dict[str, str]:
    if not state.pages_shared:
        return {}
    stopping = targets.get("run") == "2"
    why = _does_not_fit(state) if stopping else _may_not_unmerge(policy, state)
    settings = [*_unmerging(state.values, targets), *(["run"] if stopping else [])]
    return {name: f"{name} cannot become {targets[name]}: {why}" for name in settings if why}


def _unmerging(now: Values, targets: Values) -> list[str]:
    """Settings about to change that the kernel refuses while pages are shared."""
    return [name for name in UNMERGED_FIRST if targets.get(name, now.get(name)) != now.get(name)]


def _may_not_unmerge(policy: KsmPolicy, state: KsmState) -> str:
    if policy.unmerge is Unmerge.NEVER and state.merging != 0:
        return (
            f"the kernel refuses it while {state.pages_sharing} pages ({state.saved // 1024} MiB)"
            " are merged, and unmerge is never"
        )
    return _does_not_fit(state)


def _does_not_fit(state: KsmState) -> str:
    needed = int(state.saved * MARGIN)
    if needed <= state.available:
        return ""
    return (
        f"unmerging {state.saved // 1024} MiB wants {needed // 1024} MiB available,"
        f" {state.available // 1024} MiB are"
    )


def _changes(state: KsmState, targets: Values, asked: Values) -> Iterable[Change]:
    now = dict(state.values)

    def to(name: str, value: str, why: str) -> Change:
        slow = (name, value) == ("run", "2") and state.pages_sharing > 0
        change = Change(name, f"{FOLDER}/{name}", now[name], value, why, slow)
        now[name] = value
        return change

    if state.pages_shared and _unmerging(now, targets):
        yield to("run", "2", _unmerge_cost(state))
    for name in SETTINGS:
        target = targets.get(name, state.values.get(name) if name == "run" else None)
        if target is None or name not in now or now[name] == target:
            continue
        if name == "pages_to_scan" and now.get("advisor_mode") == "scan-time":
            continue
        yield to(name, target, "asked for" if name in asked else "as it was before")
        if name == "advisor_mode" and target == "none":
            now["pages_to_scan"] = "100"


def _unmerge_cost(state: KsmState) -> str:
    cost = f"unmerges {state.saved // 1024} MiB, which the next changes need"
    if state.nodes > 1 and state.saved:
        cost += "; their copies are spread over all NUMA nodes"
    return cost


class KsmTuner(Tuner[KsmPolicy, KsmState]):
    """KSM's settings, as the plugin `ksm` sets them."""

    name = "ksm"
    options = OPTIONS

    def parse(self, options: Mapping[str, str]) -> KsmPolicy:
        """See `parse`."""
        return parse(options)

    def undoing(self, policy: KsmPolicy) -> KsmPolicy:
        """Asks for nothing, and may unmerge where the policy might."""
        return KsmPolicy({}, policy.unmerge)

    def read(self, fs: KernelFS, policy: KsmPolicy, originals: Values) -> KsmState:
        """See `read`."""
        return read(fs)

    def decide(self, policy: KsmPolicy, state: KsmState, originals: Values) -> Plan:
        """See `decide`."""
        return decide(policy, state, originals)

    def values(self, state: KsmState) -> Values:
        """The settings' values."""
        return state.values

    def write(self, fs: KernelFS, change: Change) -> None:
        """A write; what is unmerged is spread over the nodes instead of filling the writer's."""
        nodes = topology.memory_nodes(fs) if change.slow else frozenset()
        with mempolicy.interleaved(nodes):
            super().write(fs, change)
