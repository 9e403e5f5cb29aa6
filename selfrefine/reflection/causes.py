"""causes.md: for the heaviest weaknesses, what was counted, and beside it what the critic makes of it.

Two kinds of statement, kept apart. Figures are counted from rows by `evidence.py`. The critic's sentence is
a model's: it is marked as one, quoted in a fence that its text cannot close, and nothing reads it. The critic
is shown training tasks only, since what it writes may lead to a hint, and the gate tasks' texts must not get
into what is trained; and no reference, only answers that the policy gave itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from msgspec import Struct

from selfrefine.config import Sampling
from selfrefine.engines.base import Engine
from selfrefine.prompts import Template
from selfrefine.records import Count, Message, Sample
from selfrefine.reflection import evidence, slices
from selfrefine.reflection.evidence import Evidence
from selfrefine.reflection.failures import failed
from selfrefine.reflection.findings import Cell, Slice, Weaknesses
from selfrefine.reflection.weaknesses import drafts
from selfrefine.seeds import derive
from selfrefine.steps.asking import ask
from selfrefine.steps.critique_outcome import RIGHT
from selfrefine.words import count

MOST = 3
"""Weaknesses that the critic is asked about."""
PAIRS = 4
"""Tasks that it is shown for each."""
SAMPLING = Sampling(temperature=0.0, max_new_tokens=96)
_TASK, _ANSWER, _SENTENCE = 600, 400, 500
"""Characters of a text that are shown to the critic, and of the critic's that are kept."""


class Causes(Struct, frozen=True, kw_only=True):
    text: str
    """Markdown."""
    tokens: Count = 0
    """Sampled from the critic."""
    asked: Count = 0
    failed: Count = 0
    """Of those asked, where the critic gave no answer."""


class _Weakness(NamedTuple):
    name: str
    cells: tuple[Cell | None, Cell | None]
    """On gate and training tasks."""
    rows: tuple[list[Sample], list[Sample]]


def write(
    found: Weaknesses,
    gate: Sequence[Sample],
    train: Sequence[Sample],
    critic: Engine | None,
    template: Template,
    *,
    seed: int,
    passing: float = RIGHT,
    sampling: Sampling = SAMPLING,
    most: int = MOST,
) -> Causes:
    """The page for `found`, which was found on these rows. Without a critic the evidence alone is written.

    `template` is of kind causes. Raises: EngineError where the critic leaves an answer out.
    """
    sides = tuple([row for group in drafts(rows) for row in group] for rows in (gate, train))
    weak = [_weakness(found, name, sides) for name in found.heaviest[:most]]
    said: dict[str, str] = {}
    tokens = asked = silent = 0
    if critic is not None:
        shown = [(one.name, text) for one in weak if (text := _examples(one, seed, passing))]
        chats = [
            (Message(role="user", content=template.render(weakness=name, examples=text)),)
            for name, text in shown
        ]
        seeds = [(derive(seed, "causes", found.after_round, name),) for name, _ in shown]
        asked = len(shown)
        for (name, _), (_, (answer,)) in zip(shown, ask(critic, chats, seeds, sampling), strict=True):
            tokens += answer.sampled_tokens
            if answer.finish_reason == "error":
                silent += 1
                why = slices.one_line(answer.error or "no reason given", _SENTENCE)
                said[name] = f"The critic gave no answer:\n\n{_fenced(why)}"
            elif sentence := slices.one_line(answer.text, _SENTENCE):
                said[name] = (
                    "The critic, a model, wrote this. It is no measurement, and nothing depends on it:\n\n"
                    f"{_fenced(sentence)}"
                )
            else:
                said[name] = "The critic's answer was empty."
    parts = [_head(found, critic)]
    parts.append("## All tasks\n\n" + _table((None, None), sides, passing))
    for i, one in enumerate(weak, start=1):
        own = _table(one.cells, one.rows, passing)
        nothing = (
            "" if critic is None else "The critic was not asked: no training answer to such a task is wrong."
        )
        words = said.get(one.name, nothing)
        parts.append(f"## {i}. {_code(one.name)}\n\n{own}" + (f"\n\n{words}" if words else ""))
    return Causes(text="\n\n".join(parts) + "\n", tokens=tokens, asked=asked, failed=silent)


def _weakness(found: Weaknesses, name: str, sides: Sequence[list[Sample]]) -> _Weakness:
    cells = tuple(
        next((cell for cell in split if cell.name == name and cell.slice is not None), None)
        for split in (found.gate, found.train)
    )
    cut = next(cell.slice for cell in cells if cell is not None)
    assert cut is not None
    return _Weakness(name, (cells[0], cells[1]), (_inside(cut, sides[0]), _inside(cut, sides[1])))


def _inside(cut: Slice, rows: Sequence[Sample]) -> list[Sample]:
    known: dict[str, bool] = {}
    for row in rows:
        if row.task.id not in known:
            known[row.task.id] = slices.holds(cut, row.task)
    return [row for row in rows if known[row.task.id]]


def _head(found: Weaknesses, critic: Engine | None) -> str:
    lines = [
        f"# What goes wrong after round {found.after_round}",
        "",
        "Every figure is counted from the answers. Gate: the accepted policy's answers to the gate tasks. "
        "Training: the answers sampled in the last round.",
    ]
    if not found.heaviest:
        lines.append("No slice of tasks is significantly weak, so no cause is looked for.")
    elif critic is None:
        lines.append("There is no critic: this is the evidence alone.")
    return "\n".join(lines)


