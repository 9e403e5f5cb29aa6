"""Settings: who decides, what is refused, and how a value is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from selfrefine.cli import common
from selfrefine.config import READ_BY, Config, GenerateConfig, flatten, keys, parse_set, read_toml, resolve
from selfrefine.errors import ConfigError
from selfrefine.objectives import OBJECTIVES


def test_a_flag_beats_the_file_beats_the_run_beats_the_default() -> None:
    layers: list[tuple[str, dict[str, Any]]] = [
        ("run", {"train": {"lr": 1.0, "epochs": 2.0, "clip": 3.0}}),
        ("file", {"train": {"lr": 0.5, "epochs": 4.0}}),
        ("flag", {"train.lr": 0.25}),
    ]
    found = resolve(layers)
    train = found.config.train
    assert (train.lr, train.epochs, train.clip, train.batch_size) == (0.25, 4.0, 3.0, 16)
    origins = {key: found.origins[f"train.{key}"] for key in ("lr", "epochs", "clip", "batch_size")}
    assert origins == {"lr": "flag", "epochs": "file", "clip": "run", "batch_size": "default"}
    assert found.origins.keys() == keys().keys()


def test_nothing_given_is_the_defaults() -> None:
    assert resolve([]).config == Config()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b=1e-4", 1e-4),
        ("a.b=8", 8),
        ("a.b=true", True),
        ('a.b="8"', "8"),
        ("a.b=smollm2", "smollm2"),
        ("a.b=['x', 'y']", ["x", "y"]),
        ("a.b=", ""),
        ("a.b=x=y", "x=y"),
        ("a.b={n = 1}", {"n": 1}),
    ],
)
def test_a_value_is_toml_and_else_a_string(text: str, value: object) -> None:
    assert parse_set(text) == ("a.b", value)


@pytest.mark.parametrize("text", ["a.b", "=1", " = 1"])
def test_a_setting_needs_a_key_and_a_value(text: str) -> None:
    with pytest.raises(ConfigError, match="write KEY=VALUE"):
        parse_set(text)


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("train.learning_rates", ""),
        ("genrate.n", "did you mean generate.n?"),
        ("train.lora.rr", "did you mean train.lora.r?"),
        ("cycle.round", "did you mean cycle.rounds?"),
        ("zzz", "unknown key zzz"),
    ],
)
def test_an_unknown_key_is_refused_and_the_nearest_named(key: str, near: str) -> None:
    """A misspelt key that is silently ignored trains with the default, and nobody knows."""
    with pytest.raises(ConfigError) as caught:
        resolve([("flag", {key: 1})])
    assert f"unknown key {key}" in str(caught.value) and near in str(caught.value)


@pytest.mark.parametrize(
    "table",
    [
        {"generate": {"n": 0}},
        {"generate": {"n": True}},
        {"generate": {"n": 1.5}},
        {"generate": {"top_p": 0.0}},
        {"generate": {"stop": [""]}},
        {"train": {"lr": float("nan")}},
        {"train": {"replay": 1.0}},
        {"train": {"schedule": "cosin"}},
        {"objective": {"name": "ppo"}},
        {"objective": {"beta": 0.0}},
        {"objective": {"clip_low": 1.5}},
        {"objective": {"reference": "last"}},
        {"tasks": {"gate": 1.0}},
        {"tasks": {"gate": -1}},
        {"select": {"min_reward": 1.5}},
        {"seed": 2**53},
        {"seed": -1},
    ],
)
def test_a_value_out_of_its_range_is_named_by_its_key(table: dict[str, Any]) -> None:
    [key] = flatten(table)
    with pytest.raises(ConfigError, match=f"^setting {key}"):
        resolve([("file", table)])


def test_free_tables_keep_what_stands_in_them() -> None:
    """A reward's own settings and a source's are checked by their owners, who know them."""
    own = {"reward": {"settings": {"numeric": {"tolerance": 0.5}}}, "tasks": {"settings": {"max_terms": 2}}}
    config = resolve([("file", own), ("flag", {"reward.settings.bleu": {"x": 1}})]).config
    assert config.tasks.settings == {"max_terms": 2}
    assert config.reward.settings["bleu"] == {"x": 1}


def test_a_whole_number_is_a_fine_rate() -> None:
    assert resolve([("flag", {"train.epochs": 2, "train.lr": 1})]).config.train.epochs == 2


def test_a_resolved_config_resolves_to_itself() -> None:
    """What the manifest stores is what a continued run reads back."""
    one = resolve(
        [("file", {"generate": {"stop": ["\n"]}, "tasks": {"gate": 30}, "train": {"lora": {"r": 4}}})]
    )
    stored = msgspec.json.decode(msgspec.json.encode(one.config))
    assert resolve([("run", stored)]).config == one.config


@pytest.mark.parametrize("name", ["demo", "demo-text"])
def test_shipped_configurations_resolve(name: str) -> None:
    config = common.settings(name, None, {}).config
    assert config.tasks.source and config.evaluate.measure


def test_a_file_wins_over_a_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert common.config_path("demo").name == "demo.toml"
    Path("demo").write_text("seed = 3\n")
    assert read_toml(common.config_path("demo")) == {"seed": 3}


def test_a_flag_that_the_objective_never_reads_is_an_error() -> None:
    """Whoever types it believes that it acts. In a file it may stand: a file serves several objectives."""
    with pytest.raises(ConfigError, match=r"objective\.clip_low: sft does not read it, only rloo, grpo"):
        resolve([("flag", {"objective.clip_low": 0.1})])
    shared = {"objective": {"clip_low": 0.1, "beta": 0.2}}
    assert resolve([("file", shared), ("flag", {"objective.name": "rloo"})]).config.objective.clip_low == 0.1
    for setting, objectives in READ_BY.items():
        default = keys()[f"objective.{setting}"]
        for name in objectives:
            given = {f"objective.{setting}": default, "objective.name": name}
            if setting == "reference" and name in READ_BY["kl"]:
                given["objective.kl"] = 0.1  # without it there is no reference
            if setting == "weight_temperature":
                given["objective.weights"] = "exponential"
            resolve([("flag", given)])


def test_every_setting_of_an_objective_is_read_by_one() -> None:
    assert {f"objective.{s}" for s in READ_BY} | {"objective.name"} == {
        key for key in keys() if key.startswith("objective.")
    }
    assert {name for names in READ_BY.values() for name in names} == set(OBJECTIVES) - {"sft"}


def test_held_out_tasks_are_answered_greedily_and_otherwise_as_in_training() -> None:
    """What shapes training draws shapes no measurement; what ends an answer does, unless told not to."""
    said = {
        "generate": {"n": 5, "top_p": 0.5, "min_p": 0.1, "repetition_penalty": 1.3, "max_new_tokens": 7},
        "generate.stop": ["X"],
        "generate.system": "be brief",
    }
    config = resolve([("flag", said)]).config
    held = config.evaluate.sampled(config.generate)
    assert held == GenerateConfig(n=1, temperature=0.0, max_new_tokens=7, stop=("X",), system="be brief")
    config = resolve([("flag", said | {"evaluate": {"stop": [], "max_new_tokens": 9, "n": 2}})]).config
    held = config.evaluate.sampled(config.generate)
    assert (held.n, held.stop, held.max_new_tokens) == (2, (), 9)
