"""One task through all rounds of a run, for a terminal: its answers, and revisions as a diff."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from selfrefine.records import Reward, Sample, Task
from selfrefine.reflection.history import Answered
from selfrefine.report.criticised import votes_said
from selfrefine.report.diagnosed import mark
from selfrefine.report.safe_text import safe_text, text
from selfrefine.report.tables import task_view
from selfrefine.report.word_diff import word_diff

_ANSWER_CHARACTERS, _DETAIL_CHARACTERS = 4_000, 300


def task_history_view(split: str, task: Task, seen: Sequence[Answered]) -> Group:
    """The task, then its answers place by place."""
    parts: list[RenderableType] = [text(f"task of the {split} split", "dim"), task_view(task)]
    if not seen:
        parts += [text(""), text("no round has answered it")]
    before: tuple[str, str] | None = None
    drafts = {one.sample.id: one.sample for one in seen}
    for one in seen:
        if (one.place, one.stage) != before:
            before = one.place, one.stage
            parts += [text(""), text(_place(one), "bold")]
        parts += _answer(one, drafts)
    return Group(*parts)


def _place(one: Answered) -> str:
    said = {
        "start": "the starting policy",
        "sampled": "sampled to learn from",
        "accepted": "the policy accepted at the end",
        "kept": "this round's candidate, kept",
        "undecided": "this round's candidate, undecided",
        "rolled back": "this round's candidate, rolled back",
    }[one.policy]
    where = one.place if one.round is None else f"round {one.round}"
    return f"{where} · {one.stage}: {said}"


def _answer(one: Answered, drafts: dict[str, Sample]) -> Iterator[RenderableType]:
    row = one.sample
    draft = drafts.get(row.parent_id) if row.parent_id is not None else None
    head = Table.grid(padding=(0, 1))
    words = ["revision" if row.parent_id is not None else f"answer {row.index}"]
    words += ["learnt"] if one.learnt else []
    ends = {"length": ["cut off"], "error": ["failed"]}
    words += ends.get(row.finish_reason, [])
    head.add_row(mark(row.reward), text(" · ".join([*words, *map(_reward, row.rewards)]), "cyan"))
    yield Padding(head, (0, 0, 0, 2))
    if row.error is not None:
        yield _indented(text(f"error: {row.error}", "red", _DETAIL_CHARACTERS))
    if draft is not None and draft.text != row.text:
        yield _indented(Diff(draft.text[:_ANSWER_CHARACTERS], row.text[:_ANSWER_CHARACTERS]))
    else:
        yield _indented(text(row.text, "", _ANSWER_CHARACTERS, newlines=True))
    for reward in row.rewards:
        detail = reward.detail if reward.error is None else f"unscored: {reward.error}"
        if detail:
            yield _indented(text(f"{reward.name}: {detail}", "dim", _DETAIL_CHARACTERS))
    for critique in row.critiques if draft is None else row.critiques[len(draft.critiques) :]:
        verdict: str = critique.verdict or "no verdict"
        verdict += f"; {voted}" if (voted := votes_said(critique)) else ""
        said = critique.text if critique.error is None else f"error: {critique.error}"
        shown = text(f"critique ({verdict}): {said}", "italic", _ANSWER_CHARACTERS, newlines=True)
        yield _indented(shown)


def _reward(reward: Reward) -> str:
    return f"{reward.name} {'–' if reward.value is None else f'{reward.value:.3f}'}"


def _indented(value: RenderableType) -> Padding:
    return Padding(value, (0, 0, 0, 4))


class Diff:
    """What a revision made of its draft: in colour, or with marks where there is none: [-gone-]{+new+}."""

    def __init__(self, before: str, after: str) -> None:
        self.before, self.after = before, after

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        coloured = console.is_terminal and not console.no_color
        yield marked(self.before, self.after, coloured)


def marked(before: str, after: str, coloured: bool) -> Text:
    """Both texts in one, word by word."""
    shown = Text()
    for kind, part in word_diff(before, after):
        words = safe_text(part, newlines=True)
        if kind == "same":
            shown.append(words)
            continue
        # White space behind the mark: "[-two -]words" reads worse than "[-two-] words".
        inner = words.rstrip()
        rest = words[len(inner) :]
        if coloured:
            shown.append(inner or words, "red strike" if kind == "gone" else "green underline")
            shown.append(rest if inner else "")
        else:
            signs = ("[-", "-]") if kind == "gone" else ("{+", "+}")
            shown.append(f"{signs[0]}{inner}{signs[1]}{rest}")
    return shown
