"""The step: composite, gate, outside code, missing references, the self-test, and no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from selfrefine.config import Config
from selfrefine.errors import ConfigError, DataError
from selfrefine.judging import RewardConfig
from selfrefine.records import Message, Reward, Sample, Task
from selfrefine.rewards import REWARDS
from selfrefine.rewards.base import RewardOptions, RewardSpec, Scorer, checked, each, unscored
from selfrefine.steps.reward import (
    Mean,
    build,
    needs_engine,
    parse_spec,
    require_some_scored,
    score,
    scored_sums,
    selftest,
    selftest_rows,
    summary,
)
from selfrefine.steps.scoring import check_tasks


def sample(text: str, *references: str, index: int = 0, task: str = "t", **fields: Any) -> Sample:
    prompt = (Message(role="user", content="?"),)
    where = Task(id=task, prompt=prompt, references=references)
    return Sample(id=f"{task}.r0.s{index}", task=where, index=index, text=text, **fields)


def scorers(*specs: str, **tables: dict[str, Any]) -> tuple[Scorer, ...]:
    return build([parse_spec(spec) for spec in specs], RewardOptions(settings=tables))


def outside(folder: Path, code: str) -> str:
    path = folder / "mine.py"
    path.write_text(code)
    return f"{path}:f"


@pytest.mark.parametrize(
    ("text", "name", "weight"),
    [
        ("numeric", "numeric", 1.0),
        ("numeric:0.5", "numeric", 0.5),
        ("a/b.py:f", "a/b.py:f", 1.0),
        ("a/b.py:f:0.5", "a/b.py:f", 0.5),
        ("b.py:inf", "b.py:inf", 1.0),  # a function may be called inf
    ],
)
def test_a_spec_is_a_name_and_a_weight(text: str, name: str, weight: float) -> None:
    assert parse_spec(text) == RewardSpec(name=name, weight=weight)


@pytest.mark.parametrize(
    "text",
    ["", ":1", "numeric:", "numeric:x", "numeric:0", "numeric:-1", "numeric:inf", "numeric:nan", "b.py:"],
)
def test_a_spec_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_spec(text)


def test_an_unknown_reward_names_the_nearest_and_all() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'numeric'\? .known: bleu, chrf"):
        scorers("numerc")
    with pytest.raises(ConfigError, match="did you mean 'length'"):
        scorers("exact", lenght={"max": 3})
    with pytest.raises(ConfigError, match=r"file\.py:function"):
        scorers("mine.py")
    with pytest.raises(ConfigError, match="twice"):
        scorers("exact", "exact:2")


def test_every_registered_reward_builds_and_the_model_ones_ask_for_a_model() -> None:
    for name in REWARDS:
        tables = {"length": {"max": 5}} if name == "length" else {}
        if REWARDS.get(name).needs_engine:
            with pytest.raises(ConfigError, match="model"):
                scorers(name)
        else:
            (scorer,) = scorers(name, **tables)
            assert scorer.name == name
    assert needs_engine([parse_spec("exact"), parse_spec("p-true:2")])
    assert not needs_engine([parse_spec("exact")])


def test_the_composite_is_the_weighted_mean() -> None:
    (row,) = score([sample("7 of 7", "7")], scorers("numeric:3", "exact:1"))
    assert [(reward.name, reward.value) for reward in row.rewards] == [("numeric", 1.0), ("exact", 0.0)]
    assert row.reward == 0.75


def test_a_gate_lets_the_others_count_only_where_it_passes() -> None:
    rows = [sample("7 of 7", "7"), sample("8", "7"), sample("7", "7")]
    gated = scorers("numeric", "length:3", length={"max": 1})
    assert [row.reward for row in score(rows, gated)] == [0.25, 0.75, 1.0]
    # The gate itself gives no marks: a right answer of the wrong length has earned nothing yet.
    assert [row.reward for row in score(rows, gated, gate_on="numeric")] == [0.0, 0.0, 1.0]
    assert [row.reward for row in score(rows, gated[:1], gate_on="numeric")] == [1.0, 0.0, 1.0]
    lenient = scorers("length", "exact", length={"max": 2, "pass_at": 0.5})
    assert [row.reward for row in score(rows, lenient, gate_on="length")] == [0.0, 0.0, 1.0]
    with pytest.raises(ConfigError, match="gate-on"):
        score(rows, gated, gate_on="bleu")


def test_an_inverted_reward_is_one_less_the_composite_and_leaves_its_parts() -> None:
    """The control of the gate: without it a sabotaged run would be an honest one under another name."""
    rows = score(
        [sample("7", "7"), sample("7.", "7"), sample("7", "seven")], scorers("numeric", "exact"), invert=True
    )
    assert [row.reward for row in rows] == [0.0, 0.5, None]
    assert [reward.value for reward in rows[0].rewards] == [1.0, 1.0]


def test_a_composite_with_a_null_part_is_null_not_lower() -> None:
    rows = score([sample("7", "seven"), sample("7", "7")], scorers("numeric", "exact"))
    assert [row.reward for row in rows] == [None, 1.0]
    gated = score([sample("8", "seven")], scorers("exact", "numeric"), gate_on="exact")
    assert gated[0].reward is None


def test_scoring_again_replaces_its_own_and_keeps_the_others() -> None:
    old = (Reward(name="bleu", value=0.3), Reward(name="exact", value=0.0))
    (row,) = score([sample("7", "7", rewards=old, reward=0.1)], scorers("exact"))
    assert [(reward.name, reward.value) for reward in row.rewards] == [("bleu", 0.3), ("exact", 1.0)]
    assert row.reward == 1.0
    assert score([row], scorers("exact")) == [row]


def test_a_failed_generation_is_unscored_not_zero() -> None:
    failed = sample("", "7", finish_reason="error", error="prompt longer than the context")
    (row,) = score([failed], scorers("exact", "random"))
    assert row.reward is None
    assert {reward.error for reward in row.rewards} == {"no answer: prompt longer than the context"}


def test_missing_references_mark_the_row_and_all_missing_is_exit_4() -> None:
    chosen = scorers("chrf", "random")
    some = score([sample("a b", "a b"), sample("a b"), sample("a b", " ")], chosen)
    assert [row.rewards[0].error for row in some] == [None, "no references", "no references"]
    require_some_scored(summary(scored_sums(some, chosen), chosen))
    none = score([sample("a b"), sample("c")], chosen)
    with pytest.raises(DataError, match=r"reward chrf .* 2 rows: no references; choose a reward"):
        require_some_scored(summary(scored_sums(none, chosen), chosen))
    require_some_scored(summary(scored_sums([], chosen), chosen))  # an empty input is somebody else's error


def test_windows_add_up_to_the_whole_and_only_scored_rows_reach_the_corpus() -> None:
    chosen = scorers("bleu", "exact")
    rows = score([sample("a b", "a b"), sample("x"), sample("a c", "a b"), sample("d", "d")], chosen)
    sums = scored_sums(rows[:3], chosen) + scored_sums(rows[3:], chosen)
    assert sums == scored_sums(rows, chosen)
    result = summary(sums, chosen)
    assert (result.rows, result.reward.scored) == (4, 3)
    exact = Mean(mean=2 / 3, scored=3, unscored=1, first_error="no references")
    assert result.rewards["exact"] == exact
    assert "nrefs:1" in result.corpus["bleu"].signature
    assert list(result.corpus) == ["bleu"]


def test_outside_code_may_return_a_number_a_reward_or_none(tmp_path: Path) -> None:
    code = """
