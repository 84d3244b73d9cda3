# SPDX-License-Identifier: GPL-2.0-or-later
"""What stands for a name or an address: the same for the same, in the same order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuned_virt.cli.replacements import Replacements


@given(st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=120))
def test_guests_keep_their_order(names: list[str]) -> None:
    using = Replacements(names, [])
    assert [using.guest(one) for one in sorted(names)] == sorted(map(using.guest, names))
    assert len(set(map(using.guest, names))) == len(names)


@given(st.lists(st.uuids(), unique=True, max_size=30))
def test_uuids_keep_their_order(uuids: list[object]) -> None:
    texts = sorted(map(str, uuids))
    using = Replacements([], [one.replace("-", "") for one in texts])
    assert [using.uuid(one) for one in texts] == sorted(map(using.uuid, texts))
    assert [using.uuid(one.upper()) for one in texts] == [using.uuid(one) for one in texts]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("guest web: shares node 1 with db.", "guest guest-3: shares node 1 with guest-2."),
        ("web#0a1b2c3d-1111-4222-8333-0123456789ab.2/weight",
         "guest-3#00000000-0000-4000-8000-000000000001.2/weight"),
        ("virsh vcpupin 'a b; rm' 1 4", "virsh vcpupin 'guest-1' 1 4"),
        ("NIC 52:54:00:AB:cd:01 has MTU 9000", "NIC 52:54:00:00:00:01 has MTU 9000"),
        ("0000:3b:00.0 is on node 1, 12:30:45", "0000:3b:00.0 is on node 1, 12:30:45"),
        ("/sys/block/sda/queue/scheduler of /dev/nvme0n1p1",
         "/sys/block/sda/queue/scheduler of /dev/nvme0n1p1"),
        ("/srv/customer/disk.qcow2: no such file, /srv/customer/disk.qcow2.",
         "/redacted/disk-1.qcow2: no such file, /redacted/disk-1.qcow2."),
        ("/dev/vg/root and /dev/mapper/vg-root", "/dev/redacted/disk-1 and /dev/redacted/disk-2"),
        ("/sys/fs/cgroup/machine.slice/machine-qemu\\x2d1\\x2dweb.scope/cpu.max",
         "/sys/fs/cgroup/group-1"),
        ("listens on 10.1.2.3, fe80::1 and 127.0.0.1",
         "listens on address-1, address-2 and 127.0.0.1"),
        ("QEMU 8.2.2, kernel 6.1.0-39-amd64", "QEMU 8.2.2, kernel 6.1.0-39-amd64"),
        ("node7.rack.example says so; node7 too", "host-1 says so; host-1 too"),
        ("1/2 of it, read/write, and/or", "1/2 of it, read/write, and/or"),
        ("", ""),
    ],
)  # fmt: skip
def test_text_of_ours_with_what_is_others_in_it(text: str, told: str) -> None:
    using = Replacements(["web", "db", "a b; rm"], [], "node7.rack.example")
    assert using.text(text) == told


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/dev/sdb", "/dev/sdb"),
        ("/run/libvirt/virtqemud-sock-ro", "/run/libvirt/virtqemud-sock-ro"),
        ("/run/libvirt/qemu/customer.pid", "/redacted/disk-1"),
        ("/dev/customer", "/dev/disk-1"),
        ("/dev/disk/by-id/wwn-0x5000", "/dev/redacted/disk-1"),
        ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_CODE.fd"),
        ("/srv/x.QCOW2", "/redacted/disk-1.qcow2"),
        ("/srv/x.customer", "/redacted/disk-1"),
        ("pool/image", "/redacted/disk-1"),
        ("", ""),
    ],
)
def test_paths_keep_their_kind(path: str, told: str) -> None:
    assert Replacements([], []).path(path) == told


@pytest.mark.parametrize(
    ("name", "told"),
    [
        *((one, one) for one in ("br0", "virbr0", "vnet12", "bond0.100", "enp3s0f1", "default")),
        *(
            (one, "net-1")
            for one in ("tap525400123456", "br-customer", "enx0a1b2c3d4e5f", "customer", "eth0x")
        ),
    ],
)
def test_interfaces_with_names_of_the_kernels_keep_them(name: str, told: str) -> None:
    assert Replacements([], []).link(name) == told


@pytest.mark.parametrize("name", ["0", "12"])
def test_small_numbers_in_text_are_cpus_and_nodes(name: str) -> None:
    using = Replacements([name], [])
    assert using.text(f"node {name} has CPUs") == f"node {name} has CPUs"
    assert using.guest(name) == "guest-1"


@pytest.mark.parametrize(
    ("host", "text", "told"),
    [
        ("dhcp-192-168-0-66", "on dhcp-192-168-0-66:", "on host-1:"),
        ("abc-10.159.14.1", "abc-10.159.14.1 systemd[1]", "host-1 systemd[1]"),
        ("node7", "macaddress: '52:54:00:12:34:56'", "macaddress: '52:54:00:00:00:01'"),
        (
            "node7",
            "listen=[2001:db8::1]:5900 of vm@10.0.0.1",
            "listen=[address-1]:5900 of vm@address-2",
        ),
    ],
)
def test_what_other_bundles_have_let_through(host: str, text: str, told: str) -> None:
    """Names of hosts with addresses in them (sos #3388), quoted MAC addresses (sos #2873)."""
    assert Replacements([], [], host).text(text) == told


def test_profiles_partitions_and_networks() -> None:
    using = Replacements([], [])
    assert (
        using.profile("virtual-host-plus acme sap-hana") == "virtual-host-plus profile-1 sap-hana"
    )
    assert using.profile("acme virtual-guest-acme") == "profile-1 profile-2"
    assert using.partition("/machine") == "/machine"
    assert using.partition("/machine/acme/db") == "/machine/part-1/part-2"
    assert using.partition("/acme") == "/part-1"
    assert using.partition("/") == "/"
    assert using.subnet("10.1.2.0/24") == "subnet-1/24"
    assert using.counts == {"IP networks": 1, "own profiles": 2, "partitions": 2}
