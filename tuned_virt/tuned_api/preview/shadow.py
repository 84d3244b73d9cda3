# SPDX-License-Identifier: GPL-2.0-or-later
"""What stands in for the kernel's files while TuneD's plugins run in a preview.

All of them read and write through one class of TuneD's, `tuned.utils.commands.commands`. While a
shadow is in force, its methods write into a dictionary and read from there what was written.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tuned.plugins import plugin_sysctl
from tuned.profiles.functions import function_exec
from tuned.utils.commands import commands

from tuned_virt.core.preview import Knowledge, Reading, known
from tuned_virt.frozen_dataclasses import dataclass, field
from tuned_virt.tuned_api.preview.guard import Guard

SYSCTL = "/proc/sys/"
KERNEL = ("/proc/", "/sys/")

NUMBER = re.compile(r"\s*[-+]?(0[xX])?[0-9a-fA-F]+\s*")

UNREADABLE = "(cannot read)"
"""What a plugin reads of a file that this user may not read."""

COUPLED: Mapping[str, str] = {
    f"/proc/sys/vm/{name}": f"/proc/sys/vm/{other}"
    for one in ("dirty", "dirty_background")
    for name, other in ((f"{one}_ratio", f"{one}_bytes"), (f"{one}_bytes", f"{one}_ratio"))
}
"""Writing the one, the kernel zeroes the other (Documentation/admin-guide/sysctl/vm.rst)."""

READ_ONLY = re.compile(
    r"lscpu|nproc|virt-what|getconf \w+|rpm-ostree (?:status|kargs)|hdparm -[BC] /dev/[\w!-]+"
    r"|x86_energy_perf_policy (-c \d+ )?-r"
)
"""Programs of TuneD's own functions and plugins that only read."""

NEED_ROOT = re.compile(r"(hdparm|virt-what)\b")

NOT_RUN = re.compile("«not run: (.*?)»")
"""What a function that a preview does not run leaves in a value."""


@dataclass(frozen=True)
class ShadowWrite:
    """A write that a plugin would make.

    option, device  of the profile's section; option "" where the plugin does not tell
    refused         why the kernel would not take it, "" if nothing speaks against it
    unknown         why its value cannot be told, "" if it can
    """

    path: str
    value: str
    section: str = ""
    option: str = ""
    device: str = ""
    refused: str = ""
    unknown: str = ""


@dataclass(frozen=True)
class ShadowMessage:
    """What TuneD would log of a section ("": while it loads the profile), at which level."""

    section: str
    text: str
    level: int


@dataclass
class ShadowContext:
    """Who acts now, and what it has read last."""

    section: str = ""
    option: str = ""
    device: str = ""
    last_read: str = ""


