# SPDX-License-Identifier: GPL-2.0-or-later
"""Single elements of a domain's XML."""

from __future__ import annotations

import pytest

from tests.unit.model.guest.xml import MEMORY, UUID, guest, refused
from tuned_virt.model.guest import (
    Cell,
    CpuTopology,
    Guest,
    GuestError,
    HugePages,
    machines,
    printable,
    read_guest,
)

# --- memory ---------------------------------------------------------------------------------------


DIMM = "<memory model='{}'><target><size unit='MiB'>512</size>{}</target></memory>"
CELLS = (
    "<cpu><numa><cell id='0' cpus='0-1' memory='1' unit='GiB'/>"
    "<cell id='1' cpus='2-3' memory='2' unit='GiB'/></numa></cpu>"
)


def mib(memory: str = "", *dimms: str, cells: str = "") -> int:
    return guest(f"{memory}{cells}<devices>{''.join(dimms)}</devices>").memory // 1024


def test_memory_is_what_is_written_where_that_counts_all() -> None:
    four = "<memory unit='GiB'>4</memory>"
    assert mib(four) == mib(four, cells=CELLS) == 4096
    assert mib(four, DIMM.format("dimm", "<node>1</node>"), cells=CELLS) == 4096


def test_cells_and_dimms_count_where_they_are_more() -> None:
    assert mib("<memory unit='GiB'>1</memory>", cells=CELLS) == 3072
    assert mib("", cells=CELLS) == 3072
    dimm = DIMM.format("dimm", "<node>1</node>")
    assert mib("<memory unit='GiB'>3</memory>", dimm, cells=CELLS) == 3584
    assert mib("<memory unit='GiB'>3</memory>", dimm, dimm, cells=CELLS) == 4096


