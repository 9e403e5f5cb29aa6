"""Two controls of the gate: where nothing changes it keeps nothing, and what harms is rolled back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from harness import jsonl, selfrefine, task

from selfrefine.config import GenerateConfig
from selfrefine.engines.scripted import Scripted
from selfrefine.gating import gate
from selfrefine.gating.comparison import compared
from selfrefine.records import Message, Sample, Task
from selfrefine.rewards.base import RewardOptions
from selfrefine.rewards.exact import ExactSettings, make
from selfrefine.seeds import derive
from selfrefine.steps.evaluate import evaluate, per_task

RUNS, ROUNDS, ALPHA = 200, 3, 0.05
EASY, HARD = ["7", "7", "7", "7", "6"], ["7", "6", "5", "4", "3"]


@pytest.fixture(scope="module")
def null() -> list[list[list[Sample]]]:
    """200 runs of a start and three rounds in which no policy differs from another: each answers 80 gate
    tasks, half easy (right 4 times in 5), half hard (once in 5), with draws of its own."""
    engine = Scripted([{"match": "easy", "answers": EASY}, {"match": "hard", "answers": HARD}])
    tasks = [
        Task(
            id=f"t{i}", prompt=(Message(role="user", content="hard" if i % 2 else "easy"),), references=("7",)
        )
        for i in range(80)
    ]
    settings = GenerateConfig(n=1, temperature=1.0, max_new_tokens=4)
    exact = (make(ExactSettings(), RewardOptions()),)
    return [
        [
            evaluate(tasks, engine, settings, exact, derive(run, "policy", k), stage="gate")
            for k in range(ROUNDS + 1)
        ]
        for run in range(RUNS)
    ]


def accepted(run: int, policies: list[list[Sample]], mode: gate.Mode) -> bool:
    """Does a run through these policies keep any? Each is compared with what is accepted by then."""
    best = policies[0]
    kept = False
    for k, candidate in enumerate(policies[1:], start=1):
        alpha = gate.spends(ALPHA, k, ROUNDS)
        found = compared(best, candidate, (), seed=run, level=1 - alpha, alternative="greater")
        if gate.decide(found, mode, alpha).accepted:
            best, kept = candidate, True
    return kept


def test_under_a_null_at_most_18_of_200_runs_keep_anything(null: list[list[list[Sample]]]) -> None:
    """At alpha 0.05 ten runs are expected to err at most; more than 18 would come once in 170 times."""
    kept = [accepted(run, policies, "significant") for run, policies in enumerate(null)]
    assert 1 <= sum(kept) <= 18  # a gate that never opens would pass too: this one errs now and then
    strict = [accepted(run, policies, "strict") for run, policies in enumerate(null)]
    assert sum(strict) <= sum(kept)


def test_a_plain_comparison_keeps_something_in_most_of_these_runs(null: list[list[list[Sample]]]) -> None:
    """What the null runs are there to catch, so that the control above is known to have teeth."""

    def mean(rows: list[Sample]) -> float:
        values = [value for value in per_task(rows).values() if value is not None]
        return sum(values) / len(values)

    assert sum(max(map(mean, run[1:])) > mean(run[0]) for run in null) > 130


# --- a sabotaged round -------------------------------------------------------------------------------

SETTINGS = """
model = {model}
[tasks]
source = "t.jsonl"
gate = 40
test = 10
[reward]
use = ["mine.py:{trained}"]
[evaluate]
measure = ["mine.py:share"]
n = 4
temperature = 1.0
max_new_tokens = 16
[generate]
n = 8
max_new_tokens = 16
stop = ["a", "e", "o", "n", " ", "t", "i", "s", "0", "1", "2"]
[select]
strategy = "best-of-n"
max_per_prompt = 2
[train]
lr = 3e-2
epochs = 3
[train.lora]
r = 8
[cycle]
rounds = 1
prompts_per_round = 40
"""
# A random model's noise is half ASCII: a share that training can move either way. Its answers end at one of
# these texts, or they would babble on to max_new_tokens and not be learnt from.
REWARDS = """
def share(sample):
    return (0.5 + sum(c.isascii() for c in sample.text)) / (1 + len(sample.text))

def sabotaged(sample):
    return 1 - share(sample)
"""


def outcome(folder: Path, model: Path, trained: str) -> Any:
    folder.mkdir()
    (folder / "mine.py").write_text(REWARDS)
    (folder / "c.toml").write_text(SETTINGS.format(model=json.dumps(str(model)), trained=trained))
    (folder / "t.jsonl").write_bytes(jsonl(*(task(f"t{i}", f"What is {i} + 2?") for i in range(90))))
    done = selfrefine("cycle", "--config", "c.toml", "--run", "r", cwd=folder)
    assert done.code == 0, done.err
    told = json.loads((folder / "runs/r/round-001/round.json").read_text())
    assert told["gate"]["reason"] in done.err
    return told, folder / "runs/r"


def test_a_round_with_a_wrong_signed_reward_is_rolled_back(tiny_model_dir: Path, tmp_path: Path) -> None:
    """A documented example reward once had the wrong sign. The same round with the right one is kept."""
    told, run = outcome(tmp_path / "wrong", tiny_model_dir, "sabotaged")
    assert told["gate"]["outcome"] == "reject" and told["gate"]["hi"] < 0
    assert told["accepted_round"] == 0 and not (run / "adapter").is_symlink()
    final = json.loads((run / "final/summary.json").read_text())
    assert final["policy"] == told["policy_before"] == told["policy_after"]
    told, run = outcome(tmp_path / "right", tiny_model_dir, "share")
    assert told["gate"]["outcome"] == "accept" and (run / "adapter").is_symlink()
