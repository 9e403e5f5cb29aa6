"""The comparison of the recipes is read from run folders, goes on where it was stopped, and hides nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import warm
from test_recipe_runs import CONFIG, READABLE

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from harness import environment  # noqa: E402

from benchmarks import recipe_runs  # noqa: E402
from benchmarks import recipes as bench  # noqa: E402
from benchmarks.recipe_runs import ON_TEXT, REFERENCE, Plan, Result, adapter, result  # noqa: E402
from selfrefine.stats import Difference, compare  # noqa: E402


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What `-m selfrefine` can be asked of, without a start of seconds; it hands no signals on."""
    folder = tmp_path_factory.mktemp("bin")
    with warm.served(folder) as program:
        script = folder / "python"
        script.write_text(f'#!/bin/sh\nshift 2\nexec {program} "$@"\n')
        script.chmod(0o755)
        yield str(script)


@pytest.fixture
def arguments(tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    tasks = [{"id": f"t{i}", "question": f"what is {i}?", "answer": str(i)} for i in range(24)]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(one) + "\n" for one in tasks))
    letters = ", ".join(f'"{c}"' for c in READABLE)
    reward = f"{Path(__file__).parent / 'noise.py'}:even"
    text = CONFIG.format(tasks=tmp_path / "tasks.jsonl", reward=reward, letters=letters)
    (tmp_path / "config.toml").write_text(text)
    return [
        *("--config", str(tmp_path / "config.toml"), "--model", str(tiny_model_dir), "--budget", "60"),
        *("--seeds", "1"),
        *("--folder", str(tmp_path / "runs"), "-o", str(tmp_path / "RECIPES.md")),
    ]


def test_runs_are_made_skipped_when_done_and_shown_with_what_failed(
    tmp_path: Path, arguments: list[str], python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """grpo fails here: a file is where its folder would be. That is a line of the table."""
    monkeypatch.setattr(sys, "executable", python)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "grpo-s0").write_text("in the way")
    arguments += ["--only", "raft", "--only", "grpo"]
    assert bench.main(arguments) == 0
    text = (tmp_path / "RECIPES.md").read_text()
    starts = ("| raft | 0 | ", "| grpo | 0 |")
    raft, failed = (line for line in text.splitlines() if line.startswith(starts))
    summary = json.loads((tmp_path / "runs" / "raft-s0" / "final" / "summary.json").read_text())
    assert f"{summary['test']['mean']:.3f}" in raft and "token budget reached" in raft
    assert "failed with exit code 5: " in failed and "grpo-s0" in failed
    assert "Finished runs: 2 of 2." in text

    def never(*_: object) -> bool:
        raise AssertionError("a finished run was begun again")

    monkeypatch.setattr(bench, "go", never)
    assert bench.main(arguments) == 0
    assert (tmp_path / "RECIPES.md").read_text() == text