from selfrefine.records import Reward
ANSWERS = {"half": 0.5, "yes": True, "none": None, "much": 2.0, "nan": float("nan"), "text": "0.5"}
def f(sample):
    if sample.text == "raise":
        raise ValueError("no such row")
    if sample.text == "reward":
        return Reward(name="other", value=0.25, detail="short")
    return ANSWERS[sample.text]
"""
    spec = outside(tmp_path, code)
    texts = ["half", "yes", "reward", "none", "much", "nan", "text", "raise"]
    chosen = scorers(f"{spec}:2")
    rewards = [row.rewards[0] for row in score([sample(text) for text in texts], chosen)]
    assert [reward.value for reward in rewards] == [0.5, 1.0, 0.25] + [None] * 5
    assert {reward.name for reward in rewards} == {spec}
    assert rewards[2].detail == "short"
    assert rewards[-1].error == "ValueError: no such row"
    assert rewards[-2].error == "the function returned str, not a number"
    assert "mine.py|sha256:" in rewards[0].signature
    failing = score([sample("raise")], chosen)
    with pytest.raises(DataError, match="ValueError: no such row"):
        require_some_scored(summary(scored_sums(failing, chosen), chosen))


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("def g(sample): return 1", "has no f .it has: g"),
        ("import nothing_of_this_name", "does not import: ModuleNotFoundError"),
        ("def f(:", "does not import: SyntaxError"),
        ("raise SystemExit(0)", "does not import: SystemExit"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, code: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        scorers(outside(tmp_path, code))
    with pytest.raises(ConfigError, match="cannot read"):
        scorers(f"{tmp_path}/missing.py:f")


def test_a_group_function_sees_the_samples_of_one_prompt(tmp_path: Path) -> None:
    code = """
