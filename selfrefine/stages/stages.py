"""The stages of one round inside a run folder: each reads the artifact before it and writes its own.

`cycle` calls them in a loop, and the verbs with --run call one: that is why a run made by hand is the same.
Each returns at once when its artifact is there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from selfrefine import records
from selfrefine.errors import ConfigError, DataError, NothingToLearnError, RunFolderError
from selfrefine.gating import candidate as judge
from selfrefine.objectives import OBJECTIVES
from selfrefine.records import RoundSummary, Sample, Task
from selfrefine.runfolder.failpoints import failpoint
from selfrefine.runfolder.jsonl import atomic_write, fsync_directory, write_errors
from selfrefine.runfolder.round import RoundDir
from selfrefine.seeds import derive
from selfrefine.stages import alarms, further
from selfrefine.stages import revisions as revised
from selfrefine.stages.counted import round_counts
from selfrefine.stages.watch import show_completions, show_rewards
from selfrefine.stages.work import (
    Work,
    check_policy,
    critique_settings,
    critique_templates,
    evaluate_settings,
    fine_tune_policies,
    generate_settings,
    ring,
    timed,
)
from selfrefine.stats import Interval
from selfrefine.steps import critique as critique_step
from selfrefine.steps import evaluate as evaluate_step
from selfrefine.steps import finetune as finetune_step
from selfrefine.steps import generate as generate_step
from selfrefine.steps import reward as reward_step
from selfrefine.steps import select as select_step
from selfrefine.steps.critique_outcome import Outcome, summary
from selfrefine.steps.units import sample_units
from selfrefine.tasks.splits import draw


def generate(work: Work, k: int) -> None:
    """The current policy (accepted, or undecided) answers the round's tasks: generate.jsonl."""
    folder, config = work.run.round(k), work.config
    if folder.has("generate"):
        return
    tasks, again = draw(work.run.tasks("train"), k, config.cycle.prompts_per_round, config.seed)
    if again:
        work.watch.say(f"round {k}: the training tasks are used up, a reshuffled pass over them begins")
    work.be(work.run.current_adapter)
    settings = generate_settings(config)
    plan = list(generate_step.task_units(tasks, settings, work.engine.unit_tokens))
    with timed(work, k, "generate"), work.watch.stage(f"round {k} generate", len(tasks) * settings.n) as bar:

        def make(unit: list[Task]) -> list[bytes]:
            rows = generate_step.generate(
                unit,
                work.engine,
                settings,
                config.seed,
                round_index=k,
                on_rows=lambda batch: show_completions(bar, batch),
            )
            return [records.encode(row) for row in rows]

        folder.stage("generate", plan, make, should_stop=work.watch.check)
    made = list(folder.samples("generate"))
    ring(work, k, "generate", alarms.of_samples(made, config.alarms, config.generate.temperature))


def critique(work: Work, k: int) -> None:
    """The critic criticises and the policy revises: critique.jsonl and critique.json (what it came to)."""
    folder, config = work.run.round(k), work.config
    if folder.has("critique"):
        return
    work.be(work.run.current_adapter)
    samples = list(folder.samples("generate"))
    check_policy(work.engine.policy, samples, str(folder.file("generate")))
    settings = critique_settings(config, work.run.prompts_dir)
    templates = critique_templates(config, work.run.prompts_dir)
    each = settings.passes * (settings.critique.max_new_tokens + settings.revision.max_new_tokens)
    plan = list(enumerate(sample_units(samples, each, work.engine.unit_tokens)))
    with timed(work, k, "critique"), work.watch.stage(f"round {k} critique", len(samples)) as bar:

        def make(numbered: tuple[int, list[Sample]]) -> list[bytes]:
            number, unit = numbered
            result = critique_step.critique(
                unit,
                work.engine,
                work.critic,
                templates,
                settings,
                config.seed,
                work.scored,
            )
            show_rewards(bar, result.rows, rows=len(unit))
            _keep_outcome(folder, number, len(plan), result.outcome)
            return [records.encode(row) for row in result.rows]

        folder.stage("critique", plan, make, should_stop=work.watch.check)
    ring(work, k, "critique", alarms.of_critiques(list(folder.samples("critique")), config.alarms))


def reward(work: Work, k: int) -> None:
    """Every answer gets its scores: reward.jsonl; then what is sampled because of them (`further`).

    Raises: DataError where a reward could score no row.
    """
    folder = work.run.round(k)
    if not folder.has("reward"):
        _score(work, k, folder)
    try:
        reward_step.require_some_scored(reward_step.summary(folder.samples("reward"), work.scorers))
    except DataError:
        folder.file("reward").unlink()  # the same command scores again once the reward is mended
        raise
    further.resample(work, k)
    further.rationalise(work, k)


