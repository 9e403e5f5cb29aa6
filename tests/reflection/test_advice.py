"""One suggestion after a round: the right one, and one that the program takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from harness import jsonl, selfrefine, task
from made_runs import decision

from selfrefine.config import CycleConfig
from selfrefine.layers import resolve
from selfrefine.reflection.advice import Facts, Suggestion, suggest
from selfrefine.runfolder.ends import stop
from selfrefine.runfolder.summaries import Cost, Guard, RoundSummary
from selfrefine.stats import Interval


def after(*outcomes: str, gate: float = 0.5, gain: float = 0.05, vetoed: bool = False) -> list[RoundSummary]:
    """Rounds with these outcomes; what is accepted measures `gate`."""
    found = [RoundSummary(index=0, policy_before="a", policy_after="a")]
    accepted = 0
    for k, outcome in enumerate(outcomes, 1):
        accepted = k if outcome == "accept" else accepted
        last = k == len(outcomes)
        found.append(
            RoundSummary(
                index=k,
                policy_before="a",
                policy_after="b",
                measures={"gate": Interval(mean=gate, lo=None, hi=None, n=100)},
                cost=Cost(tokens=1000),
                gate=decision(outcome, gate - gain if outcome != "reject" else gate + gain, gate, 100),
                guards=(Guard(name="forgetting", value=0.1, state="veto", reason="fell"),)
                if vetoed and last
                else (),
                accepted_round=accepted,
            )
        )
    return found


def facts(summaries: list[RoundSummary], cycle: dict[str, Any] | None = None, **more: Any) -> Facts:
    sets = {"reward.use": ["numeric"], "objective.name": "sft", "train.lr": 3e-4, "generate.n": 8}
    sets |= {key.replace("__", "."): more.pop(key) for key in list(more) if "__" in key}
    sets |= {f"cycle.{key}": value for key, value in (cycle or {}).items()}
    found = resolve([("flag", sets)])
    base = {"train_tasks": 1000, "gate_tasks": 100, "flat": 0.2, "mean": 0.3, "learnt": 200, "passing": 0.9}
    return Facts(
        config=found.config,
        cycle=found.config.cycle,
        summaries=summaries,
        origins=found.origins,
        **(base | {"gate_truncated": 0.0} | more),
    )


REJECT = ("reject", "reject")
"""Twice: the default patience ends the run."""
CASES: dict[str, tuple[Facts, str, tuple[str, ...], str]] = {
    "more to come": (facts(after("accept")), "none", (), "round 2 goes on from this policy"),
    "undecided, more to come": (facts(after("undecided")), "none", (), "small gains add up"),
    "it still gains, and the rounds are over": (
        facts(after("accept", "accept", "accept")),
        "continue",
        ("--rounds", "4"),
        "round 3 still gained (+0.050)",
    ),
    "the tokens are over": (
        facts(after("accept", "accept"), {"rounds": 9, "max_tokens": 1500}),
        "continue",
        ("--set", "cycle.max_tokens=4000"),
        "still gained",
    ),
    "the target is reached": (
        facts(after("accept"), {"rounds": 9, "until": 0.4}),
        "continue",
        ("--until", "1"),
        "still gained",
    ),
    "nothing left to gain": (
        facts(after("accept", gate=0.987)),
        "continue",
        ("--until", "0.98"),
        "nothing left to gain",
    ),
    "nothing left to gain at the end": (
        facts(after("accept", gate=1.0), {"rounds": 1}),
        "another-run",
        (),
        "harder tasks",
    ),
    "a veto": (
        facts(after("reject", vetoed=True)),
        "another-run",
        ("--set", "train.lr=0.00015"),
        "a guard vetoed (forgetting)",
    ),
    "cut off": (
        facts(after("undecided"), gate_truncated=0.6, evaluate__max_new_tokens=64),
        "another-run",
        ("--set", "generate.max_new_tokens=256", "--set", "evaluate.max_new_tokens=128"),
        "60 % of the held-out answers are cut off",
    ),
    "never right": (
        facts(after(*REJECT), flat=0.95, mean=0.02),
        "another-run",
        ("--set", "generate.n=16"),
        "no answer is better than another",
    ),
    "always right": (facts(after(*REJECT), flat=0.95, mean=0.97), "another-run", (), "harder ones would"),
    "paid for something else": (
        facts(after(*REJECT), passing=0.1, reward__use=["length"], evaluate__measure=["numeric"]),
        "another-run",
        ("-r", "numeric"),
        "only 10 % of the learnt answers pass",
    ),
    "a handful of answers": (
        facts(after(*REJECT), learnt=5),
        "another-run",
        ("--set", "cycle.prompts_per_round=256"),
        "5 answers only",
    ),
    "it learnt enough and is worse": (
        facts(after(*REJECT)),
        "another-run",
        ("--set", "train.lr=0.00015"),
        "smaller steps may",
    ),
    "all equal, and nothing learns from rewards": (
        facts(after(*REJECT), flat=0.95, mean=0.02, passing=0.1, objective__name="distil"),
        "another-run",
        ("--set", "train.lr=0.00015"),
        "what it learnt made it no better",
    ),
    "undecided again": (
        facts(after("undecided", "undecided")),
        "another-run",
        ("--set", "tasks.gate=200"),
        "100 gate tasks cannot show so small a gain",
    ),
}


@pytest.mark.parametrize("what", CASES)
def test_each_situation_has_its_suggestion(what: str) -> None:
    told, kind, flags, words = CASES[what]
    found = suggest(told)
    assert (found.kind, found.flags) == (kind, flags), found
    assert words in found.why


TYPED = [what for what, (_, kind, flags, _) in CASES.items() if kind == "another-run" and flags]


@pytest.mark.parametrize("what", TYPED)
def test_what_another_run_should_change_is_not_refused(what: str, tmp_path: Path) -> None:
    _, _, flags, _ = CASES[what]
    (tmp_path / "t.jsonl").write_bytes(jsonl(*(task(f"t{i}", f"What is {i} + 2?") for i in range(900))))
    base = ["cycle", "--tasks", "t.jsonl", "--model", "scripted", "--dry-run"]
    own = flags if "-r" in flags else ("-r", "numeric", *flags)
    done = selfrefine(*base, *own, cwd=tmp_path)
    assert done.code == 0, done.err


GOES_ON = [what for what, (_, kind, _, _) in CASES.items() if kind == "continue"]


@pytest.mark.parametrize("what", GOES_ON)
def test_what_continues_a_run_is_no_drift_and_does_what_it_says(what: str, tmp_path: Path) -> None:
    """Trap: `--set train.lr=1e-4` in a run is refused (exit 5); so is a flag that does not exist (exit 2)."""
    told, _, flags, _ = CASES[what]
    (tmp_path / "t.jsonl").write_bytes(jsonl(*(task(f"t{i}", f"What is {i} + 2?") for i in range(20))))
    words = ["--tasks", "t.jsonl", "--model", "scripted", "-r", "numeric", "--rounds", "0", "--run", "r"]
    assert selfrefine("cycle", *words, cwd=tmp_path).code == 0
    done = selfrefine("cycle", "--run", "r", *flags, cwd=tmp_path)
    # A script can't be trained: the one refusal that more rounds may meet here.
    assert done.code == 0 or "--rounds" in flags, done.err
    assert done.code not in (2, 5), done.err
    given = dict(zip(flags[::2], flags[1::2], strict=True))
    own: dict[str, Any] = {"rounds": told.cycle.rounds, "until": told.cycle.until}
    own["max_tokens"] = told.cycle.max_tokens
    for flag, value in given.items():
        key = value.partition("=")[0].removeprefix("cycle.") if flag == "--set" else flag.removeprefix("--")
        own[key] = float(value) if key == "until" else int(value.rpartition("=")[2])
    ends = stop(CycleConfig(**own), told.summaries)
    assert (ends is not None) is (what == "nothing left to gain")


def test_a_value_that_cannot_be_is_not_suggested() -> None:
    """Twice the gate tasks out of too few, twice the prompts out of fewer, a reward that a recipe refuses."""
    none_left = facts(after("undecided", "undecided"), train_tasks=150)
    assert suggest(none_left).kind == "none"
    few = facts(after(*REJECT), learnt=5, train_tasks=100)
    assert suggest(few).flags == ("--set", "train.lr=0.00015")
    own = facts(after(*REJECT), passing=0.1, reward__use=["length"], evaluate__measure=["numeric"])
    recipe = Facts(
        **{name: getattr(own, name) for name in Facts.__struct_fields__}
        | {"origins": {"reward.use": "recipe"}}
    )
    assert "-r" not in suggest(recipe).flags


def test_a_first_rollback_waits_for_the_next_round_a_last_one_does_not() -> None:
    first = suggest(facts(after("reject")))
    assert first.why.endswith("if round 2, which has other prompts, is no better either")
    assert "if round" not in suggest(facts(after(*REJECT))).why


def test_where_rounds_are_planned_the_plan_has_the_word() -> None:
    assert suggest(facts(after("reject"), plans=True)).kind == "plan"
    made = suggest(facts(after("reject"), plan=("longer", "hint")))
    assert made == Suggestion(kind="plan", why="the plan for round 2: longer, hint")
    assert suggest(facts(after(*REJECT), plans=True)).kind == "another-run"  # no round is left to plan
