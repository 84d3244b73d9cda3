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
        ("/run/libvirt/qemu/customer.pid", "/redacted/disk-1"),
        ("/var/run/libvirt/qemu/customer.pid", "/redacted/disk-1"),
        ("/run/libvirt/customer-sock/x", "/redacted/disk-1"),
        ("/etc/libvirt/qemu/customer.xml", "/redacted/disk-1"),
        ("/var/lib/libvirt/images/customer.raw", "/redacted/disk-1.raw"),
        ("/usr/local/bin/customer", "/redacted/disk-1"),
        ("/usr/../srv/customer", "/redacted/disk-1"),
        ("/proc/12/root/srv/customer", "/redacted/disk-1"),
        ("/sys/kernel/config/target/iscsi/iqn.customer", "/redacted/disk-1"),
        ("/dev/hugepages/libvirt/qemu/1-customer", "/dev/redacted/disk-1"),
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
    "path",
    [
        "/run/libvirt/virtqemud-sock-ro", "/run/libvirt/virtqemud-sock", "/run/libvirt/qemu",
        "/var/run/libvirt/libvirt-sock", "/var/run/libvirt/virtqemud-admin-sock",
        "/run/user/1000/libvirt/virtqemud-sock", "/run/dbus/system_bus_socket", "/run/udev/control",
        "/sys/kernel/mm/ksm/run", "/sys/block/sda/queue/scheduler", "/sys/class/net/eth0/mtu",
        "/proc/sys/vm/swappiness", "/proc/7/numa_maps", "/proc/sys/net/ipv4/conf/all/arp_filter",
        "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages",
        "/etc/tuned", "/etc/tuned/active_profile", "/etc/tuned/tuned-main.conf:7",
        "/etc/tuned/virtual-host-plus-variables.conf", "/etc/tuned/virtual-guest-plus/tuned.conf:3",
        "/usr/lib/tuned/profiles/virtual-host-plus/tuned.conf", "/lib/udev/rules.d/60-block.rules",
        "/run/tuned-virt/baseline.json", "/run/tuned/tuned.pid", "/var/log/tuned/tuned.log",
        "/var/lib/tuned-virt/journal.jsonl", "/etc/udev/rules.d/61-tuned-virt-disks.rules",
        "/etc/systemd/system/tuned-virt-verify.service", "/etc/sysctl.conf:12",
        "/etc/ksmtuned.conf", "/usr/lib/tuned/functions", "/usr/lib/tuned/recommend.d/5.conf",
        "/etc/libvirt/qemu.conf", "/etc/libvirt/virtqemud.conf:3", "/usr/local/bin/qemu-system-arm",
        "/sys", "/proc", "/etc", "/run", "/dev", "/var/lib", "/etc/udev/rules.d",
    ],
)  # fmt: skip
def test_paths_of_the_system_stay(path: str) -> None:
    """They name nobody, and without them a message says nothing."""
    using = Replacements(["customer"], [])
    assert using.path(path) == path
    told = f"cannot connect to '{path}': No such file or directory"
    assert using.text(told) == told
    assert set(using.counts) == {"guests' names"}


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/etc/udev/rules.d/60-customer.rules:7", "/etc/udev/rules.d/file-1.rules:7"),
        ("/etc/sysctl.d/customer", "/etc/sysctl.d/file-1"),
        ("/usr/local/lib/tmpfiles.d/x.customer", "/usr/local/lib/tmpfiles.d/file-1"),
        ("/etc/systemd/system/customer.service:3", "/etc/systemd/system/file-1.service:3"),
        ("/etc/systemd/system/machine.slice.d/customer.conf",
         "/etc/systemd/system/machine.slice.d/file-1.conf"),
        ("/run/systemd/transient/machine-qemu\\x2d1\\x2dcustomer.scope.d/50-AllowedCPUs.conf",
         "/run/systemd/transient/unit-1.scope.d/file-2.conf"),
        ("/etc/tuned/customer/tuned.conf", "/etc/tuned/profile-1/tuned.conf"),
        ("/etc/tuned/profiles/customer", "/etc/tuned/profiles/profile-1"),
        ("/etc/tuned/customer-variables.conf:2", "/etc/tuned/profile-1-variables.conf:2"),
        ("/etc/tuned/balanced/customer.sh", "/etc/tuned/balanced/file-1.sh"),
        ("/etc/tuned/recommend.d/50-customer.conf", "/etc/tuned/recommend.d/file-1.conf"),
        ("/sys/class/net/br-customer/mtu", "/sys/class/net/net-1/mtu"),
        ("/sys/devices/virtual/net/br-customer/bridge", "/sys/devices/virtual/net/net-1/bridge"),
        ("/sys/class/net/br0/brif/customer", "/redacted/disk-1"),
        ("/proc/sys/net/ipv6/conf/br-customer/mtu", "/proc/sys/net/ipv6/conf/net-1/mtu"),
        ("/usr/lib/tuned/customer/tuned.conf", "/usr/lib/tuned/profile-1/tuned.conf"),
        ("/proc/net/vlan/customer", "/proc/net/vlan/net-1"),
        ("/proc/spl/kstat/zfs/customer/guid", "/proc/spl/kstat/zfs/pool-1/guid"),
        ("/sys/bus/mdev/devices/5ec4e700-1111-4222-8333-0123456789ab",
         "/sys/bus/mdev/devices/00000000-0000-4000-8000-000000000001"),
    ],
)  # fmt: skip
def test_of_paths_of_the_system_only_a_name_in_them_is_replaced(path: str, told: str) -> None:
    using = Replacements([], [])
    assert using.path(path) == told
    assert using.text(f"{path}.") == f"{told}."


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