@pytest.mark.parametrize(
    ("model", "counted"), [("dimm", True), ("virtio-mem", True), ("nvdimm", False), ("x", False)]
)
def test_files_are_no_memory(model: str, counted: bool) -> None:
    found = guest(f"{CELLS}<devices>{DIMM.format(model, '<node>1</node>')}</devices>")
    assert found.memory == (3584 if counted else 3072) * 1024
    assert [cell.memory // 1024 for cell in found.cells] == [1024, 2560 if counted else 2048]


def test_a_dimm_that_names_no_cell_is_in_the_first() -> None:
    found = guest(f"{CELLS}<devices>{DIMM.format('dimm', '')}</devices>")
    assert [cell.memory // 1024 for cell in found.cells] == [1536, 2048]


def test_virtio_mem_counts_with_what_is_requested_or_there() -> None:
    elastic = DIMM.replace(">512<", ">4096<")
    more = "<node>1</node><requested unit='MiB'>{}</requested>"
    full = "<memory unit='GiB'>7</memory>"
    assert mib(full, elastic.format("virtio-mem", more.format(0)), cells=CELLS) == 3072
    shrinking = more.format(256) + "<current unit='MiB'>768</current>"
    found = guest(f"{full}{CELLS}<devices>{elastic.format('virtio-mem', shrinking)}</devices>")
    assert [cell.memory // 1024 for cell in found.cells] == [1024, 2048 + 768]
    assert found.memory_devices[0].growing == 0
    for source, error in (("<pagesize>0</pagesize>", "pagesize"), ("<nodemask>x</nodemask>", "x")):
        wrong = DIMM.format("dimm", "").replace("<target>", f"<source>{source}</source><target>")
        with pytest.raises(GuestError, match=error):
            guest(f"<devices>{wrong}</devices>")


def test_a_dimm_without_a_size_counts_nothing() -> None:
    assert mib("", "<memory model='dimm'><target/></memory>", cells=CELLS) == 3072


def test_current_memory_counts_where_nothing_else_is_written() -> None:
    assert mib("<currentMemory unit='MiB'>300</currentMemory>") == 300
    both = "<memory unit='MiB'>500</memory><currentMemory unit='MiB'>300</currentMemory>"
    assert mib(both) == 500


def test_memory_that_nobody_writes_is_named_where_it_should_be() -> None:
    assert refused("") == "line 1: it has no <memory>"
    assert refused("<memory>0</memory>") == "line 2: it has no <memory>"


def test_most_memory() -> None:
    assert guest().max_memory == 1 << 20
    assert guest("<maxMemory unit='GiB'>8</maxMemory>" + MEMORY).max_memory == 8 << 20
    assert guest("<maxMemory unit='MiB'>8</maxMemory>" + MEMORY).max_memory == 1 << 20


def backed(inside: str) -> Guest:
    return guest(more=f"<memoryBacking>{inside}</memoryBacking>")


def test_huge_pages() -> None:
    assert guest().huge_pages == ()
    assert backed("<hugepages/>").huge_pages == (HugePages(None),)
    two = "<page size='1' unit='G' nodeset='0-1,3'/><page size='2048'/>"
    assert backed(f"<hugepages>{two}</hugepages>").huge_pages == (
        HugePages(1 << 20, frozenset({0, 1, 3})),
        HugePages(2048, None),
    )
    for wrong, why in (
        ("<page size='0'/>", "<page size>: 0"),
        ("<page/>", "<page>: '' is not a whole number from 0"),
        ("<page size='1' unit='furlong'/>", "<page>: unit 'furlong' is unknown"),
        (
            "<page size='1' nodeset='x'/>",
            "<page nodeset>: 'x' is not a number or a range of numbers",
        ),
    ):
        found = refused(more=f"<memoryBacking><hugepages>{wrong}</hugepages></memoryBacking>")
        assert found == f"line 3: {why}"


def test_what_keeps_pages_where_they_are() -> None:
    plain = guest()
    assert (plain.locked, plain.protected, plain.shares_pages) == (False, False, True)
    assert backed("<locked/>").locked
    assert not backed("<nosharepages/>").shares_pages
    assert guest(more="<launchSecurity type='sev'/>").protected


# --- what it is -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["kvm", "qemu", "test"])
def test_hypervisors_whose_guests_are_threads(kind: str) -> None:
    xml = f"<domain type='{kind}'><name> a\n</name>{MEMORY}</domain>"
    found = read_guest(xml)
    assert (found.type, found.name) == (kind, "a")


@pytest.mark.parametrize(
    ("xml", "why"),
    [
        (f"<domain type='lxc'><name>a</name>{MEMORY}</domain>",
         "line 1: type 'lxc' is not a KVM guest (one of kvm, qemu, test)"),
        (f"<domain><name>a</name>{MEMORY}</domain>",
         "line 1: type '' is not a KVM guest (one of kvm, qemu, test)"),
        (f"<domain type='{'x' * 50}'/>",
         f"line 1: type '{'x' * 40}' is not a KVM guest (one of kvm, qemu, test)"),
        (f"<domain type='kvm'>{MEMORY}</domain>", "line 1: it has no <name>"),
        (f"<domain type='kvm'><name> </name>{MEMORY}</domain>", "line 1: it has no <name>"),
        ("<network/>", "line 1: <network> is no <domain>"),
    ],
)  # fmt: skip
def test_what_is_no_guest(xml: str, why: str) -> None:
    with pytest.raises(GuestError) as caught:
        read_guest(xml)
    assert str(caught.value) == why


def test_machine_type() -> None:
    assert (guest().arch, guest().machine) == ("", "")
    found = guest(more="<os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>")
    assert (found.arch, found.machine) == ("x86_64", "pc-q35-7.2")
    bare = guest(more="<os><type>hvm</type></os>")
    assert (bare.arch, bare.machine) == ("", "")


def test_uuid() -> None:
    dashed = "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f1"
    for written in (dashed, dashed.upper(), dashed.replace("-", ""), f"\n {dashed} "):
        assert guest(f"{MEMORY}<uuid>{written}</uuid>").uuid == dashed
    assert guest().uuid == ""
    assert guest().key == "a"
    for wrong in ("x", dashed + "0", "", "0f1e2d3c-4b5a-4978-8695-a4b3-c2d1e0f1"):
        assert refused(f"{MEMORY}<uuid>{wrong}</uuid>") == f"line 2: <uuid>: '{wrong}' is none"
    assert refused(f"{MEMORY}<uuid>z\u200ez{'y' * 50}</uuid>") == (
        f"line 2: <uuid>: 'z?z{'y' * 37}' is none"
    )


# --- vCPUs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vcpu", "most", "online"),
    [
        ("", 1, (0,)),
        ("<vcpu>3</vcpu>", 3, (0, 1, 2)),
        ("<vcpu current='2'>3</vcpu>", 3, (0, 1)),
        ("<vcpu current='1'>8192</vcpu>", 8192, (0,)),
        (
            "<vcpu>4</vcpu><vcpus><vcpu id='3' enabled='yes'/><vcpu id='0' enabled='yes'/>"
            "<vcpu id='1' enabled='no'/><vcpu id='4' enabled='yes'/><vcpu id='2'/></vcpus>",
            4,
            (0, 3),
        ),
        ("<vcpu>2</vcpu><vcpus><vcpu id='0' enabled='no'/></vcpus>", 2, (0,)),
    ],
)
def test_vcpus_that_are_online(vcpu: str, most: int, online: tuple[int, ...]) -> None:
    found = guest(vcpu=vcpu)
    assert (found.vcpus, found.online) == (most, online)


@pytest.mark.parametrize(
    ("vcpu", "why"),
    [
        ("<vcpu>0</vcpu>", "<vcpu>: 0 is not from 1 to 8192"),
        ("<vcpu>8193</vcpu>", "<vcpu>: 8193 is not from 1 to 8192"),
        ("<vcpu/>", "<vcpu>: '' is not a whole number from 0"),
        ("<vcpu current='4'>3</vcpu>", "<vcpu current>: 4 is not from 1 to 3"),
        ("<vcpu current='0'>3</vcpu>", "<vcpu current>: 0 is not from 1 to 3"),
        ("<vcpu>1</vcpu><vcpus><vcpu enabled='yes'/></vcpus>",
         "<vcpu id>: '' is not a whole number from 0"),
    ],
)  # fmt: skip
def test_vcpus_that_are_not_read(vcpu: str, why: str) -> None:
    assert refused(vcpu=vcpu) == f"line 2: {why}"


def test_topology() -> None:
    assert guest().topology is None
    assert guest().threads == 1
    written = "<cpu><topology sockets='2' dies='3' clusters='4' cores='5' threads='6'/></cpu>"
    found = guest(more=written)
    assert found.topology == CpuTopology(2, 3, 4, 5, 6)
    assert found.threads == 6
    assert guest(more="<cpu><topology cores='2'/></cpu>").topology == CpuTopology(cores=2)
    for name in ("sockets", "dies", "clusters", "cores", "threads"):
        zero = refused(more=f"<cpu><topology {name}='0'/></cpu>")
        assert zero == "line 3: <topology>: a 0 among its numbers"
        word = refused(more=f"<cpu><topology {name}='x'/></cpu>")
        assert word == f"line 3: <topology {name}>: 'x' is not a whole number from 0"


def celled(cells: str, vcpus: int = 4) -> Guest:
    return guest(vcpu=f"<vcpu>{vcpus}</vcpu>", more=f"<cpu><numa>{cells}</numa></cpu>")


def test_cells() -> None:
    found = celled("<cell id='2' cpus='2-3' memory='1024'/><cell cpus='0-1' id='0' memory='2048'/>")
    assert found.cells == (
        Cell(0, frozenset({0, 1}), 2048),
        Cell(2, frozenset({2, 3}), 1024),
    )
    unnumbered = celled("<cell cpus='0' memory='1'/><cell cpus='1,^1,3' memory='1' unit='MiB'/>")
    assert unnumbered.cells == (Cell(0, frozenset({0}), 1), Cell(1, frozenset({3}), 1024))


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        ("<cell cpus='0-2' memory='1'/><cell cpus='1-3' memory='1'/>",
         "<cell>: vCPU 1 is in two cells"),
        ("<cell cpus='0' memory='1'/><cell cpus='1' memory='1'/><cell cpus='0' memory='1'/>",
         "<cell>: vCPU 0 is in two cells"),
        ("<cell cpus='3-4' memory='1'/>", "<cell cpus>: the guest has no vCPU 4"),
        ("<cell id='1' cpus='0' memory='1'/><cell id='1' memory='1'/>", None),
        ("<cell cpus='x' memory='1'/>", "<cell cpus>: 'x' is not a number or a range of numbers"),
        ("<cell cpus='0'/>", "<cell>: '' is not a whole number from 0"),
        ("<cell id='x' cpus='0' memory='1'/>", "<cell id>: 'x' is not a whole number from 0"),
        ("<cell memory='1' unit='q'/>", "<cell>: unit 'q' is unknown"),
    ],
)  # fmt: skip
def test_cells_that_are_not_read(cells: str, why: str | None) -> None:
    found = refused(more=f"<cpu><numa>{cells}</numa></cpu>")
    twice = "line 1: <numa>: two cells have the same id"
    assert found == (f"line 3: {why}" if why else twice)


