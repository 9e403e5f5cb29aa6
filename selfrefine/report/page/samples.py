"""The rows of a run for its page: grouped by task, merged over stages, never more than a page can hold.

A row passes through generate, critique and reward, which only add fields: the last of these files that a
round has says all that the earlier ones say. Token ids and logprobs are left out: nobody reads them there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, cast

import msgspec
from msgspec import Struct

from selfrefine.records import Message, Sample
from selfrefine.reflection.failures import kind_of
from selfrefine.report.criticised import votes_said
from selfrefine.report.page.sample_choice import Place, Scan, TaskKey, Turn, places_of, scan
from selfrefine.report.word_diff import word_diff
from selfrefine.rewards.scripts import unspaced
from selfrefine.runfolder.run import Run
from selfrefine.seeds import derive
from selfrefine.stages.revisions import is_fresh
from selfrefine.steps.critique_outcome import is_right

MOST_ANSWERS = 2_000
MOST_BYTES = 2_000_000
"""Of JSON in the page, in UTF-8."""
_TEXT, _DETAIL, _TAG = 8_000, 1_000, 200
"""Characters of a text that a page shows; the rest is counted."""
_MOST_COMPARED = 250_000
"""Product of the two lengths, in words, up to which a diff is computed: its time grows with it."""
_MOST_VALUES = 50
"""A tag with more values (an id, a source text) is no filter."""


class PlaceShown(Struct, frozen=True, omit_defaults=True):
    """A round, or a final measurement."""

    run: str
    name: str
    """Its folder: `round-001`, `final`."""
    label: str
    decision: str = ""


class Score(Struct, frozen=True, omit_defaults=True):
    name: str
    value: float | None
    detail: str = ""
    error: str = ""


class Criticism(Struct, frozen=True, omit_defaults=True):
    text: str
    score: float | None = None
    verdict: str = ""
    error: str = ""
    votes: str = ""
    """"1 ok, 2 revise", where several critics judged."""


class Answer(Struct, omit_defaults=True):
    """One row. What is empty, false or null is left out of the page."""

    id: str
    place: int
    """Index into `places`."""
    stage: str
    """`train`, `resampled`, `rationalised`, `gate`, `test`, `revised`."""
    text: str
    reward: float | None = None
    finish: str = "stop"
    rewards: list[Score] = []
    critiques: list[Criticism] = []
    parent: str = ""
    diff: list[tuple[str, str]] = []
    """From the draft to this revision: stretches that stayed (`=`), went (`-`) and came (`+`)."""
    learnt: list[str] = []
    """What training used the row for, a phrase each."""
    became: Turn = ""
    """Measured answers: the task, since its measurement before; revisions: since the draft."""
    failure: str = ""
    """Why it failed (`reflection.failures`), where that is more than being wrong."""
    fresh: bool = False
    error: str = ""
    system: int | None = None
    """Index into `systems`: the system message that the task itself does not have."""


class TaskShown(Struct, omit_defaults=True):
    id: str
    prompt: list[Message]
    references: list[str] = []
    tags: dict[str, str] = {}
    answers: list[Answer] = []


class Samples(Struct):
    """What the page's browser of samples holds. The counts `all_…` are of the whole run."""

    places: list[PlaceShown]
    tasks: list[TaskShown]
    systems: list[str]
    tags: dict[str, list[str]]
    """Tags that tell tasks apart, with their values."""
    answers: int
    all_answers: int
    all_tasks: int


