# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages and pictures from templates: one file each, that loads nothing and runs no other script.

Names of guests, disks and profiles are others' text: templates escape all values, and the page's
Content-Security-Policy allows by their hashes the one style and the one script that are in it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuned_virt import __version__
from tuned_virt.cli import host_drawing
from tuned_virt.cli.common import CouldNot
from tuned_virt.model.guest import printable

TEMPLATES = Path(__file__).parent / "templates"

COLOURS: Mapping[str, tuple[str, str]] = {
    "page": ("#ffffff", "#15181c"),
    "panel": ("#f4f5f7", "#1f242a"),
    "quiet": ("#e3e6ea", "#333b44"),
    "line": ("#8a929b", "#6d7782"),
    "text": ("#1a1d21", "#e8eaed"),
    "muted": ("#50575f", "#b3bac2"),
    "accent": ("#1f5fae", "#7db4f5"),
    "error": ("#b3161b", "#ff8f8a"),
    "warning": ("#8a4b00", "#f5b041"),
    "good": ("#1b6b2f", "#7fd392"),
}
"""By name in the stylesheets: in light and in dark. Text has at least 4.5:1 on page and panel."""


def style(*sheets: str) -> str:
    """Stylesheets with the colours that they name."""
    colours = "".join(
        f"--{name}: light-dark({light}, {dark});\n" for name, (light, dark) in COLOURS.items()
    )
    texts = [(TEMPLATES / sheet).read_text(encoding="utf-8").rstrip("\n") for sheet in sheets]
    return "\n".join([f":root {{ color-scheme: light dark;\n{colours}}}", *texts])


def policy(styles: str, script: str) -> str:
    """The page's Content-Security-Policy."""
    return (
        f"default-src 'none'; style-src '{_hash(styles)}'; script-src '{_hash(script)}';"
        " base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def page(template: str, content: Mapping[str, Any]) -> str:
    """An HTML page."""
    styles = style("page.css", "drawing.css")
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    return render(template, {**content, "script": script, "policy": policy(styles, script)}, styles)


def render(template: str, content: Mapping[str, Any], styles: str) -> str:
    """A template filled in; `styles` is the whole stylesheet."""
    import jinja2  # takes time

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
    )
    environment.filters["moment"] = moment
    environment.globals.update(
        side=host_drawing.CPU, tall=host_drawing.HEIGHT, bar=host_drawing.BAR, version=__version__
    )
    return environment.get_template(template).render(style=styles, **content)


def _shown(value: Any) -> Any:
    """Text without what would turn the direction of other text, or is no text; markup as it is."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return "\n".join(map(printable, value.split("\n")))


def moment(text: str) -> str:
    """A time as JSON has it, for people: 2026-01-31 14:30:00+01:00."""
    return re.sub(r"^([\d-]+)T([\d:]+)(?:\.\d+)?", r"\1 \2", text)


def write(file: str, text: str) -> None:
    """To a file. Raises CouldNot."""
    try:
        Path(file).write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise CouldNot(f"{file}: {error.strerror}") from error
