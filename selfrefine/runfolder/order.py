"""The stages of a round in their order: the verb that does each, what it makes, what it reads.

Said here only: `cycle` runs them in this order, `runs show` lists them so, and a verb that comes too early
names the ones before it. A new stage is one entry.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from selfrefine.config import Config


class Artifact(NamedTuple):
    """`file` in a round's folder; `title` is what events and bars call the work that makes it."""

    name: str
    title: str
    file: str


class Step(NamedTuple):
    """One stage of a round. A step that the run leaves out is read past: what it reads is read instead."""

    verb: str
    makes: tuple[Artifact, ...]
    reads: str | None
    """The verb whose `main` artifact must be there."""
    loops: bool = True
    """Whether `cycle` calls it; what `evaluate` makes, `gate` makes too."""

    @property
    def main(self) -> Artifact:
        """What the verb is named for, and the next one reads; others it makes only in some runs."""
        return next((made for made in self.makes if made.name == self.verb), self.makes[0])


def _rows(name: str, title: str = "") -> Artifact:
    return Artifact(name, title or name, f"{name}.jsonl")


STEPS = (
    Step("reflect", (Artifact("reflect", "reflect", "reflect.json"), _rows("hints")), None),
    Step("generate", (_rows("proposed", "propose"), _rows("generate")), "reflect"),
    Step("critique", (_rows("critique"),), "generate"),
    Step(
        "reward",
        (
            _rows("reward"),
            _rows("learnable"),
            _rows("resampled", "resample"),
            _rows("rationalised", "rationalise"),
        ),
        "critique",
    ),
    Step("select", (_rows("selected", "select"),), "reward"),
    # It selects, too, where that has not been done.
    Step("finetune", (Artifact("adapter", "", "adapter"), _rows("train", "finetune")), "reward"),
    Step("evaluate", (_rows("gate"), _rows("test")), "finetune", loops=False),
    Step("gate", (), "finetune"),
)

BY_VERB = {step.verb: step for step in STEPS}
ARTIFACTS = {artifact.name: artifact for step in STEPS for artifact in step.makes}
MADE_BY = {artifact.name: step for step in STEPS for artifact in step.makes}
FILE_OF = {artifact.title: artifact.file for artifact in ARTIFACTS.values() if artifact.title}
"""What the events call a stage to the file that is there when it has finished."""
SHOWN = tuple(artifact.name for artifact in ARTIFACTS.values() if artifact.name != "adapter")
"""Names of the stages' summaries, in order."""
SAME_ANSWERS = ("reward", "critique", "generate")
"""Artifacts of one round with the same answers: a stage only adds fields, so the first one that is there says
all that the others say."""
MORE_ANSWERS = ("resampled", "rationalised")
"""Answers of a round that are in none of these."""


def titled(file: str) -> str:
    """What the events call the work that makes FILE.json; a file that no stage makes keeps its name."""
    return ARTIFACTS[file].title if file in ARTIFACTS else file


def left_out(config: Config) -> frozenset[str]:
    """Verbs that a run with this configuration does nothing in."""
    absent = {"reflect": config.reflect.plan == "off", "critique": config.critique.passes == 0}
    return frozenset(verb for verb, out in absent.items() if out)


def needs(verb: str, without: Collection[str]) -> str | None:
    """The artifact that a verb reads; None where it reads nothing of its round."""
    reads = BY_VERB[verb].reads if verb in BY_VERB else None
    while reads is not None and reads in without:
        reads = BY_VERB[reads].reads
    return None if reads is None else BY_VERB[reads].main.name


def first_to_run(name: str, has: Callable[[str], bool], without: Collection[str]) -> list[str]:
    """The verbs that make the artifact NAME and all that it needs, in order, without those that are done."""
    verbs: list[str] = []
    wanted: str | None = name
    while wanted is not None:
        verb = MADE_BY[wanted].verb
        if not has(wanted):
            verbs.insert(0, verb)
        wanted = needs(verb, without)
    return verbs
