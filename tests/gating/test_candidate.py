"""Judging inside a run, from the command line: outcomes, guards, gold, wear, alarms as a user sees them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from harness import Result, jsonl, refused, selfrefine, task

SETTINGS = """
model = {model}
[tasks]
source = "t.jsonl"
gate = 8
test = 4
[reward]
use = ["mine.py:{trained}"]
[evaluate]
measure = ["mine.py:{measure}"]
[generate]
n = 4
max_new_tokens = 8
stop = ["a", "e", "o", " ", "n", "t", "i"]
[select]
strategy = "all"
[cycle]
rounds = 2
prompts_per_round = 6
[train]
lr = 1e-3
start = "adapter"
[train.lora]
r = 2
"""
# means.json stands in for policies that get better or worse: what an answer is worth goes by its policy.
REWARDS = '''
import json, pathlib

def spread(sample):
    return (sample.seed % 97) / 97

def flat(sample):
    return 0.5

def length(sample):
    return min(1.0, len(sample.token_ids) / 8)

def told(sample):
    """What the file means.json says of the policy this answer is from, plus a little for the task."""
    means = json.loads(pathlib.Path("means.json").read_text())
    return min(1.0, means.get(sample.policy, means["*"]) + (sample.seed % 7) / 100)

def fallen(sample):
    """Gold: full marks for the start only."""
    return 1.0 if sample.policy == json.loads(pathlib.Path("means.json").read_text())["start"] else 0.0
'''


def made(folder: Path, model: Path, trained: str = "spread", measure: str = "spread") -> Path:
    folder.mkdir()
    (folder / "mine.py").write_text(REWARDS)
    settings = SETTINGS.format(model=json.dumps(str(model)), trained=trained, measure=measure)
    (folder / "c.toml").write_text(settings)
    tasks = (task(f"t{i}", f"What is {i} + 2?", tags={"source": "ab"[i % 2]}) for i in range(30))
    (folder / "t.jsonl").write_bytes(jsonl(*tasks))
    return folder


def cycle(folder: Path, *words: str) -> Result:
    done = selfrefine("cycle", "--config", "c.toml", "--run", "r", *words, cwd=folder)
    assert done.code == 0, done.err
    return done


def told(folder: Path, k: int) -> Any:
    return json.loads((folder / f"runs/r/round-00{k}/round.json").read_text())


def gate_rows(folder: Path, k: int) -> list[dict[str, Any]]:
    lines = (folder / f"runs/r/round-00{k}/gate.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "runs/r/events.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


def policy_is_worth(folder: Path, **means: float) -> None:
    start = told(folder, 0)["policy_after"]
    (folder / "means.json").write_text(
        json.dumps({"start": start, start: means["start"], "*": means["others"]})
    )


@pytest.fixture
def begun(tiny_model_dir: Path, tmp_path: Path) -> Path:
    """A run whose start is measured (0.1 and a little), its rounds still to come."""
    folder = made(tmp_path / "begun", tiny_model_dir, measure="told")
    (folder / "means.json").write_text(json.dumps({"*": 0.1, "start": "?"}))
    made_by = cycle(folder, "--rounds", "0")
    assert (
        "gate (significant): alpha 0.05 over 1 round, 0.05 each; only 8 gate tasks: 80 % power to detect +0.0"
        in made_by.err
    )
    return folder


def test_a_clear_gain_is_kept_and_the_next_round_is_compared_with_it(begun: Path) -> None:
    policy_is_worth(begun, start=0.1, others=0.6)
    done = cycle(begun, "--rounds", "2")
    first, second = told(begun, 1), told(begun, 2)
    # Eight tasks, all better by 0.5: one arrangement of 2^8.
    assert first["gate"]["outcome"] == "accept" and first["gate"]["p_value"] == 1 / 256
    assert first["gate"]["test"] == "permutation-exact" and first["gate"]["difference"] == pytest.approx(0.5)
    assert (first["gate"]["alpha"], second["gate"]["alpha"]) == (0.05, 0.025)  # made for no round: extended
    # The second candidate is worth as much as the first: compared with the start it would be kept.
    assert second["gate"]["outcome"] == "reject" and second["gate"]["difference"] == 0.0
    assert (second["accepted_round"], second["gate"]["looks"]) == (1, 2)
    assert f"round 1 {first['gate']['reason']}" in done.err and "round 2 rolled back: " in done.err
    # Each decision is followed by what the round came to.
    assert done.err.count("of 8 gate tasks") == 2 and done.err.count("\n  next ") == 2
    assert "in training mine.py:spread 0." in done.err and "on gate tasks mine.py:told 0." in done.err
    assert [event["outcome"] for event in events(begun, "gate")] == ["accept", "reject"]


def test_every_round_draws_its_gate_answers_with_the_same_seeds(tiny_model_dir: Path, tmp_path: Path) -> None:
    """The trap: with a seed of its own for each round, luck of the draw is taken for a difference."""
    folder = made(tmp_path / "seeds", tiny_model_dir)
    cycle(folder, "--gate", "off", "--set", "evaluate.temperature=1", "--set", "evaluate.n=2")
    rounds = [gate_rows(folder, k) for k in range(3)]
    seeds = [{(row["task"]["id"], row["index"]): row["seed"] for row in rows} for rows in rounds]
    assert [len(rows) for rows in rounds] == [2 * 8] * 3
    assert len(set(seeds[0].values())) == 2 * 8  # nor one seed for all of them
    assert seeds[0] == seeds[1] == seeds[2]
    # The rounds are different policies all the same, asked anew.
    assert len({row["policy"] for rows in rounds for row in rows}) == 3


def test_a_gold_reward_vetoes_the_gain(tiny_model_dir: Path, tmp_path: Path) -> None:
    folder = made(tmp_path / "gold", tiny_model_dir, measure="told")
    with (folder / "c.toml").open("a") as stream:
        stream.write('[guards]\ngold = "mine.py:fallen"\n')
    (folder / "means.json").write_text(json.dumps({"*": 0.1, "start": "?"}))
    cycle(folder, "--rounds", "0")
    policy_is_worth(folder, start=0.1, others=0.6)
    done = cycle(folder, "--rounds", "1")
    decision, guards = told(folder, 1)["gate"], {guard["name"]: guard for guard in told(folder, 1)["guards"]}
    assert decision["outcome"] == "reject" and decision["p_value"] == 1 / 256
    assert guards["gold"]["state"] == "veto" and (guards["gold"]["against"], guards["gold"]["value"]) == (
        1.0,
        0.0,
    )
    assert "vetoed: gold: mine.py:fallen fell by 1.00 (1 → 0)" in decision["reason"]
    assert "round 1 warning: gold: mine.py:fallen fell by 1.00" in done.err
    shown = selfrefine("runs", "show", "r", "--all", cwd=folder, terminal=True).out.decode()
    assert "round 1 veto: gold" in shown


def test_a_gold_reward_that_is_trained_on_or_judges_itself_is_refused(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    folder = made(tmp_path / "bad", tiny_model_dir)
    words = ["cycle", "--config", "c.toml", "--run", "r", "--set"]
    refused(selfrefine(*words, "guards.gold=mine.py:spread", cwd=folder), 3, "this reward is trained on")
    for own in ("p-true", "majority"):
        refused(selfrefine(*words, f"guards.gold={own}", cwd=folder), 3, "the policy judges itself")
    # Without reward.use the measure is what is trained on.
    assumed = [*words, "reward.use=[]", "--set", "evaluate.measure=['mine.py:spread']", "--set"]
    refused(selfrefine(*assumed, "guards.gold=mine.py:spread", cwd=folder), 3, "this reward is trained on")
    refused(selfrefine(*words, "guards.gold=nonsense", cwd=folder), 3, "no reward 'nonsense'")
    assert not (folder / "runs").exists()


def test_the_matrix_has_a_row_a_round_and_is_shown(tiny_model_dir: Path, tmp_path: Path) -> None:
    folder = made(tmp_path / "matrix", tiny_model_dir)
    cycle(folder, "--gate", "off")
    rows = [told(folder, k)["probe"] for k in range(3)]
    sources = {"source a", "source b"}
    assert [set(row) - sources for row in rows] == [
        {"general"},
        {"general", "round-001"},
        {"general", "round-001", "round-002"},
    ]
    assert all(sources <= set(row) and row["general"]["perplexity"] > 1 for row in rows)
    assert rows[0]["source a"]["tasks"] + rows[0]["source b"]["tasks"] == 8
    # What the second round learnt changes how likely the first one's lessons are.
    assert rows[2]["round-001"]["perplexity"] != rows[1]["round-001"]["perplexity"]
    # And six of its tasks are answered again, greedily: the round had no more.
    assert rows[1]["round-001"]["tasks"] == rows[2]["round-001"]["tasks"] == 6
    assert all(0 <= rows[2][name]["mean"] <= 1 for name in ("round-001", "round-002"))
    names = [guard["name"] for guard in told(folder, 2)["guards"]]
    assert {
        "length",
        "repetition",
        "truncation",
        "distinct",
        "entropy",
        "reward-length",
        "lessons round-001",
    } <= {*names}
    shown = selfrefine("runs", "show", "r", "--all", cwd=folder, terminal=True).out.decode()
    assert "retention" in shown and "round-002" in shown and "reward-length" in shown


def test_the_probe_can_be_off(tiny_model_dir: Path, tmp_path: Path) -> None:
    folder = made(tmp_path / "off", tiny_model_dir)
    cycle(folder, "--rounds", "1", "--set", "guards.probe=false", "--gate", "off")
    assert set(told(folder, 1)["probe"]) == {"source a", "source b"}
    names = {guard["name"] for guard in told(folder, 1)["guards"]}
    assert "forgetting" not in names and "perplexity" not in names and "length" in names


def test_alarms_ring_once_a_stage_on_the_screen_and_in_the_events(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    folder = made(tmp_path / "alarms", tiny_model_dir, trained="flat")
    limits = ["alarms.grad_norm=0", "alarms.truncated=0", "train.steps=3", "alarms.entropy=1e9"]
    sets = [word for limit in limits for word in ("--set", limit)]
    done = cycle(folder, "--rounds", "1", "--gate", "off", *sets)
    rung = [(event["stage"], event["alarm"], event["round"]) for event in events(folder, "alarm")]
    assert rung == [
        ("generate", "truncated", 1),
        ("generate", "entropy", 1),
        ("reward", "no_spread", 1),
        ("finetune", "grad_norm", 1),  # once, of three steps
    ]
    assert (
        "round 1 reward alarm: for 100 % of the prompts all answers have the same reward (alarms.no_spread"
        in done.err
    )
    assert done.err.count("gradient norm") == 1
    quiet = made(tmp_path / "quiet", tiny_model_dir)
    limits = ("--set", "alarms.truncated=1", "--set", "alarms.grad_norm=1000")
    assert "alarm" not in cycle(quiet, "--rounds", "1", "--gate", "off", *limits).err


def test_a_gate_that_decided_too_often_says_so(begun: Path) -> None:
    policy_is_worth(begun, start=0.1, others=0.05)
    words = ("--set", "gate.wear=0.6", "--allow-drift")
    done = cycle(begun, "--rounds", "4", "--set", "cycle.patience=9", *words)
    # By hand: sqrt((k ln 3 + ln 20) / 16) is 0.506, 0.570 and 0.627 for one, two and three looks.
    said = [line for line in done.err.splitlines() if "gate tasks have decided" in line]
    assert [line.partition(" warning")[0] for line in said] == ["round 3", "round 4"]
    assert "the 8 gate tasks have decided 3 times" in said[0] and "up to 0.63 too high" in said[0]


@pytest.mark.parametrize("reference", ["round-0", "accepted"])
def test_a_fine_tune_goes_on_from_the_undecided_and_is_held_against_the_accepted(reference: str) -> None:
    """Trap: with the accepted policy as the sampler, an undecided candidate's samples get false ratios."""
    from types import SimpleNamespace

    from selfrefine.engines.scripted import Scripted
    from selfrefine.layers import resolve
    from selfrefine.stages.finetune import policies_of
    from selfrefine.stages.progress import Silent
    from selfrefine.stages.session import RunSession

    given = {"objective.name": "dpo", "objective.reference": reference, "train.start": "adapter"}
    config = resolve([("flag", given)]).config
    run: Any = SimpleNamespace(accepted_adapter=Path("one"), current_adapter=Path("two"))
    found = policies_of(RunSession(config, Silent(), Scripted, run=run))
    assert (found.start, found.sampler) == (Path("two"), Path("two"))
    assert found.reference == (Path("one") if reference == "accepted" else None)
