"""The rows of a run wherever they are: committed rounds, the round in progress, the final measurement.

Nothing is locked: a run may go on while it is read. Of a stage in progress those rows count that its index
says are on disk; what comes after them may be half a row.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Raw, Struct

from selfrefine.errors import DataError, RunFolderError
from selfrefine.records import UNDECODABLE, Message, Reward, why_undecodable
from selfrefine.runfolder.jsonl import lines
from selfrefine.runfolder.order import SAME_ANSWERS
from selfrefine.runfolder.round import TRAINING_LOG
from selfrefine.runfolder.run import Run
from selfrefine.words import near

COPIES = ("selected", "learnable")
"""Rows that stand in another file of the run too."""
ALIASES = {
    "propose": "proposed",
    "select": "selected",
    "resample": "resampled",
    "rationalise": "rationalised",
}
"""A verb to the rows it makes, where they have another name."""
_PLACE = re.compile(r"round-\d{3,}|final(-after-\d{3,})?")


class SeenTask(Struct, frozen=True, gc=False):
    id: str
    prompt: tuple[Message, ...] = ()
    references: tuple[str, ...] = ()
    tags: dict[str, str] = {}


class SeenCritique(Struct, frozen=True, gc=False):
    text: str = ""
    score: float | None = None
    verdict: str | None = None
    finish_reason: str = "stop"
    error: str | None = None
    pass_index: int = 0
    critic: str = ""
    token_ids: Raw = Raw(b"[]")
    counted_tokens: int = 0
    votes: tuple[SeenCritique, ...] = ()

    @property
    def tokens(self) -> int:
        """Sampled for it, by all who voted."""
        own = length(self.token_ids) or self.counted_tokens
        return own + sum(vote.tokens for vote in self.votes)


class Seen(Struct, frozen=True, gc=False):
    """A `Sample` as far as questions are asked of it; ids of tokens are counted and never read."""

    id: str
    task: SeenTask
    index: int = 0
    parent_id: str | None = None
    text: str = ""
    finish_reason: str = "stop"
    critiques: tuple[SeenCritique, ...] = ()
    rewards: tuple[Reward, ...] = ()
    reward: float | None = None
    error: str | None = None
    seed: int = 0
    policy: str = ""
    engine: str = ""
    prompt_token_ids: Raw = Raw(b"[]")
    token_ids: Raw = Raw(b"[]")
    counted_tokens: int = 0
    kept_tokens: Any = 0
    """Of any type, since it is a column that a person's rows may have, too."""

    @property
    def kept(self) -> int:
        """Tokens that a revision kept of its draft."""
        return self.kept_tokens if isinstance(self.kept_tokens, int) else 0

    @property
    def tokens(self) -> int:
        """Sampled ones, the stop token included; kept ones are not."""
        return (length(self.token_ids) or self.counted_tokens) - self.kept

    @property
    def prompt(self) -> str:
        """The task's last message, which is the user's."""
        return self.task.prompt[-1].content if self.task.prompt else ""


def length(array: Raw) -> int:
    """How many numbers a JSON array holds."""
    inner = bytes(array).strip()[1:-1].strip()
    return inner.count(b",") + 1 if inner else 0


class RowFile(Struct, frozen=True, kw_only=True):
    """One stage's rows."""

    place: str
    """`round-001`, `final`, `final-after-003`."""
    stage: str
    path: Path
    """Of the finished file, whether it is there yet or not."""

    @property
    def round(self) -> int | None:
        """null for a final measurement."""
        return int(self.place.removeprefix("round-")) if self.place.startswith("round-") else None

    @property
    def finished(self) -> bool:
        return self.path.is_file()

    def lines(self) -> Iterator[tuple[str, bytes]]:
        """('round-001/reward.jsonl:12', the row without its newline) for every row that is there."""
        try:
            stream = self.path.open("rb")
            end = None
        except FileNotFoundError:
            try:
                end = committed_bytes(self.path)
                stream = part_of(self.path).open("rb")
            except FileNotFoundError:
                if not self.path.is_file():  # else: it was finished a moment ago
                    return
                stream, end = self.path.open("rb"), None
        with stream:
            yield from lines(stream if end is None else _until(stream, end), f"{self.place}/{self.path.name}")