def _score(work: Work, k: int, folder: RoundDir) -> None:
    config = work.config
    source = "critique" if config.critique.passes else "generate"
    work.be(work.run.current_adapter)
    samples = list(folder.samples(source))
    check_policy(work.engine.policy, samples, str(folder.file(source)))
    plan = list(sample_units(samples))
    with timed(work, k, "reward"), work.watch.stage(f"round {k} reward", len(samples)) as bar:

        def make(unit: list[Sample]) -> list[bytes]:
            scored = work.scored(unit)
            show_rewards(bar, scored)
            return [records.encode(row) for row in scored]

        folder.stage("reward", plan, make, should_stop=work.watch.check)
    ring(work, k, "reward", alarms.of_rewards(list(folder.samples("reward")), config.alarms))


def select(work: Work, k: int) -> dict[str, int]:
    """The answers worth learning from, replay included: selected.jsonl. Returns the counts.

    Raises: NothingToLearnError, saying why.
    """
    folder, config = work.run.round(k), work.config
    chosen = select_step.select(further.candidates(work, k), config.select)
    if not chosen.rows:
        raise NothingToLearnError(f"round {k}: {select_step.why_nothing(chosen.counts)}")
    earlier = [
        row for past in work.run.rounds()[1:k] for row in past.samples("selected") if row.round == past.index
    ]
    again = select_step.replay(
        chosen.rows,
        earlier,
        config.train.replay,
        derive(config.seed, "round", k),
        # Weights come from a group's mean, and a row without its group would be its own mean.
        grouped=OBJECTIVES.get(config.objective.name).rows in ("groups", "all"),
    )
    folder.stage("selected", [[*chosen.rows, *again]], lambda rows: [records.encode(row) for row in rows])
    return chosen.counts | {"replayed": len(again)}


class RoundCheckpoints:
    """Training checkpoints in the round's folder; the commit removes them."""

    def __init__(self, folder: RoundDir) -> None:
        self.folder = folder

    def load(self) -> Path | None:
        return self.folder.directory("train.ckpt")

    def replace(self, build: Callable[[Path], None]) -> None:
        self.folder.replace_directory("train.ckpt", build)


def finetune(work: Work, k: int) -> None:
    """A LoRA adapter learns from the selected answers: train.jsonl and adapter/."""
    folder, config = work.run.round(k), work.config
    if folder.has("adapter"):
        return
    engine = finetune_step.trainable(work.engine)
    rows = list(folder.samples("selected"))

    def keep(log: list[bytes], save: Callable[[Path], None]) -> None:
        # The log first: the adapter's folder is what says that the training is done.
        folder.stage("train", [log], lambda lines: lines)
        folder.put_directory("adapter", save)

    with timed(work, k, "finetune"), work.watch.stage(f"round {k} finetune", None) as bar:
        shown = _StepShow(work, k, bar)
        work.forget_policy()
        trained = finetune_step.finetune(
            rows,
            engine,
            config.train,
            config.objective,
            config.seed,
            keep,
            round_index=k,
            policies=fine_tune_policies(work),
            checkpoints=RoundCheckpoints(folder),
            on_step=shown,
            rescue=lambda save: folder.replace_directory("adapter.last-good", save),
        )
        left_out = "".join(f", {n} {why.replace('_', ' ')}" for why, n in trained.dropped.items())
        bar.finish(
            f"round {k} finetune: {trained.counts['rows']} rows{left_out}, {trained.counts['steps']} steps, "
            f"loss {trained.first_loss:.3f} → {trained.last_loss:.3f}"
        )
    if trained.note:
        work.watch.say(f"round {k} {trained.note}")


class _StepShow:
    def __init__(self, work: Work, k: int, bar: Any) -> None:
        self.work, self.k, self.bar = work, k, bar
        self.rung: set[str] = set()

    def __call__(self, row: Any, total: int) -> None:
        self.bar.total = total
        self.bar.advance(
            rows=1, tokens=row.tokens, example=f"step {row.step} of {total}, loss {row.loss:.4f}"
        )
        rings = alarms.of_step(row.step, row.grad_norm, row.metrics, self.work.config.alarms)
        ring(self.work, self.k, "finetune", [one for one in rings if one.name not in self.rung])
        self.rung |= {one.name for one in rings}
        self.work.watch.check()


def measure(work: Work, folder: RoundDir, split: str, adapter: Path | None, label: str) -> Interval:
    """The policy base + adapter on a held-out split: SPLIT.jsonl in `folder`; its mean with an interval."""
    work.be(adapter)
    if folder.has(split):
        check_policy(work.engine.policy, folder.samples(split), str(folder.file(split)))
    else:
        settings = evaluate_settings(work.config)
        tasks = work.run.tasks(split)
        plan = list(generate_step.task_units(tasks, settings, work.engine.unit_tokens))
        with (
            timed(work, folder.index if folder.path.name != "final" else "final", split),
            work.watch.stage(f"{label} {split}", len(tasks) * settings.n) as bar,
        ):

            def make(unit: list[Task]) -> list[bytes]:
                rows = evaluate_step.evaluate(
                    unit,
                    work.engine,
                    settings,
                    work.measures,
                    work.config.seed,
                    stage=split,
                    gate_on=work.gate_on,
                    on_rows=lambda batch: show_completions(bar, batch),
                )
                show_rewards(bar, rows, rows=0)
                return [records.encode(row) for row in rows]

            folder.stage(split, plan, make, should_stop=work.watch.check)
    found = evaluate_step.measured(folder.samples(split))
    if found.mean is None:
        raise ConfigError(f"{folder.file(split)}: no answer could be scored; choose another --measure")
    return found