def payload(
    *runs: Run, keep: Collection[str] = (), answers: int = MOST_ANSWERS, size: int = MOST_BYTES
) -> dict[str, Any]:
    """The rows of one run, or of several, joined by task: `Samples` as JSON has it.

    More than `answers` rows or `size` bytes: a seeded sample of whole tasks, with some of each fate (right,
    wrong, became either, cut off, unscored) of each split, and the tasks of `keep` (ids of tasks or rows).
    The shares of fates in a sample are not those of the run.
    A task with over a quarter of all rows that fit is shown with a seeded part of its rows.

    Raises: RunFolderError (a file changed since its round was committed), DataError (a row does not decode).
    """
    places = places_of(runs)
    seen = scan(places)
    seed = runs[0].manifest.seeds.get("run", 0) if runs else 0
    most_each = max(1, answers // 4)
    order = seen.choose(seed, keep, answers, most_each)
    found = _read(seen, set(order), seed, most_each)
    tasks: dict[TaskKey, TaskShown] = {}
    left = size
    for key in order:  # the order of the draw, so that what does not fit any more is random, too
        needed = len(msgspec.json.encode(found.tasks[key]))
        if needed <= left:
            tasks[key] = found.tasks[key]
            left -= needed
    shown = [tasks[key] for key in seen.tasks if key in tasks]
    whole = Samples(
        places=[_place(place) for place in places],
        tasks=shown,
        systems=found.systems,
        tags=_tags(shown),
        answers=sum(len(task.answers) for task in shown),
        all_answers=sum(task.answers for task in seen.tasks.values()),
        all_tasks=len(seen.tasks),
    )
    return cast("dict[str, Any]", msgspec.to_builtins(whole))


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters of it, and how many more there are."""
    return text if len(text) <= limit else f"{text[:limit]} … [{len(text) - limit:,} more characters]"


class _Found:
    def __init__(self) -> None:
        self.tasks: dict[TaskKey, TaskShown] = {}
        self.systems: list[str] = []

    def system(self, row: Sample) -> int | None:
        if not row.messages:
            return None
        told = [one.content for one in row.messages if one.role == "system"]
        if not told or any(one.role == "system" for one in row.task.prompt):
            return None
        text = shorten(told[0], _TEXT)
        if text not in self.systems:
            self.systems.append(text)
        return self.systems.index(text)


def _read(seen: Scan, chosen: set[TaskKey], seed: int, most_each: int) -> _Found:
    found = _Found()
    passing = {place.run_index: place.passing for place in seen.places}
    raw: dict[TaskKey, list[tuple[Answer, str]]] = {key: [] for key in chosen}
    for key, place, stage, row in seen.rows(chosen):
        if key not in found.tasks:
            found.tasks[key] = TaskShown(
                id=row.task.id,
                prompt=[Message(role=m.role, content=shorten(m.content, _TEXT)) for m in row.task.prompt],
                references=[shorten(one, _TEXT) for one in row.task.references[:5]],
                tags={shorten(k, _TAG): shorten(v, _TAG) for k, v in row.task.tags.items()},
            )
        one = _answer(row, place, stage)
        if (failure := kind_of(row, passing[seen.places[place].run_index])) not in (None, "wrong", "cut off"):
            one.failure = failure
        one.system = found.system(row)
        one.learnt = seen.learnt.get((seen.places[place].run_index, row.id), [])
        if row.parent_id is None:
            one.became = seen.tasks[key].became(stage, place)
        raw[key].append((one, row.text))
    for key, rows in raw.items():
        if len(rows) > most_each:
            by_chance = sorted(rows, key=lambda r: derive(seed, "report", r[0].place, r[0].stage, r[0].id))
            kept = {id(one) for one, _ in by_chance[:most_each]}
            rows = [pair for pair in rows if id(pair[0]) in kept]
        _against_drafts(rows)
        found.tasks[key].answers = [one for one, _ in rows]
    return found


def _answer(row: Sample, place: int, stage: str) -> Answer:
    return Answer(
        id=row.id,
        place=place,
        stage=stage,
        text=shorten(row.text, _TEXT),
        reward=row.reward,
        finish=row.finish_reason,
        rewards=[
            Score(one.name, one.value, shorten(one.detail or "", _DETAIL), shorten(one.error or "", _DETAIL))
            for one in row.rewards
        ],
        critiques=[
            Criticism(
                shorten(one.text, _TEXT),
                one.score,
                one.verdict or "",
                shorten(one.error or "", _DETAIL),
                votes_said(one),
            )
            for one in row.critiques
        ],
        parent=row.parent_id or "",
        fresh=is_fresh(row),
        error=shorten(row.error or "", _DETAIL),
    )


def _against_drafts(rows: Sequence[tuple[Answer, str]]) -> None:
    """Of each revision, what it changed, and whether it became right or wrong by it."""
    by_id = {(one.place, one.stage, one.id): (one, text) for one, text in rows if not one.fresh}
    for one, text in rows:
        if not one.parent or (draft := by_id.get((one.place, one.stage, one.parent))) is None:
            continue
        before, after = draft[0].reward, one.reward
        if before is not None and after is not None and is_right(before) != is_right(after):
            one.became = "right" if is_right(after) else "wrong"
        if _comparable(draft[1], text):
            one.diff = [(_SIGN[kind], part) for kind, part in word_diff(draft[1], text)]


_SIGN = {"same": "=", "gone": "-", "new": "+"}


def _comparable(draft: str, text: str) -> bool:
    """Whether a diff of the two takes no longer than a blink, and all of both is shown."""
    if max(len(draft), len(text)) > _TEXT:
        return False
    letters = unspaced(draft) or unspaced(text)
    a, b = (len(one) if letters else len(one.split()) for one in (draft, text))
    return a * b <= _MOST_COMPARED


def _place(place: Place) -> PlaceShown:
    return PlaceShown(place.run_name, place.folder.path.name, place.label, place.decision)


def _tags(tasks: Iterable[TaskShown]) -> dict[str, list[str]]:
    values: dict[str, set[str]] = {}
    for task in tasks:
        for tag, value in task.tags.items():
            values.setdefault(tag, set()).add(value)
    return {tag: sorted(values[tag]) for tag in sorted(values) if 2 <= len(values[tag]) <= _MOST_VALUES}
