"""A plugin with one of each kind, as somebody else would write it. Installed by test_plugins.py."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from selfrefine.engines import EngineKind, LoadOptions
from selfrefine.engines.scripted import Scripted
from selfrefine.objectives.base import Batch, Loss, ObjectiveKind
from selfrefine.records import Message, Reward, Sample, Task
from selfrefine.rewards.base import RewardKind, RewardOptions, Scorer, checked, each
from selfrefine.tasks.base import SourceKind, TaskOptions


class ShoutSettings(Struct, frozen=True, forbid_unknown_fields=True):
    half: Annotated[float, Meta(ge=0, le=1, description="What an answer in lower case gets.")] = 0.5


def shouts(own: ShoutSettings, options: RewardOptions) -> Scorer:
    def score(sample: Sample) -> Reward:
        return checked("its own name for it", 1.0 if sample.text.isupper() else own.half)

    return Scorer(name="its own name for it", score=each(score))


shout = RewardKind(name="x", about="is it shouted", make=shouts, settings=ShoutSettings, source="nobody")


def long(sample: Sample) -> float:
    """A plain function is a reward, too."""
    return float(len(sample.text) > 2)


def first_token(logprobs: Sequence[Any], batch: Batch) -> Loss:
    return Loss(-sum(row[0] for row in logprobs) / batch.step_items, {})


first = ObjectiveKind(
    name="x", about="only the first token", rows="answers", loss=first_token, learning_rate=0.5
)


def count(name: str, options: TaskOptions) -> Iterator[tuple[str, Task]]:
    for i in range(int(name)):
        yield f"count:{i}", Task(id="", prompt=(Message(role="user", content=f"Say {i}."),))


counted = SourceKind(
    name="x", spelling="count:N", about="numbers", example="selfrefine tasks count:3", read=count
)


def echo(rest: str, adapter: Path | None, options: LoadOptions) -> Scripted:
    return Scripted([{"match": "", "answers": [rest.upper()]}], name="echo")


said = EngineKind(name="x", spelling="echo:TEXT", about="says it", load=echo)
