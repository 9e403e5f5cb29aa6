"""Settings: who decides, what is refused, and how a value is read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from selfrefine.cli import common
from selfrefine.config import Config
from selfrefine.errors import ConfigError
from selfrefine.fields import Setting
from selfrefine.layers import (
    describe,
    flatten,
    keys,
    objective_settings,
    parse_set,
    read_toml,
    resolve,
    stored,
)


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


def test_nothing_given_is_the_defaults_and_the_objectives_rate() -> None:
    config = resolve([]).config
    assert config.train.lr == 2e-4
    assert replace(config, train=Config().train) == Config()


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
        ("reward.numerc.tolerance", "did you mean 'numeric'?"),
        ("reward.usee", "did you mean reward.use?"),
        ("objective.bta", "did you mean objective.beta?"),
        ("objective.grpo.clip_lo", "did you mean objective.grpo.clip_low?"),
        ("objective.gpro.clip_low", "did you mean 'grpo'?"),
    ],
)
def test_an_unknown_key_is_refused_and_the_nearest_named(key: str, near: str) -> None:
    """A misspelt key that is silently ignored trains with the default, and nobody knows."""
    with pytest.raises(ConfigError) as caught:
        resolve([("flag", {key: 1})])
    assert key in str(caught.value) and near in str(caught.value)


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
        {"objective.name": "grpo", "objective.grpo.clip_low": 1.5},
        {"objective.name": "grpo", "objective.grpo.normalise": "words"},
        {"objective": {"reference": "last"}},
        {"tasks": {"gate": 1.0}},
        {"tasks": {"gate": -1}},
        {"select": {"min_reward": 1.5}},
        {"seed": 2**53},
        {"seed": -1},
    ],
)
def test_a_value_out_of_its_range_is_named_by_its_key(table: dict[str, Any]) -> None:
    [*_, key] = flatten(table)
    with pytest.raises(ConfigError, match=f"^(setting )?{key}"):
        resolve([("file", table)])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        # a range with one end lets infinity pass, one without ends nan; a manifest can hold neither
        ("train.lr", float("inf")),
        ("train.epochs", float("nan")),
        ("guards.length_warn", float("inf")),
        ("alarms.kl", float("inf")),
        ("objective.kl", float("nan")),
        ("reward.numeric.tolerance", float("inf")),
        ("select.band", [0.1, float("nan")]),
        ("tasks.settings.p", float("-inf")),
    ],
)
def test_a_number_is_finite(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"setting {key.replace('.', '[.]')}: .* is not a finite number"):
        resolve([("flag", {"objective.name": "grpo", key: value})])


@pytest.mark.parametrize(
    ("key", "given", "said"),
    [
        (
            "select.strategy",
            "best_of_n",
            "no such choice 'best_of_n'; did you mean 'best-of-n'? (known: all, best-of-n, ",
        ),
        ("gate.mode", "loose", "no such choice 'loose' (known: off, significant, strict)"),
        (
            "train.schedule",
            3,
            "train.schedule must be text, not a whole number (known: constant,",
        ),
        ("generate.n", "many", "generate.n must be a whole number, not text"),
        ("generate.n", 0, "generate.n must be 1 or more"),
        ("generate.temperature", -1.0, "generate.temperature must be 0 or more"),
        ("generate.top_p", 2.0, "generate.top_p must be at most 1"),
        ("train.lr", 0.0, "train.lr must be more than 0"),
        ("select.band", [0.5], "select.band must have 2 values, not 1"),
        ("generate.stop", ["a", 1], " must be text, not a whole number"),
        ("generate.stop", [""], " must not be empty"),
    ],
)
def test_a_word_that_is_no_choice_is_answered_with_the_choices(key: str, given: object, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve([("flag", {key: given})])
    assert str(caught.value).removeprefix("setting ").startswith(key) and said in str(caught.value)


def test_a_setting_says_what_it_takes() -> None:
    assert describe("generate.n") == Setting(
        key="generate.n", kind="count from 1", default=8, description="Samples per prompt.", type=int
    )
    taken = {
        "seed": "count below 9,007,199,254,740,992",
        "generate.top_k": "count",
        "generate.top_p": "share above 0 and at most 1",
        "generate.stop": "list of texts",
        "train.lr": "number above 0",
        "train.lora.dropout": "share below 1",
        "select.band": "2 shares 0 to 1",
        "tasks.gate": "count or share below 1",
        "tasks.settings": "table",
        "tasks.template": "text",
        "critique.revise": "true or false",
        "gate.alpha": "share above 0 and below 0.5",
        "guards.length_warn": "number from 1",
        "alarms.kl": "number from 0",
    }
    assert {key: describe(key).kind for key in taken} == taken
    schedule, stop, band = (describe(key) for key in ("train.schedule", "generate.stop", "select.band"))
    assert schedule.choices == ("constant", "cosine", "linear") and schedule.type is str
    assert stop.many and stop.type is str and stop.default == ()
    assert band.type is None and describe("tasks.settings").default == {}


def test_the_help_of_a_setting_is_its_first_sentence_as_plain_text() -> None:
    assert describe("tasks.source").help == "Source of the tasks: a file or KIND:NAME."
    assert describe("tasks.gate_file").help == "File or source of gate tasks, instead of tasks.gate."


def test_free_tables_keep_what_stands_in_them() -> None:
    """A reward's own settings and a source's are checked by their owners, who know them."""
    own = {"reward": {"settings": {"numeric": {"tolerance": 0.5}}}, "tasks": {"settings": {"max_terms": 2}}}
    config = resolve([("file", own), ("flag", {"reward.settings.bleu": {"x": 1}})]).config
    assert config.tasks.settings == {"max_terms": 2}
    assert config.reward.settings == {"numeric": {"tolerance": 0.5}, "bleu": {"x": 1}}


@pytest.mark.parametrize(
    "given",
    [
        {"reward": {"numeric": {"tolerance": 0.5, "pass_at": 1.0}, "a/b.py:f": {"pass_at": 0.5}}},
        {
            "reward": {
                "settings": {"numeric": {"tolerance": 0.5, "pass_at": 1.0}, "a/b.py:f": {"pass_at": 0.5}}
            }
        },
        {"reward.numeric.tolerance": 0.5, "reward.numeric": {"pass_at": 1.0}, "reward.a/b.py:f.pass_at": 0.5},
        {
            "reward.settings.numeric.tolerance": 0.5,
            "reward.settings.numeric.pass_at": 1.0,
            "reward.settings.a/b.py:f.pass_at": 0.5,
        },
    ],
)
def test_a_rewards_settings_have_two_spellings_and_one_meaning(given: dict[str, Any]) -> None:
    """The longer one is older, and stands in files and manifests."""
    found = resolve([("file", given)])
    settings = {"numeric": {"tolerance": 0.5, "pass_at": 1.0}, "a/b.py:f": {"pass_at": 0.5}}
    assert found.config.reward.settings == settings
    assert found.origins["reward.numeric.tolerance"] == found.origins["reward.a/b.py:f.pass_at"] == "file"


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


def own(*layers: tuple[str, dict[str, Any]]) -> Any:
    return objective_settings(resolve(layers).config.objective)


def test_a_short_key_is_about_the_objective_that_is_chosen_in_the_end() -> None:
    """A file serves several objectives: what the chosen one does not have may stand in it."""
    file = {"objective": {"clip_low": 0.1, "beta": 0.3, "rloo": {"clip_high": 0.5}}}
    rloo = own(("file", file), ("flag", {"objective.name": "rloo"}))
    assert (rloo.clip_low, rloo.clip_high, rloo.kl) == (0.1, 0.5, 0.0)
    assert own(("file", file), ("flag", {"objective.name": "ipo"})).beta == 0.3
    both = ("file", {"objective": {"name": "dpo", "dpo": {"beta": 0.3}}}), ("flag", {"objective.beta": 0.4})
    assert own(*both).beta == 0.4
    assert own(both[1], ("flag", {"objective.name": "dpo", "objective.dpo.beta": 0.3})).beta == 0.3


def test_a_resolved_objective_says_all_its_settings_and_its_rate() -> None:
    """The manifest must: a default that changes with a version is how unlike runs are taken for alike."""
    config = resolve([("flag", {"objective.name": "kto", "objective.beta": 0.2})]).config
    assert config.objective.settings == {
        "kto": {"beta": 0.2, "desirable_weight": 1.0, "undesirable_weight": 1.0}
    }
    assert config.train.lr == 5e-6
    assert resolve([("flag", {"objective.name": "kto", "train.lr": 1.0})]).config.train.lr == 1.0


def test_a_flag_that_the_objective_never_reads_is_an_error() -> None:
    """Whoever types it believes that it acts. In a file it may stand: a file serves several objectives."""
    with pytest.raises(ConfigError, match=r"objective\.clip_low: sft does not use it, only rloo, grpo"):
        resolve([("flag", {"objective.clip_low": 0.1})])
    for given, said in (
        ({"objective.dpo.beta": 0.2}, r"objective\.dpo\.beta: the objective is sft"),
        ({"objective.reference": "accepted"}, r"objective\.reference: sft does not use it"),
    ):
        with pytest.raises(ConfigError, match=said):
            resolve([("flag", given)])
        resolve([("file", given)])


def test_the_configuration_of_an_older_run_can_be_read() -> None:
    """Its manifest has every objective's settings in one table, and the rewards' under `settings`."""
    old = {
        "objective": {
            "name": "rloo",
            "reference": "round-0",
            "beta": 0.1,
            "nll": 0.0,
            "clip_low": 0.3,
            "kl": 0.1,
        },
        "reward": {"use": ["numeric"], "settings": {"numeric": {"tolerance": 0.5}}},
        "train": {"lr": 3e-4},
    }
    config = stored(old)
    assert (config.train.lr, config.reward.settings) == (3e-4, {"numeric": {"tolerance": 0.5}})
    assert config.objective.settings == {"rloo": {"clip_low": 0.3, "clip_high": 0.28, "kl": 0.1}}


def test_resolving_loads_no_torch() -> None:
    """`--help`, `ls` and every refusal would wait seconds for it."""
    code = (
        "import sys\n"
        "from selfrefine.layers import resolve\n"
        "from selfrefine.objectives import OBJECTIVES\n"
        "for name in OBJECTIVES:\n"
        "    resolve([('flag', {'objective.name': name})])\n"
        "assert not {'torch', 'transformers', 'peft', 'scipy'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


SUMS = {"tasks": {"source": "gym:chain_sum", "settings": {"min_terms": 2}, "suffix": " Just the number."}}
QUESTIONS = {"tasks": {"source": "q.jsonl", "prompt_field": "q", "gate_file": "gate.jsonl"}}


def test_settings_of_a_source_leave_with_it() -> None:
    """`--tasks gym:OTHER` on top of a file ended in "no setting 'min_terms'" of the other dataset."""
    found = resolve([("file", SUMS), ("flag", {"tasks.source": "gym:basic_arithmetic"})])
    assert found.config.tasks.settings == {}
    assert found.config.tasks.suffix == " Just the number."  # how an answer is asked for is nobody's own
    assert found.notes == ("ignoring tasks.settings: they are for gym:chain_sum",)
    assert found.origins["tasks.settings"] == "default"


@pytest.mark.parametrize(
    ("flags", "settings"),
    [
        ({"tasks.source": "gym:chain_sum"}, {"min_terms": 2}),  # the same source, said again
        ({"tasks.settings.max_terms": 3}, {"min_terms": 2, "max_terms": 3}),
        ({"tasks.settings.max_terms": 3, "tasks.source": "gym:basic_arithmetic"}, {"max_terms": 3}),
    ],
)
def test_settings_stay_with_the_source_they_were_given_for(
    flags: dict[str, Any], settings: dict[str, Any]
) -> None:
    assert resolve([("file", SUMS), ("flag", flags)]).config.tasks.settings == settings
    own = {"tasks.settings": {"verbs": 1}}  # a file without a source: for whatever the flag names
    assert resolve([("file", own), ("flag", {"tasks.source": "concepts:4"})]).config.tasks.settings


def test_columns_and_held_out_files_go_with_another_kind_of_source() -> None:
    """Measured on one file's gate tasks, a round of sums would always be undecided."""
    other = resolve([("file", QUESTIONS), ("flag", {"tasks.source": "gym:chain_sum"})])
    assert (other.config.tasks.prompt_field, other.config.tasks.gate_file) == (None, None)
    assert [note.split()[1].rstrip(":") for note in other.notes] == ["tasks.prompt_field", "tasks.gate_file"]
    alike = resolve([("file", QUESTIONS), ("flag", {"tasks.source": "more.jsonl"})])
    assert (alike.config.tasks.gate_file, alike.notes) == ("gate.jsonl", ())


