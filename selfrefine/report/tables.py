"""Data in, rich renderables out: nothing here prints, reads or counts. All fit 80 columns.

Print them with a console of `report.console`. Where stdout is a pipe, commands write JSON Lines instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Struct
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from selfrefine.doctor import Check
from selfrefine.layers import path_of
from selfrefine.records import Reward, Sample, Task
from selfrefine.report.criticised import votes_said
from selfrefine.report.guards import plain_table, watched_view
from selfrefine.report.safe_text import text
from selfrefine.report.words import clock, compact, number, with_interval
from selfrefine.runfolder.audit import RunInfo
from selfrefine.runfolder.run import Run
from selfrefine.runfolder.summaries import RoundSummary, RunManifest
from selfrefine.stats import Difference, Interval
from selfrefine.words import count

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}
_STATE_WIDTH = 17
_PROMPT_CHARACTERS, _ANSWER_CHARACTERS, _STATE_CHARACTERS = 600, 4_000, 90


class RoundRow(Struct, frozen=True, kw_only=True):
    """A line of the table a cycle ends with."""

    label: str
    """The round's number, or "final"."""
    gate: Interval | None = None
    test: Interval | None = None
    tokens: int | None = None
    """Sampled ones."""
    seconds: float | None = None
    decision: str = ""


def round_rows(
    summaries: Iterable[RoundSummary], seconds: Mapping[int, float] | None = None
) -> list[RoundRow]:
    """Rows of `round_table` from committed rounds; `seconds` by round index, from events.jsonl."""
    return [
        RoundRow(
            label=str(summary.index),
            gate=summary.measures.get("gate"),
            test=summary.measures.get("test"),
            tokens=summary.cost.tokens,
            seconds=(seconds or {}).get(summary.index),
            decision=summary.decision,
        )
        for summary in summaries
    ]


def final_row(run: Run) -> RoundRow | None:
    """The accepted policy on the test split, where it was measured."""
    told = run.final_summary()
    if told is None:
        return None
    kept = f"round {told.accepted_round}" if told.accepted_round else "the start"
    return RoundRow(label="final", test=told.test, decision=kept)


class RoundTable(Struct, frozen=True):
    """Per round: gate and test with their 95 % intervals, tokens, time and decision; where it is narrow,
    without time, then without tokens, then with intervals on two lines. A decision is always there."""

    rows: Sequence[RoundRow]
    measure: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for costs in (("tokens", "time"), ("tokens",), ()):
            table = self._table(costs)
            if console.measure(table, options=options.update(max_width=1_000)).maximum <= options.max_width:
                break
        yield table

    def _table(self, costs: Sequence[str]) -> Table:
        table = plain_table(f"{self.measure}, mean [95 % interval]")
        table.add_column("round", no_wrap=True)
        columns = [name for name in ("gate", "test") if any(getattr(row, name) for row in self.rows)]
        for name in columns:
            table.add_column(name, overflow="fold")
        for name in costs:
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("decision", overflow="fold")
        for row in self.rows:
            cells = [with_interval(value) if (value := getattr(row, name)) else "" for name in columns]
            spent = {
                "tokens": "" if row.tokens is None else compact(row.tokens),
                "time": "" if row.seconds is None else clock(row.seconds),
            }
            table.add_row(*map(text, (row.label, *cells, *(spent[name] for name in costs), row.decision)))
        return table


def round_table(rows: Sequence[RoundRow], measure: str = "accuracy") -> RoundTable:
    """The table that a cycle ends with, as wide as its console."""
    return RoundTable(rows, measure)


def measure_name(config: Mapping[str, Any]) -> str:
    """The rewards that measure, from a manifest's config, as the table's title."""
    names = config.get("evaluate", {}).get("measure") or config.get("reward", {}).get("use") or ["accuracy"]
    return " + ".join(name.partition(":")[0] if ".py:" not in name else name for name in names)


