"""Prompt templates: Jinja2 in the immutable sandbox, checked completely when they are loaded.

A template is one user message. What it may say is declared in `TEMPLATES`; an unknown variable fails at
load, not at row 900. Values are model text, that is data: they are never scanned for template syntax, and
every tag the template itself closes (`</draft>`) is defanged in them, so that no answer can end its own
quotation and go on as the prompt. Special tokens (`<|im_end|>`) are the engine's business: `encode_chat`.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
from jinja2 import meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from selfrefine.errors import ConfigError
from selfrefine.words import nearest

_CRITIC_SEES = frozenset({"task", "conversation", "answer", "feedback", "references", "principle"})
TEMPLATES: dict[str, frozenset[str]] = {
    "critique": _CRITIC_SEES,
    "rubric": _CRITIC_SEES,
    "choice": _CRITIC_SEES | {"choices", "top"},
    "revise": frozenset({"task", "conversation", "answer", "critique", "memory", "feedback", "principle"}),
    "hint": frozenset({"task", "reference"}),
    "teacher": frozenset({"task", "reference", "feedback"}),
    "causes": frozenset({"weakness", "examples"}),
    "compare": frozenset({"task", "conversation", "first", "second"}),
    "propose": frozenset({"about", "examples"}),
}
"""Kind to the variables it may use. `references` is for critics only and empty unless revealed; a hint shows
one on purpose, and what is sampled under it is never learnt under it; under a teacher's nothing is sampled.
`causes` shows none."""
_MUST_SHOW: dict[str, dict[tuple[str, ...], str]] = {
    "hint": {("reference",): "reference"},
    "teacher": {("reference", "feedback"): "reference or the feedback"},
    "causes": {("examples",): "examples"},
    "propose": {("about",): "kind of task"},
    "compare": {("first",): "first draft", ("second",): "second draft"},
}
"""By kind: variables of which one must stand in it, and what they are."""

_ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True
)
_ENVIRONMENT.globals.clear()  # `range`, `cycler`, ...: a prompt has no use for them

_CLOSING_TAG = re.compile(r"</([A-Za-z_][\w-]*)>")
# Whitespace and characters of no width, which a reader does not see between `<` and the name.
_GAP = r"[\s\u00ad\u200b-\u200f\u2060-\u2064\ufeff]*"
_RENDER_ERRORS = (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError)


@dataclass(frozen=True, kw_only=True)
class Template:
    """A loaded template. `sha256` is over `source` as UTF-8: stored with every critique made with it."""

    name: str
    kind: str
    source: str
    sha256: str
    uses: frozenset[str]
    """The variables that stand in it."""
    _compiled: jinja2.Template = field(repr=False, compare=False)
    _tags: re.Pattern[str] | None = field(repr=False, compare=False)

    def render(self, **values: str) -> str:
        """The prompt text. A declared variable that is not given is the empty string.

        Raises: ConfigError where the template fails on these values; TypeError for a value that its kind
        does not declare (a bug of the caller).
        """
        if unknown := values.keys() - TEMPLATES[self.kind]:
            raise TypeError(f"a {self.kind} template takes no {sorted(unknown)}")
        given = dict.fromkeys(TEMPLATES[self.kind], "") | {k: self._defang(v) for k, v in values.items()}
        try:
            return self._compiled.render(given)
        except _RENDER_ERRORS as error:
            raise ConfigError(f"{self.name}: the template cannot be rendered: {error}") from None

    def _defang(self, value: str) -> str:
        # Only the `<` is changed, so nothing is removed that could bring two halves of a tag together.
        return value if self._tags is None else self._tags.sub("‹", value)


def load(name_or_path: str | Path, kind: str) -> Template:
    """A shipped template by name (`critique`), or a file by path (whatever has a slash or ends in .md).

    Raises: ConfigError naming the file and line or variable: not found, not UTF-8, syntax, a variable that
    `kind` does not declare, none of those it must show (`_MUST_SHOW`; most kinds `answer`), or a failure when
    rendered with all variables full or all empty.
    """
    path = _find(str(name_or_path))
    return from_source(_text(path, "prompt template"), kind, str(path))


def _text(path: Path, what: str) -> str:
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the {what}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: the {what} is not UTF-8") from None


def from_source(source: str, kind: str, name: str) -> Template:
    """A template from its text; `name` is what errors call it. Raises: ConfigError, as `load`."""
    known = TEMPLATES[kind]
    try:
        used = meta.find_undeclared_variables(_ENVIRONMENT.parse(source))
        compiled = _ENVIRONMENT.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"{name}:{error.lineno}: template syntax: {error.message}") from None
    if unknown := sorted(used - known):
        raise ConfigError(
            f"{name}: unknown variable '{unknown[0]}' in a {kind} template{nearest(unknown[0], known)}"
        )
    for variables, what in _MUST_SHOW.get(kind, {("answer",): "draft"}).items():
        if not used & set(variables):
            # `{ answer }` with single braces would otherwise have every draft judged unseen.
            missing = f"{{{{ {variables[0]} }}}} is missing"
            raise ConfigError(f"{name}: a {kind} template must show the {what}: {missing}")
    template = Template(
        name=name,
        kind=kind,
        source=source,
        sha256=hashlib.sha256(source.encode()).hexdigest(),
        uses=frozenset(used),
        _compiled=compiled,
        _tags=_tag_openings(source),
    )
    template.render(**dict.fromkeys(known, "x"))
    template.render()
    return template


def principles_text(name_or_path: str | Path) -> str:
    """A file of principles by path (whatever has a slash or ends in .txt), or a shipped one by name.

    Raises: ConfigError: not found, not UTF-8, or no principle in it.
    """
    name = str(name_or_path)
    own = "/" in name or name.endswith(".txt")
    path = Path(name) if own else shipped_dir() / f"{name}.txt"
    text = _text(path, "list of principles")
    if not principles(text):
        raise ConfigError(f"{path}: no principles found; write one per line")
    return text


def principles(text: str) -> tuple[str, ...]:
    """One principle per line; empty lines and lines that begin with # are none."""
    lines = (line.strip() for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def shipped_dir() -> Path:
    """Where the shipped templates are: in the wheel inside the package, in a checkout at the top.

    Raises: ConfigError when neither is there (a broken installation).
    """
    package = Path(__file__).resolve().parent
    if (packed := package / "_shipped" / "prompts").is_dir():
        return packed
    # Beside an installed package lies site-packages, where a foreign `prompts` may be: ask for pyproject too.
    if (package.parent / "pyproject.toml").is_file() and (package.parent / "prompts").is_dir():
        return package.parent / "prompts"
    raise ConfigError(f"the shipped prompts are missing beside {package}; reinstall selfrefine")


def shipped_names() -> list[str]:
    return sorted(path.stem for path in shipped_dir().glob("*.md") if path.stem != "README")


def _find(name: str) -> Path:
    if "/" in name or name.endswith(".md"):
        return Path(name)
    if name not in (names := shipped_names()):
        raise ConfigError(
            f"no shipped prompt is named '{name}'{nearest(name, names)}; "
            "the path of your own file needs a / or ends in .md"
        )
    return shipped_dir() / f"{name}.md"


def _tag_openings(source: str) -> re.Pattern[str] | None:
    """Matches the `<` of each tag, opening or closing, that `source` closes, in any case and spacing."""
    names = sorted(set(_CLOSING_TAG.findall(source)))
    if not names:
        return None
    either = "|".join(map(re.escape, names))
    return re.compile(rf"<(?={_GAP}(?:[/\\∕⁄]{_GAP})?(?:{either})(?![\w-]))", re.IGNORECASE)
