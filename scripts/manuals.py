# SPDX-License-Identifier: GPL-2.0-or-later
"""Build the manual pages: Markdown into build/man, by go-md2man.

What the code knows comes from the code: a command's options from its parser, a plugin's from the
hints that it gives TuneD, a variables file's page from the file's own comments. What only people
know is in docs/*.N.md, where N is the section; `docs/tuned-virt-COMMAND.1.md` and
`docs/PLUGIN.7.md` are joined with the generated parts.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(SOURCE))

from scripts import release  # noqa: E402
from tuned_virt import cli  # noqa: E402
from tuned_virt.core import settings  # noqa: E402
from tuned_virt.registry import tuners  # noqa: E402

PLUGINS = sorted(SOURCE.glob("tuned_plugins/plugin_*.py"))

LAST = ("EXAMPLE", "EXAMPLES", "FILES", "EXIT STATUS", "SEE ALSO")
"""Parts that come last, in this order."""

WIDTH = 68
"""Of the widest table that a terminal of 80 columns shows."""

EXITS = (
    "0: done, or all is as it should be. 1: something is not. 2: it could not be checked or done."
    " tuned-virt(1) lists what this means for each command."
)


@dataclass
class Page:
    """A manual page: name, section, and its parts by heading, in order."""

    name: str
    section: str
    parts: dict[str, str] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """Its name in man's folders."""
        return f"{self.name}.{self.section}"

    def add(self, heading: str, text: str) -> None:
        """Add a part; one that people have written stays."""
        self.parts.setdefault(heading, text.strip("\n"))

    def markdown(self) -> str:
        """As go-md2man takes it: the first heading is the title line of the page."""
        title = f'# "{self.name}" "{self.section}" "{release.date()}"'
        head = f'{title} "tuned-virt-plus {release.version()}" "tuned-virt-plus"'
        order = sorted(self.parts, key=lambda key: LAST.index(key) if key in LAST else -1)
        return "\n\n".join([head, *(f"## {key}\n\n{plain(self.parts[key])}" for key in order)])


def read(file: Path) -> Page:
    """A page that people have written."""
    head, *parts = re.split(r"^## ", file.read_text(), flags=re.MULTILINE)
    title = re.match(r"# ([\w.-]+)\((\d)\)\s*$", head.splitlines()[0])
    stem, section = file.name.split(".")[:2]
    page = Page(title[1], title[2]) if title else Page(f"tuned-virt-{stem}", section)
    if not title:
        page.parts["NAME"] = f"{page.name} - {head.splitlines()[0].lstrip('# ')}"
        page.parts["DESCRIPTION"] = head.partition("\n")[2].strip("\n")
    for part in parts:
        heading, _, text = part.partition("\n")
        page.parts[heading.strip()] = text.strip("\n")
    return page


def written(name: str) -> Page | None:
    """The page docs/NAME.md, None where nobody has written it."""
    file = SOURCE / "docs" / f"{name}.md"
    return read(file) if file.exists() else None


@functools.lru_cache(maxsize=1)
def titles() -> Mapping[str, str]:
    """What other pages call a page that people have written, by its file's name."""
    pages = ((file.name, read(file)) for file in SOURCE.glob("docs/*.[1-8].md"))
    return {name: f"{page.name}({page.section})" for name, page in pages}


def plain(text: str) -> str:
    """Markdown without what a terminal has no room for: links, and tables wider than a page."""
    text = re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", text)
    text = re.sub(r"\b[\w-]+\.[1-8]\.md\b", lambda found: titles().get(found[0], found[0]), text)
    return re.sub(r"(?:^\|.*\|\n?)+", lambda table: listed(table[0]), text, flags=re.MULTILINE)


def listed(table: str) -> str:
    """A table as a definition list: the first column, and the others by their headings."""
    lines = table.strip().splitlines()
    if max(map(len, lines)) <= WIDTH:
        return table
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    head, rows = cells[0], cells[2:]
    named = len(head) > 2
    entries = []
    for first, *rest in rows:
        texts = [f"{name}: {cell}" if named else cell for name, cell in zip(head[1:], rest) if cell]
        entries.append(f"{first}\n: {'. '.join(texts) or '-'}\n")
    return "\n".join(entries)


# --- commands ------------------------------------------------------------------------------------


def subparsers() -> Mapping[str, argparse.ArgumentParser]:
    """The parser of each subcommand."""
    [found] = [
        action for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction)
    ]
    choices: Mapping[str, argparse.ArgumentParser] = found.choices
    return choices


