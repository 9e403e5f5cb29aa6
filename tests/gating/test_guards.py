"""Guards: what each says of rows worked out by hand, and that only three of them may veto."""

from __future__ import annotations

import math
from typing import Any

import pytest

from selfrefine.engines.scripted import OFF_SCRIPT, Scripted
from selfrefine.gating import gate, guards, probe
from selfrefine.records import Message, Sample, Task
from selfrefine.runfolder.summaries import Guard
from selfrefine.stats import compare
from selfrefine.thresholds import GuardsConfig

SETTINGS = GuardsConfig()


def row(task: str, text: str = "", index: int = 0, **more: Any) -> Sample:
    asked = Task(id=task, prompt=(Message(role="user", content=task),), tags=more.pop("tags", {}))
    return Sample(id=f"{task}.r1.s{index}", task=asked, text=text, index=index, **more)


def by_name(found: list[Guard]) -> dict[str, Guard]:
    return {guard.name: guard for guard in found}


def test_answers_that_grow_repeat_and_are_cut_off_are_warned_of() -> None:
    long = "and so on and so on and so on"  # 9 words, 7 3-grams, 3 of them distinct
    rows = [row("a", long, token_ids=(1,) * 30, finish_reason="length"), row("b", "7", token_ids=(1, 2))]
    start = {"length": 4.0, "repetition": 0.0, "truncation": 0.0}
    found = by_name(guards.answers(rows, start, SETTINGS))
    assert {name: guard.state for name, guard in found.items()} == dict.fromkeys(found, "warn")
    assert found["length"].value == 16.0 and found["length"].reason == (
        "length: tokens per answer changed 4.0-fold (4 → 16)"
    )
    assert found["repetition"].value == pytest.approx((4 / 7) / 2)
    assert found["truncation"].value == 0.5 and found["truncation"].limit == 0.1


def test_repetition_is_seen_in_text_without_spaces() -> None:
    rows = [row("a", "好好好好好好", token_ids=(1,))]  # 4 trigrams of characters, one of them distinct
    assert by_name(guards.answers(rows, {"repetition": 0.0}, SETTINGS))["repetition"].value == 0.75


def test_shorter_is_drift_too_and_a_little_is_none() -> None:
    short = by_name(guards.answers([row("a", "7", token_ids=(1, 2))], {"length": 4.0}, SETTINGS))
    assert short["length"].state == "warn" and "changed 2.0-fold (4 → 2)" in str(short["length"].reason)
    same = by_name(guards.answers([row("a", "7", token_ids=(1, 2, 3))], {"length": 4.0}, SETTINGS))
    assert same["length"].state == "ok" and same["length"].reason is None


def test_the_starting_policy_has_figures_and_nothing_to_be_compared_with() -> None:
    found = by_name(guards.answers([row("a", "7", token_ids=(1, 2))], {}, SETTINGS))
    assert found["length"] == Guard(name="length", value=2.0)
    none = by_name(guards.answers([], {"length": 2.0}, SETTINGS))
    assert none["length"] == Guard(name="length", value=None, against=2.0, reason="no tokens per answer")


def test_distinct_answers_and_entropy_are_those_of_what_was_sampled() -> None:
    rows = [
        row("a", "1", 0, logprobs=(-1.0, -0.5)),
        row("a", "1 ", 1, logprobs=(-0.5,)),
        row("b", "1", 0, logprobs=(0.0,)),
        row("b", "2", 1, logprobs=None),
        row("b", "3", 2, parent_id="b.r1.s0", logprobs=(-9.0,)),  # a revision answers another prompt
        row("b", "", 3, finish_reason="error", error="too long"),
    ]
    found = by_name(guards.drawn(rows, {"distinct": 3.0, "entropy": 5.0}, SETTINGS))
    assert found["distinct"].value == 1.5 and found["distinct"].state == "warn"
    assert found["distinct"].reason == "distinct: distinct answers per prompt fell by 50 % (3 → 1.5)"
    assert found["entropy"].value == pytest.approx(2.0 / 4) and found["entropy"].state == "warn"


