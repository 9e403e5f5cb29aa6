"""A run as tables: what each has for columns, and how its rows are made. `sql.py` loads what a query names.

`samples`, `rewards` and `critiques` have a row an answer, a score, a critique; `place`, `stage` and `id`
together name an answer in all three.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Struct

from selfrefine.errors import DataError
from selfrefine.query.rows import COPIES, RowFile, Seen, files, length, seen
from selfrefine.records import decode_task
from selfrefine.reflection.overview import place_seconds
from selfrefine.runfolder.jsonl import lines, read_json
from selfrefine.runfolder.order import MORE_ANSWERS, SAME_ANSWERS
from selfrefine.runfolder.round import TRAINING_LOG
from selfrefine.runfolder.run import Run
from selfrefine.runfolder.summaries import FinalSummary, RoundSummary
from selfrefine.stats import Interval

Row = tuple[Any, ...]
MOST_TAGS = 200
"""Tags with a column of their own; the others stand in the column `tags` only."""


class Column(Struct, frozen=True):
    name: str
    kind: str
    """SQLite's: TEXT, INTEGER, REAL."""
    about: str = ""


class Table(Struct, frozen=True, kw_only=True):
    name: str
    about: str
    columns: tuple[Column, ...]
    rows: Callable[[Run, Sequence[str]], Iterator[Row]]
    """The values of the columns that are asked for, in that order; without any, one null a row."""


def tables(run: Run) -> dict[str, Table]:
    """By name. Reads the tasks, because their tags are columns."""
    tags = tag_columns(run)
    own = tuple(Column(column, "TEXT", f"the tag {name!r}") for column, name in tags.items())
    return {
        one.name: one
        for one in (
            Table(
                name="rounds", about="committed rounds and final measurements", columns=_ROUNDS, rows=_rounds
            ),
            Table(
                name="samples",
                about="every answer once, from the file in which it has the most fields",
                columns=(*_SAMPLES, *own),
                rows=lambda run, wanted: _samples(run, wanted, tags),
            ),
            Table(name="rewards", about="the scores of those answers", columns=_REWARDS, rows=_rewards),
            Table(name="critiques", about="their critiques", columns=_CRITIQUES, rows=_critiques),
            Table(name="steps", about="optimizer steps", columns=_STEPS, rows=_steps),
            Table(name="events", about="what happened when", columns=_EVENTS, rows=_events),
            Table(
                name="tasks",
                about="the frozen splits",
                columns=(*_TASKS, *own),
                rows=lambda run, wanted: _tasks(run, wanted, tags),
            ),
        )
    }


def tag_columns(run: Run) -> dict[str, str]:
    """`tag_op` to the tag `op`: names that a query can write without quotes.

    Of two that are alike then, the second gets _2.
    """
    found: dict[str, str] = {}
    names = sorted({name for task in _all_tasks(run) for name in task[1].tags})
    for name in names[:MOST_TAGS]:
        # Letters of all scripts: SQLite takes them without quotes, and as "_" they would all be alike.
        column = plain = "tag_" + re.sub(r"\W", "_", name.casefold())[:56]
        number = 1
        while column in found:
            number += 1
            column = f"{plain}_{number}"
        found[column] = name
    return found


def _chosen(values: Mapping[str, Callable[..., Any]], wanted: Sequence[str]) -> list[Callable[..., Any]]:
    return [values[name] for name in wanted] or [lambda *_: None]