class Runs(Struct, frozen=True):
    """`runs ls`: a line per run, damaged ones with what is wrong. Where that is too wide, without intervals,
    then a few lines per run: a table whose cells break within a number can't be read."""

    runs: Sequence[RunInfo]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for intervals in (True, False):
            figures = self._table(intervals, state=False)  # the state is a sentence, and folds
            wide = console.measure(figures, options=options.update(max_width=1_000)).maximum
            if wide + _STATE_WIDTH <= options.max_width:
                yield self._table(intervals)
                return
        yield from (self._record(run) for run in self.runs)

    def _table(self, intervals: bool, state: bool = True) -> Table:
        table = plain_table()
        for name in ("run", "rounds", "accepted", "gate", "test gain"):
            left = name in {"run", "gate", "accepted"}
            table.add_column(name, justify="left" if left else "right", no_wrap=True)
        if state:
            table.add_column("state", overflow="fold")
        for run in self.runs:
            kept, gate, gain = _figures_of(run, intervals)
            cells = [kept, gate, gain] if run.problem is None else ["", "", ""]
            rounds = str(run.rounds) if run.problem is None else ""
            table.add_row(*map(text, (run.name, rounds, *cells)), *([_state_of(run)] if state else []))
        return table

    def _record(self, run: RunInfo) -> RenderableType:
        lines: list[RenderableType] = [text(run.name, "bold")]
        if run.problem is None:
            kept, gate, gain = _figures_of(run, intervals=True)
            said = [count(run.rounds, "round")] + ([f"accepted: {kept}"] if kept else [])
            lines.append(text(", ".join(said)))
            lines += [text(f"gate {gate}")] if gate != "–" else []
            lines += [text(f"test gain {gain}")] if gain else []
        return Group(lines[0], Padding(Group(*lines[1:], _state_of(run)), (0, 0, 0, 2)))


def runs_table(runs: Sequence[RunInfo]) -> Runs:
    """`runs ls`, as wide as its console."""
    return Runs(runs)


def _figures_of(run: RunInfo, intervals: bool) -> tuple[str, str, str]:
    """The accepted policy, its gate figure, and the gain on the test tasks."""
    kept = (
        "" if run.last is None else f"round {run.last.accepted_round}" if run.last.accepted_round else "start"
    )
    gate = with_interval(run.gate)
    return kept, gate if intervals else gate.partition(" ")[0], "" if run.gain is None else f"{run.gain:+.3f}"


def _state_of(run: RunInfo) -> Text:
    if run.problem is None:
        return text(run.state, "", _STATE_CHARACTERS)
    return text(f"{run.state}: {run.problem}" if run.state else run.problem, "bold red")


def run_view(
    manifest: RunManifest,
    summaries: Sequence[RoundSummary],
    seconds: Mapping[int, float] | None = None,
    final: RoundRow | None = None,
    stages: Mapping[int, Sequence[str]] | None = None,
    gain: Difference | None = None,
) -> Group:
    """`runs show`: what was asked (with who decided it, defaults left out), then what each round measured.

    `stages`: of each round, a line for each of its stages; `gain`: on the test tasks, from start to end.
    """
    head = Table.grid(padding=(0, 2))
    model = " ".join(manifest.model[key] for key in ("id", "revision") if manifest.model.get(key))
    facts = {
        "run": manifest.name,
        "model": model,
        "device": f"{manifest.device}, {manifest.dtype}, {count(manifest.threads, 'thread')}",
        "seeds": ", ".join(f"{key} {value}" for key, value in manifest.seeds.items()),
        "command": " ".join(manifest.argv),
    }
    for key, value in facts.items():
        head.add_row(text(key, "bold"), text(value))
    for key, origin in sorted(manifest.origins.items()):
        if origin != "default":
            head.add_row(text(origin, "dim"), text(f"{key} = {_setting(manifest.config, key)}"))
    parts: list[RenderableType] = [head, text("")]
    if not summaries:
        return Group(*parts, text("no committed round yet"))
    rows = round_rows(summaries, seconds)
    parts.append(round_table([*rows, final] if final else rows, measure_name(manifest.config)))
    if gain is not None:
        parts.append(text(f"gain on {count(gain.n, 'test task')}, paired: {with_interval(gain)}"))
    for summary in summaries:
        own = summary.cost
        parts.append(
            text(
                f"round {summary.index}: {count(own.tokens, 'token')} sampled "
                f"({number(own.measured_tokens)} to measure), {number(own.trained_tokens)} trained on"
            )
        )
        lines = (stages or {}).get(summary.index, ())
        parts += [Padding(text(line, "dim"), (0, 0, 0, 2)) for line in lines]
        if summary.gate is not None:
            parts.append(Padding(text(summary.gate.reason, "dim"), (0, 0, 0, 2)))
    return Group(*parts, *watched_view(summaries))