def test_paying_for_length_is_seen() -> None:
    paid = [row(f"t{i}", token_ids=(1,) * (i + 1), reward=i / 10) for i in range(10)]
    found = guards.correlation([*paid, row("x", token_ids=(1,) * 50)], SETTINGS)  # unscored: not among them
    assert found.value == pytest.approx(1.0) and found.state == "warn"
    assert found.reason == "reward-length: longer answers are rewarded more (rank correlation +1.00)"
    flat = guards.correlation([row("a", reward=0.5), row("b", reward=0.5)], SETTINGS)
    assert (flat.value, flat.state, flat.reason) == (None, "ok", "rewards or lengths do not vary")


def test_forgetting_warns_then_vetoes() -> None:
    start = {"general": {"accuracy": 0.9, "perplexity": 8.0}}

    def judged(accuracy: float, perplexity: float | None) -> dict[str, str]:
        now = {"general": {"accuracy": accuracy, "perplexity": perplexity}}
        return {g.name: g.state for g in guards.forgetting(now, start, start, SETTINGS)}

    assert judged(0.85, 10.0) == {"forgetting": "ok", "perplexity": "ok"}
    assert judged(0.8, 12.0) == {"forgetting": "warn", "perplexity": "warn"}  # 0.1 less, 1.5 times
    assert judged(0.65, 32.0) == {"forgetting": "veto", "perplexity": "veto"}  # 0.25 less, 4 times
    assert judged(1.0, None) == {"forgetting": "ok", "perplexity": "ok"}
    assert guards.forgetting({}, start, start, SETTINGS) == []  # the probe is off


def test_what_the_run_itself_taught_is_compared_with_the_accepted_policy() -> None:
    """Not with the start, which never knew it."""
    start = {"source sums": {"mean": 0.1, "tasks": 40.0}}
    accepted = {
        "round-001": {"perplexity": 1.2, "mean": 0.75, "tasks": 8.0},
        "round-002": {"mean": 0.75, "tasks": 8.0},
        "source sums": {"mean": 0.6, "tasks": 40.0},
        "source few": {"mean": 0.9, "tasks": 5.0},
    }
    now = {
        "round-001": {"perplexity": 3.6, "mean": 0.375, "tasks": 8.0},  # three of eight are lost
        "round-002": {"mean": 0.5, "tasks": 8.0},  # two, which is noise
        "round-003": {"perplexity": 99.0},  # the candidate's own lessons: nothing to forget yet
        "source sums": {"mean": 0.3, "tasks": 40.0},
        "source few": {"mean": 0.1, "tasks": 5.0},
    }
    found = by_name(guards.forgetting(now, start, accepted, SETTINGS))
    assert {name: guard.state for name, guard in found.items()} == {
        "lessons round-001": "warn",
        "forgetting round-001": "warn",
        "forgetting round-002": "ok",
        "forgetting source sums": "veto",
        "forgetting source few": "warn",  # five tasks are too few to veto with
    }


def test_the_gold_reward_vetoes_a_fall_that_is_no_noise() -> None:
    before = {f"t{i}": 1.0 for i in range(40)}
    worse = before | {f"t{i}": 0.0 for i in range(10)}
    fallen = guards.gold("exact", compare(before, worse, alternative="greater"), SETTINGS)
    assert fallen.state == "veto" and fallen.reason == "gold: exact fell by 0.25 (1 → 0.75)"
    # Of 16 tasks four fell and two rose: 0.125 less, and noise.
    old = {f"t{i}": float(i % 2) for i in range(16)}
    new = old | {"t1": 0.0, "t3": 0.0, "t5": 0.0, "t7": 0.0, "t0": 1.0, "t2": 1.0}
    noisy = guards.gold("exact", compare(old, new, alternative="greater"), SETTINGS)
    assert noisy.state == "warn" and noisy.limit == SETTINGS.gold_warn
    blind = guards.gold("exact", compare({}, {}), SETTINGS)
    assert (blind.value, blind.state) == (None, "warn")  # a guard that sees nothing says so