def f(samples):
    assert len({s.task.id for s in samples}) == 1
    if samples[0].task.id == "broken":
        return [1.0]
    longest = max(len(s.text) for s in samples)
    return [len(s.text) / longest for s in samples]
f.group = True
"""
    rows = [
        sample("ab", task="one"),
        sample("abcdefgh", task="two"),
        sample("abcd", task="one", index=1),
        sample("ab", task="two", index=1),
        sample("a", task="broken"),
        sample("b", task="broken", index=1),
    ]
    scored = score(rows, scorers(outside(tmp_path, code)))
    assert [row.reward for row in scored] == [0.5, 1.0, 1.0, 0.25, None, None]
    assert scored[4].rewards[0].error == "it returned 1 value for 2 samples"


def test_a_detail_never_carries_a_reference(tmp_path: Path) -> None:
    code = """
from selfrefine.records import Reward
def f(sample):
    return Reward(name="f", value=0.0, detail=f"should be {sample.text}")
"""
    spec = RewardSpec(name=outside(tmp_path, code))
    row = sample("26", "13 * 2\n#### 26")
    for reveal, detail in ((False, "(withheld: it contains a reference)"), (True, "should be 26")):
        chosen = build([spec], RewardOptions(reveal_references=reveal))
        assert score([row], chosen)[0].rewards[0].detail == detail
    other = sample("126 of them", "26")
    assert score([other], build([spec], RewardOptions()))[0].rewards[0].detail == "should be 126 of them"


SELFTEST = [
    {"prompt": "2+2?", "references": ["#### 4"], "text": "2 + 2 = 4", "label": "good"},
    {"prompt": "2+2?", "references": ["#### 4"], "text": "4? no, 5", "label": "bad"},
    {"prompt": "Say it.", "references": ["a dog runs"], "text": "a dog runs 9", "label": "good"},
]


def lines(rows: list[dict[str, Any]]) -> list[bytes]:
    return [msgspec.json.encode(row) for row in rows]


def test_the_selftest_passes_a_right_reward_and_catches_a_wrong_sign(tmp_path: Path) -> None:
    rows = selftest_rows(lines(SELFTEST), "rows.jsonl")
    assert selftest(rows, scorers("numeric")) == []
    # trl#2771: a documented example reward with its sign turned round
    sign = "def f(sample): return 1.0 if sample.text.endswith('5') else 0.0"
    assert selftest(rows, scorers(outside(tmp_path, sign))) == [
        "rows.jsonl:1 (good) scores 0.000, rows.jsonl:2 (bad) scores 1.000"
    ]
    constant = Scorer(name="c", score=each(lambda row: checked("c", 0.5)))
    assert len(selftest(rows, [constant])) == 1  # equal is not above


def test_the_selftest_catches_answer_and_reference_swapped(tmp_path: Path) -> None:
    # R-Zero #31: recall of the answer's words in the reference, where it should be the other way round
    swapped = """
def f(sample):
    words, wanted = set(sample.task.references[0].split()), set(sample.text.split())
    return len(words & wanted) / len(wanted)
