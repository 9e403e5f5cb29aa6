"""Run folders of a few rows that nobody sampled: what stands in them is written down by a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from selfrefine.layers import resolve
from selfrefine.records import Critique, Lesson, Message, Reward, Sample, Task, encode
from selfrefine.runfolder.run import Run
from selfrefine.runfolder.summaries import Cost, GateDecision, Guard, RoundSummary, RunManifest
from selfrefine.stats import interval

SIGNS = "+-"


def task(i: int, split: str) -> Task:
    """Even ones add, odd ones subtract, by their prompt alone; all of one size."""
    prompt = f"{i} {SIGNS[i % 2]} {i} = ?"
    return Task(
        id=f"{split}{i:02d}",
        prompt=(Message(role="user", content=prompt),),
        references=(str(i + i if i % 2 == 0 else 0),),
        tags={"size": "small"},
    )


def answer(of: Task, reward: float | None, k: int = 0, s: int = 0, **fields: Any) -> Sample:
    """With the text that it deserves."""
    text = of.references[0] if reward == 1.0 and of.references else "7777"
    base: dict[str, Any] = {
        "id": f"{of.id}.r{k}.s{s}",
        "task": of,
        "round": k,
        "index": s,
        "text": text,
        "rewards": (Reward(name="numeric", value=reward),),
        "reward": reward,
        "token_ids": (1, 2),
    }
    return Sample(**(base | fields))


def manifest(name: str, sets: Mapping[str, Any]) -> RunManifest:
    given = {"reward.use": ["numeric"], "tasks.source": "sums.jsonl", "cycle.prompts_per_round": 4}
    found = resolve([("flag", given | dict(sets))])
    return RunManifest(
        name=name,
        argv=("selfrefine", "cycle"),
        config=msgspec.to_builtins(found.config),
        origins=found.origins,
        seeds={"run": 0},
        git={},
        packages={},
        model={"id": "tiny"},
        chat_template_sha256="",
        prompts={},
        tasks={},
        device="cpu",
        dtype="float32",
        threads=1,
        token_budget=64,
    )


def made(path: Path, *, gate: int = 20, test: int = 20, train: int = 60, **sets: Any) -> Run:
    """A run without a round; `sets` with __ for the dot."""
    path.parent.mkdir(parents=True, exist_ok=True)
    given = {key.replace("__", "."): value for key, value in sets.items()}
    sizes = {"train": train, "gate": gate, "test": test}
    splits = {
        name: [task(i + 100 * at, name) for i in range(n)] for at, (name, n) in enumerate(sizes.items())
    }
    run = Run.create(path, manifest(path.name, given), splits, {})
    run.events.append("cycle")
    return run


def held_out(run: Run, split: str, right: Sequence[int]) -> list[Sample]:
    """Answers to a split, those in `right` right."""
    return [answer(one, float(i in right)) for i, one in enumerate(run.tasks(split))]


def write(run: Run, k: int | str, name: str, rows: Sequence[Sample], told: Any = None) -> None:
    folder = run.final if k == "final" else run.round(int(k))
    summary = msgspec.json.encode({} if told is None else told)
    folder.stage(name, [rows], lambda unit: ([encode(r) for r in unit], b"0"), summarise=lambda _: summary)


def start(run: Run, right: Sequence[int] = ()) -> None:
    """Round 0, with these gate and test tasks right."""
    measures = {}
    for split in ("gate", "test"):
        rows = held_out(run, split, right)
        if rows:
            write(run, 0, split, rows)
            measures[split] = interval([row.reward for row in rows])
    run.round(0).commit(
        RoundSummary(index=0, policy_before="a", policy_after="a", measures=measures, cost=Cost(tokens=40))
    )


def decision(outcome: str, before: float, after: float, n: int, **fields: Any) -> GateDecision:
    base: dict[str, Any] = {
        "outcome": outcome,
        "accepted": outcome == "accept",
        "before": before,
        "after": after,
        "difference": after - before,
        "p_value": 0.001 if outcome == "accept" else 0.4,
        "alpha": 0.0167,
        "n": n,
        "looks": 1,
        "reason": f"{outcome}: because",
    }
    return GateDecision(**(base | fields))


def add_round(
    run: Run,
    right: Sequence[int],
    outcome: str = "accept",
    *,
    learnt: Sequence[Sample] | None = None,
    guards: Sequence[Guard] = (),
    losses: Sequence[float] = (1.0,),
    flat: int = 1,
) -> int:
    """The next round: four prompts with two answers each; the candidate has these gate tasks right."""
    k, accepted = run.next_round(), run.accepted_round
    asked = run.tasks("train")[:4]
    drawn = [answer(one, float(s), k, s) for one in asked for s in range(2)]
    write(run, k, "generate", drawn, {"samples": 8, "tasks": 4, "truncated": 2})
    means = {"numeric": {"mean": 0.5}}
    scored = {"rows": 8, "groups": 4, "groups_without_spread": flat, "rewards": means}
    write(run, k, "reward", drawn, scored)
    chosen = [row for row in drawn if row.reward == 1.0] if learnt is None else learnt
    own = sum(row.round == k for row in chosen)
    prompts = len({row.task.id for row in chosen if row.round == k})
    counts = {"selected": own, "prompts_selected": prompts, "replayed": len(chosen) - own}
    write(run, k, "selected", chosen, counts)
    log = [msgspec.json.encode({"step": i, "loss": loss}) for i, loss in enumerate(losses, 1)]
    run.round(k).stage(
        "train", [log], lambda unit: (unit, b"0"), summarise=lambda _: b'{"steps":%d}' % len(log)
    )
    run.round(k).put_directory("adapter", lambda d: (d / "adapter_model.safetensors").write_bytes(b"w"))
    rows, measures = held_out(run, "gate", right), {}
    gate = None
    if rows:
        write(run, k, "gate", rows, {"rewards": {"rewards": {"numeric": {"mean": len(right) / len(rows)}}}})
        measures["gate"] = interval([row.reward for row in rows])
        before = run.summary(accepted).measures["gate"].mean or 0.0
        gate = decision(outcome, before, len(right) / len(rows), len(rows))
    run.round(k).commit(
        RoundSummary(
            index=k,
            policy_before="a",
            policy_after="b",
            measures=measures,
            gate=gate,
            guards=tuple(guards),
            cost=Cost(tokens=120, measured_tokens=40, trained_tokens=16),
            accepted_round=k if outcome == "accept" else accepted,
            undecided_round=k if outcome == "undecided" else None,
        )
    )
    run.events.append("stage-end", round=k, stage="generate", seconds=61.0)
    return k


def end(run: Run, right: Sequence[int]) -> None:
    """The accepted policy on the test tasks."""
    rows = held_out(run, "test", right)
    write(run, "final", "test", rows)
    told = {
        "after_round": run.next_round() - 1,
        "accepted_round": run.accepted_round,
        "policy": "b",
        "test": interval([row.reward for row in rows]),
        "test_reads": 2,
    }
    run.final_file.write_bytes(msgspec.json.encode(told))
    run.events.append("end", why=f"{run.next_round() - 1} rounds done")


def criticised(of: Task, k: int, before: str, after: str) -> list[Sample]:
    """A draft with its critique, and the revision that it led to."""
    seen = (Critique(text="Add the tens again.", verdict="revise", critic="tiny"),)
    draft = answer(of, 0.0, k, 0, text=before, critiques=seen)
    revision = answer(of, 1.0, k, 1, text=after, critiques=seen, parent_id=draft.id, id=f"{draft.id}.v0")
    return [draft, revision]


REJECTED = Lesson(role="rejected", pair="p")