def baseline(work: Work) -> RoundSummary:
    """Round 0: the starting policy on gate and test, committed."""
    folder = work.run.round(0)
    if folder.committed:
        return folder.summary()
    measures: dict[str, Any] = {
        split: measure(work, folder, split, None, "round 0")
        for split in ("gate", "test")
        if work.run.tasks(split)
    }
    watched = judge.start(work)
    work.be(None)
    if work.config.evaluate.revise == "both" and work.run.tasks("test"):
        measures["revised"] = revised.measure(work, folder, "round 0")
    summary = folder.commit(
        RoundSummary(
            index=0,
            policy_before=work.engine.policy,
            policy_after=work.engine.policy,
            counts=round_counts(folder),
            measures={name: msgspec.to_builtins(value) for name, value in measures.items()},
            guards=watched.guards,
            probe=watched.probe,
        )
    )
    if line := judge.opening(work):
        work.watch.say(line)
    return summary


def gate(work: Work, k: int, counts: dict[str, int]) -> RoundSummary:
    """Measure the candidate on the gate tasks, decide, and commit the round."""
    folder, run = work.run.round(k), work.run
    work.be(run.current_adapter)
    policy_before = work.engine.policy
    measures = (
        {"gate": measure(work, folder, "gate", folder.adapter, f"round {k}")} if run.tasks("gate") else {}
    )
    watched = judge.watch(work, k)
    decision = judge.decide(work, k, watched.guards)
    work.be(run.accepted_adapter if decision.outcome == "reject" else folder.adapter)
    if run.final.path.is_dir() and not (run.final.path / "summary.json").is_file():
        # A final measurement that was begun and left: after this commit it would mix two policies.
        shutil.rmtree(run.final.path)
    summary = folder.commit(
        RoundSummary(
            index=k,
            policy_before=policy_before,
            policy_after=work.engine.policy,
            counts=round_counts(folder) | counts,
            measures={name: msgspec.to_builtins(value) for name, value in measures.items()},
            gate=decision,
            guards=watched.guards,
            probe=watched.probe,
            accepted_round=k if decision.accepted else run.accepted_round,
            undecided_round=k if decision.outcome == "undecided" else None,
        )
    )
    judge.tell(work, k, decision, watched.guards)
    return summary


def final(work: Work) -> Interval:
    """The accepted policy on the test split, once per end: final/test.jsonl and final/summary.json.

    A run that is extended keeps its earlier final measurement as final-after-NNN.
    """
    run = work.run
    last = run.next_round() - 1
    note = run.final.path / "summary.json"
    if note.is_file() and (ended := msgspec.json.decode(note.read_bytes())["after_round"]) != last:
        run.final.path.rename(run.path / f"final-after-{ended:03d}")
        failpoint("final.moved")
        fsync_directory(run.path)
    found = measure(work, run.final, "test", run.accepted_adapter, "final")
    if not note.is_file():
        work.be(run.accepted_adapter)
        told = {
            "after_round": last,
            "accepted_round": run.accepted_round,
            "policy": work.engine.policy,
            "test": msgspec.to_builtins(found),
            "test_reads": test_reads(run.path),
        }
        if work.config.evaluate.revise != "off":
            told["revised"] = revised.measure(work, run.final, "final")
        atomic_write(note, _json(told))
    return found


def test_reads(path: Path) -> int:
    """How often the test split was read in this run: at round 0 and at each end."""
    return sum(1 for _ in path.glob("round-000/test.jsonl")) + sum(1 for _ in path.glob("final*/test.jsonl"))


def _keep_outcome(folder: RoundDir, unit: int, units: int, outcome: Outcome) -> None:
    """Beside the rows, because the fresh samples the drafts were compared with are not among them.

    Written before its unit's rows, and critique.json before the last unit's: rows that count have theirs.
    """
    parts = folder.path / "critique.ckpt"
    with write_errors(parts):
        parts.mkdir(exist_ok=True)
        fsync_directory(folder.path)
    atomic_write(parts / f"{unit:06d}.json", msgspec.json.encode(outcome))
    if unit + 1 < units:
        return
    total = Outcome()
    for path in (parts / f"{number:06d}.json" for number in range(units)):
        if not path.is_file():
            part = folder.file("critique").with_name("critique.jsonl.part")
            raise RunFolderError(f"{path} is missing; delete {part} and its .idx to criticise again")
        total += msgspec.json.decode(path.read_bytes(), type=Outcome)
    atomic_write(folder.path / "critique.json", _json(summary(total)))


def _json(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value, order="deterministic")) + b"\n"
