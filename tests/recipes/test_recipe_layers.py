"""A recipe is a layer between the defaults and the configuration file: method here, task there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from harness import refused, selfrefine

from selfrefine import recipes
from selfrefine.cli import common
from selfrefine.config import Config
from selfrefine.errors import ConfigError
from selfrefine.layers import objective_settings
from selfrefine.objectives.fit import check_rows
from selfrefine.stages.settings import check_method
from selfrefine.steps.scoring import check_rewards


def resolved(config: str | None, *sets: str, run: Any = None, **given: Any) -> Any:
    return common.settings(config, list(sets), common.flags(**given), run=run)


def test_a_flag_beats_the_file_beats_the_recipe_beats_the_default(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[train]\nbatch_size = 32\n")
    found = resolved(str(file), recipe="grpo", train__start="base")
    assert (found.config.train.start, found.config.train.batch_size) == ("base", 32)
    assert (found.config.objective.name, found.config.train.warmup) == ("grpo", 0.1)
    origins = [found.origins[f"train.{key}"] for key in ("start", "batch_size", "lr", "warmup")]
    assert origins == ["flag", "file", "recipe", "default"]
    assert found.config.recipe == "grpo"


def test_a_file_may_name_its_recipe_and_a_flag_another() -> None:
    """The demo is a task; how it is learnt by default is one line in it."""
    assert resolved("demo").config.select.max_per_prompt == 2
    other = resolved("demo", recipe="grpo").config
    assert (other.select.strategy, other.select.max_per_prompt, other.train.replay) == ("groups", None, 0.0)
    assert resolved("demo", "recipe=grpo").config == other


@pytest.mark.parametrize("task", ["demo", "demo-text"])
@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_goes_with_every_shipped_task(name: str, task: str) -> None:
    """A task file that set `train` or `select` would turn another recipe into a mixture of two methods."""
    config = resolved(task, recipe=name).config
    check_method(config)
    check_rows(config.objective.name, config.select)
    method = recipes.read(name).table
    for table in ("select", "objective", "train", "reward", "rationalise", "critique"):
        for key, value in method.get(table, {}).items():
            own = getattr(config, table)
            found = getattr(own if hasattr(own, key) else objective_settings(config.objective), key)
            assert (list(found) if isinstance(found, tuple) else found) == value


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_is_short_and_says_what_it_is(name: str) -> None:
    text = recipes.read(name).text
    assert len(text.splitlines()) <= 25
    head = text[: text.index("\n\n")]
    for said in ("# Paper: ", "arXiv:", "# As in the paper", "# Different: "):
        assert said in head, f"{name} does not say: {said}"


def test_what_a_recipe_is_about_cannot_be_replaced_in_silence() -> None:
    """`--recipe placebo -r gym` would be the real thing under the placebo's name."""
    with pytest.raises(ConfigError, match="recipe placebo trains on random, not on another reward"):
        resolved(None, recipe="placebo", reward__use=["gym"])
    config = resolved(None, recipe="placebo", evaluate__measure=["numeric"]).config
    trained, measures = check_rewards(config, None)  # type: ignore[arg-type]
    assert ([one.name for one in trained], [one.name for one in measures]) == (["random"], ["numeric"])


def test_without_a_reward_of_its_own_a_recipe_trains_on_what_measures() -> None:
    config = resolved("demo-text", recipe="grpo").config
    trained, measures = check_rewards(config, None)  # type: ignore[arg-type]
    assert [one.name for one in trained] == [one.name for one in measures] == ["coverage", "sentence"]


def test_a_continued_run_keeps_its_recipe_and_another_one_is_seen() -> None:
    import msgspec

    made = msgspec.to_builtins(resolved("demo", "train.lr=0.5", recipe="raft").config)
    again = resolved(None, run=made).config
    assert (again.recipe, again.train.lr, again.train.start) == ("raft", 0.5, "adapter")
    # Said again, it is applied again: the difference is found by the check for drift, not swallowed.
    other = resolved(None, run=made, recipe="grpo").config
    assert (other.recipe, other.train.lr, other.objective.name) == ("grpo", 3e-4, "grpo")


def test_a_recipe_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("# Mine: as little as can be.\n[train]\nlr = 0.5\n")
    assert recipes.read(str(path)).about == "Mine: as little as can be."
    assert resolved(None, recipe=str(path)).config.train.lr == 0.5


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[tasks]\nsource = "x.jsonl"\n', "a recipe cannot set tasks.source"),
        ('model = "smollm2"\n', "a recipe cannot set model"),
        ('[evaluate]\nmeasure = ["gym"]\n', "a recipe cannot set evaluate.measure"),
        ("[train]\nlearning_rate = 1\n", "unknown key train.learning_rate"),
    ],
)
def test_a_recipe_says_how_and_not_what(text: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=why):
        recipes.read(str(path))


def test_ls_and_show(tmp_path: Path) -> None:
    listed = selfrefine("recipes", "ls", cwd=tmp_path)
    assert [row["name"] for row in listed.rows] == recipes.names()
    assert selfrefine("recipes", "ls", cwd=tmp_path, terminal=True).out.startswith(b"best-of-n")
    shown = selfrefine("recipes", "show", "star", cwd=tmp_path)
    assert shown.out == (recipes.FOLDER / "star.toml").read_bytes()
    refused(selfrefine("recipes", "show", "start", cwd=tmp_path), 3, "did you mean 'star'?")
    refused(selfrefine("cycle", "--recipe", "gpro", "--dry-run", cwd=tmp_path), 3, "did you mean 'grpo'?")
    refused(
        selfrefine("cycle", "--config", "star", "--dry-run", cwd=tmp_path), 3, "did you mean --recipe star?"
    )


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"select": {"strategy": "all", "learn": "both"}}, "learn both needs revisions"),
        ({"evaluate": {"revise": "end"}}, "evaluate.revise end needs revisions"),
        ({"critique": {"passes": 2, "revise": False}}, "with critique.revise = false it must be 1"),
        ({"critique": {"passes": 1, "principles": "principles"}}, "does not use a principle"),
        (
            {"critique": {"passes": 1, "critique_prompt": "constitutional-critique"}},
            "name a file with one per line",
        ),
        ({"resample": {"groups": 4}}, "resample needs"),
        (
            {
                "rationalise": {"n": 1},
                "select": {"strategy": "groups"},
                "objective": {"name": "grpo"},
            },
            "does not work with select.strategy groups",
        ),
    ],
)
def test_methods_that_cannot_work_are_refused_before_the_first_token(settings: Any, why: str) -> None:
    import msgspec

    with pytest.raises(ConfigError, match=why):
        check_method(msgspec.convert(settings, Config))
