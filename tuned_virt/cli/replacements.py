# SPDX-License-Identifier: GPL-2.0-or-later
"""What stands for names, addresses and paths in a redacted snapshot: the same for the same.

Guests' names and UUIDs keep their order, so that what is sorted by them stays as it is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from tuned_virt.cli import system_paths
from tuned_virt.model.guest import printable

REDACTED = "redacted"

MAC = r"(?<![\w:.])[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}(?![\w:])"
UUID = r"(?<![\w-])[0-9A-Fa-f]{8}(?:-?[0-9A-Fa-f]{4}){3}-?[0-9A-Fa-f]{12}(?![\w])"
IPV4 = r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\w)"
IPV6 = r"(?<![\w:.])(?=[0-9A-Fa-f:]*::|(?:[0-9A-Fa-f]{1,4}:){7})[0-9A-Fa-f:]{3,39}(?![\w:])"
PATH = r"(?<![\w/.])/[\w.@%+:~\\,-]+(?:/[\w.@%+:~\\,-]+)*"
WORD = r"[\w.@%+-]+"

TOKEN = re.compile(
    f"(?P<mac>{MAC})|(?P<uuid>{UUID})|(?P<ipv4>{IPV4})|(?P<ipv6>{IPV6})|(?P<path>{PATH})"
    f"|(?P<word>{WORD})",
    re.ASCII,
)

IDENTITY = re.compile(f"(?P<mac>{MAC})|(?P<uuid>{UUID})", re.ASCII)

INSIDE = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?!\.?\d)")
"""An address in a word, such as user@10.1.2.3."""

CGROUPS = "/sys/fs/cgroup/"

LINK = re.compile(
    r"(?:(?:vir)?br|bond|team|eth|vnet|tap|macvtap|macvlan|veth|dummy|ib|wlan|vlan)\d{1,5}(?:\.\d{1,4})?"
    r"|en[ops]\w{1,12}|lo|default|all",
    re.ASCII,
)
"""Names that the kernel, systemd or libvirt gives; enx… and longer numbers have a MAC address."""

_STOCK = """
    accelerator-performance atomic-guest atomic-host aws balanced balanced-battery cpu-partitioning
    cpu-partitioning-powersave default desktop desktop-powersave enterprise-storage epyc-eda
    hpc-compute intel-sst laptop-ac-powersave laptop-battery-powersave latency-performance mssql
    network-latency network-throughput openshift openshift-control-plane openshift-node
    optimize-serial-console oracle postgresql powersave realtime realtime-virtual-guest
    realtime-virtual-host sap-hana sap-hana-kvm-guest sap-netweaver server-powersave
    spectrumscale-ece spindown-disk throughput-performance virtual-guest virtual-host
"""
PROFILE = re.compile(rf"virtual-(?:guest|host)-plus|virt-plus-[a-z-]+|{'|'.join(_STOCK.split())}")
"""TuneD's own (its packages tuned-profiles-…), and ours."""

HERE = re.compile(r"(?:127\.0\.0\.1|0\.0\.0\.0|::1?|localhost)?")
"""Addresses that every host has."""

SHORTEST_NUMBER = 3
"""Digits of a name that is looked for in text."""

EXTENSIONS = ("qcow2", "qcow", "qed", "raw", "img", "iso", "vmdk", "vdi", "vhd", "vhdx", "fd")


