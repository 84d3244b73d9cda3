# SPDX-License-Identifier: GPL-2.0-or-later
"""What the fuzzer begins with, and words that it may put in."""

from __future__ import annotations

import json
from pathlib import Path

DATA = Path(__file__).parents[1] / "data"
BOOT = "0f1e2d3c"
UUID = "00000000-0000-4000-8000-000000000009"
PART = "\n==== "

NUMBERS = (
    "0",
    "-1",
    "^",
    "-",
    ",",
    "0-65535,",
    "65536",
    "\u0663",
    "\u00b2",
    "9" * 400,
    "0x",
    "1e9",
)
XML = (
    *(
        "<",
        ">",
        "/>",
        "</",
        "&",
        "&#x9b;",
        "<!--",
        "-->",
        "<![CDATA[",
        "]]>",
        "<!DOCTYPE",
        "xmlns=",
    ),
    *("<metadata>", "</metadata>", "urn:tuned-virt-plus:placement:1", "tuned-virt:placement"),
    *("urn:tuned-virt-plus:limits:1", "urn:tuned-virt-plus:weights:1", "<shares>50</shares>"),
    *("<vcpupin vcpu='0' cpuset='4'/>", "<emulatorpin cpuset='0-1'/>", "cpuset='", "nodeset='"),
    *("<memory mode='strict' nodeset='0'/>", "placement='auto'", "<vcpu>", "<numatune>", "unit='"),
    *NUMBERS,
)
JSON = (
    "[",
    "]",
    "{",
    "}",
    "null",
    "true",
    "NaN",
    "1e999",
    "-",
    '"',
    "[[[[[[[[",
    "\\ud800",
    *NUMBERS,
)
SETTING_WORDS = (
    *("=", "==", "#", ";", "[", "]", "[variables]", "${", "}", "\\", "'", '"', "include=", "\r"),
    *("\ufeff", "\u0085", "\u2028", "\x00", " ", "\t", "type=", "ATTR{queue/scheduler}", "$(", "`"),
    *NUMBERS,
)
KERNEL_WORDS = (
    *("N0=", "kernelpagesize_kB=2048", "huge", " hugetlbfs ", "pagesize=", "\\040", "(deleted)"),
    *("hugepagesz=", "hugepages=", "default_hugepagesz=1G", " kB", ":", "\x00-uuid\x00", PART),
    *NUMBERS,
)

CPUSETS = ("0-3,8", "0-16383", "5-7,^6", "ffffffff,0000ffff", "")
DOMAINS = (
    *(file.read_text() for file in sorted((DATA / "guests").glob("*.xml"))),
    "<domain><metadata><a:placement xmlns:a='urn:tuned-virt-plus:placement:1' vcpus='0=4'/>"
    "</metadata><cputune><vcpupin vcpu='0' cpuset='4'/><emulatorpin cpuset='1'/></cputune>"
    "</domain>",
    "<domain><metadata><placement xmlns='urn:tuned-virt-plus:placement:1' emulator='0-1'"
    " numatune='strict=0' iothreads='1=2'/><x/></metadata><numatune><memory mode='strict'"
    " nodeset='0'/></numatune><cputune><iothreadpin iothread='1' cpuset='2'/></cputune></domain>",
    "<domain><metadata><limits xmlns='urn:tuned-virt-plus:limits:1' cpu_shares='50'/><a:weights"
    " xmlns:a='urn:tuned-virt-plus:weights:1' weight='300'><a:device path='/dev/a' weight='4'/>"
    "</a:weights></metadata><cputune><shares>50</shares></cputune><blkiotune><weight>300</weight>"
    "<device><path>/dev/a</path><weight>4</weight></device></blkiotune></domain>",
)
CAPABILITIES = tuple(file.read_text() for file in sorted((DATA / "hosts").glob("*.xml")))
SETTINGS = (
    "observe=1\nvm_policy=dedicated\nhugepages_1G=0:1,1:1\nksm_mode=auto # why\nvm_x=${observe}\n",
    "[variables]\nrun=1\npages_2M=0:64\nmount_2M=/run/hp uid=0 mode=0755\nrole=host\n",
    "policy=dedicated\nhousekeeping=0-1\nmemory_soft_limit=64M\nweight=100\nfiles=/proc/sys/a\n",
)
ANY = frozenset({"x", "observe"})
"""Names of settings whose value is tried as every option."""
KSMTUNED = (
    "KSM_MONITOR_INTERVAL=60\n# a comment\nKSM_SLEEP_MSEC=10\nKSM_NPAGES_DECAY=-50\n"
    'KSM_THRES_COEF=20 # x\nLOGFILE=/var/log/ksmtuned\nDEBUG=1\nX="a b"\n',
)
JOURNAL = (
    '{"when":1.0,"plugin":"ksm","setting":"run","path":"/x","before":"0","after":"1","why":"w"}\n'
    * 2,
)
_PINS = {"vcpus": {"0": "0-3"}, "emulator": "0-3", "iothreads": {}, "memory": ["strict", "0"]}
_RUN = {"uri": "qemu:///system", "uuid": UUID, "name": "web1", "id": 3, "pid": 100, "start": 5}
GUEST_ORIGINALS = (
    json.dumps({**_RUN, **_PINS, "nodes": "0-1"}),
    json.dumps({**_RUN, "memory": {"soft_limit": 5}, "shares": 7}),
    json.dumps(_RUN),
)


def _state(**content: object) -> str:
    return json.dumps({"format": 1, "boot_id": BOOT, **content})


