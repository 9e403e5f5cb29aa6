"""The tables of a run's answers: a row an answer, a score, a critique.

`place`, `stage` and `id` together name an answer in all three.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from selfrefine.query.columns import Column, Row, chosen
from selfrefine.query.rows import COPIES, RowFile, Seen, SeenCritique, files, length, seen
from selfrefine.runfolder.order import MORE_ANSWERS, SAME_ANSWERS
from selfrefine.runfolder.run import Run

_PLACE = (
    Column("place", "TEXT", "round-001, final"),
    Column("round", "INTEGER", "null in a final measurement"),
    Column("stage", "TEXT", "reward, gate, test …"),
    Column("id", "TEXT", "of the answer"),
)
SAMPLES = (
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
    Column("kept_tokens", "INTEGER", "of its draft, by a revision that went on from a fault"),
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
    "kept_tokens": lambda row, file: row.kept,
    "tokens": lambda row, file: row.tokens,
    "prompt_tokens": lambda row, file: length(row.prompt_token_ids),
    "policy": lambda row, file: row.policy,
    "engine": lambda row, file: row.engine,
    "seed": lambda row, file: row.seed,
    "tags": lambda row, file: json.dumps(row.task.tags, ensure_ascii=False),
}
_OF_FILE = frozenset({"place", "round", "stage"})


def samples(run: Run, wanted: Sequence[str], tags: Mapping[str, str]) -> Iterator[Row]:
    ids = _Selected(run)
    values = _GET | {"selected": ids.of}
    values |= {column: _tag(name) for column, name in tags.items()}
    get = chosen(values, wanted)
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


REWARDS = (
    *_PLACE,
    Column("name", "TEXT"),
    Column("value", "REAL", "null: could not be computed, see error"),
    Column("detail", "TEXT"),
    Column("error", "TEXT"),
    Column("signature", "TEXT", "how it was computed"),
)
CRITIQUES = (
    *_PLACE,
    Column("pass", "INTEGER", "from 0"),
    Column("verdict", "TEXT", "ok, revise"),
    Column("score", "REAL"),
    Column("text", "TEXT"),
    Column("finish_reason", "TEXT"),
    Column("error", "TEXT"),
    Column("critic", "TEXT"),
    Column("tokens", "INTEGER", "sampled; where several critics judged, by all of them"),
)
VOTES = (*CRITIQUES[:-1], Column("tokens", "INTEGER"))


def rewards(run: Run, wanted: Sequence[str]) -> Iterator[Row]:
    fields = ("name", "value", "detail", "error", "signature")
    own = {name: lambda row, file, one, name=name: getattr(one, name) for name in fields}
    return _inside(run, wanted, own, lambda row: row.rewards)


def critiques(run: Run, wanted: Sequence[str]) -> Iterator[Row]:
    return _criticised(run, wanted, lambda row: row.critiques)


def votes(run: Run, wanted: Sequence[str]) -> Iterator[Row]:
    return _criticised(run, wanted, lambda row: [vote for one in row.critiques for vote in one.votes])


def _criticised(
    run: Run, wanted: Sequence[str], parts: Callable[[Seen], Sequence[SeenCritique]]
) -> Iterator[Row]:
    fields = {"pass": "pass_index"} | {
        name: name for name in ("verdict", "score", "text", "finish_reason", "error", "critic")
    }
    own: dict[str, Callable[..., Any]] = {
        name: lambda row, file, one, field=field: getattr(one, field) for name, field in fields.items()
    }
    own["tokens"] = lambda row, file, one: one.tokens
    return _inside(run, wanted, own, parts)


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
    get = chosen(outer | dict(own), wanted)
    for file in files(run):
        for where, line in file.lines():
            row = seen(line, where)
            for one in parts(row):
                yield tuple([value(row, file, one) for value in get])