def command_page(command: str, parser: argparse.ArgumentParser) -> Page:
    """The page of a subcommand."""
    name, summary = f"tuned-virt-{command}", cli.COMMANDS[command]
    more = inspect.cleandoc(cli.module(command).__doc__ or "").partition("\n")[2]
    page = Page(name, "1")
    page.parts["NAME"] = f"{name} - {summary}"
    page.parts["SYNOPSIS"] = usage(parser)
    people = written(f"{name}.1")
    page.parts.update(people.parts if people else {})
    if "DESCRIPTION" not in page.parts:
        text = more.strip() or f"{summary.capitalize()}."
        page.add("DESCRIPTION", escaped(text))
    page.add("OPTIONS", options(parser))
    page.add("EXIT STATUS", EXITS)
    page.add("SEE ALSO", "tuned-virt(1), tuned-profiles-virt-plus(7)")
    return page


def usage(parser: argparse.ArgumentParser) -> str:
    """The parser's own synopsis, as one line."""
    text = re.sub(r"\s+", " ", parser.format_usage().partition(": ")[2]).strip()
    return f"    {text}"


def options(parser: argparse.ArgumentParser) -> str:
    """A definition list of all that the parser takes."""
    return "\n\n".join(f"{term(action)}\n: {meaning(action)}" for action in shown(parser))


