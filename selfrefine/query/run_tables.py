"""The tables of what is no answer: rounds, optimizer steps, events, and the frozen tasks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from selfrefine.errors import DataError
from selfrefine.query.columns import Column, Row, chosen
from selfrefine.records import decode_task
from selfrefine.reflection.overview import place_seconds
from selfrefine.runfolder.jsonl import lines, read_json
from selfrefine.runfolder.round import TRAINING_LOG
from selfrefine.runfolder.run import Run
from selfrefine.runfolder.summaries import FinalSummary, RoundSummary
from selfrefine.stats import Interval

ROUNDS = (
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


def rounds(run: Run, wanted: Sequence[str]) -> Iterator[Row]:
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


STEPS = (
    Column("round", "INTEGER"),
    Column("step", "INTEGER"),
    Column("loss", "REAL"),
    Column("lr", "REAL"),
    Column("grad_norm", "REAL"),
    Column("tokens", "INTEGER"),
    Column("items", "INTEGER", "answers, pairs or labels of the step"),
    Column("metrics", "TEXT", "JSON, by objective: metrics ->> 'kl'"),
)


def steps(run: Run, wanted: Sequence[str]) -> Iterator[Row]:
    for path in sorted(run.path.glob(f"round-*/{TRAINING_LOG}.jsonl")):
        with path.open("rb") as stream:
            for where, line in lines(stream, f"{path.parent.name}/{path.name}"):
                told = _object(line, where)
                told["round"] = int(path.parent.name.removeprefix("round-"))
                told["metrics"] = json.dumps(told.get("metrics") or {}, ensure_ascii=False)
                yield tuple(_plain(told.get(name)) for name in wanted) or (None,)


EVENTS = (
    Column("time", "TEXT", "UTC"),
    Column("kind", "TEXT"),
    Column("round", "TEXT", "a number, or final"),
    Column("stage", "TEXT"),
    Column("seconds", "REAL"),
    Column("fields", "TEXT", "JSON, all of the event: fields ->> 'reason'"),
)


def events(run: Run, wanted: Sequence[str]) -> Iterator[Row]:
    for event in run.events.read():
        whole = {"fields": json.dumps(event, ensure_ascii=False)} if "fields" in wanted else {}
        yield tuple(_plain((event | whole).get(name)) for name in wanted) or (None,)


TASKS = (
    Column("split", "TEXT", "train, gate, test"),
    Column("id", "TEXT"),
    Column("prompt", "TEXT", "its last message"),
    Column("reference", "TEXT", "the first one"),
    Column("tags", "TEXT", "JSON: tags ->> 'op'"),
)


def tasks(run: Run, wanted: Sequence[str], tags: Mapping[str, str]) -> Iterator[Row]:
    values: dict[str, Callable[[str, Any], Any]] = {
        "split": lambda split, task: split,
        "id": lambda split, task: task.id,
        "prompt": lambda split, task: task.prompt[-1].content if task.prompt else None,
        "reference": lambda split, task: next(iter(task.references), None),
        "tags": lambda split, task: json.dumps(task.tags, ensure_ascii=False),
    }
    for column, name in tags.items():
        values[column] = _tag(name)
    get = chosen(values, wanted)
    for split, task in all_tasks(run):
        yield tuple([one(split, task) for one in get])


def _tag(name: str) -> Callable[[str, Any], str | None]:
    return lambda split, task: task.tags.get(name)


def all_tasks(run: Run) -> Iterator[tuple[str, Any]]:
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