def _setting(config: Mapping[str, Any], dotted: str) -> str:
    value: Any = config
    for key in path_of(dotted):
        value = value.get(key) if isinstance(value, Mapping) else None
    return msgspec.json.encode(value).decode()


def doctor_view(checks: Sequence[Check]) -> Table:
    """`doctor`: a line per fact, and under what is not ok how to mend it."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        table.add_row(text(check.status, _STYLES[check.status]), text(check.name), text(check.value))
        if check.mend is not None:
            table.add_row(text(""), text(""), text(f"→ {check.mend}", "dim"))
    return table


def task_view(task: Task) -> Group:
    """A task as a person reads it: id and tags, the messages, the references."""
    tags = "".join(f" · {key}={value}" for key, value in task.tags.items())
    parts: list[RenderableType] = [text(f"{task.id}{tags}", "bold")]
    parts += [_indented(f"{message.role}: {message.content}", _PROMPT_CHARACTERS) for message in task.prompt]
    parts += [
        _indented(f"reference: {reference}", _PROMPT_CHARACTERS, "dim") for reference in task.references
    ]
    return Group(*parts)


def samples_view(samples: Iterable[Sample]) -> Group:
    """Answers as a person reads them; the prompt stands once above the answers of one task."""
    parts: list[RenderableType] = []
    shown: str | None = None
    for sample in samples:
        if sample.task.id != shown:
            parts += [text("")] if parts else []
            parts.append(task_view(sample.task))
            shown = sample.task.id
        parts.append(sample_view(sample))
    return Group(*parts)


def sample_view(sample: Sample) -> Group:
    """One answer without its prompt: what it is, the text, its rewards and critiques."""
    parts: list[RenderableType] = [_headline(sample)]
    if sample.error is not None:
        parts.append(_indented(f"error: {sample.error}", _PROMPT_CHARACTERS, "red"))
    if sample.text:
        parts.append(_indented(sample.text, _ANSWER_CHARACTERS))
    parts += [_indented(_reward_line(reward), _PROMPT_CHARACTERS, "dim") for reward in sample.rewards]
    for critique in sample.critiques:
        score = "" if critique.score is None else f" {critique.score:.3f}"
        said = critique.text if critique.error is None else f"error: {critique.error}"
        verdict = critique.verdict or "no verdict"
        votes = f"; {voted}" if (voted := votes_said(critique)) else ""
        line = f"critique {critique.pass_index} ({verdict}{score}{votes}): {said}"
        parts.append(_indented(line, _ANSWER_CHARACTERS, "italic"))
    return Group(*parts)


def _headline(sample: Sample) -> Text:
    words = [sample.id]
    if sample.reward is not None:
        words.append(f"reward {sample.reward:.3f}")
    elif sample.rewards:
        words.append("unscored")
    if sample.finish_reason != "stop":
        words.append({"length": "truncated", "error": "failed"}[sample.finish_reason])
    if sample.parent_id is not None:
        words.append(f"revises {sample.parent_id}")
    if sample.lesson is not UNSET:
        lesson = sample.lesson
        words.append(lesson.role if lesson.role != "learn" else f"learnt as {lesson.teaches}")
        words += [f"pair {lesson.pair}"] if lesson.pair else []
    return text(" · ".join(words), "cyan")


def _reward_line(reward: Reward) -> str:
    value = "–" if reward.value is None else f"{reward.value:.3f}"
    why = reward.detail if reward.error is None else f"unscored: {reward.error}"
    return f"{reward.name} {value}" + (f" ({why})" if why else "")


def _indented(value: str, limit: int, style: str = "") -> Padding:
    return Padding(text(value, style, limit, newlines=True), (0, 0, 0, 2))