def shown(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """What a parser takes that is meant to be seen."""
    return [
        action
        for action in parser._actions
        if action.help != argparse.SUPPRESS and not isinstance(action, argparse._SubParsersAction)
    ]


def term(action: argparse.Action) -> str:
    """How an option or argument is written."""
    metavar = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
    if action.choices and not action.metavar:
        metavar = "{" + ",".join(map(str, action.choices)) + "}"
    value = f" *{escaped(str(metavar))}*" if metavar else ""
    if not action.option_strings:
        return value.strip()
    return ", ".join(f"**{name}**{value}" for name in action.option_strings)


def meaning(action: argparse.Action) -> str:
    """An option's help, with what argparse would fill in."""
    text = (action.help or "").replace("%(default)s", str(action.default))
    return escaped(text.replace("%%", "%"))


def main_page() -> Page:
    """tuned-virt(1): what the command is, and its subcommands."""
    page = written("tuned-virt.1") or Page("tuned-virt", "1")
    page.parts.setdefault("SYNOPSIS", "    tuned-virt [--version] COMMAND …")
    summaries = (
        f"**tuned-virt-{name}(1)**\n: {escaped(parser.description or '')}"
        for name, parser in subparsers().items()
    )
    page.add("COMMANDS", "\n\n".join(summaries))
    page.add("OPTIONS", options(cli.parser()))
    page.add("EXIT STATUS", EXITS)
    return page


# --- plugins -------------------------------------------------------------------------------------


def plugin(file: Path) -> tuple[Any, str]:
    """The class in a plugin's module, and what the module is. Needs TuneD, as the module does."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    [found] = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__ == module.__name__
    ]
    return found, (module.__doc__ or "").partition(": ")[2].splitlines()[0].rstrip(".")


def plugin_page(file: Path) -> Page:
    """The page of a plugin, with its options as TuneD is told them."""
    name = file.stem[len("plugin_") :]
    found, summary = plugin(file)
    page = _of_plugin(name) or _from_docstring(name, found)
    page.name = f"tuned-plugin-{name}"
    page.parts = {**page.parts, "NAME": f"{page.name} - {summary}"}
    hints = found.get_config_options_hints()
    rows = (
        f"**{option}**{_default(default)}\n: {escaped(hints.get(option) or '')}"
        for option, default in found._get_config_options().items()
    )
    written_by_people = page.parts.get("OPTIONS", "")
    page.parts["OPTIONS"] = "\n\n".join([written_by_people, *rows]).strip("\n")
    page.add("SEE ALSO", "tuned-profiles-virt-plus(7), tuned-virt(1)")
    return page


def _of_plugin(name: str) -> Page | None:
    """What people have written of a plugin: the page of section 7 that names it at its top."""
    pages = (read(file) for file in sorted(SOURCE.glob("docs/*.7.md")))
    return next((page for page in pages if f"`{name}`" in page.parts["NAME"]), None)


def _default(default: str | None) -> str:
    return f" (default *{escaped(default)}*)" if default else ""


def _from_docstring(name: str, found: Any) -> Page:
    """A page from what the plugin tells TuneD of itself, which is AsciiDoc."""
    page = Page(f"tuned-plugin-{name}", "7")
    text = inspect.cleandoc(found.__doc__ or "")
    text, _, example = text.partition("\n.")
    lines = ["" if line.strip() == "+" else line for line in text.splitlines()[1:]]
    page.parts["DESCRIPTION"] = re.sub(r"\[\w+\](`\w+`)", r"\1", "\n".join(lines).strip())
    if example:
        title, _, code = example.partition("\n")
        body = [line for line in code.splitlines() if not re.fullmatch(r"[=-]{4}", line)]
        page.parts["EXAMPLE"] = f"{title}:\n\n" + "\n".join(f"    {line}" for line in body)
    return page


# --- variables -----------------------------------------------------------------------------------


def variables_page(file: Path) -> Page:
    """The page of a variables file, which explains itself."""
    profile = file.name[: -len("-variables.conf")]
    page = Page(file.name, "5")
    page.parts["NAME"] = f"{file.name} - variables of the TuneD profile {profile}"
    page.parts["SYNOPSIS"] = f"    /etc/tuned/{file.name}"
    blocks = file.read_text().strip().split("\n\n")
    page.parts["DESCRIPTION"] = (
        f"One *NAME*=*VALUE* on a line; what follows a # is a comment. The file is kept when the"
        f" package is upgraded. Afterwards:\n\n    tuned-adm profile {profile}\n"
        "    tuned-virt verify"
    )
    page.parts["VARIABLES"] = "\n\n".join(filter(None, map(_variable, blocks[1:])))
    page.parts["RARELY NEEDED"] = "\n\n".join(rarely_needed(profile, file.read_text()))
    page.parts["SEE ALSO"] = "tuned-profiles-virt-plus(7), tuned-virt(1)"
    return page


def rarely_needed(profile: str, shown: str) -> Iterator[str]:
    """Entries of a profile's settings that the shipped file does not show, by their options."""
    hints = {
        tuner.setting_names.of(option): spec.hint
        for tuner in tuners().values()
        for option, spec in tuner.options.items()
    }
    defaults = settings.read(str(SOURCE / "profiles" / profile / "defaults.conf")).settings
    for name, one in defaults.items():
        if not re.search(rf"^#{re.escape(name)}=", shown, re.MULTILINE):
            yield f"**{name}**={escaped(one.value)}\n: {escaped(hints[name])}"


def _variable(block: str) -> str:
    """A block of comments and #name=default lines, as entries; a heading or plain text as such."""
    names = re.findall(r"^#([\w.]+)=(.*)$", block, re.MULTILINE)
    comments = re.findall(r"^# (.*)$", block, re.MULTILINE)
    text = escaped(" ".join(line for line in comments if not line.startswith("---")))
    heading = next((line.strip("- ") for line in comments if line.startswith("---")), "")
    parts = [f"### {heading}"] if heading else []
    if names:
        terms = ", ".join(f"**{name}**={escaped(value)}" for name, value in names)
        parts.append(f"{terms}\n: {text}")
    elif text:
        parts.append(text)
    return "\n\n".join(parts)


def profiles_page() -> Page:
    """tuned-profiles-virt-plus(7): docs/profiles.md."""
    page = Page("tuned-profiles-virt-plus", "7")
    page.parts["NAME"] = (
        "tuned-profiles-virt-plus - the profiles virtual-host-plus and virtual-guest-plus"
    )
    files = [file.stem for file in sorted(SOURCE.glob("profiles/*-variables.conf"))]
    page.parts["SYNOPSIS"] = "\n".join(f"    tuned-adm profile {name[:-10]}" for name in files)
    _, *parts = re.split(r"^## ", (SOURCE / "docs/profiles.md").read_text(), flags=re.MULTILINE)
    for part in parts:
        heading, _, text = part.partition("\n")
        page.parts[heading.strip().upper()] = text.strip("\n")
    others = [f"tuned-plugin-{file.stem[7:]}(7)" for file in PLUGINS]
    page.parts["SEE ALSO"] = ", ".join([*others, *(f"{name}.conf(5)" for name in files)])
    return page


# --- all -----------------------------------------------------------------------------------------


def escaped(text: str) -> str:
    """Text that Markdown takes literally, on one line for each paragraph."""
    one_line = re.sub(r"(?<!\n)\n(?!\n)\s*", " ", text)
    return re.sub(r"([\\*_<>\[\]])", r"\\\1", one_line)


def pages() -> Iterator[Page]:
    """Every manual page."""
    made = [main_page()]
    parsers = subparsers()
    made += [command_page(command, parsers[command]) for command in cli.COMMANDS]
    made += [plugin_page(file) for file in PLUGINS]
    made += [variables_page(file) for file in sorted(SOURCE.glob("profiles/*-variables.conf"))]
    made.append(profiles_page())
    yield from made
    texts = {page.parts.get("DESCRIPTION") for page in made}
    others = (read(file) for file in sorted(SOURCE.glob("docs/*.[1-8].md")))
    yield from (page for page in others if page.parts.get("DESCRIPTION") not in texts)


def roff(page: Page) -> str:
    """The page as man reads it. Raises CalledProcessError."""
    done = subprocess.run(
        ["go-md2man"], input=page.markdown(), capture_output=True, text=True, check=True
    )
    return done.stdout


def main() -> int:
    """Write all pages anew."""
    folder = SOURCE / "build/man"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for page in pages():
        (folder / page.file).write_text(roff(page))
    print(f"{len(list(folder.iterdir()))} manual pages in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
