"""Which tasks a page shows: all rows are counted first, in a stream; only the chosen ones are read whole."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Raw, Struct

from selfrefine.errors import DataError
from selfrefine.records import UNDECODABLE, Lesson, Sample, decode_sample
from selfrefine.runfolder.jsonl import lines
from selfrefine.runfolder.order import MORE_ANSWERS, SAME_ANSWERS
from selfrefine.runfolder.round import RoundDir
from selfrefine.runfolder.run import Run
from selfrefine.seeds import derive
from selfrefine.steps.critique_outcome import is_right

TaskKey = tuple[str, int]
"""A task's id and its prompt's hash: two runs may call different tasks `1`."""

Turn = Literal["right", "wrong", ""]

OTHERS = (*MORE_ANSWERS, "gate", "test", "revised")
MEASURED = ("gate", "test")
_LESSON = {
    "learn": "learnt",
    "chosen": "learnt as the better answer of a pair",
    "rejected": "learnt as the worse answer of a pair",
}
_OF_ANOTHER = {"critique": re.compile(r"\.c\d+$"), "verdict": re.compile(r"\.q$")}
"""By what a row teaches, the end of its id after that of the answer it is about."""


class Place(Struct, frozen=True):
    """A folder of a run that holds answers."""

    run: Run
    run_index: int
    run_name: str
    folder: RoundDir
    label: str
    decision: str

    @property
    def passing(self) -> float:
        """The reward from which on an answer passes in this run."""
        least = self.run.manifest.config.get("select", {}).get("min_reward")
        return 1.0 if least is None else float(least)

    def files(self) -> Iterator[tuple[str, Path]]:
        """What it has, by stage; a training row once, from the last file that holds it."""
        made = next((name for name in SAME_ANSWERS if self.folder.file(name).is_file()), None)
        if made:
            yield "train", self.folder.unchanged(made)
        for name in OTHERS:
            if self.folder.file(name).is_file():
                yield name, self.folder.unchanged(name)


class _TaskSeen(Struct, gc=False):
    id: str
    prompt: Raw


class _RowSeen(Struct, gc=False):
    """As much of a row as tells where it belongs: most of its bytes are skipped."""

    id: str
    task: _TaskSeen
    reward: float | None = None
    finish_reason: str = "stop"
    lesson: Lesson | None = None


_decode = msgspec.json.Decoder(_RowSeen).decode


class Tally:
    """What became of one task in all its answers."""

    __slots__ = ("answers", "cut", "means", "right", "stage", "unscored")

    def __init__(self, stage: str) -> None:
        self.stage = stage
        """Where it was met first: the split it is of."""
        self.answers = self.right = self.unscored = self.cut = 0
        self.means: dict[str, list[tuple[int, float, int]]] = {}
        """Of a measured stage: place, sum of rewards, number of them."""

    def add(self, row: _RowSeen, stage: str, place: int) -> None:
        self.answers += 1
        self.cut += row.finish_reason == "length"
        if row.reward is None:
            self.unscored += 1
            return
        self.right += is_right(row.reward)
        if stage in MEASURED:
            seen = self.means.setdefault(stage, [])
            if not seen or seen[-1][0] != place:
                seen.append((place, 0.0, 0))
            _, total, n = seen[-1]
            seen[-1] = (place, total + row.reward, n + 1)

    def became(self, stage: str, place: int) -> Turn:
        """`right` or `wrong` where the mean reward passed 1 or fell below since the measurement before."""
        before: bool | None = None
        for at, total, n in self.means.get(stage, ()):
            now = is_right(total / n)
            if at == place:
                return "" if before in (None, now) else "right" if now else "wrong"
            before = now
        return ""

    @property
    def fate(self) -> str:
        """One word for what it would show in a sample, the rarest first."""
        turns = {self.became(stage, at) for stage, seen in self.means.items() for at, _, _ in seen}
        for turn in ("wrong", "right"):
            if turn in turns:
                return f"became {turn}"
        if self.unscored:
            return "unscored"
        if self.right == 0:
            return "cut off" if self.cut else "never right"
        return "always right" if self.right == self.answers else "sometimes right"


class Scan:
    """All tasks of some runs in the order in which they appear, counted."""

    def __init__(self, places: Sequence[Place]) -> None:
        self.places = places
        self.tasks: dict[TaskKey, Tally] = {}
        self.learnt: dict[tuple[int, str], list[str]] = {}
        """Run and row id to what training used the row for; filled by `rows`."""

    def choose(self, seed: int, keep: Collection[str], answers: int, most_each: int) -> list[TaskKey]:
        """Tasks whose answers, at most `most_each` of one, are not more than `answers` together: those of
        `keep`, then one of each fate of each split in turn."""
        by_chance = sorted(self.tasks, key=lambda key: derive(seed, "report", "task", key[0]))
        named = {head for one in keep for head in _heads(one)}
        wanted = [key for key in by_chance if key[0] in named]
        kinds: dict[tuple[str, str], list[TaskKey]] = {}
        for key in by_chance:
            kinds.setdefault((self.tasks[key].stage, self.tasks[key].fate), []).append(key)
        turns = [kinds[kind] for kind in sorted(kinds)]
        rest = [one[i] for i in range(max(map(len, turns), default=0)) for one in turns if i < len(one)]
        chosen: list[TaskKey] = []
        left = answers
        for key in dict.fromkeys([*wanted, *rest]):
            need = min(self.tasks[key].answers, most_each)
            if need <= left:
                chosen.append(key)
                left -= need
        return chosen

    def rows(self, chosen: Collection[TaskKey]) -> Iterator[tuple[TaskKey, int, str, Sample]]:
        """The chosen tasks' answers with place and stage, in order. Raises: DataError, RunFolderError."""
        ids = {id for id, _ in chosen}
        for place in self.places:
            if place.folder.file("selected").is_file():
                self._note_lessons(place, ids)
        for index, place in enumerate(self.places):
            for stage, path in place.files():
                for where, line, row in _seen(path):
                    if (key := _key(row)) in chosen:
                        yield key, index, stage, decode_sample(line, where)

    def _note_lessons(self, place: Place, ids: Collection[str]) -> None:
        for _, _, row in _seen(place.folder.unchanged("selected")):
            if row.task.id not in ids or row.lesson is None:
                continue
            said = _LESSON[row.lesson.role]
            teaches = row.lesson.teaches
            if teaches in _OF_ANOTHER:
                said = f"its {teaches} {said}"
            base = _OF_ANOTHER[teaches].sub("", row.id) if teaches in _OF_ANOTHER else row.id
            noted = self.learnt.setdefault((place.run_index, base), [])
            phrase = f"{said} in {place.label}"
            if phrase not in noted:
                noted.append(phrase)


