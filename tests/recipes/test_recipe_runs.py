"""Every shipped recipe runs two rounds on a random model of two layers, and learns from what it says.

The reward is whether an answer's length is even, which noise earns half of the time; a critic's noise has no
verdict, so one is read out of it as if it had been written.
"""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
from harness import selfrefine
from msgspec.structs import replace

from selfrefine import recipes, verdict
from selfrefine.stages import critique as critique_stage
from selfrefine.stages.settings import critique_settings
from selfrefine.steps.critique import CritiqueSettings

CONFIG = """
[tasks]
source = "{tasks}"
gate = 4
test = 4

[generate]
max_new_tokens = 3
# Whatever is readable ends an answer, and a critique, so that noise is not all cut off.
stop = [{letters}]

[critique]
max_new_tokens = 3

[reward.settings.majority]
extract = "text"

[train]
steps = 2
token_budget = 512

[train.lora]
r = 2
targets = ["v_proj"]

[evaluate]
measure = ["{reward}"]
max_new_tokens = 2

[cycle]
prompts_per_round = 6
"""
READABLE = "abcdefghijklmnopqrstuvwxyz0123456789 "
UNTRAINED = {"self-refine", "reflexion"}
PAIRS = ("spin", "self-rewarding", "iterative-dpo", "constitutional-dpo")
TEACHES = {
    "learn-to-revise": {("revision", "learn")},
    **{name: {("answer", "chosen"), ("answer", "rejected")} for name in PAIRS},
}


@pytest.fixture
def readable(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = itertools.cycle((0.2, 0.8, 0.4, 1.0, 0.0, 0.6))

    def parse(text: str) -> verdict.Parsed:
        return verdict.Parsed(next(scores), "revise", None)

    def stopping(*given: Any) -> CritiqueSettings:
        made = critique_settings(*given)
        return replace(made, critique=replace(made.critique, stop=tuple(READABLE)))

    monkeypatch.setattr(verdict, "parse", parse)
    monkeypatch.setattr(critique_stage, "critique_settings", stopping)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("models") / "tiny", max_position_embeddings=2048)


def run(tmp_path: Path, model: Path, *words: str) -> Path:
    """A finished run of two rounds at most."""
    shutil.copy(Path(__file__).parent / "noise.py", tmp_path)
    tasks = [{"id": f"t{i}", "question": f"what is {i} + {7 * i % 11}?", "answer": str(i)} for i in range(24)]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(one) + "\n" for one in tasks))
    letters = ", ".join(f'"{c}"' for c in READABLE)
    text = CONFIG.format(
        tasks=tmp_path / "tasks.jsonl", reward=f"{tmp_path / 'noise.py'}:even", letters=letters
    )
    (tmp_path / "config.toml").write_text(text)
    done = selfrefine(
        "cycle",
        "--run",
        "r",
        "--config",
        "config.toml",
        "--model",
        model,
        "--seed",
        "3",
        *words,
        cwd=tmp_path,
    )
    assert done.code == 0, done.err
    return tmp_path / "runs" / "r"


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize("name", [name for name in recipes.names() if name not in UNTRAINED])
def test_two_rounds(name: str, tmp_path: Path, model: Path, readable: None) -> None:
    found = run(tmp_path, model, "--recipe", name, "--rounds", "2")
    manifest = json.loads((found / "manifest.json").read_text())
    assert manifest["config"]["recipe"] == name and "recipe" in manifest["origins"].values()
    for k in (1, 2):
        folder = found / f"round-00{k}"
        assert json.loads((folder / "round.json").read_text())["cost"]["trained_tokens"] > 0
        assert json.loads((folder / "train.json").read_text())["steps"] == 2
        selected = rows(folder / "selected.jsonl")
        taught = {(row["lesson"]["teaches"], row["lesson"]["role"]) for row in selected}
        assert taught == TEACHES.get(name, {("answer", "learn")})
        assert (folder / "adapter" / "adapter_model.safetensors").is_file()
    assert selfrefine("runs", "verify", "r", cwd=tmp_path).code == 0