class Replacements:
    """Replaces, and counts: things that it has replaced by kind, and how often one was left out."""

    def __init__(self, guests: Iterable[str], uuids: Iterable[str], host: str = "") -> None:
        self._known: dict[str, dict[str, str]] = {}
        self._left_out: Counter[str] = Counter()
        names = sorted(set(guests))
        self._width = len(str(len(names)))
        self._words: dict[str, str] = {}
        self._odd: dict[str, str] = {}
        for name in names:
            self.guest(name)
        for uuid in sorted(set(uuids)):
            self.uuid(uuid)
        if host:
            self.host(host)

    @property
    def counts(self) -> Mapping[str, int]:
        """How many things of each kind were replaced, or how often one was left out."""
        found = {kind: len(known) for kind, known in self._known.items()}
        return dict(sorted({**found, **self._left_out}.items()))

    def _one(self, kind: str, text: str, made: str) -> str:
        """What stands for a thing of a kind; `made` has its number at {}."""
        known = self._known.setdefault(kind, {})
        if text not in known:
            known[text] = made.format(len(known) + 1)
        return known[text]

    def left_out(self, kind: str, text: str = "?") -> str:
        """A word for what nothing stands for; nothing where nothing was."""
        if not text:
            return text
        self._left_out[kind] += 1
        return REDACTED

    def guest(self, name: str) -> str:
        """A guest's name, also as it is shown."""
        if not name:
            return name
        made = self._one("guests' names", name, f"guest-{{:0{self._width}}}")
        for shown in {name, printable(name)}:
            self._remember(shown, made)
        return made

    def host(self, name: str) -> str:
        """A host's name, also without its domain."""
        made = self._one("hosts' names", name, "host-{}")
        for shown in {name, name.partition(".")[0]}:
            self._remember(shown, made)
        return made

    def _remember(self, text: str, made: str) -> None:
        """To be replaced in text; a small number there is a CPU's or a node's."""
        if text.isdigit() and len(text) < SHORTEST_NUMBER:
            return
        if re.fullmatch(WORD, text, re.ASCII):
            self._words.setdefault(text, made)
        elif text:
            self._odd.setdefault(text, made)

    def uuid(self, text: str) -> str:
        """A UUID as libvirt writes it; what is none is left out."""
        plain = text.strip().lower().replace("-", "")
        if not re.fullmatch("[0-9a-f]{32}", plain):
            return self.left_out("other values", text)
        return self._one("UUIDs", plain, "00000000-0000-4000-8000-{:012}")

    def device(self, name: str) -> str:
        """A device of the host: the kernel's names stay, UUIDs of mediated devices do not."""
        return self.uuid(name) if re.fullmatch(UUID, name) else name

    def mac(self, text: str) -> str:
        """A MAC address."""
        known = self._known.setdefault("MAC addresses", {})
        number = len(known) + 1
        made = f"52:54:00:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
        return known.setdefault(text.strip().lower(), made)

    def address(self, text: str) -> str:
        """An IP address; one that says "here" or "everywhere" is kept."""
        if HERE.fullmatch(text):
            return text
        return self._one("IP addresses", text.lower(), "address-{}")

    def subnet(self, text: str) -> str:
        """A network with the length of its prefix."""
        network, slash, length = text.partition("/")
        return f"{self._one('IP networks', network, 'subnet-{}')}{slash}{length}"

    def link(self, name: str) -> str:
        """A network interface, bridge or libvirt's network."""
        if not name or LINK.fullmatch(name):
            return name
        return self._one("interfaces and networks", name, "net-{}")

    def named(self, kind: str, name: str, made: str) -> str:
        """A thing of another kind by its name; `made` has its number at {}."""
        return self._one(kind, name, made) if name else name

    def profile(self, names: str) -> str:
        """TuneD's profiles: stock names are kept."""
        return " ".join(
            one if PROFILE.fullmatch(one) else self._one("own profiles", one, "profile-{}")
            for one in names.split()
        )

    def path(self, text: str) -> str:
        """A file or device: one of the system's is kept, of others the kind and format are."""
        if not text:
            return text
        if text.startswith(CGROUPS):
            return self._one("paths", text, f"{CGROUPS}group-{{}}")
        pieces = [self._piece(kind, piece) for kind, piece in system_paths.parts(text)]
        if pieces:
            return "".join(pieces)
        if text.startswith("/dev/"):
            alone = text.count("/") == 2
            return self._one("paths", text, "/dev/disk-{}" if alone else "/dev/redacted/disk-{}")
        extension = text.rpartition(".")[2].lower()
        ending = f".{extension}" if extension in EXTENSIONS else ""
        return self._one("paths", text, f"/redacted/disk-{{}}{ending}")

    def _piece(self, kind: str, text: str) -> str:
        """A part of a system's path: a name in it, or what is the same on every host."""
        if kind == "interface":
            return self.link(text)
        if kind == "profile":
            return self.profile(text)
        if kind == "pool":
            return self.named("storage pools", text, "pool-{}")
        if kind:
            return self._one("paths", text, f"{kind}-{{}}")
        return IDENTITY.sub(self._token, text)

    def partition(self, text: str) -> str:
        """A partition of guests ("/machine/prod"): each part below the first."""
        top, *below = text.strip("/").split("/")
        if top not in ("", "machine"):
            below = [top, *below]
            top = ""
        made = [self._one("partitions", one, "part-{}") for one in below if one]
        return "/" + "/".join([one for one in (top, *made) if one])

    def text(self, text: str) -> str:
        """Words of ours with whatever of others is in them."""
        for name, made in self._odd.items():
            text = text.replace(name, made)
        return TOKEN.sub(self._token, text)

    def _token(self, found: re.Match[str]) -> str:
        text = found[0]
        if found.lastgroup == "mac":
            return self.mac(text)
        if found.lastgroup == "uuid":
            return self.uuid(text)
        if found.lastgroup == "path":
            end = len(text.rstrip(".,:"))
            return self.path(text[:end]) + text[end:]
        return self._word(text) if found.lastgroup == "word" else self.address(text)

    def _word(self, text: str) -> str:
        """A name that is known, also at the end of a sentence; else what is in the word."""
        end = len(text.rstrip(".-"))
        if text in self._words:
            return self._words[text]
        if text[:end] in self._words:
            return self._words[text[:end]] + text[end:]
        return INSIDE.sub(lambda inside: self.address(inside[0]), text)