def test_vcpus_in_no_cell_are_allowed_and_the_last_one_is_a_vcpu() -> None:
    found = celled("<cell cpus='3' memory='1'/><cell memory='1'/>")
    assert [cell.vcpus for cell in found.cells] == [frozenset({3}), frozenset()]
    assert celled("<cell memory='1'/>", 1).cells == (Cell(0, frozenset(), 1),)


# --- devices --------------------------------------------------------------------------------------

ADDRESS = "<address domain='0x0001' bus='0x3b' slot='010' function='7'/>"


@pytest.mark.parametrize(
    ("device", "found"),
    [
        (f"<hostdev type='pci'><source>{ADDRESS}</source></hostdev>", ("0001:3b:08.7",)),
        (f"<hostdev type='usb'><source>{ADDRESS}</source></hostdev>", ()),
        (f"<interface type='hostdev'><source>{ADDRESS}</source></interface>", ("0001:3b:08.7",)),
        (
            f"<interface type='network'><actual type='hostdev'><source>{ADDRESS}</source></actual>"
            "</interface>",
            ("0001:3b:08.7",),
        ),
        (f"<interface type='bridge'><source>{ADDRESS}</source></interface>", ()),
        (f"<disk type='nvme'><source>{ADDRESS}</source></disk>", ("0001:3b:08.7",)),
        (f"<disk type='block'><source>{ADDRESS}</source></disk>", ()),
        ("<hostdev type='pci'><source><address/></source></hostdev>", ("0000:00:00.0",)),
        (
            "<hostdev type='pci'><source><address domain='4294967295' bus='255' slot='31'"
            " function='07'/></source></hostdev>",
            ("ffffffff:ff:1f.7",),
        ),
        (
            "<hostdev type='pci'><source><address bus=' 0XfF '/></source></hostdev>"
            "<hostdev type='pci'><source><address bus='1'/></source></hostdev>"
            "<hostdev type='pci'><source><address bus='0x1'/></source></hostdev>",
            ("0000:01:00.0", "0000:ff:00.0"),
        ),
    ],
)
def test_pci_devices(device: str, found: tuple[str, ...]) -> None:
    assert guest(more=f"<devices>{device}</devices>").devices == found


