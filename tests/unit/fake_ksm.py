# SPDX-License-Identifier: GPL-2.0-or-later
"""A KSM that behaves as the kernel's mm/ksm.c: the unit tier runs without root, real ksmd needs it.

The same rules are tried on the real kernel in tests/system/test_ksm.py.
"""

from __future__ import annotations

from tuned_virt.kernel.files import KernelFileAbsent, KernelFileError, KernelFS
from tuned_virt.plugins.ksm import FOLDER

FRESH = {
    "run": "0",
    "merge_across_nodes": "1",
    "max_page_sharing": "256",
    "use_zero_pages": "0",
    "smart_scan": "1",
    "stable_node_chains_prune_millisecs": "2000",
    "advisor_min_pages_to_scan": "500",
    "advisor_max_pages_to_scan": "30000",
    "advisor_target_scan_time": "200",
    "advisor_max_cpu": "70",
    "advisor_mode": "none",
    "pages_to_scan": "100",
    "sleep_millisecs": "20",
}


class FakeKsm(KernelFS):
    """`files` by path; counters are plain files as well."""

    def __init__(
        self,
        settings: dict[str, str] | None = None,
        shared: int = 0,
        available: int = 10**7,
        nodes: int = 1,
    ) -> None:
        super().__init__()
        values = FRESH if settings is None else settings
        files = {f"{FOLDER}/{name}": value for name, value in values.items()}
        files[f"{FOLDER}/pages_shared"] = files[f"{FOLDER}/pages_sharing"] = str(shared)
        files["/proc/meminfo"] = f"MemAvailable: {available} kB"
        files["/sys/devices/system/node/has_memory"] = f"0-{nodes - 1}"
        object.__setattr__(self, "files", files)
        object.__setattr__(self, "writes", [])

    files: dict[str, str]
    writes: list[tuple[str, str]]

    def settings(self) -> dict[str, str]:
        """Name → value of KSM's settings."""
        return {name: self.files[f"{FOLDER}/{name}"] for name in FRESH}

    def sees_all_processes(self) -> bool:
        return True

    def exists(self, path: str) -> bool:
        return path in self.files

    def read(self, path: str) -> str:
        if path not in self.files:
            raise KernelFileAbsent(path, "No such file or directory")
        if path.endswith("advisor_mode"):
            words = ("none", "scan-time")
            return " ".join(f"[{w}]" if w == self.files[path] else w for w in words)
        return self.files[path]

    def glob(self, pattern: str) -> list[str]:
        return []

    def names(self, path: str) -> list[str]:
        return []

    def link(self, path: str) -> str | None:
        return None

    def write(self, path: str, value: str) -> None:
        name = path.rpartition("/")[2]
        self.writes.append((name, value))
        refusal = self._refusal(name, value)
        if refusal:
            raise KernelFileError(path, refusal, value)
        if (name, value) == ("run", "2"):
            self.files[f"{FOLDER}/pages_shared"] = self.files[f"{FOLDER}/pages_sharing"] = "0"
        if (name, value) == ("advisor_mode", "none"):
            self.files[f"{FOLDER}/pages_to_scan"] = "100"
        self.files[path] = value

    def _refusal(self, name: str, value: str) -> str:
        shared = self.files[f"{FOLDER}/pages_shared"] != "0"
        advised = self.files.get(f"{FOLDER}/advisor_mode") == "scan-time"
        if name == "run" and value not in "012":
            return "Invalid argument"
        if name == "pages_to_scan" and advised:
            return "Invalid argument"
        if name in ("merge_across_nodes", "max_page_sharing") and shared:
            return "Device or resource busy"
        return ""
