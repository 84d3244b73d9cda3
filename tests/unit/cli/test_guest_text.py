# SPDX-License-Identifier: GPL-2.0-or-later
"""`tuned-virt guests` for people, at 80 columns: what hurts, why, and what mends it."""

from __future__ import annotations

from dataclasses import replace

from tuned_virt.cli import guest_text
from tuned_virt.cli.guest_rows import GuestRow

FINE = GuestRow(
    *("web1-production", "u1", 11, "shared", (0,), {0: "0-15,32-47", 1: "0-15,32-47"}),
    *("tuned-virt", "fits on node 0", 99.5, {0: 4096, 1: 20}, (), 12.3),
    interval_s=1.0,
    delay_percent=1.2,
)
DRIFTED = GuestRow(
    *("db", "u2", 12, "dedicated", (0, 1), {0: "0-15", 1: "5", 2: "7"}),
    *("tuned-virt", "x", 100.0, {0: 65536, 1: 65536}, ("vCPU 0 on 0-15, not 4",), 0.0),
    interval_s=1.0,
    delay_percent=0.0,
    mend=("virsh vcpupin db 0 4 --live",),
)
NEW = GuestRow(
    "free", "u3", 13, "unplaced", (), {0: "0-63"}, "nobody", "is new", None, {3: 2}, (), None
)
ROWS = [DRIFTED, FINE, NEW]

SHOWN = """\
guest            kind       node  vCPUs on    local %  MiB by node      delay %
db               dedicated  0-1   0-15          100.0  0:65536 1:65536      0.0
web1-production  shared     0     0-15,32-47     99.5  0:4096 1:20          1.2
free             unplaced   -     0-63              -  3:2                    -

db: drift: vCPU 0 on 0-15, not 4
    to mend: virsh vcpupin db 0 4 --live
web1-production: tuned-virt: fits on node 0
free: nobody: is new

delay %: of the last 1 s, the part that its most delayed vCPU waited for a CPU
"""


def shown(*rows: GuestRow) -> str:
    return "".join(f"{line.rstrip()}\n" for line in guest_text.lines(rows, 300))


def test_the_table_fits_eighty_columns() -> None:
    lines = [line.rstrip() for line in guest_text.lines(ROWS, 80)]
    assert lines == SHOWN.splitlines()


def test_what_is_not_granted_is_said() -> None:
    row = replace(FINE, why="no node has 4 free CPUs", ungranted="policy=dedicated")
    said = "web1-production: not granted: policy=dedicated is not granted: no node has 4 free CPUs"
    assert f"{said}\n    more: tuned-virt guests web1-production\n" in shown(row)


def test_all_that_hurts_is_said_and_long_lists_are_counted() -> None:
    drift = tuple(f"vCPU {n} on 0-15, not {n}" for n in range(6))
    commands = tuple(f"virsh vcpupin db {n} {n} --live" for n in range(6))
    text = shown(replace(DRIFTED, drift=drift, mend=commands, delay_percent=41.5, local=12.0))
    assert "not 3; 2 more threads elsewhere; a vCPU waited for a CPU 41.5 % of the time" in text
    assert "only 12.0 % of its memory is on its nodes" in text
    assert text.count("to mend:") == 4
    assert "    more: tuned-virt guests db\n" in text


def test_what_cannot_be_read_is_not_what_is_not_there() -> None:
    hidden = replace(
        NEW,
        vcpus={},
        by_node={},
        memory_error="cannot read a: Permission denied",
        threads_error="cannot read b: Permission denied",
    )
    lines = shown(hidden).splitlines()
    assert lines[1].split() == ["free", "unplaced", "-", "?", "?", "?", "?"]
    assert lines[3] == (
        "free: cannot be read: its threads: cannot read b: Permission denied;"
        " the location of its memory: cannot read a: Permission denied"
    )


def test_a_screen_is_no_longer_than_the_terminal() -> None:
    assert guest_text.screen(["a", "b"], 80, 5) == "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J"
    long = guest_text.screen([str(n) for n in range(9)], 80, 5)
    assert long.count("\n") == 4
    assert "… 6 more lines" in long
    wrapped = guest_text.screen(["a", "b" * 150, "c", "d"], 80, 5)
    assert "… 2 more lines" in wrapped, "the second takes two lines"


def test_who_else_may_run_where_a_guest_waits() -> None:
    waits = replace(FINE, delay_percent=20.0)
    alone = replace(DRIFTED, vcpus={0: "16", 1: "17"})
    told = "a vCPU waited for a CPU 20.0 % of the time; "
    lines = guest_text.lines([waits, DRIFTED, NEW], None)
    assert f"{told}4 vCPUs of 2 other guests may run on its CPUs" in "\n".join(lines)
    lines = guest_text.lines([waits, alone], None)
    assert f"{told}no other guest's vCPUs may run on its CPUs" in "\n".join(lines)


def test_sentences_are_folded_in_a_terminal_and_commands_are_not() -> None:
    command = f"virsh vcpupin {'n' * 90} 0 4 --live"
    row = replace(DRIFTED, drift=("some words " * 12,), mend=(command,))
    lines = guest_text.lines([row], 80)
    assert [line for line in lines if len(line) > 80] == [f"    to mend: {command}"]
    assert lines[4].startswith("    some words")


def test_a_name_that_looks_like_an_option_is_given_as_a_process() -> None:
    row = replace(FINE, guest="-x", delay_percent=9.0)
    assert "    more: tuned-virt guests 11\n" in shown(row)
