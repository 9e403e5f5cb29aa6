"""What plans are made from: weaknesses, rounds that ended, facts, each with few words."""

from __future__ import annotations

from typing import Any

from selfrefine.config import (
    Config,
    EvaluateConfig,
    GenerateConfig,
    TrainConfig,
)
from selfrefine.records import Message, Sample, Task
from selfrefine.reflection.facts import Facts
from selfrefine.reflection.findings import Action, Cell, Slice, Target, Weaknesses
from selfrefine.reflection.plan import plan
from selfrefine.runfolder.summaries import GateDecision, Guard, RoundSummary

CONFIG = Config(
    generate=GenerateConfig(n=4, max_new_tokens=24),
    train=TrainConfig(lr=4e-4),
    evaluate=EvaluateConfig(measure=("numeric",)),
)
NOTHING = Weaknesses(after_round=1)
MINUS = Slice(by="word", key="-")
TARGET = Target(figure="never right", split="train", direction="down", before=0.8)


def task(name: str, text: str) -> Task:
    return Task(id=name, prompt=(Message(role="user", content=text),))


def sums(right_of_plus: float, right_of_minus: float, each: int = 20) -> tuple[tuple[Task, float], ...]:
    """Tasks with their mean reward: `each` additions and `each` subtractions."""
    plus = [(task(f"p{i:02}", f"{i} + 1"), right_of_plus) for i in range(each)]
    return (*plus, *((task(f"m{i:02}", f"{i} - 1"), right_of_minus) for i in range(each)))


def weak(rate: float, rest: float) -> Weaknesses:
    cell = Cell(name='word "-"', by="found", slice=MINUS, n=20, rate=rate, rest=rest, q_value=0.001)
    return Weaknesses(after_round=1, gate=(cell,), heaviest=(cell.name,), looked_at=3)


def ended(index: int, outcome: str = "accept", *vetoes: str) -> RoundSummary:
    decision = GateDecision(
        outcome=outcome,  # type: ignore[arg-type]
        accepted=outcome == "accept",
        before=0.4,
        after=0.5,
        n=40,
        reason="",
    )
    guards = tuple(Guard(name=name, value=1.0, state="veto") for name in vetoes)
    return RoundSummary(
        index=index, policy_before="", policy_after="", gate=decision if index else None, guards=guards
    )


def known(**more: Any) -> Facts:
    given: dict[str, Any] = {
        "config": CONFIG,
        "gate_mean": 0.4,
        "train_mean": 0.4,
        "truncated": 0.0,
        "never": 0.2,
        "varied": 0.8,
        "rounds": (ended(0), ended(1)),
        "references": True,
        "template": True,
        "learnt_before": True,
    }
    return Facts(**{**given, **more})


def made(found: Weaknesses, own: Facts, mode: Any = "auto") -> dict[str, Action]:
    return {action.kind: action for action in plan(found, own, index=2, mode=mode).actions}


def failure(name: str, rate: float) -> Weaknesses:
    return Weaknesses(after_round=1, train=(Cell(name=name, by="failure", n=9, rate=rate),))


def answers(rewards: dict[str, list[float | None]], text: str = "{} - 1") -> list[Sample]:
    return [
        Sample(id=f"{key}.{i}", task=task(key, text.format(key)), index=i, text="8", reward=value)
        for key, values in rewards.items()
        for i, value in enumerate(values)
    ]