@pytest.mark.parametrize(
    ("attribute", "why"),
    [
        ("bus='0x100'", "<address bus>: 0x100 is more than 0xff"),
        ("slot='32'", "<address slot>: 32 is more than 0x1f"),
        ("function='8'", "<address function>: 8 is more than 0x7"),
        ("domain='4294967296'", "<address domain>: 4294967296 is more than 0xffffffff"),
        ("bus='0x'", "<address bus>: '0x' is not a number"),
        ("bus='08'", "<address bus>: '08' is not a number"),
        ("bus='ff'", "<address bus>: 'ff' is not a number"),
        ("bus='-1'", "<address bus>: '-1' is not a number"),
        ("bus=''", "<address bus>: '' is not a number"),
        ("bus='\u200eyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy'",
         "<address bus>: '?yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy' is not a number"),
    ],
)  # fmt: skip
def test_pci_addresses_that_are_none(attribute: str, why: str) -> None:
    device = f"<hostdev type='pci'><source><address {attribute}/></source></hostdev>"
    assert refused(more=f"<devices>{device}</devices>") == f"line 3: {why}"


def served(threads: str, *disks: str) -> dict[int, tuple[str, ...]]:
    return dict(guest(more=f"{threads}<devices>{''.join(disks)}</devices>").iothreads)