"""
    rows = selftest_rows(
        lines(
            [
                {"prompt": "p", "references": ["red green"], "text": "green is next to red", "label": "good"},
                {"prompt": "p", "references": ["red green"], "text": "red", "label": "bad"},
            ]
        )
    )
    right = swapped.replace("words, wanted =", "wanted, words =")
    assert selftest(rows, scorers(outside(tmp_path, right))) == []
    (tmp_path / "second").mkdir()
    (problem,) = selftest(rows, scorers(outside(tmp_path / "second", swapped)))
    assert problem == "selftest:1 (good) scores 0.400, selftest:2 (bad) scores 1.000"


def test_an_unscored_row_fails_the_selftest() -> None:
    rows = selftest_rows(lines([*SELFTEST[:1], {**SELFTEST[1], "references": ["four"]}]))
    (problem,) = selftest(rows, scorers("numeric"))
    assert problem == "selftest:2 (bad): unscored, numeric: no reference has a number"


def test_a_selftest_that_compares_nothing_is_an_error_not_a_pass() -> None:
    with pytest.raises(DataError, match="no prompt with both"):
        selftest(selftest_rows(lines(SELFTEST[2:])), scorers("numeric"))
    with pytest.raises(DataError, match=r"f:2:.*label"):
        selftest_rows([b"", b'{"prompt":"p","text":"t","label":"fine"}'], "f")
    with pytest.raises(DataError, match="reference`"):
        selftest_rows(lines([{**SELFTEST[0], "reference": "4"}]))


def test_a_scorer_that_loses_rows_is_a_bug() -> None:
    with pytest.raises(ValueError, match="answered 0 values for 1"):
        score([sample("x")], [Scorer(name="lost", score=lambda rows: [])])


def test_an_error_inside_a_window_stays_with_its_row() -> None:
    odd = Scorer(
        name="odd", score=each(lambda s: unscored("odd", "even") if s.index % 2 else checked("odd", 1))
    )
    rows = score([sample("x", index=i) for i in range(4)], [odd])
    assert [row.reward for row in rows] == [1.0, None, 1.0, None]


def test_rewards_without_a_model_never_import_torch() -> None:
    code = """
import sys
from selfrefine.records import Message, Sample, Task
from selfrefine.rewards import REWARDS
from selfrefine.rewards.base import RewardOptions, RewardSpec
from selfrefine.steps.reward import build, score
specs = [RewardSpec(name=name) for name in REWARDS if not REWARDS.get(name).needs_engine]
meta = {"gym": {"dataset": "chain_sum", "entry": {"answer": "4"}}, "concepts": ["dog"]}
task = Task(id="t", prompt=(Message(role="user", content="?"),), references=("4",), meta=meta)
scorers = build(specs, RewardOptions(settings={"length": {"max": 3}}))
(row,) = score([Sample(id="s", task=task, text="4")], scorers)
assert [r.name for r in row.rewards if r.value is None] == ["critic", "majority"], row.rewards
bad = sorted({"torch", "transformers", "peft"} & sys.modules.keys())
assert not bad, bad
print("clean")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "clean\n", done.stderr


def test_tasks_without_references_are_refused_before_anything_is_sampled() -> None:
    """The trap: 400 answers were sampled first, and then "choose another --measure" did not say which."""
    bare = Task(id="a", prompt=(Message(role="user", content="?"),))
    full = msgspec.structs.replace(bare, id="b", references=("4",))
    config = Config(reward=RewardConfig(use=("numeric",)))
    with pytest.raises(DataError, match=r"numeric needs references, and no gate task .*: length, regex"):
        check_tasks(config, {"train": [full], "gate": [bare], "test": []})
    check_tasks(config, {"train": [full, bare], "gate": [bare, full]})
    for spec, settings in (("length", {"length": {"max": 3}}), ("regex", {"regex": {"pattern": "a"}})):
        own = Config(reward=RewardConfig(use=(spec,), settings=settings))
        check_tasks(own, {"train": [bare], "gate": [bare]})
    with pytest.raises(DataError, match="regex needs references"):
        check_tasks(Config(reward=RewardConfig(use=("regex",))), {"train": [bare]})


def test_a_rewards_own_question_about_references_is_behind_the_boundary(tmp_path: Path) -> None:
    """`exit()` in it ended the command with code 0 when the tasks were checked."""
    path = tmp_path / "mine.py"
    path.write_text(
        "from selfrefine.rewards.base import RewardKind, Scorer, each\n"
        "f = RewardKind(name='x', about='y', needs_references=lambda own: exit(),\n"
        "    make=lambda own, options: Scorer(name='x', score=each(lambda sample: 1.0)))\n"
    )
    bare = Task(id="t", prompt=(Message(role="user", content="?"),))
    config = Config(reward=RewardConfig(use=(f"{path}:f",)))
    with pytest.raises(ConfigError, match="its file failed: SystemExit"):
        check_tasks(config, {"train": [bare]})


def test_only_a_reward_that_waits_imports_an_event_loop() -> None:
    """asyncio takes 50 ms, in a verb that has half a second to start and score."""
    code = "import sys, selfrefine.steps.reward, selfrefine.rewards.outside; print('asyncio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