def part_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def committed_bytes(path: Path) -> int:
    """How much of a stage in progress counts, by its index. Raises: FileNotFoundError."""
    return progress(path)[0]


def progress(path: Path) -> tuple[int, int]:
    """Bytes and rows of a stage in progress that count. Raises: FileNotFoundError."""
    index = path.with_name(f"{path.name}.part.idx").read_bytes()
    end = rows = 0
    for line in index[: index.rfind(b"\n") + 1].splitlines():
        with suppress(msgspec.DecodeError, UnicodeDecodeError, ValueError, TypeError):
            told = msgspec.json.decode(line, type=dict[str, Any])
            end, rows = int(told["end"]), rows + int(told["rows"])
    return end, rows


def _until(stream: Iterable[bytes], end: int) -> Iterator[bytes]:
    for line in stream:
        end -= len(line)
        if end < 0:
            return
        yield line


def places(run: Run) -> list[str]:
    """Folders of the run that can hold rows: rounds in order, then final measurements."""
    found = [path.name for path in run.path.iterdir() if path.is_dir() and _PLACE.fullmatch(path.name)]
    # final-after-002 was measured before final.
    return sorted(found, key=lambda name: (not name.startswith("round-"), name == "final", len(name), name))


def stages_in(folder: Path) -> list[str]:
    """Stages with rows, finished or in progress."""
    names = {path.name.removesuffix(".part").removesuffix(".jsonl") for path in folder.glob("*.jsonl*")}
    there = {
        name
        for name in names
        if (folder / f"{name}.jsonl").is_file() or part_of(folder / f"{name}.jsonl").is_file()
    }
    first = [name for name in reversed(SAME_ANSWERS) if name in there]
    return [*first, *sorted(there - {*first, TRAINING_LOG})]


def files(run: Run, place: str | None = None, stages: Sequence[str] = ()) -> list[RowFile]:
    """The files of a run's rows.

    `place`: a round's number, `final` or a folder's name; without it all, earlier final measurements aside.
    `stages`: without them every answer once, from the file of its round in which it has the most fields.

    Raises: RunFolderError for a round or a stage that is nowhere in the run.
    """
    there = places(run)
    wanted = [_place(place, there, run)] if place else [one for one in there if "-after-" not in one]
    names = [ALIASES.get(name, name) for name in stages]
    found: list[RowFile] = []
    known: dict[str, None] = {}
    for one in wanted:
        have = stages_in(run.path / one)
        known |= dict.fromkeys(have)
        for stage in [name for name in have if name in names] if names else _once(run.path / one, have):
            found.append(RowFile(place=one, stage=stage, path=run.path / one / f"{stage}.jsonl"))
    for name in names:
        if name == TRAINING_LOG:
            raise RunFolderError(
                "train.jsonl holds optimizer steps, no rows: "
                f'selfrefine runs sql {run.called} "select * from steps"'
            )
        if name not in known:
            meant = near(name, known)
            raise RunFolderError(
                f"{run.path / place if place in there else run.path} has no rows of a stage {name!r}"
                f"{f'; did you mean {meant}?' if meant else ''} (it has: {', '.join(known) or 'none yet'})"
            )
    return found


def _once(folder: Path, have: Sequence[str]) -> list[str]:
    """Each answer once. A stage in progress has some of the answers only, so the one before it counts."""
    scored = [name for name in SAME_ANSWERS if name in have]
    best = next((name for name in scored if (folder / f"{name}.jsonl").is_file()), None)
    chosen = best or next(iter(reversed(scored)), None)
    rest = [name for name in have if name not in SAME_ANSWERS and name not in COPIES]
    return ([chosen] if chosen else []) + rest


def _place(asked: str, there: Sequence[str], run: Run) -> str:
    wanted = f"round-{int(asked):03d}" if asked.isascii() and asked.isdecimal() else asked
    if wanted not in there:
        raise RunFolderError(
            f"{run.path} has no {wanted[:60]} (it has: {', '.join(there) or 'no round yet'})"
        )
    return wanted


_decode = msgspec.json.Decoder(Seen).decode


def seen(line: bytes, where: str) -> Seen:
    """Raises: DataError naming file and line."""
    try:
        return _decode(line)
    except UNDECODABLE as error:
        raise DataError(f"{where}: {why_undecodable(line, error)}") from None
