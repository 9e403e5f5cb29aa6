"""The answers of the best-of benchmark: sampled once, scored, judged, and stored task by task.

An arm is a policy: a folder with `about.json` and, for each few tasks, a file of samples and one of greedy
answers. A file is written whole, so an interrupted call goes on behind the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from selfrefine.config import Config
from selfrefine.engines.base import Engine
from selfrefine.errors import DataError
from selfrefine.prompts import Template, load
from selfrefine.records import Sample, Task, decode_sample, encode
from selfrefine.rewards import p_true
from selfrefine.runfolder.jsonl import atomic_write
from selfrefine.steps.best_of import finished, judged
from selfrefine.steps.critics import judging, p_ok
from selfrefine.steps.generate import generate
from selfrefine.steps.reward import score
from selfrefine.steps.scoring import build_rewards, measuring_specs

SAMPLES = 16
TASKS_A_FILE = 10
JUDGED = "judged"
"""Column of a sample: what p-true and the critic say of it."""


class Judged(Struct, frozen=True, kw_only=True):
    """Null where not known. `read`, `read_by_critic`: the tokens of the questions."""

    p_yes: float | None
    read: int
    p_ok: float | None
    read_by_critic: int


class About(Struct, frozen=True, kw_only=True):
    """What an arm was made with; another one in the same folder is refused."""

    model: str
    adapter: str
    """Its folder, as it was named; empty for the bare model."""
    policy: str
    engine: str
    source: str
    """The configuration, or the file of the tasks."""
    seed: int
    temperature: float
    max_new_tokens: int
    measure: tuple[str, ...]


class Arm(Struct, frozen=True, kw_only=True):
    """One policy's answers: by task id, SAMPLES samples and a greedy answer."""

    label: str
    about: About
    samples: dict[str, list[Sample]]
    greedy: dict[str, Sample]


def make(
    folder: Path,
    tasks: Sequence[Task],
    engine: Engine,
    config: Config,
    about: About,
    say: Callable[[str], object] = lambda line: None,
) -> None:
    """Answers to these tasks, as far as the folder has none yet. Raises: DataError for another's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "about.json"
    if note.is_file() and msgspec.json.decode(note.read_bytes(), type=About) != about:
        raise DataError(f"{folder} has the answers of another policy, seed or source: choose another --label")
    atomic_write(note, msgspec.json.format(msgspec.json.encode(about)) + b"\n")
    done = answered(folder)
    left = [task for task in tasks if task.id not in done]
    number = len(list(folder.glob("greedy-*.jsonl")))
    for start in range(0, len(left), TASKS_A_FILE):
        few = left[start : start + TASKS_A_FILE]
        rows, greedy = _answers(few, engine, config)
        # The greedy file comes last: it says that both are there.
        for name, made in (("samples", rows), ("greedy", greedy)):
            atomic_write(folder / f"{name}-{number:03}.jsonl", b"".join(encode(row) + b"\n" for row in made))
        number += 1
        say(f"{folder.name}: {len(done) + start + len(few):,} of {len(tasks):,} tasks")


def _answers(tasks: Sequence[Task], engine: Engine, config: Config) -> tuple[list[Sample], list[Sample]]:
    sampling = replace(config.generate, n=SAMPLES)
    rows = generate(tasks, engine, sampling, config.seed, stage="best-of")
    plain = replace(sampling, n=1, temperature=0.0, top_p=1.0, top_k=0, min_p=0.0)
    greedy = generate(tasks, engine, plain, config.seed, stage="greedy")
    scorers = build_rewards(config, measuring_specs(config), engine)
    by_row = _judgements(rows, engine, load(config.critique.choice_prompt, "choice"))
    told = []
    for row in score(rows, scorers):
        note = msgspec.json.encode(by_row[row.id])
        # Ids and logprobs of ids are not needed, but the number of tokens is: `token_ids` stays.
        told.append(replace(row, logprobs=None, prompt_token_ids=(), extra={JUDGED: Raw(note)}))
    return told, score(greedy, scorers)


def _judgements(rows: Sequence[Sample], engine: Engine, choice: Template) -> dict[str, Judged]:
    """By row id. Equal answers are asked about once, and have the same figures."""
    yes, _ = judged(rows, engine)
    first = {(row.task.id, row.text): row for row in rows if finished(row)}
    told = dict(zip(first, p_ok(engine, choice, [judging(row) for row in first.values()]), strict=True))
    read = {key: len(engine.encode_chat(p_true.asked(row.task, row.text))) for key, row in first.items()}
    found = {}
    for row in rows:
        key = row.task.id, row.text
        ok, by_critic = told[key] if finished(row) else (None, 0)
        asked = read[key] if finished(row) else 0
        found[row.id] = Judged(p_yes=yes.get(row.id), read=asked, p_ok=ok, read_by_critic=by_critic)
    return found


def answered(folder: Path) -> set[str]:
    """Task ids of the files that are whole."""
    return {row.task.id for row in _rows(folder, "greedy")}


def read(folder: Path, tasks: Sequence[str] | None = None) -> Arm:
    """The arm in a folder; `tasks`: those of these ids. Raises: DataError, OSError."""
    about = msgspec.json.decode((folder / "about.json").read_bytes(), type=About)
    greedy = {row.task.id: row for row in _rows(folder, "greedy") if tasks is None or row.task.id in tasks}
    samples: dict[str, list[Sample]] = {}
    for row in _rows(folder, "samples"):
        if row.task.id in greedy:
            samples.setdefault(row.task.id, []).append(row)
    return Arm(label=folder.name, about=about, samples=samples, greedy=greedy)


def judgement(row: Sample) -> Judged:
    assert isinstance(row.extra, dict)
    return msgspec.json.decode(row.extra[JUDGED], type=Judged)


def _rows(folder: Path, name: str) -> Iterator[Sample]:
    for greedy in sorted(folder.glob("greedy-*.jsonl")):
        path = greedy.with_name(greedy.name.replace("greedy", name))
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            yield decode_sample(line, f"{path}:{number}")