def test_a_run_is_interrupted_when_the_minutes_are_over_and_continued(
    tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments += ["--only", "raft"]
    assert bench.main([*arguments, "--minutes", "0.02"]) == 0
    assert "| unfinished |" in (text := (tmp_path / "RECIPES.md").read_text()) or "| not started |" in text
    assert bench.main(arguments) == 0
    assert "Finished runs: 1 of 1." in (tmp_path / "RECIPES.md").read_text()


def test_the_best_four_and_the_placebo_are_repeated() -> None:
    """By gain on the test split; what trains nothing and what has another task are no candidates."""
    gains = {
        "a": 0.1,
        "b": 0.4,
        "c": 0.3,
        "d": 0.2,
        "e": 0.0,
        "placebo": 0.9,
        "untrained": 0.8,
        "failed": 0,
        "a@text": 0.7,
        "a+b": 0.6,
    }
    found = [
        Result(
            recipe=name,
            seed=0,
            ended="x",
            finished=True,
            gain=Difference(mean=float(gain), lo=None, hi=None, n=1) if name != "failed" else None,
            rounds=0 if name == "untrained" else 3,
        )
        for name, gain in gains.items()
    ]
    assert bench.repeated(found) == ["b", "c", "d", "a", "placebo"]
    demo = Result(recipe=REFERENCE, seed=0, ended="x", finished=True)
    assert bench.repeated([*found, demo]) == ["b", "c", "d", "a", REFERENCE, "placebo"]


def test_the_demo_is_the_reference_with_a_hint() -> None:
    """The page says so. Another recipe for the demo needs another sentence there."""
    from selfrefine.layers import read_toml
    from selfrefine.recipes import read

    demo, base = (
        read(name).table for name in (read_toml(ROOT / "selfrefine/configs/demo.toml")["recipe"], REFERENCE)
    )
    assert demo["rationalise"]["n"] > 0 and "rationalise" not in base
    assert demo["select"] == base["select"] and demo["train"]["start"] == base["train"]["start"]


def test_what_beats_the_demo_is_run_at_the_demos_own_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five rounds of 64 prompts and three of 128 do not order recipes alike."""
    plan = Plan(folder=tmp_path, sets=("tasks.gate=200",), seeds=(0, 1))
    monkeypatch.setattr(bench, "result", lambda plan, name, seed: _done(name, seed, not plan.as_configured))
    monkeypatch.setattr(bench, "rivals", lambda *_: ["raft"])
    jobs = bench.todo(plan)
    assert [(name, seed) for _, name, seed in jobs] == [
        (REFERENCE, 0),
        ("raft", 0),
        (REFERENCE, 1),
        ("raft", 1),
    ]
    words = jobs[1][0].command("raft", 0)
    assert words[words.index("--run") + 1] == str(tmp_path / "own-size" / "raft-s0")
    assert "--rounds" not in words and "--set" not in words
    monkeypatch.setattr(bench, "rivals", lambda *_: [])
    assert bench.todo(plan) == []


def test_a_rival_is_what_beats_the_demos_recipe_over_all_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what is better with one seed, and not where there was nothing to compare."""
    half = [1.0] * 10 + [0.0] * 10
    pairings = [
        recipe_runs.Pairing(recipe=name, seeds=[told], together=told, minutes=(1.0, 1.0))
        for name, after in (("all", [1.0] * 20), ("one more", [1.0] * 11 + [0.0] * 9), ("none", []))
        for told in [
            compare({str(i): v for i, v in enumerate(half)}, {str(i): v for i, v in enumerate(after)}, 0)
        ]
    ]
    monkeypatch.setattr(recipe_runs, "against_reference", lambda *_: pairings)
    assert recipe_runs.rivals(Plan(folder=Path()), []) == ["all"]


def _done(name: str, seed: int, finished: bool) -> Result:
    return Result(recipe=name, seed=seed, ended="x", finished=finished)


def test_a_recipe_on_a_task_of_its_own_is_run_on_it(tmp_path: Path) -> None:
    words = Plan(folder=tmp_path).command(ON_TEXT, 0)
    assert words[words.index("--recipe") + 1] == "learn-to-revise"
    assert words[words.index("--config") + 1] == "demo-text"
    assert words[words.index("--run") + 1] == str(tmp_path / "learn-to-revise-on-demo-text-s0")


def test_a_chain_starts_from_the_adapter_of_its_first_run(
    tmp_path: Path, arguments: list[str], python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", python)
    chain = bench.CHAINED[1]
    plan = Plan(folder=tmp_path / "runs", only=(chain,))
    assert plan.names == [REFERENCE, chain]
    assert bench.go(plan, chain, 0, 60) and result(plan, chain, 0).ended.startswith("not started: ")
    (tmp_path / "runs" / f"{REFERENCE}-then-sabotage-s0.failed").unlink()
    arguments += ["--only", chain]
    assert bench.main(arguments) == 0
    asked = json.loads((tmp_path / "runs" / f"{REFERENCE}-then-sabotage-s0" / "manifest.json").read_text())[
        "config"
    ]
    first = tmp_path / "runs" / f"{REFERENCE}-s0"
    assert asked["recipe"] == "sabotage"
    assert Path(asked["adapter"]) == adapter(first)
    assert adapter(first).parent.parent == first