def test_a_gate_reward_goes_with_the_rewards_it_was_one_of() -> None:
    file = {"reward": {"gate_on": "sentence"}, "evaluate": {"measure": ["coverage", "sentence"]}}
    flags = {"reward.use": ["exact"], "evaluate.measure": ["exact"]}
    gone = resolve([("file", file), ("flag", flags)])
    assert gone.config.reward.gate_on is None
    assert gone.notes == ("ignoring reward.gate_on: the reward it names is not used",)
    for kept in ({}, {"reward.use": ["exact"]}, {"evaluate.measure": ["sentence:2", "exact"]}):
        assert resolve([("file", file), ("flag", kept)]).config.reward.gate_on == "sentence"
    with pytest.raises(ConfigError, match=r"reward\.use"):  # a number instead of a list is no bug
        resolve([("file", file), ("flag", {"reward.use": 5})])
    # Given together with the rewards, a name that is none of them is a mistake, and refused later.
    assert resolve([("flag", {**flags, "reward.gate_on": "sentence"})]).config.reward.gate_on == "sentence"


def test_a_later_layer_does_not_write_into_the_tables_of_an_earlier_one() -> None:
    """A run's manifest took over what a flag said, so that the flag was neither refused as drift nor read."""
    stored = {"tasks": {"settings": {"max_terms": 2}}}
    found = resolve([("run", stored), ("flag", {"tasks.settings.max_terms": 4})])
    assert found.config.tasks.settings == {"max_terms": 4}
    assert stored == {"tasks": {"settings": {"max_terms": 2}}}
