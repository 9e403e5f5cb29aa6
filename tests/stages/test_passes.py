"""`critique.stop_without_gain`: a round makes the passes that paid in the one before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
from harness import Result, jsonl, refused, selfrefine, task

from selfrefine.stages.passes import Passes, paid
from selfrefine.steps.critique_outcome import PassOutcome

LETTERS = [*"abcdefghijklmnopqrstuvwxyz0123456789 "]
REWARD = """
def by_pass(sample):
    return {"1": 0.75, "2": 0.5, "3": 1.0}.get(sample.id.rpartition(".v")[2], 0.25)

def long(sample):
    return min(1.0, len(sample.text) / 100), "too short"
"""
"""A draft is worth 0.25, its first revision 0.75, the second 0.5 and the third 1: pass 2 does not pay."""


def gained(before: float, after: float, n: int = 4) -> PassOutcome:
    """n revisions, by their mean rewards."""
    return PassOutcome(revisions=n, wrong_wrong=n, reward_before=n * before, reward_after=n * after)


@pytest.mark.parametrize(
    ("passes", "wanted", "n", "why"),
    [
        ([gained(0.2, 0.4), gained(0.4, 0.5)], 2, 2, None),
        (
            [gained(0.2, 0.42), gained(0.42, 0.41), gained(0.41, 0.9)],  # the third came after one that lost
            3,
            1,
            "1 of 3 passes: pass 2 gained nothing in round 4 (0.420 → 0.410)",
        ),
        (  # a pass is always made, or nothing would be known of it
            [gained(0.4, 0.4), gained(0.4, 0.6)],
            2,
            1,
            "1 of 2 passes: pass 1 gained nothing in round 4 (0.400 → 0.400)",
        ),
        ([gained(0.4, 0.3)], 1, 1, None),
        ([gained(0.2, 0.4), gained(0.4, 0.5)], 3, 2, "2 of 3 passes: as in round 4"),
        (
            [gained(0.2, 0.4), PassOutcome(revisions=3, unscored=3)],
            2,
            1,
            "1 of 2 passes: pass 2 revised nothing that has a reward in round 4",
        ),
        ([PassOutcome(reward_before=0.3, reward_after=0.1 + 0.2, wrong_wrong=1), gained(0, 1)], 2, 1, ...),
    ],
)
def test_the_leading_passes_that_raised_the_mean_reward_are_made(
    passes: list[PassOutcome], wanted: int, n: int, why: Any
) -> None:
    found = paid(tuple(passes), 4, wanted)
    assert found.n == n
    assert why is ... or found == Passes(n, why)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("passes")
    tiny.save(folder / "model", num_hidden_layers=1)
    (folder / "t.jsonl").write_bytes(jsonl(*(task(f"t{i:02}", f"say {i}", "7") for i in range(16))))
    (folder / "mine.py").write_text(REWARD)
    (folder / "critique.md").write_text("{{ task }} {{ answer }}?")
    (folder / "revise.md").write_text("{{ answer }} {{ critique }}!")
    return folder


SETTINGS: dict[str, Any] = {
    "tasks.source": "t.jsonl",
    "tasks.gate": 4,
    "tasks.test": 4,
    "generate.n": 2,
    "generate.max_new_tokens": 3,
    "generate.stop": LETTERS,
    "critique.passes": 3,
    "critique.max_new_tokens": 2,
    "critique.critique_prompt": "critique.md",
    "critique.revise_prompt": "revise.md",
    "critique.control": False,
    "reward.use": ["mine.py:by_pass"],
    "select.strategy": "all",
    "train.steps": 1,
    "train.batch_size": 2,
    "train.lora.r": 2,
    "cycle.rounds": 3,
    "cycle.prompts_per_round": 4,
    "gate.mode": "off",
    "reflect.plan": "off",
}


def cycle(folder: Path, run: str = "r", **changes: Any) -> Result:
    own = SETTINGS | {key.replace("__", "."): value for key, value in changes.items()}
    sets = [word for key, value in own.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    return selfrefine("cycle", "--model", "model", *sets, "--run", run, cwd=folder)


def told(folder: Path, name: str) -> Any:
    return json.loads((folder / "runs/r" / name).read_text())


def test_a_run_stops_after_the_pass_that_paid_and_so_does_its_comparison(world: Path) -> None:
    done = cycle(world, critique__stop_without_gain=True, evaluate__revise="both")
    assert done.code == 0, done.err
    first, second, third = (told(world, f"round-{k:03d}/critique.json")["passes"] for k in (1, 2, 3))
    assert [len(first), len(second), len(third)] == [3, 1, 1]
    n = first[0]["revisions"]
    assert n == 8 and (first[0]["reward_before"], first[0]["reward_after"]) == (n * 0.25, n * 0.75)
    said = "round 2 critique: 1 of 3 passes: pass 2 gained nothing in round 1 (0.750 → 0.500)"
    assert done.err.count(said) == 1, done.err
    assert done.err.count("round 3 critique: 1 of 3 passes: as in round 2") == 1
    assert done.err.count("final revised: 1 of 3 passes: as in round 3") == 1
    assert "round 1 critique: " not in done.err.replace("round 1 critique: 8", "")

    def revisions(name: str) -> set[str]:
        rows = map(json.loads, (world / f"runs/r/{name}").read_text().splitlines())
        return {row["id"].rpartition(".")[2] for row in rows if row["parent_id"] and "fresh" not in row}

    assert revisions("round-000/revised.jsonl") == {"v1", "v2", "v3"}  # before any round: all of them
    assert revisions("final/revised.jsonl") == {"v1"}


def test_a_round_that_is_made_again_makes_as_many_passes(world: Path) -> None:
    """Its own critiques, finished or not, decide nothing: what round 1 came to does."""
    folder = world / "again"
    shutil.copytree(world, folder, ignore=shutil.ignore_patterns("again", "runs"))
    assert cycle(folder, critique__stop_without_gain=True, cycle__rounds=1).code == 0
    words = ["--run", "r", "--allow-drift", "--set", "cycle.rounds=2"]
    for verb in ("generate", "critique"):
        assert selfrefine(verb, *words, cwd=folder).code == 0
    made = (folder / "runs/r/round-002/critique.jsonl").read_bytes()
    assert len(told(folder, "round-002/critique.json")["passes"]) == 1
    (folder / "runs/r/round-002/critique.jsonl").unlink()
    (folder / "runs/r/round-002/critique.json").write_text('{"passes": [{}, {}, {}]}')
    assert selfrefine("critique", *words, cwd=folder).code == 0
    assert (folder / "runs/r/round-002/critique.jsonl").read_bytes() == made


def test_without_it_every_round_makes_all_passes(world: Path) -> None:
    folder = world / "plain"
    shutil.copytree(world, folder, ignore=shutil.ignore_patterns("again", "plain", "runs"))
    done = cycle(folder, cycle__rounds=2)
    assert done.code == 0, done.err
    assert len(told(folder, "round-002/critique.json")["passes"]) == 3
    assert "of 3 passes" not in done.err


def test_where_it_would_be_ignored_it_is_refused(world: Path) -> None:
    gain = {"critique__stop_without_gain": True}
    refused(
        cycle(world, "other", **gain, critique__passes=1), 3, "always makes the first pass", "to 2 or more"
    )
    refused(cycle(world, "other", **gain, critique__passes=0), 3, "always makes the first pass")
    refused(cycle(world, "other", **gain, cycle__rounds=0), 3, "cycle.rounds is 0")
    words = ["--passes", "2", "--set", "critique.stop_without_gain=true", "--model", "model"]
    row = {"id": "a", "task": task("a"), "text": "3"}
    piped = selfrefine("critique", *words, stdin=jsonl(row), cwd=world)
    refused(piped, 3, "looks at the rounds of a run, and a pipe has none")