ORIGINALS = (
    _state(
        plugins={
            "ksm": {"originals": {"run": "0"}, "pending": {}, "owner": [1, 2]},
            "vm_pinning": {
                "originals": {f"{UUID}/5": GUEST_ORIGINALS[0]},
                "pending": {f"{UUID}/5": "why"},
                "owner": None,
            },
        }
    ),
)
_PLACED = {
    **{"guest": "web1", "uuid": UUID, "kind": "shared", "nodes": [0], "vcpus": {"0": "0-3"}},
    **{"emulator": "0-3", "iothreads": {}, "why": "it fits"},
    "memory": {"mode": "strict", "nodeset": "0", "cells": {}},
}
_HELD = {
    **{"key": f"{UUID}/5", "uuid": UUID, "device": "web1", "name": "web1", "pid": 100},
    **{"placement": _PLACED, "pins": _PINS},
}
STATES = (
    "guests\n" + _state(guests={"qemu:///system": [_HELD]}),
    "loop\n" + _state(algorithm="auto", memory={"phase": "idle"}, decisions=[]),
    "disks\n" + _state(sections=[{"role": "host", "words": {}}], conflicting={}),
    "progress\n"
    + _state(
        pid=1,
        started=2,
        progress={"node": 0, "size_kib": 2048, "pages": 1, "target": 2, "mib_s": 1.0},
    ),
    "previous\n" + _state(profiles=["virtual-host"], mode="manual"),
)
KERNEL_TEXTS = {
    "/proc/100/maps": "7f0000000000-7f0004000000 rw-p 00000000 00:00 0\n",
    "/proc/100/numa_maps": "7f0000000000 default anon=300 N0=300 kernelpagesize_kB=4\n"
    "7f1000000000 default file=/dev/hugepages/x huge N1=2 kernelpagesize_kB=2048\n",
    "/proc/100/status": "Name:\tx\nUid:\t0\t0\nVmLck:\t 12 kB\nHugetlbPages:\t 4096 kB\n",
    "/proc/100/comm": "kvm\n",
    "/proc/100/cmdline": f"kvm\0-uuid\0{UUID}\0-name\0guest=web1,debug-threads=on\0",
    "/proc/100/task/100/comm": "CPU 0/KVM\n",
    "/proc/100/task/100/status": "Cpus_allowed_list:\t0-3\n",
    "/proc/100/task/100/schedstat": "5 777 9\n",
    "/proc/100/cgroup": "0::/a/libvirt/emulator\n",
    "/proc/100/task/100/cgroup": "0::/a/libvirt/vcpu0\n",
    "/proc/self/mountinfo": "30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
    "/sys/fs/cgroup/a/cpu.pressure": "some avg10=1.50 avg60=2.00 avg300=0.10 total=9\n",
    "/sys/fs/cgroup/a/libvirt/vcpu0/cpu.stat": "nr_periods 4\nnr_throttled 3\n",
    "/run/libvirt/qemu/web1.pid": "100",
    "/proc/self/mounts": "hugetlbfs /dev/huge\\040pages hugetlbfs rw,pagesize=1024M 0 0\n",
    "/proc/meminfo": "MemTotal: 1024 kB\nHugepagesize: 2048 kB\nAnonHugePages: 0 kB\n",
    "/proc/cpuinfo": "processor\t: 0\nflags\t\t: fpu\n",
    "/sys/devices/system/cpu/present": "0-3\n",
    "/sys/devices/system/cpu/online": "0-3\n",
    "/sys/devices/system/cpu/isolated": "1\n",
    "/sys/devices/system/node/node0/cpulist": "0-3\n",
    "/sys/devices/system/node/node0/distance": "10\n",
    "/sys/devices/system/node/node0/meminfo": "Node 0 MemTotal: 1024 kB\nNode 0 MemFree: 9 kB\n",
    "/sys/devices/system/cpu/cpu0/topology/core_id": "0\n",
    "/sys/devices/system/cpu/cpu0/topology/thread_siblings_list": "0-1\n",
    "/sys/devices/system/cpu/cpu0/cache/index3/level": "3\n",
    "/sys/devices/system/cpu/cpu0/cache/index3/size": "8192K\n",
    "/sys/devices/system/cpu/cpu0/cache/index3/shared_cpu_list": "0-3\n",
    "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages": "4\n",
    "/sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
    "/sys/kernel/mm/ksm/run": "1\n",
}
KERNEL_FILES = frozenset(KERNEL_TEXTS)
KERNEL = ("".join(f"{PART}{name}\n{text}" for name, text in KERNEL_TEXTS.items()),)
UDEV = (
    'ACTION=="add|change", KERNEL=="sd[a-z]", ATTR{queue/rotational}=="0", '
    'ATTR{queue/scheduler}="none"\n# a comment\nKERNEL!="nvme*", ENV{A}="b", \\\n GOTO="end"\n',
    'ENV{ID_VENDOR}=="A", DRIVERS=="b", TEST!="%S%p/mq/1", RUN+="/bin/sh -c '
    "'echo none > /sys/block/%k/queue/scheduler'\"\n",
    "[Service]\nExecStart=-/bin/sh -c 'for d in sda sdb; do echo none | tee"
    " /sys/block/$$d/queue/scheduler; done'\n",
    "w /sys/block/sda/queue/scheduler - - - - none\n",
    "block/sda/queue/scheduler = noop\n",
)
COMMAND_LINES = (
    "root=/dev/sda1 default_hugepagesz=1G hugepagesz=1G hugepages=4 hugepagesz=2M"
    " hugepages=0:512,1:9",
)
PROFILES = (
    "[main]\ninclude=a,-b\n[ksm]\nrun=1\n[x]\ntype=hugepages_numa\npages_2M=${v}\n",
    "b c\n",
)
