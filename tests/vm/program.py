# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's program in place of its firmware: touches memory at once, on all vCPUs, and no disk.

SeaBIOS takes seconds under two emulations, and leaves a guest without a disk idle in 1 MiB.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tuned_virt.kernel import numa_maps
from tuned_virt.kernel.files import KernelFS

SIZE = 64 << 10
"""The least that QEMU takes as firmware; its last 64 KiB are also at F000:0000."""

GUEST = """
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>{mib}</memory>
  <vcpu placement='{placement}'>{vcpus}</vcpu>
  {numatune}
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <loader readonly='yes' type='rom'>{rom}</loader>
  </os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <video><model type='none'/></video>
  </devices>
</domain>
"""
"""A guest that runs it. With placement 'auto' libvirt asks numad; its memory is then strictly there
unless <numatune> says otherwise."""

TOUCHED = 0.9
"""Part of a guest's memory from which it counts as touched: not the first MiB, and pages of 2 MiB
are on their way."""

END = b"\x78\x56\x34\x12"

CODE = (
    # 16 bit at F000:0000, where also the other vCPUs start
    b"\xfa"  #                                  cli
    b"\x2e\x66\x0f\x01\x16\x68\x00"  #          lgdtl %cs:0x68
    b"\x0f\x20\xc0\x0c\x01\x0f\x22\xc0"  #      protection on, no paging
    b"\x66\xea\x18\x00\x0f\x00\x08\x00"  #      ljmpl $8, $0xf0018
    # 32 bit
    b"\x66\xb8\x10\x00\x8e\xd8"  #              movw $16, %ax; movw %ax, %ds
    b"\xb9\x1b\x00\x00\x00\x0f\x32"  #          rdmsr of IA32_APIC_BASE
    b"\xf6\xc4\x01\x74\x0a"  #                  not the first vCPU: to fill
    b"\xc7\x05\x00\x03\xe0\xfe\xf0\x46\x0c\x00"  # start all others at 0xf0000 (SIPI)
    b"\xbf\x00\x00\x10\x00"  #            fill: movl $0x100000, %edi
    b"\x89\x3f"  #                        next: movl %edi, (%edi)
    b"\x81\xc7\x00\x10\x00\x00"  #              addl $4096, %edi
    b"\x81\xff" + END + b"\x72\xf0"  #          cmpl $END, %edi; jb next
)
CODE_SIZE = 0x50
THEN = {"goes on": b"\xeb\xe9", "halts": b"\xf4\xeb\xfd"}
"""jmp fill; or hlt, for ever."""

DESCRIPTORS = (
    bytes(8) + b"\xff\xff\x00\x00\x00\x9b\xcf\x00" + b"\xff\xff\x00\x00\x00\x93\xcf\x00"
    b"\x17\x00\x50\x00\x0f\x00"
)
"""Code and data, all 4 GiB; then their size and place, for lgdt."""

RESET = b"\xea\x00\x00\x00\xf0"
"""At the last 16 bytes: ljmp $0xf000, $0."""


def image(mib: int, then: Literal["goes on", "halts"]) -> bytes:
    """The program of a guest of so many MiB: it touches each page of them above the first MiB."""
    code = CODE.replace(END, (mib << 20).to_bytes(4, "little")) + THEN[then]
    text = code.ljust(CODE_SIZE, b"\x90") + DESCRIPTORS
    return text.ljust(SIZE - 16, b"\x00") + RESET.ljust(16, b"\x00")


def write(folder: Path, mib: int, then: Literal["goes on", "halts"]) -> Path:
    """That as a file in a folder, for <loader type='rom'>."""
    path = folder / f"touches-{mib}-{then.replace(' ', '-')}.rom"
    path.write_bytes(image(mib, then))
    return path


def memory(pid: int) -> dict[int, int]:
    """KiB by node of a guest's memory, as far as it has touched it."""
    return numa_maps.by_node(numa_maps.read(KernelFS(), pid))


def touched(pid: int, mib: int) -> bool:
    """Whether a guest has come to the end of its memory."""
    return sum(memory(pid).values()) >= TOUCHED * (mib << 10)