def disk(thread: str, source: str = "dev='/dev/sda'", kind: str = "block") -> str:
    return f"<disk type='{kind}'><driver {thread}/><source {source}/></disk>"


def test_iothreads_by_number() -> None:
    ids = "<iothreadids><iothread id='2'/><iothread id='5'/></iothreadids>"
    assert served("") == {}
    assert served("<iothreads>2</iothreads>") == {1: (), 2: ()}
    assert served(ids) == {2: (), 5: ()}
    assert served(f"<iothreads>4</iothreads>{ids}") == {1: (), 2: (), 3: (), 5: ()}
    assert served(f"<iothreads>1</iothreads>{ids}") == {2: (), 5: ()}
    assert len(served("<iothreads>1024</iothreads>")) == 1024
    assert refused(more="<iothreads>1025</iothreads>") == "line 3: <iothreads>: 1025 is over 1024"
    assert refused(more="<iothreads/>") == "line 3: <iothreads>: '' is not a whole number from 0"


def test_disks_that_iothreads_serve() -> None:
    two = "<iothreads>2</iothreads>"
    assert served(two, disk("iothread='2'"), disk("iothread='2'", "dev='/dev/nvme0n1'")) == {
        1: (),
        2: ("nvme0n1", "sda"),
    }
    assert served(two, disk("iothread='1'"), disk("iothread='1'")) == {1: ("sda",), 2: ()}
    assert served(two, disk("iothread='3'"), disk(""), disk("iothread=''")) == {1: (), 2: ()}
    for source in (
        "file='/a.img'",
        "dev='/dev/mapper/x'",
        "dev='sda'",
        "dev='/dev/a b'",
        "",
        "dev='/dev/é'",
    ):
        assert served(two, disk("iothread='1'", source)) == {1: (), 2: ()}
    assert served(two, "<disk><driver iothread='1'/></disk>") == {1: (), 2: ()}
    assert served(two, "<disk><source dev='/dev/sda'/></disk>") == {1: (), 2: ()}
    nvme = f"<disk type='nvme'><driver iothread='1'/><source>{ADDRESS}</source></disk>"
    assert served(two, nvme) == {1: ("0001:3b:08.7",), 2: ()}
    other = (
        f"<disk type='x'><driver iothread='1'/><source dev='/dev/a-b.c!d'>{ADDRESS}</source></disk>"
    )
    assert served(two, other) == {1: ("a-b.c!d",), 2: ()}
    mapped = (
        "<disk><driver iothread='1'><iothreads><iothread id='1'/><iothread id='2'/></iothreads>"
        "</driver><source dev='/dev/vdb'/></disk>"
    )
    assert served(two, mapped) == {1: ("vdb",), 2: ("vdb",)}


