"""The stage `finetune`: a LoRA adapter learns from the selected answers.

Not unit by unit: its batches are optimizer steps, and what it commits are checkpoints. Where they and the
adapter go is the only thing in which a run differs from a pipe: `AdapterPlace`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from selfrefine.records import Sample
from selfrefine.runfolder.round import TRAINING_LOG, RoundDir
from selfrefine.stages import alarms
from selfrefine.stages.in_run import formatted
from selfrefine.stages.planned import planned
from selfrefine.stages.progress import Bar
from selfrefine.stages.session import RunSession, Session
from selfrefine.stages.settings import teacher_template
from selfrefine.steps.finetune import FinetuneSummary, Policies, finetune
from selfrefine.words import count

Build = Callable[[Path], None]
"""Fills an empty folder."""


class AdapterPlace(Protocol):
    """Where a fine-tune puts what it makes."""

    def load(self) -> Path | None:
        """The last checkpoint."""

    def replace(self, build: Build) -> None:
        """A checkpoint in place of the last one."""

    def keep(self, summary: FinetuneSummary, log: Sequence[bytes], save: Build) -> None:
        """The finished adapter, with a line per optimizer step."""

    def rescue(self, save: Build) -> None:
        """The adapter as it was when its loss was last finite."""


class RoundPlace:
    """A round's folder; the commit removes the checkpoint."""

    def __init__(self, folder: RoundDir) -> None:
        self.folder = folder

    def load(self) -> Path | None:
        return self.folder.directory("train.ckpt")

    def replace(self, build: Build) -> None:
        self.folder.replace_directory("train.ckpt", build)

    def keep(self, summary: FinetuneSummary, log: Sequence[bytes], save: Build) -> None:
        # The log first: the adapter's folder is what says that the training is done.
        self.folder.stage(
            TRAINING_LOG,
            [log],
            lambda lines: (lines, b"null"),
            summarise=lambda _: formatted(summary),
        )
        self.folder.put_directory("adapter", save)

    def rescue(self, save: Build) -> None:
        self.folder.replace_directory("adapter.last-good", save)


class FolderPlace:
    """A folder of the user's, which appears whole or not at all; without checkpoints.

    `begin` is called before something is written there.
    """

    def __init__(self, out: Path, say: Callable[[str], object], begin: Callable[[], object]) -> None:
        self.out, self.say, self.begin = out, say, begin
        self.parent = RoundDir(out.resolve().parent)

    def load(self) -> Path | None:
        return None

    def replace(self, build: Build) -> None:
        """Keeps nothing."""

    def keep(self, summary: FinetuneSummary, log: Sequence[bytes], save: Build) -> None:
        self.begin()

        def build(place: Path) -> None:
            save(place)
            (place / "train.jsonl").write_bytes(b"".join(line + b"\n" for line in log))

        self.parent.put_directory(self.out.name, build)

    def rescue(self, save: Build) -> None:
        self.begin()
        kept = self.out.with_name(f"{self.out.name}.last-good")
        if kept.exists():
            shutil.rmtree(kept)
        self.parent.put_directory(kept.name, save)
        self.say(f"the last adapter with a finite loss is in {kept}")


class Finetune:
    """Selected answers in, an adapter out."""

    title = "finetune"

    def __init__(self, session: Session, round_index: int = 1) -> None:
        self.session, self.round = session, round_index

    def make(
        self,
        rows: Sequence[Sample],
        place: AdapterPlace,
        policies: Policies,
        bar: Bar,
        ring: Callable[[list[alarms.Alarm]], object],
    ) -> tuple[FinetuneSummary, str | None]:
        """Trains, and hands `place` the adapter. With a note for the user, where there is something to know.

        Raises: NothingToLearnError, DataError, TrainingError, EngineError, Interrupted.
        """
        own = self.session.config
        first = alarms.once(ring)

        def on_step(row: Any, total: int) -> None:
            bar.total, bar.noun = total, "steps"
            bar.advance(rows=1, tokens=row.tokens, example=f"step {row.step} of {total}, loss {row.loss:.4f}")
            first(alarms.of_step(row.step, row.grad_norm, row.metrics, own.alarms))
            self.session.reporter.check()

        return finetune(
            rows,
            self.session.engine.trainer(),
            own.train,
            own.objective,
            own.seed,
            place.keep,
            round_index=self.round,
            policies=policies,
            teacher=teacher_template(own, self.session.prompts_dir),
            checkpoints=place,
            on_step=on_step,
            rescue=place.rescue,
        )


@planned
def finetune_round(session: RunSession, k: int) -> FinetuneSummary | None:
    """train.jsonl, train.json and adapter/ of a round; returns what was stored, made now or before."""
    folder = session.run.round(k)
    if not folder.has("adapter"):
        _train(session, folder, k)
    return folder.stage_summary(TRAINING_LOG, FinetuneSummary)


def _train(session: RunSession, folder: RoundDir, k: int) -> None:
    stage = Finetune(session, k)
    session.check_files()
    rows = list(folder.samples("selected"))
    with session.timed(k, stage.title), session.reporter.stage(f"round {k} {stage.title}", None) as bar:
        session.forget_policy()
        found, note = stage.make(
            rows,
            RoundPlace(folder),
            policies_of(session),
            bar,
            lambda rings: session.ring(k, stage.title, rings),
        )
        left_out = "".join(f", {n:,} {why.replace('_', ' ')}" for why, n in found.dropped.items())
        # Of two steps with other answers: a rise is alarming to read, and mostly says nothing.
        rose = " (each step has other answers)" if found.last_loss > found.first_loss else ""
        bar.finish(
            f"round {k} finetune: {count(found.rows, 'row')}{left_out}, {count(found.steps, 'step')}, "
            f"loss {found.first_loss:.3f} → {found.last_loss:.3f}{rose}"
        )
    if note:
        session.reporter.say(f"round {k} {note}")


def policies_of(session: RunSession) -> Policies:
    """Where a fine-tune of this run begins, who sampled, and what it is held against."""
    first = session.first_adapter
    accepted = session.run.accepted_adapter or first
    current = session.run.current_adapter or first  # an undecided candidate samples and is continued
    references = {"round-0": first, "accepted": accepted, "sampler": current}
    return Policies(
        start=current if session.config.train.start == "adapter" else first,
        sampler=current,
        reference=references[session.config.objective.reference],
    )