_PLACE = (
    Column("place", "TEXT", "round-001, final"),
    Column("round", "INTEGER", "null in a final measurement"),
    Column("stage", "TEXT", "reward, gate, test …"),
    Column("id", "TEXT", "of the answer"),
)
_SAMPLES = (
    *_PLACE,
    Column("task_id", "TEXT"),
    Column("idx", "INTEGER", "number of the answer within its task"),
    Column("parent_id", "TEXT", "the draft that this revises"),
    Column("prompt", "TEXT", "the task's last message"),
    Column("text", "TEXT"),
    Column("reference", "TEXT", "the first one"),
    Column("finish_reason", "TEXT", "stop, length, error"),
    Column("reward", "REAL", "null: not scored"),
    Column("error", "TEXT"),
    Column("selected", "INTEGER", "1: learnt from in its round; null where a round selected nothing yet"),
    Column("critiques", "INTEGER", "how many"),
    Column("tokens", "INTEGER", "sampled"),
    Column("prompt_tokens", "INTEGER"),
    Column("policy", "TEXT"),
    Column("engine", "TEXT"),
    Column("seed", "INTEGER"),
    Column("tags", "TEXT", "JSON: tags ->> 'op'"),
)
_GET: dict[str, Callable[[Seen, RowFile], Any]] = {
    "place": lambda row, file: file.place,
    "round": lambda row, file: file.round,
    "stage": lambda row, file: file.stage,
    "id": lambda row, file: row.id,
    "task_id": lambda row, file: row.task.id,
    "idx": lambda row, file: row.index,
    "parent_id": lambda row, file: row.parent_id,
    "prompt": lambda row, file: row.prompt,
    "text": lambda row, file: row.text,
    "reference": lambda row, file: next(iter(row.task.references), None),
    "finish_reason": lambda row, file: row.finish_reason,
    "reward": lambda row, file: row.reward,
    "error": lambda row, file: row.error,
    "critiques": lambda row, file: len(row.critiques),
    "tokens": lambda row, file: row.tokens,
    "prompt_tokens": lambda row, file: length(row.prompt_token_ids),
    "policy": lambda row, file: row.policy,
    "engine": lambda row, file: row.engine,
    "seed": lambda row, file: row.seed,
    "tags": lambda row, file: json.dumps(row.task.tags, ensure_ascii=False),
}
_OF_FILE = frozenset({"place", "round", "stage"})


def _samples(run: Run, wanted: Sequence[str], tags: Mapping[str, str]) -> Iterator[Row]:
    ids = _Selected(run)
    values = _GET | {"selected": ids.of}
    values |= {column: _tag(name) for column, name in tags.items()}
    get = _chosen(values, wanted)
    for file in files(run):
        if _OF_FILE.issuperset(wanted):  # nothing of the rows themselves: counted, not read
            row = tuple(one(None, file) for one in get)
            for _ in file.lines():
                yield row
            continue
        for where, line in file.lines():
            answer = seen(line, where)
            yield tuple([one(answer, file) for one in get])


def _tag(name: str) -> Callable[[Seen, RowFile], str | None]:
    return lambda row, file: row.task.tags.get(name)


class _Selected:
    """Which answers a round learnt from: ids of one round's selected.jsonl at a time."""

    class Row(Struct, frozen=True, gc=False):
        id: str

    def __init__(self, run: Run) -> None:
        self._run, self._place = run, ""
        self._ids: frozenset[str] | None = None

    def of(self, row: Seen, file: RowFile) -> int | None:
        if file.stage not in (*SAME_ANSWERS, *MORE_ANSWERS):
            return None
        if file.place != self._place:
            self._place, self._ids = file.place, self._read(file.place)
        return None if self._ids is None else int(row.id in self._ids)

    def _read(self, place: str) -> frozenset[str] | None:
        path = self._run.path / place / f"{COPIES[0]}.jsonl"
        if not path.is_file():
            return None
        rows = RowFile(place=place, stage=COPIES[0], path=path).lines()
        return frozenset(msgspec.json.decode(line, type=self.Row).id for _, line in rows)


_REWARDS = (
    *_PLACE,
    Column("name", "TEXT"),
    Column("value", "REAL", "null: could not be computed, see error"),
    Column("detail", "TEXT"),
    Column("error", "TEXT"),
    Column("signature", "TEXT", "how it was computed"),
)
_CRITIQUES = (
    *_PLACE,
    Column("pass", "INTEGER", "from 0"),
    Column("verdict", "TEXT", "ok, revise"),
    Column("score", "REAL"),
    Column("text", "TEXT"),
    Column("finish_reason", "TEXT"),
    Column("error", "TEXT"),
    Column("critic", "TEXT"),
    Column("tokens", "INTEGER"),
)