# --- notes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inside", "notes"),
    [
        ("<cputune><shares>1</shares><quota>1</quota></cputune>", ()),
        ("<cputune><odd/><a/></cputune>", ("<cputune><a> is not supported",
                                           "<cputune><odd> is not supported")),
        ("<numatune><x/></numatune>", ("<numatune><x> is not supported",)),
        ("<memoryBacking><x/></memoryBacking>", ("<memoryBacking><x> is not supported",)),
        (f"<cputune><{'x' * 50}/></cputune>", (f"<cputune><{'x' * 40}> is not supported",)),
        ("<q:commandline xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'/>",
         ("of arguments passed to QEMU (qemu:commandline) only devices of the host are read",)),
        ("<cputune><cachetune vcpus='0'/></cputune>",
         ("cachetune keeps parts of a cache for it, which is not counted",)),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_said(inside: str, notes: tuple[str, ...]) -> None:
    assert guest(MEMORY + UUID, more=inside).notes == notes


def test_a_guest_without_uuid_is_known_by_its_name() -> None:
    assert guest().notes == ("it has no <uuid>: it is known by its name",)


@pytest.mark.parametrize(
    ("arch", "machine", "vcpus", "said"),
    [
        ("x86_64", "pc", 256, "machine pc takes at most 255 vCPUs"),
        ("i686", "pc-i440fx-7.2", 256, "machine pc-i440fx-7.2 takes at most 255 vCPUs"),
        ("x86_64", "pc-0.12", 300, "machine pc-0.12 takes at most 255 vCPUs"),
        ("x86_64", "rhel6.5.0", 300, "machine rhel6.5.0 takes at most 255 vCPUs"),
        ("x86_64", "pc", 255, None),
        ("aarch64", "pc", 256, None),
        ("x86_64", "pc-q35-7.2", 256,
         "more than 255 vCPUs need an IOMMU with eim='on' in the guest"),
        ("x86_64", "q35", 255, None),
        ("aarch64", "virt", 300, None),
        ("x86_64", "microvm", 1,
         "microvm has no NUMA cells for guests: the guest cannot see where its memory is"),
        ("x86_64", "isapc", 1,
         "isapc has no NUMA cells for guests: the guest cannot see where its memory is"),
        ("s390x", "s390-ccw-virtio", 1,
         "s390-ccw-virtio has no NUMA cells for guests: the guest cannot see where its memory is"),
        ("s390x", "", 1, "s390x has no NUMA cells for guests: the guest cannot see where its"
        " memory is"),
    ],
)  # fmt: skip
def test_limits_of_machine_types(arch: str, machine: str, vcpus: int, said: str | None) -> None:
    expected = (said,) if said else ()
    assert tuple(machines.notes(arch, machine, vcpus)) == expected
    os_type = f"<os><type arch='{arch}' machine='{machine}'/></os>"
    assert guest(MEMORY + UUID, f"<vcpu>{vcpus}</vcpu>", os_type).notes == expected


def test_sets_are_counted_before_they_are_read() -> None:
    sixteen = "<a cpus='0-65535'/>" * 16
    assert guest(MEMORY + sixteen).vcpus == 4
    assert refused(f"{MEMORY}{sixteen}<a nodeset='0'/>") == (
        "line 2: up to here its sets have over 1048576 numbers"
    )


def test_texts_of_others_start_no_line() -> None:
    assert printable("a\nb\x1b[1mé") == "a?b?[1mé"


QEMU_ARGUMENTS = (
    "<q:commandline xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'>"
    "<q:arg value='-device'/><q:arg value='{}'/></q:commandline>"
)


VDPA = "<source dev='/dev/vhost-vdpa-{}'/>"
MDEV = "c2177883-f1bb-47f0-914d-32a22e3a8804"


def test_mediated_devices_are_known_by_their_uuid() -> None:
    device = f"<hostdev type='mdev'><source><address uuid='{MDEV.upper()}'/></source></hostdev>"
    assert guest(more=f"<devices>{device}</devices>").devices == (MDEV,)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (f"<devices><interface type='vdpa'>{VDPA.format(0)}</interface></devices>", "vhost-vdpa-0"),
        (f"<devices><disk type='vhostvdpa'>{VDPA.format(12)}</disk></devices>", "vhost-vdpa-12"),
        ("<devices><interface type='vdpa'><source dev='/dev/other'/></interface></devices>", ""),
        ("<devices><disk type='block'><source dev='/dev/vhost-vdpa-1'/></disk></devices>", ""),
        (QEMU_ARGUMENTS.format("vfio-pci,host=01:00.0,x-vga=on"), "0000:01:00.0"),
        (QEMU_ARGUMENTS.format("driver=vfio-pci,host=0000:C1:00.1"), "0000:c1:00.1"),
        (
            QEMU_ARGUMENTS.format("vfio-pci,sysfsdev=/sys/bus/pci/devices/0001:3b:00.0"),
            "0001:3b:00.0",
        ),
        (QEMU_ARGUMENTS.format(f"vfio-pci,sysfsdev=/sys/bus/mdev/devices/{MDEV}"), MDEV),
        # as published for Intel's GVT-g, for a USB controller, and a function with a token
        (
            QEMU_ARGUMENTS.format(
                f"vfio-pci,addr=05.0,sysfsdev=/sys/class/mdev_bus/0000:00:02.0/{MDEV},rombar=0"
            ),
            MDEV,
        ),
        (QEMU_ARGUMENTS.format("vfio-pci,host=00:1a.0,bus=pcie.0,addr=1c.0"), "0000:00:1a.0"),
        (QEMU_ARGUMENTS.format(f"vfio-pci,host=0000:02:00.1,vf-token={MDEV}"), "0000:02:00.1"),
        (QEMU_ARGUMENTS.format("vfio-pci,host=02:00.0,romfile=/roms/03:00.0.rom"), "0000:02:00.0"),
        (
            QEMU_ARGUMENTS.format(
                "{&quot;driver&quot;:&quot;vfio-pci&quot;,&quot;host&quot;:&quot;0000:01:00.0&quot;}"
            ),
            "0000:01:00.0",
        ),
        (QEMU_ARGUMENTS.format("type=vhost-vdpa,vhostdev=/dev/vhost-vdpa-0,id=n0"), "vhost-vdpa-0"),
        (QEMU_ARGUMENTS.format("virtio-net-pci,mac=52:54:00:01:02:03,addr=01:00.0"), ""),
    ],
)
def test_devices_by_what_the_host_calls_them(more: str, named: str) -> None:
    """vDPA of SmartNICs; GPUs passed by qemu:commandline, as guides for desktops have it."""
    assert guest(more=more).devices == ((named,) if named else ())