@dataclass
class Shadow:
    """The kernel's files as they would be."""

    guard: Guard = field(default_factory=Guard)
    context: ShadowContext = field(default_factory=ShadowContext)
    writes: list[ShadowWrite] = field(default_factory=list)
    messages: list[ShadowMessage] = field(default_factory=list)
    """What TuneD would log as a warning or an error."""
    not_run: list[str] = field(default_factory=list)
    """What a function of the profile would have told, and why it did not."""
    stopped: list[tuple[str, str]] = field(default_factory=list)
    """Section, and a program or a change of files that its plugin asked for."""
    values: dict[str, str] = field(default_factory=dict)

    # --- what TuneD's class `commands` is asked ---------------------------------------------------

    def read_file(self, path: str, err_ret: Any = "", no_error: bool = False) -> Any:
        """As TuneD reads; what may not be read is neither nothing nor empty."""
        self.context.last_read = path
        if path in self.values:
            return self.values[path]
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                return file.read()
        except PermissionError:
            return UNREADABLE
        except OSError as error:
            if not no_error:
                self.log(f"cannot read {path}: {error}", logging.ERROR)
            return err_ret

    def write_to_file(self, path: str, data: Any, *_rest: Any, **_named: Any) -> bool:
        """Only into the shadow."""
        text = str(data)
        program = NOT_RUN.search(text)
        if program:
            self.note(
                path, text, unknown=f"TuneD runs «{program[1]}» for it, which a preview does not"
            )
            return True
        refused = _refused(path, text)
        self.note(path, text, refused=refused)
        if refused:
            return False
        other = COUPLED.get(path)
        if other and text.strip() != "0":
            self.values[other] = "0"
            self.note(other, "0")
        self.values[path] = text
        return True

    def log(self, text: str, level: int) -> None:
        """A message of the section that acts now."""
        self.messages.append(ShadowMessage(self.context.section, text, level))

    def note(self, path: str, value: str, refused: str = "", unknown: str = "") -> None:
        """A write of the section that acts now."""
        who = (self.context.section, self.context.option, self.context.device)
        self.writes.append(ShadowWrite(path, value, *who, refused, unknown))

    def execute(self, args: Any, *_rest: Any, **named: Any) -> tuple[Any, ...]:
        """Only what is known to read; all else fails, and is remembered."""
        words = [args] if isinstance(args, str) else [str(word) for word in args]
        line = " ".join(words)
        code, out = 1, ""
        if not READ_ONLY.fullmatch(line) or named.get("shell"):
            self.stopped.append((self.context.section, line))
        elif NEED_ROOT.match(line) and os.geteuid() != 0:
            if words[0] != "hdparm" or self.context.option:
                self.not_run.append(f"«{line}» tells it only to root")
        else:
            code, out = self._run(words)
        return (code, out, None if code == 0 else "") if named.get("return_err") else (code, out)

    def _run(self, words: Sequence[str]) -> tuple[int, str]:
        environment = {**os.environ, "LC_ALL": "C"}
        try:
            with self.guard.program_allowed():
                done = subprocess.run(
                    words, capture_output=True, text=True, env=environment, check=False, timeout=30
                )
        except OSError as error:
            return -(error.errno or 1), ""
        except subprocess.TimeoutExpired:
            return 1, ""
        return done.returncode, done.stdout

    def exec_function(self, words: Sequence[str]) -> str:
        """f:exec of a profile: a mark, for only TuneD runs it."""
        line = " ".join(words)
        self.not_run.append(f"TuneD runs «{line}», which a preview does not")
        return f"«not run: {line}»"

    def open(self, path: str, mode: str = "r", *rest: Any, **named: Any) -> Any:
        """What a plugin that opens files itself has instead of open()."""
        if "w" in mode:
            return _ShadowFile(self, path)
        if path.startswith(KERNEL):
            text = self.read_file(path, None, no_error=True)
            if text is not None:
                return io.StringIO(text)
        return open(path, mode, *rest, **named)

    def _stop(self, what: str) -> Any:
        def stopped(*args: Any, **_named: Any) -> bool:
            self.stopped.append((self.context.section, f"{what} {args[0] if args else ''}"))
            return False

        return stopped

    # --- in force ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def in_force(self) -> Iterator[None]:
        """TuneD's code inside the with block reads and writes the shadow."""
        replaced: dict[str, Any] = {
            "read_file": lambda _, *args, **named: self.read_file(*args, **named),
            "write_to_file": lambda _, *args, **named: self.write_to_file(*args, **named),
            "execute": lambda _, *args, **named: self.execute(*args, **named),
        }
        for name in ("rmtree", "unlink", "rename", "copy"):
            stop = self._stop(name)
            replaced[name] = lambda _, *args, stop=stop, **named: stop(*args, **named)
        before = {name: getattr(commands, name) for name in replaced}
        run_function = function_exec.execute.execute
        try:
            for name, method in replaced.items():
                setattr(commands, name, method)
            function_exec.execute.execute = lambda _, args: self.exec_function(args)
            plugin_sysctl.open = self.open
            with self.guard.in_force(), self._listening():
                yield
        finally:
            del plugin_sysctl.open
            function_exec.execute.execute = run_function
            for name, method in before.items():
                setattr(commands, name, method)

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """TuneD's log is kept here and goes nowhere else."""
        logger = logging.getLogger("tuned")
        handlers, propagate, level = logger.handlers, logger.propagate, logger.level
        logger.handlers, logger.propagate = [_Listener(self)], False
        logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)

    @contextlib.contextmanager
    def acting(self, section: str) -> Iterator[None]:
        """What happens inside the with block is a section's doing."""
        before, self.context = self.context, ShadowContext(section)
        begun = len(self.guard.stopped)
        try:
            yield
        finally:
            self.stopped += [(section, what) for what in self.guard.stopped[begun:]]
            self.context = before


class _ShadowFile(io.StringIO):
    """A file that is written into the shadow when it is closed."""

    def __init__(self, shadow: Shadow, path: str) -> None:
        super().__init__()
        self._shadow = shadow
        self._path = path

    def close(self) -> None:
        if not self.closed:
            self._shadow.write_to_file(self._path, self.getvalue())
        super().close()


class _Listener(logging.Handler):
    def __init__(self, shadow: Shadow) -> None:
        super().__init__(logging.WARNING)
        self._shadow = shadow

    def emit(self, record: logging.LogRecord) -> None:
        self._shadow.log(record.getMessage(), record.levelno)


def reading(path: str) -> Reading:
    """What a kernel file has now, or why that is not known."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return known(file.read())
    except (FileNotFoundError, NotADirectoryError):
        return Reading(Knowledge.ABSENT)
    except PermissionError:
        return Reading(Knowledge.UNREADABLE, why="only root can read it")
    except OSError as error:
        return Reading(Knowledge.UNREADABLE, why=str(error.strerror))


def _refused(path: str, text: str) -> str:
    """Why the kernel would not take a value, as far as its file says."""
    now = reading(path)
    if now.knowledge is Knowledge.ABSENT:
        return "there is no such setting on this machine"
    if not path.startswith(KERNEL) or now.knowledge is not Knowledge.KNOWN:
        return ""
    if path.startswith(SYSCTL) and NUMBER.fullmatch(now.value) and not NUMBER.fullmatch(text):
        return "it is not a number"
    with open(path, encoding="utf-8", errors="replace") as file:
        words = file.read().split()
    offered = [word.strip("[]") for word in words]
    if any(word.startswith("[") for word in words) and text.strip() not in offered:
        return f"the kernel offers only {', '.join(offered)}"
    return ""