def _rewards(run: Run, wanted: Sequence[str]) -> Iterator[Row]:
    fields = ("name", "value", "detail", "error", "signature")
    own = {name: lambda row, file, one, name=name: getattr(one, name) for name in fields}
    return _inside(run, wanted, own, lambda row: row.rewards)


def _critiques(run: Run, wanted: Sequence[str]) -> Iterator[Row]:
    fields = {"pass": "pass_index"} | {
        name: name for name in ("verdict", "score", "text", "finish_reason", "error", "critic")
    }
    own: dict[str, Callable[..., Any]] = {
        name: lambda row, file, one, field=field: getattr(one, field) for name, field in fields.items()
    }
    own["tokens"] = lambda row, file, one: length(one.token_ids)
    return _inside(run, wanted, own, lambda row: row.critiques)


def _inside(
    run: Run,
    wanted: Sequence[str],
    own: Mapping[str, Callable[..., Any]],
    parts: Callable[[Seen], Sequence[Any]],
) -> Iterator[Row]:
    """Rows of what stands inside an answer."""
    outer: dict[str, Callable[..., Any]] = {
        name: lambda row, file, one, name=name: _GET[name](row, file)
        for name in ("place", "round", "stage", "id")
    }
    get = _chosen(outer | dict(own), wanted)
    for file in files(run):
        for where, line in file.lines():
            row = seen(line, where)
            for one in parts(row):
                yield tuple([value(row, file, one) for value in get])


_ROUNDS = (
    Column("place", "TEXT", "round-001, final"),
    Column("round", "INTEGER", "null in a final measurement"),
    Column("outcome", "TEXT", "accept, undecided, reject; null in round 0"),
    Column("reason", "TEXT"),
    Column("gate", "REAL", "mean of the round's policy on the gate tasks"),
    Column("gate_lo", "REAL"),
    Column("gate_hi", "REAL"),
    Column("test", "REAL", "mean on the test tasks: round 0 and the end"),
    Column("test_lo", "REAL"),
    Column("test_hi", "REAL"),
    Column("before", "REAL", "of the accepted policy on the tasks that both were scored on"),
    Column("after", "REAL"),
    Column("difference", "REAL", "paired"),
    Column("lo", "REAL"),
    Column("hi", "REAL"),
    Column("p_value", "REAL"),
    Column("alpha", "REAL"),
    Column("n", "INTEGER", "gate tasks compared"),
    Column("accepted_round", "INTEGER"),
    Column("undecided_round", "INTEGER"),
    Column("tokens", "INTEGER", "sampled"),
    Column("measured_tokens", "INTEGER", "of them only to measure"),
    Column("trained_tokens", "INTEGER"),
    Column("seconds", "REAL", "work on its stages, from events.jsonl"),
    Column("policy_before", "TEXT"),
    Column("policy_after", "TEXT"),
)


def _rounds(run: Run, wanted: Sequence[str]) -> Iterator[Row]:
    took = place_seconds(run.events.read()) if "seconds" in wanted else {}
    for folder in run.rounds():
        told = _round(folder.path.name, folder.summary()) | {"seconds": took.get(folder.index)}
        yield tuple(told.get(name) for name in wanted) or (None,)
    for place in sorted(run.path.glob("final*/summary.json"), key=lambda path: path.parent.name == "final"):
        end = read_json(place, FinalSummary)
        if end is not None:
            name = place.parent.name
            told = {"place": name, "accepted_round": end.accepted_round, "policy_after": end.policy}
            told |= _interval("test", end.test)
            told |= {"seconds": took.get("final")} if name == "final" else {}
            yield tuple(told.get(name) for name in wanted) or (None,)