@pytest.mark.parametrize(
    ("more", "held"),
    [
        ("<devices><hostdev mode='subsystem' type='mdev' model='vfio-pci'/></devices>", True),
        ("<devices><interface type='vdpa'><source dev='/dev/v0'/></interface></devices>", True),
        ("<devices><disk type='vhostvdpa' device='disk'/></devices>", True),
        (QEMU_ARGUMENTS.format("vfio-pci,host=0000:01:00.0"), True),
        (QEMU_ARGUMENTS.format("vfio-pci-nohotplug,sysfsdev=/sys/bus/mdev/devices/u"), True),
        (QEMU_ARGUMENTS.format("driver=vfio-pci,host=01:00.0"), True),
        (QEMU_ARGUMENTS.format("{&quot;driver&quot;:&quot;vfio-pci&quot;}"), True),
        (QEMU_ARGUMENTS.format("vfio-ap,sysfsdev=/sys/devices/vfio_ap/matrix/u"), True),
        (QEMU_ARGUMENTS.format("type=vhost-vdpa,vhostdev=/dev/vhost-vdpa-0,id=n0"), True),
        (QEMU_ARGUMENTS.format("{&quot;driver&quot;: &quot;virtio-blk-vhost-vdpa&quot;}"), True),
        (QEMU_ARGUMENTS.format("virtio-rng"), False),
        (QEMU_ARGUMENTS.format("socket,id=vfio-pci,path=/run/vfio-pci"), False),
        (QEMU_ARGUMENTS.replace(" value='{}'", ""), False),
        ("<devices><hostdev type='usb'/><interface type='bridge'/></devices>", False),
    ],
)
def test_devices_that_hold_memory(more: str, held: bool) -> None:
    """NVIDIA vGPU and s390's crypto by mdev, SmartNICs by vDPA: VFIO and vhost pin all pages."""
    one = guest(more=more)
    assert (one.device_held, one.movable) == (held, not held)