@pytest.mark.parametrize("name", sorted(UNTRAINED))
def test_what_trains_nothing_is_measured_against_asking_again(
    name: str, tmp_path: Path, model: Path, readable: None
) -> None:
    found = run(tmp_path, model, "--recipe", name)
    assert not (found / "round-001").exists() and not (found / "adapter").exists()
    told = json.loads((found / "final" / "revised.json").read_text())
    assert told["draft"]["n"] == told["revision"]["n"] == 4
    assert told["revision_minus_fresh"]["n"] == told["fresh"]["n"] > 0
    thread = [row for row in rows(found / "final" / "revised.jsonl") if "fresh" not in row]
    assert len(thread) == 16  # 4 drafts, and 3 revisions of each
    last = thread[3]["messages"][-1]["content"]
    assert last.count("\n- ") == (3 if name == "reflexion" else 0)  # the notes after all three attempts
    assert selfrefine("runs", "verify", "r", cwd=tmp_path).code == 0


def test_the_placebo_is_measured_by_what_is_real(tmp_path: Path, model: Path) -> None:
    found = run(tmp_path, model, "--recipe", "placebo", "--rounds", "1")
    assert reward_names(found / "round-001" / "reward.jsonl") == {"random"}
    [measure] = reward_names(found / "round-001" / "gate.jsonl")
    assert measure.endswith(":even")


def reward_names(file: Path) -> set[str]:
    return {reward["name"] for row in rows(file) for reward in row["rewards"]}


def test_constitutional_learns_its_revisions_under_the_drafts_prompts(
    tmp_path: Path, model: Path, readable: None
) -> None:
    found = run(tmp_path, model, "--recipe", "constitutional", "--rounds", "1")
    prompts = {tuple(row["prompt_token_ids"]) for row in rows(found / "round-001" / "generate.jsonl")}
    for row in rows(found / "round-001" / "selected.jsonl"):
        assert row["parent_id"] is not None and tuple(row["prompt_token_ids"]) in prompts
    asked = [
        row["critiques"][0]["messages"][0]["content"]
        for row in rows(found / "round-001" / "critique.jsonl")
        if row["critiques"]
    ]
    drawn = {line for text in asked for line in text.splitlines() if line.startswith("The principle: ")}
    assert 1 < len(drawn) <= 6  # one of the file's six for each draft
    assert (found / "prompts" / "principles.txt").is_file()


def test_a_budget_of_tokens_ends_a_run_wherever_it_was_interrupted(tmp_path: Path, model: Path) -> None:
    """The equal budget of the recipes' comparison: sampled and trained tokens, without what measures."""
    found = run(tmp_path, model, "--recipe", "raft", "--rounds", "9", "--set", "cycle.max_tokens=60")
    costs = [json.loads(path.read_text())["cost"] for path in sorted(found.glob("round-*/round.json"))]
    spent = 0
    for k, one in enumerate(costs):
        folder = found / f"round-00{k}"
        sampled = sum(len(row["token_ids"]) for row in rows(folder / "generate.jsonl")) if k else 0
        assert one["tokens"] - one["measured_tokens"] == sampled
        trained = sum(step["tokens"] for step in rows(folder / "train.jsonl")) if k else 0
        assert spent < 60  # else this round would not have begun
        spent += sampled + trained
    assert spent >= 60 and 2 <= len(costs) < 10
    again = selfrefine("cycle", "--run", "r", "--summary-json", "s.json", cwd=tmp_path)
    assert again.code == 0, again.err
    assert json.loads((tmp_path / "s.json").read_text())["why"] == f"token budget reached: {spent} of 60"
    higher = ("--set", "cycle.max_tokens=100000", "--rounds", "1")
    assert selfrefine("cycle", "--run", "r", *higher, cwd=tmp_path).code == 0  # no drift