def _round(place: str, one: RoundSummary) -> dict[str, Any]:
    told: dict[str, Any] = {"place": place, "round": one.index}
    told |= msgspec.structs.asdict(one.cost)
    for split, measured in one.measures.items():
        told |= _interval(split, measured)
    for name in ("accepted_round", "undecided_round", "policy_before", "policy_after"):
        told[name] = getattr(one, name)
    if one.gate is not None:
        kept = ("outcome", "reason", "before", "after", "difference", "lo", "hi", "p_value", "alpha", "n")
        told |= {name: getattr(one.gate, name) for name in kept}
    return told


def _interval(name: str, measured: Interval) -> dict[str, Any]:
    return {name: measured.mean, f"{name}_lo": measured.lo, f"{name}_hi": measured.hi}


_STEPS = (
    Column("round", "INTEGER"),
    Column("step", "INTEGER"),
    Column("loss", "REAL"),
    Column("lr", "REAL"),
    Column("grad_norm", "REAL"),
    Column("tokens", "INTEGER"),
    Column("items", "INTEGER", "answers, pairs or labels of the step"),
    Column("metrics", "TEXT", "JSON, by objective: metrics ->> 'kl'"),
)


def _steps(run: Run, wanted: Sequence[str]) -> Iterator[Row]:
    for path in sorted(run.path.glob(f"round-*/{TRAINING_LOG}.jsonl")):
        with path.open("rb") as stream:
            for where, line in lines(stream, f"{path.parent.name}/{path.name}"):
                told = _object(line, where)
                told["round"] = int(path.parent.name.removeprefix("round-"))
                told["metrics"] = json.dumps(told.get("metrics") or {}, ensure_ascii=False)
                yield tuple(_plain(told.get(name)) for name in wanted) or (None,)


_EVENTS = (
    Column("time", "TEXT", "UTC"),
    Column("kind", "TEXT"),
    Column("round", "TEXT", "a number, or final"),
    Column("stage", "TEXT"),
    Column("seconds", "REAL"),
    Column("fields", "TEXT", "JSON, all of the event: fields ->> 'reason'"),
)


def _events(run: Run, wanted: Sequence[str]) -> Iterator[Row]:
    for event in run.events.read():
        whole = {"fields": json.dumps(event, ensure_ascii=False)} if "fields" in wanted else {}
        yield tuple(_plain((event | whole).get(name)) for name in wanted) or (None,)


_TASKS = (
    Column("split", "TEXT", "train, gate, test"),
    Column("id", "TEXT"),
    Column("prompt", "TEXT", "its last message"),
    Column("reference", "TEXT", "the first one"),
    Column("tags", "TEXT", "JSON: tags ->> 'op'"),
)


def _tasks(run: Run, wanted: Sequence[str], tags: Mapping[str, str]) -> Iterator[Row]:
    values: dict[str, Callable[[str, Any], Any]] = {
        "split": lambda split, task: split,
        "id": lambda split, task: task.id,
        "prompt": lambda split, task: task.prompt[-1].content if task.prompt else None,
        "reference": lambda split, task: next(iter(task.references), None),
        "tags": lambda split, task: json.dumps(task.tags, ensure_ascii=False),
    }
    for column, name in tags.items():
        values[column] = _task_tag(name)
    get = _chosen(values, wanted)
    for split, task in _all_tasks(run):
        yield tuple([one(split, task) for one in get])


def _task_tag(name: str) -> Callable[[str, Any], str | None]:
    return lambda split, task: task.tags.get(name)


def _all_tasks(run: Run) -> Iterator[tuple[str, Any]]:
    for split in run.manifest.tasks:
        path = run.path / "tasks" / f"{split}.jsonl"
        if path.is_file():  # one that is missing is named by `runs verify`
            with path.open("rb") as stream:
                for where, line in lines(stream, f"tasks/{path.name}"):
                    yield split, decode_task(line, where)


def _object(line: bytes, where: str) -> dict[str, Any]:
    with suppress(msgspec.DecodeError, UnicodeDecodeError):
        return msgspec.json.decode(line, type=dict[str, Any])
    raise DataError(f"{where}: not a JSON object")


def _plain(value: Any) -> Any:
    """As SQLite takes it: what is nested stays JSON."""
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return value
