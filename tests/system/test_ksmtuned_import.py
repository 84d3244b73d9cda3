# SPDX-License-Identifier: GPL-2.0-or-later
"""`tuned-virt import ksmtuned` against ksmtuned's own script, which a shell reads."""

from __future__ import annotations

import re
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest

from bench.ksm_rivals import KSMTUNED_SUITE, ksmtuned_script
from tests import debian
from tuned_virt.cli import import_
from tuned_virt.plugins import ksm
from tuned_virt.plugins.ksm.ksmtuned import KsmtunedPolicy

DEFAULT = re.compile(r"^(KSM_\w+)=\$\{\1:-.*\}$", re.MULTILINE)

VARIANTS = (
    "",
    "KSM_SLEEP_MSEC=20\nKSM_NPAGES_BOOST=400\nKSM_NPAGES_DECAY=-100\n",
    "KSM_NPAGES_MIN=100\nKSM_NPAGES_MAX=2500 # since 2019\nKSM_MONITOR_INTERVAL=30\n",
    "KSM_THRES_COEF=0\nKSM_THRES_CONST=8388608\n",
    "KSM_NPAGES_MAX=\"2500\"\nKSM_NPAGES_DECAY='-100'\nKSM_SLEEP_MSEC=\n",
    "KSM_THRES_COEF=40\nKSM_THRES_COEF=40\nDEBUG=1\nLOGFILE=/var/log/ksmtuned\n",
    "\ufeffKSM_NPAGES_MIN=900\nKSM_NPAGES_MAX=900\n",
    "\ufeff# mine\nKSM_NPAGES_MAX=900\n",
    "# KSM_SLEEP_MSEC=100\n\n   KSM_NPAGES_MAX=900\n",
    "#KSM_SLEEP_MSEC=100\nKSM_NPAGES_MAX=900\n",
)


def used_by_the_script(conf: Path, script: str) -> dict[str, int]:
    """What the script has in its variables, once it has read a configuration."""
    defaults = [match[0] for match in DEFAULT.finditer(script)]
    names = [match[1] for match in DEFAULT.finditer(script)]
    assert len(names) == len(KsmtunedPolicy.__dataclass_fields__)
    printed = [f'echo "{name} ${name}"' for name in names]
    text = "\n".join([f". {conf} 2>/dev/null", *defaults, *printed])
    said = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True)
    pairs = (line.split() for line in said.stdout.splitlines())
    return {name[len("KSM_") :].lower(): int(value) for name, value in pairs}


@pytest.mark.parametrize("sleep", ["10", "100"])
def test_each_variant_gives_what_the_script_would_use(sleep: str, tmp_path: Path) -> None:
    """Red Hat's script as Debian has it, and with the default that Proxmox VE's has."""
    script = ksmtuned_script().replace("KSM_SLEEP_MSEC:-10}", f"KSM_SLEEP_MSEC:-{sleep}}}")
    theirs = debian.unpacked("ksmtuned", KSMTUNED_SUITE, debian.CACHE) / "etc/ksmtuned.conf"
    conf = tmp_path / "ksmtuned.conf"
    for text in (theirs.read_text(), *VARIANTS):
        conf.write_text(text)
        imported = import_.convert(conf, text, script)
        options = {one.name[len("ksm_") :]: one.value for one in imported.variables}
        policy = ksm.parse(options).algorithm
        assert isinstance(policy, KsmtunedPolicy)
        assert asdict(policy) == used_by_the_script(conf, script), text
