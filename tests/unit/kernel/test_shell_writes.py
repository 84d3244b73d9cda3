# SPDX-License-Identifier: GPL-2.0-or-later
"""What a shell's text writes into files, as people write it."""

from __future__ import annotations

from tuned_virt.kernel.shell_writes import Write, writes

FILE = "queue/scheduler"
SDA = "/sys/block/sda/queue/scheduler"
ANY = "/sys/block/*/queue/scheduler"

SAID = {
    f"echo none > {SDA}": [Write(1, SDA, "none", True)],
    f"/bin/sh -c 'echo -n none >{SDA}'": [Write(1, SDA, "none", True)],
    f'sh -c "echo \\"kyber\\" >> {SDA}"': [Write(1, SDA, "kyber", True)],
    f"printf '%s\\n' bfq > {SDA}": [Write(1, SDA, "bfq", True)],
    f"echo none | sudo tee -a {SDA} /sys/block/sdb/queue/scheduler > /dev/null": [
        Write(1, SDA, "none", True),
        Write(1, "/sys/block/sdb/queue/scheduler", "none", True),
    ],
    f"tee {SDA} <<< bfq": [Write(1, SDA, "bfq", True)],
    f"true\nS=mq-deadline\n\necho $S > {SDA}": [Write(4, SDA, "mq-deadline", True)],
    'for d in /sys/block/sd*; do echo none > "$d/queue/scheduler"; done': [
        Write(1, "/sys/block/sd*/queue/scheduler", "none", True)
    ],
    'D="sda sdb"\nfor d in $D; do\n echo none > /sys/block/"$d"/queue/scheduler\ndone': [
        Write(3, SDA, "none", True),
        Write(3, "/sys/block/sdb/queue/scheduler", "none", True),
    ],
    "for d in $(lsblk -dno NAME); do echo none > /sys/block/${d}/queue/scheduler; done": [
        Write(1, ANY, "none", False)
    ],
    "echo none > /sys/block/$1/queue/scheduler": [Write(1, ANY, "none", False)],
    "echo none > /sys/block/$(basename $DISK)/queue/scheduler": [Write(1, ANY, "none", False)],
    f"[ -w {SDA} ] && echo none > {SDA}": [Write(1, SDA, "none", False)],
    f"if grep -q 0 x; then\n  echo none > {SDA}\nfi": [Write(2, SDA, "none", False)],
    f"echo none > /sys/block/{'$a' * 2000}/queue/scheduler": [
        Write(1, f"/sys/block/{'*' * 2000}/queue/scheduler", "none", False)
    ],
    # nothing is written there, or not what it looks like
    f"# echo none > {SDA}": [],
    f"cat {SDA}": [],
    f"echo $UNKNOWN > {SDA}": [],
    "echo none > /sys/class/leds/ACT/trigger # not queue/scheduler": [],
    f"echo 'none of them' > {SDA}": [],
    "A=$A$A\necho $A > /x/queue/scheduler": [],
}


def test_what_is_written_where() -> None:
    for text, expected in SAID.items():
        assert list(writes(text, FILE)) == expected, text