def places_of(runs: Sequence[Run]) -> list[Place]:
    """The folders with answers, run by run, in the order in which they were made."""
    names = [run.name for run in runs]
    found = []
    for index, run in enumerate(runs):
        name = names[index]
        if names.count(name) > 1:  # two folders of one name: a link must tell them apart
            name = f"{name} ({names[: index + 1].count(name)})"
        for folder, label, decision in _folders(run):
            found.append(Place(run, index, name, folder, label, decision))
    return found


def _folders(run: Run) -> Iterator[tuple[RoundDir, str, str]]:
    ends = {
        int(match[1]): RoundDir(path)
        for path in sorted(run.path.glob("final-after-*"))
        if (match := re.fullmatch(r"final-after-(\d+)", path.name))
    }
    for index in range(run.next_round() + 1):
        folder = run.round(index)
        decision = ""
        if folder.committed:
            decision = folder.summary().decision if index else ""
        if folder.path.is_dir():
            yield folder, f"round {index}", decision if folder.committed else "not finished"
        if index in ends:
            yield ends[index], f"end after round {index}", ""
    if run.final.path.is_dir():
        yield run.final, "end", ""


def scan(places: Sequence[Place]) -> Scan:
    """Count all rows; one of them in memory at a time. Raises: DataError, RunFolderError."""
    seen = Scan(places)
    for index, place in enumerate(places):
        for stage, path in place.files():
            for _, _, row in _seen(path):
                tally = seen.tasks.get(key := _key(row))
                if tally is None:
                    tally = seen.tasks[key] = Tally(stage)
                tally.add(row, stage, index)
    return seen


def _seen(path: Path) -> Iterator[tuple[str, bytes, _RowSeen]]:
    with path.open("rb") as stream:
        for where, line in lines(stream, str(path)):
            try:
                row = _decode(line)
            except UNDECODABLE:
                decode_sample(line, where)  # says what is wrong with it
                raise DataError(f"{where}: not a sample row") from None
            yield where, line, row


def _key(row: _RowSeen) -> TaskKey:
    return row.task.id, hash(bytes(row.task.prompt))


def _heads(id: str) -> Iterator[str]:
    """The ids of which this may be a row's: a task's id may hold dots itself, and a row's is `TASK.r1.s0`."""
    yield id
    while "." in id:
        id = id.rpartition(".")[0]
        yield id