def _table(cells: tuple[Cell | None, Cell | None], sides: Sequence[Sequence[Sample]], passing: float) -> str:
    counted = [evidence.count(rows, passing) for rows in sides]
    lines = ["| | gate | training |", "|---|---|---|"]

    def line(name: str, values: Sequence[str | None]) -> None:
        if any(value is not None for value in values):
            lines.append(
                f"| {name} | " + " | ".join("–" if value is None else value for value in values) + " |"
            )

    line("mean reward of its tasks", [None if cell is None else _rate(cell) for cell in cells])
    line(
        "of the other tasks",
        [None if cell is None or cell.rest is None else f"{cell.rest:.3f}" for cell in cells],
    )
    line(
        "q that it is not worse",
        [None if cell is None or cell.q_value is None else f"{cell.q_value:.2g}" for cell in cells],
    )
    line(
        "share of all missing reward",
        [None if cell is None else f"{cell.weight:.0%}".replace("%", " %") for cell in cells],
    )
    for name, figure in _FIGURES.items():
        line(name, [figure(one) if one.answers else None for one in counted])
    line(
        "examples",
        [
            None if cell is None or not cell.examples else ", ".join(map(_cell_code, cell.examples))
            for cell in cells
        ],
    )
    return "\n".join(lines)


def _rate(cell: Cell) -> str:
    if cell.rate is None:
        return "–"
    ends = "" if cell.lo is None or cell.hi is None else f" [{cell.lo:.3f}, {cell.hi:.3f}]"
    return f"{cell.rate:.3f}{ends}, {count(cell.n, 'task')}"


def _failures(one: Evidence) -> str:
    kinds = ", ".join(f"{kind} {n:,}" for kind, n in one.kinds.items())
    return f"{one.failed:,} of {one.answers:,}" + (f": {kinds}" if kinds else "")


def _number(value: float | None) -> str | None:
    if value is None:
        return None
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:,.4g}"


def _lengths(one: Evidence) -> str | None:
    sides = [
        f"{word} {value:,.1f}"
        for word, value in (("right", one.length_right), ("failed", one.length_wrong))
        if value is not None
    ]
    return f"{', '.join(sides)} {one.unit}" if sides else None


def _missed(one: Evidence) -> str | None:
    if (own := one.numbers) is None:
        return None
    unread = f", {own.unread:,} without a readable number" if own.unread else ""
    return f"{own.read:,}{unread}"


def _of_numbers(field: str) -> Callable[[Evidence], str | None]:
    def show(one: Evidence) -> str | None:
        value = None if one.numbers is None else getattr(one.numbers, field)
        return None if value is None else f"{value:.0%}".replace("%", " %")

    return show


_FIGURES: dict[str, Callable[[Evidence], str | None]] = {
    "failed answers": _failures,
    "mean length": _lengths,
    "failed answers with a number": _missed,
    "median absolute error": lambda one: None if one.numbers is None else _number(one.numbers.error),
    "off by exactly 1": _of_numbers("off_by_one"),
    "off by exactly 10": _of_numbers("off_by_ten"),
    "right but for the sign": _of_numbers("sign"),
    "equal to a number of the question": _of_numbers("copied"),
}


def _examples(one: _Weakness, seed: int, passing: float) -> str:
    """Wrong answers of training tasks and right ones: of the same task if there is one, else of another."""
    by_task = drafts(one.rows[1])
    mixed: list[tuple[Sample, Sample | None]] = []
    wrong_only: list[Sample] = []
    right_only: list[Sample] = []
    for group in sorted(by_task, key=lambda group: derive(seed, "causes", "task", group[0].task.id)):
        wrong = [row for row in group if failed(row, passing) and row.text.strip()]
        right = [row for row in group if row.reward is not None and not failed(row, passing)]
        if wrong and right:
            mixed.append((wrong[0], right[0]))
        elif wrong:
            wrong_only.append(wrong[0])
        elif right:
            right_only.append(right[0])
    shown = mixed[:PAIRS]
    spare = iter(right_only)
    shown += [(row, next(spare, None)) for row in wrong_only[: PAIRS - len(shown)]]
    return "\n\n".join(_pair(i, wrong, right) for i, (wrong, right) in enumerate(shown, start=1))


def _pair(i: int, wrong: Sample, right: Sample | None) -> str:
    parts = [(f"Task {i}:", slices.question(wrong.task), _TASK), ("Wrong answer:", wrong.text, _ANSWER)]
    if right is not None:
        if right.task.id != wrong.task.id:
            parts.append(("Another task:", slices.question(right.task), _TASK))
        parts.append(("Right answer:", right.text, _ANSWER))
    return "\n".join(f"{label}\n{_quoted(text, most)}" for label, text, most in parts)


def _quoted(text: str, most: int) -> str:
    """Each line behind a bar, so that no text can pass for a label."""
    cut = text if len(text) <= most else text[:most] + "…"
    return "\n".join(f"| {line}" for line in cut.splitlines() or [""])


def _fenced(line: str) -> str:
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", line)), default=0))
    return f"{fence}text\n{line}\n{fence}"


def _code(line: str) -> str:
    """Inline code, which no text can end."""
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    inner = f" {line} " if line.startswith("`") or line.endswith("`") else line
    return f"{fence}{inner}{fence}"


def _cell_code(text: str) -> str:
    """The same in a table, where a bar would begin another cell even inside code."""
    return _code(slices.one_line(text, 80).replace("|", "¦"))
