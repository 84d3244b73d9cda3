# SPDX-License-Identifier: GPL-2.0-or-later
"""The `tuned-virt` command. Exit codes: 0 all is well, 1 something is not, 2 it could not."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Collection, Mapping, Sequence
from types import ModuleType

from tuned_virt import __version__
from tuned_virt.cli.common import COULD_NOT
from tuned_virt.kernel.errors import PlainError

COMMANDS: Mapping[str, str] = {
    "status": "show the active profile, what differs from it, KSM, guests and NUMA nodes",
    "guests": "show where each guest is placed and why, its memory, drift and delay",
    "plan": "show where guests' threads and memory would be placed; changes nothing",
    "audit": "check this host and its guests, or their files, by the guide's rules",
    "recommend": "print the settings that serve this host and its guests, or write them",
    "preview": "show what a switch to a profile would change; changes nothing",
    "map": "draw the host's nodes, LLCs, cores and CPUs with the guests planned on them",
    "report": "write a page about this host: guests, NUMA map, findings, pools, KSM",
    "metrics": "print metrics for Prometheus, write them for node_exporter, or serve them",
    "snapshot": "write this host and its guests to one file, to look at it elsewhere",
    "hugepages": "show huge pages by node, plan them, or print them for the command line",
    "perf": "run perf kvm for a guest, with its kernel's symbols fetched from it",
    "disks": "show each disk, its class, the guests it backs, its scheduler, and why",
    "check-settings": "check a settings file, before a switch to its profile",
    "verify": "compare every setting of the active profile with the machine",
    "log": "show what was changed on this machine, when, and why",
    "restore": "restore the original values without TuneD",
    "import": "import ksmtuned's configuration into the variables of virtual-host-plus",
    "role": "print whether this machine is a KVM host or a guest (a host if it is both)",
    "enable": "set the profile that TuneD applies when it starts, also in images",
    "disable": "return to the previous profile, and restore the original values",
}
"""Each command, in the order of `--help`, with what it does. Its module has its name, _ for -."""


def module(command: str) -> ModuleType:
    """What implements a command: `add_arguments` and `run`. Imported when it is needed: what one
    command imports takes time, and may be missing on a host that needs another."""
    name = "import_" if command == "import" else command.replace("-", "_")
    return importlib.import_module(f"{__name__}.{name}")


class CommandParser(argparse.ArgumentParser):
    """One command's grammar. Where `passed_on` has a default, what follows `--` is another
    program's, and is found there; the own options may come in any order before it."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse has it."""
        given = list(args or ())
        if self.get_default("passed_on") is None or "--" not in given:
            return super().parse_known_args(given, namespace)
        end = given.index("--")
        found, unknown = super().parse_known_args(given[:end], namespace)
        found.passed_on = given[end + 1 :]
        return found, unknown


def parser(loaded: Collection[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """The command line's grammar: the loaded commands in full; of none, the names of all, which is
    what `--help` and a typing error show."""
    top = argparse.ArgumentParser(
        prog="tuned-virt",
        description="Show, verify and undo the tuning of this KVM host or guest.",
        epilog="Exit codes: 0 done, or all is as it should be; 1 something is not: a setting"
        " differs, a wish is not granted; 2 it could not be checked or done.",
    )
    top.add_argument("--version", action="version", version=f"tuned-virt-plus {__version__}")
    commands = top.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=CommandParser
    )
    for name in [known for known in COMMANDS if known in loaded] or COMMANDS:
        command = commands.add_parser(name, help=COMMANDS[name], description=COMMANDS[name])
        if name in loaded:
            module(name).add_arguments(command)
            command.set_defaults(run=module(name).run)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        _complete()
        grammar = parser(given[:1])
        _log_to_stderr()
        options = grammar.parse_args(given)
        code: int = options.run(options)
    except PlainError as error:
        print(f"tuned-virt: {error}", file=sys.stderr)
        return COULD_NOT
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("tuned_virt"):
            raise
        print(f"tuned-virt: the Python module {error.name} is not installed", file=sys.stderr)
        return COULD_NOT
    return code


def _log_to_stderr() -> None:
    """Warnings of the library, where the command has imported what logs."""
    if "logging" in sys.modules:
        import logging

        logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)


def _complete() -> None:
    """Answer bash, where it asks what may come next, and end."""
    if "_ARGCOMPLETE" in os.environ:
        with contextlib.suppress(ImportError):
            import argcomplete

            argcomplete.autocomplete(parser())


def entry() -> None:
    """The command's process: like any filter it ends when nobody reads its output."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