def test_only_forgetting_and_gold_ever_veto() -> None:
    """In a trial in which accuracy rose tenfold distinct answers fell from 8.0 to 5.1: that was learning."""
    worst = [row("a", "a b c " * 50, token_ids=(1,) * 500, finish_reason="length", logprobs=(0.0,))]
    start = {"length": 1.0, "repetition": 0.0, "truncation": 0.0, "distinct": 8.0, "entropy": 3.0}
    paid = [row(f"t{i}", token_ids=(1,) * (i + 1), reward=i / 10) for i in range(10)]
    found = [
        *guards.answers(worst, start, SETTINGS),
        *guards.drawn(worst, start, SETTINGS),
        guards.correlation(paid, SETTINGS),
    ]
    assert {guard.state for guard in found} == {"warn"} and len(found) == 6
    assert not {guard.name for guard in found} & gate.VETOING


@pytest.mark.parametrize("off", [GuardsConfig(distinct_warn=1.0, length_warn=1e9)])
def test_a_guard_can_be_turned_off(off: GuardsConfig) -> None:
    gone = guards.drawn([row("a", "1", logprobs=(0.0,))], {"distinct": 1e12, "entropy": 0.0}, off)
    assert {guard.state for guard in gone} == {"ok"}
    assert guards.answers([row("a", "1", token_ids=(1,))], {"length": 99.0}, off)[0].state == "ok"


# --- the probe ---------------------------------------------------------------------------------------


def test_the_probe_is_right_where_the_answer_is_likelier_than_its_alternatives() -> None:
    """A script that knows two answers: P = 1, 0 nats; all else is off script."""
    engine = Scripted(
        [
            {"match": "capital of France", "answers": [" Paris"]},
            {"match": "opposite of hot", "answers": [" warm"]},
        ]
    )
    found = probe.general(engine)
    with_others = [item for item in probe.GENERAL if item.others]
    # Where nothing is known answer and alternatives tie, and a tie is not right.
    tied_or_wrong = len(with_others) - 1
    assert found["accuracy"] == pytest.approx(1 - tied_or_wrong / len(with_others))
    assert found["perplexity"] is not None and 1.0 < found["perplexity"] <= math.exp(-OFF_SCRIPT)


def test_the_probe_items_are_fair() -> None:
    assert len(probe.GENERAL) == 24 and len({item.prompt for item in probe.GENERAL}) == 24
    for item in probe.GENERAL:
        assert item.answer.startswith(" ") and all(other.startswith(" ") for other in item.others)
        assert item.answer not in item.others and len(item.others) in (0, 2)


def test_earlier_lessons_are_a_fixed_few_and_read_by_the_policy() -> None:
    engine = Scripted([{"match": ".", "answers": ["1", "2"]}])
    rows = [
        row(f"t{i}", "1", prompt_token_ids=engine.encode_chat([Message(role="user", content="?")]),
            token_ids=engine.encode_answer("1"))
        for i in range(30)
    ]  # fmt: skip
    asked: list[int] = []
    score = engine.score

    def counted(prompts: Any, completions: Any, **more: Any) -> Any:
        asked.append(len(prompts))
        return score(prompts, completions, **more)

    engine.score = counted  # type: ignore[method-assign]
    found = probe.lessons(engine, {"round-001": rows, "round-002": []}, seed=0)
    assert asked == [probe.LESSONS]
    # "1" has log 1/2 and its end 0: exp(ln 2 / 2).
    assert found == {"round-001": {"perplexity": pytest.approx(2**0.5)}}
    assert probe.lessons(engine, {"round-001": rows[::-1]}, seed=0) == found


def test_sources_are_means_over_tasks() -> None:
    rows = [
        row("a", reward=1.0, tags={"source": "x"}),
        row("a", index=1, reward=0.0, tags={"source": "x"}),
        row("b", reward=1.0, tags={"source": "x"}),
        row("c", reward=None, tags={"source": "y"}),
        row("d", reward=0.0),
    ]
    assert probe.sources(rows) == {"source x": {"mean": 0.75, "tasks": 2.0}}
