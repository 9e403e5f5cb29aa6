"""What long work says while it goes on. The CLI shows bars; tests and scripts stay silent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, cast

from selfrefine.config import Sampling
from selfrefine.engines.base import Completion, Engine, Request
from selfrefine.records import Sample
from selfrefine.reflection.diagnosis import Diagnosis
from selfrefine.rewards.base import Scorer


class Bar(Protocol):
    """The progress of one stage. `noun` is what it counts, in the plural; `reward` names what scores it."""

    total: int | None
    noun: str
    reward: str

    def advance(
        self,
        rows: int = 0,
        tokens: int = 0,
        reward: tuple[float, int] | None = None,
        example: str | None = None,
    ) -> None: ...

    def finish(self, line: str) -> None:
        """The line at its end; "" for none."""


class Reporter(Protocol):
    """`stage` shows a stage of `total` rows; `check` raises Interrupted after a signal; `say` is a line;
    `diagnosed` is told what a round of the run called so came to."""

    def stage(self, name: str, total: int | None) -> AbstractContextManager[Bar]: ...

    def check(self) -> None: ...

    def say(self, message: str) -> None: ...

    def diagnosed(self, found: Diagnosis, run: str) -> None: ...


class _SilentBar:
    total: int | None = None
    noun = "rows"
    reward = "reward"

    def advance(self, *_: Any, **__: Any) -> None:
        pass

    def finish(self, line: str) -> None:
        pass


class Silent:
    """Says nothing, never interrupts."""

    def stage(self, name: str, total: int | None) -> AbstractContextManager[Bar]:
        return nullcontext(_SilentBar())

    def check(self) -> None:
        pass

    def say(self, message: str) -> None:
        pass

    def diagnosed(self, found: Diagnosis, run: str) -> None:
        pass


def show_completions(bar: Bar, batch: Iterable[Completion], rows: int | None = None) -> None:
    """Count finished completions (or `rows`) and offer the last as an example."""
    batch = list(batch)
    tokens = sum(one.sampled_tokens for one in batch)
    bar.advance(
        rows=len(batch) if rows is None else rows, tokens=tokens, example=batch[-1].text if batch else None
    )


def shown(engine: Engine, bar: Bar) -> Engine:
    """The engine; what it answers also counts on the bar, as tokens: rows are done when all passes are."""
    return cast(Engine, _Shown(engine, bar))


class _Shown:
    def __init__(self, engine: Engine, bar: Bar) -> None:
        self._engine, self._bar = engine, bar

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[list[Completion]]:
        for batch in self._engine.generate(requests, sampling):
            show_completions(self._bar, batch, rows=0)
            yield batch


def show_rewards(
    bar: Bar, samples: Iterable[Sample], scorers: Sequence[Scorer] = (), rows: int | None = None
) -> None:
    """Count scored samples (or `rows`) and their rewards, by the names of the `scorers`: what trains and
    what measures are often two, and "reward" says neither."""
    if scorers:
        bar.reward = " + ".join(one.name for one in scorers)
    values = [(sample.reward, sample.text) for sample in samples]
    scored = [reward for reward, _ in values if reward is not None]
    bar.advance(
        rows=len(values) if rows is None else rows,
        reward=(sum(scored), len(scored)),
        example=values[-1][1] if values else None,
    )
