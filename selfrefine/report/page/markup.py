"""The page's HTML: templates that escape, data that cannot end a script, a policy that lets nothing in."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from selfrefine.report.safe_text import safe_text

HERE = Path(__file__).parent
BADGES = {"kept": "kept", "rolled back": "rolled", "undecided": "undecided", "warn": "warn", "veto": "rolled"}
"""Words of a table that are set as badges, with their class."""
_IN_SCRIPT = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


@cache
def environment() -> jinja2.Environment:
    """Autoescape is on; a name that is not given is an error."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Bidi controls would reorder the line they stand in, and a NUL ends as another character: both are shown.
    made.filters["shown"] = lambda value: safe_text(str(value))
    made.filters["prose"] = prose
    made.filters["shown_lines"] = lambda value: safe_text(str(value), newlines=True)
    made.globals["badges"] = BADGES
    return made


def prose(text: str) -> Markup:
    """A sentence with what stands between two backticks set as code. Escaped, whoever wrote it."""
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else part
        for number, part in enumerate(safe_text(text).split("`"))
    )


def data_block(value: Any) -> Markup:
    """JSON for `<script type="application/json">`. In there nothing is unescaped by HTML, so `<`, `>` and `&`
    (`</script>`, `<!--`) are written as JSON escapes, which are the same text to whoever parses it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).translate(_IN_SCRIPT)
    return Markup(text)


def policy(scripts: Sequence[str], styles: Sequence[str]) -> str:
    """The content security policy: nothing is loaded; only these scripts and styles run, by their hash."""

    def hashes(texts: Sequence[str]) -> str:
        return " ".join(f"'sha256-{base64.b64encode(_digest(text)).decode()}'" for text in texts)

    return (
        f"default-src 'none'; script-src {hashes(scripts)}; style-src {hashes(styles)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def asset(name: str) -> str:
    """A script or a style sheet that is put into the page."""
    return (HERE / name).read_text(encoding="utf-8")


def inline(text: str) -> Markup:
    """A script or style of this package. Raises: ValueError for one that would end its element."""
    if "</" in text and any(f"</{name}" in text.lower() for name in ("script", "style")):
        raise ValueError("a script or style that is put into the page must not contain its own end tag")
    return Markup(text)


def render(**values: Any) -> str:
    """The page from the template's values."""
    return environment().get_template("page.html").render(**values).lstrip()
