"""What a reflection finds and plans: the shapes of weaknesses.json and plan.json."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from selfrefine.records import Count

WEAKNESSES_FILE, CAUSES_FILE, PLAN_FILE = "weaknesses.json", "causes.md", "plan.json"
"""In a round's folder, and in RUN/reflection."""

FailureKind = Literal[
    "wrong", "unreadable", "empty", "cut off", "repetitive", "other language", "rewards disagree", "refused"
]
"""Why an answer failed, the most telling first in `failures.py`; an answer has one kind."""

Learnability = Literal["never right", "sometimes right", "always right"]
"""Of a training task, by the samples that one round drew for it."""


class Slice(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A set of tasks, told by the task alone: the same slice can be drawn from the training tasks."""

    by: Literal["tag", "prompt-words", "numbers", "digits", "carries", "reference-words", "word"]
    """What the task is cut by; figures and words are those of its last user message (`slices.py`).

    `numbers`: how many stand in it; `digits`: of the longest of them; `carries`: of adding them up in base
    ten; `reference-words`: of the first reference; `word`: a word, an operator or an n-gram.
    """
    key: str = ""
    """The tag's name, or the word."""
    value: str = ""
    """The tag's value."""
    low: float | None = None
    """low <= figure < high, where `by` is a figure."""
    high: float | None = None


class Cell(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One cut of a split's answers, with its figure."""

    name: str
    """As people read it: `op = -`, `digits >= 2`, `cut off`."""
    by: Literal["tag", "found", "failure", "learnability"]
    slice: Slice | None = None
    """null where the cut is by answers (failure, learnability), not by tasks."""
    n: Count
    """Support: scored tasks in the cell; answers, where the cut is by failure."""
    rate: float | None
    """Mean reward of the cell's tasks; of a failure kind or learnability, its share of all.

    Every task counts alike, however many answers it has; of a failure kind, the mean of the tasks' shares.
    """
    lo: float | None = None
    hi: float | None = None
    rest: float | None = None
    """Mean reward of the tasks outside the slice."""
    p_value: float | None = None
    """That the slice does worse than the rest; null where nothing was tested."""
    q_value: float | None = None
    """p_value corrected for all slices looked at (Benjamini and Hochberg 1995)."""
    weight: float = 0.0
    """Share of all missing reward that is missing in this slice: what there is to gain. Of a failure kind,
    its share of all failed answers."""
    excess: float = 0.0
    """weight less the slice's share of the tasks: what is missing here beyond the average. Slices are ordered
    by it: by weight alone, one that holds nearly all tasks would come first."""
    examples: tuple[str, ...] = ()
    """Up to three row ids, failed ones first."""


class Weaknesses(Struct, frozen=True, kw_only=True):
    """`weaknesses.json`."""

    after_round: Count
    """The last committed round that was looked at."""
    gate: tuple[Cell, ...] = ()
    """Answers to the gate tasks by the policy that samples next (accepted, or an undecided candidate)."""
    train: tuple[Cell, ...] = ()
    """The last round's samples of its training tasks."""
    heaviest: tuple[str, ...] = ()
    """Names of the slices that are significantly weak on a split, the largest excess first. One whose tasks
    are weak only where they are in an earlier one too is left out: it is the same weakness."""
    looked_at: Count = 0
    """Slices that were tested, on both splits."""
    level: float = 0.05
    """q_value below which a slice counts as weak."""
    notes: tuple[str, ...] = ()
    """What could not be said, and why: one sentence each."""


ActionKind = Literal[
    "reweight",
    "sample-more",
    "temperature",
    "longer",
    "hint",
    "few-shot",
    "rationalise",
    "lower-lr",
    "replay",
    "stop",
]


class Target(Struct, frozen=True, kw_only=True):
    """The number that an action should move."""

    figure: str
    """`gate.mean`, `never right`, `cut off`, another kind of failure, or the name of a slice's cell."""
    split: Literal["gate", "train"]
    direction: Literal["up", "down"]
    before: float | None


class Action(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that the next round does otherwise."""

    kind: ActionKind
    reason: str
    """One sentence with the figure that led to it."""
    target: Target
    settings: dict[str, Any] = {}
    """Dotted keys of the configuration with their values for this round, or the action's own (weights)."""


class Outcome(Struct, frozen=True, kw_only=True):
    """An earlier action, and whether its number moved."""

    round: Count
    kind: ActionKind
    target: Target
    after: float | None
    moved: bool | None
    """null where the figure could not be computed; `why` says so."""
    why: str = ""


class Plan(Struct, frozen=True, kw_only=True):
    """`plan.json` of the round that it is for."""

    round: Count
    mode: Literal["auto", "suggest"]
    actions: tuple[Action, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    """All earlier actions of the run, oldest first: planned against measured."""
    dropped: dict[str, str] = {}
    """Kinds that are not tried again, each with its reason (failed twice, or not possible in this run)."""
    hints: tuple[dict[str, Any], ...] = ()
    """System hints that were tried on training tasks: text, mean reward with and without, tasks."""
    tokens: Count = 0
    """Sampled for trying hints and writing causes; counted in the round's cost."""
