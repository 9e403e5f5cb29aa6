"""A plan's rules, each with a case worked by hand: what calls for it, what it sets, when it is dropped."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from plans import CONFIG, MINUS, NOTHING, TARGET, ended, failure, known, made, sums, task, weak

from selfrefine.config import (
    EvaluateConfig,
    ObjectiveConfig,
    RationaliseConfig,
    SelectConfig,
)
from selfrefine.reflection import applied, mixture, rules
from selfrefine.reflection.facts import Trial
from selfrefine.reflection.findings import Action, Cell, Outcome, Plan, Slice, Target
from selfrefine.reflection.plan import plan
from selfrefine.thresholds import ReflectConfig


def test_nothing_calls_for_nothing() -> None:
    assert made(NOTHING, known()) == {}


def test_what_a_prompt_teaches() -> None:
    """By hand, n = 2: p 1/2 gives 1/2 * (1 - 1/4 - 1/4) = 1/4; never right and always right give nothing."""
    assert mixture.teaches(0.5, 2) == pytest.approx(0.25)
    assert mixture.teaches(0.0, 8) == mixture.teaches(1.0, 8) == 0.0


def test_a_weak_slice_that_can_be_learnt_is_drawn_more_often() -> None:
    """Additions at 0.9, subtractions at 0.3, 20 of each, n = 4. With Jeffreys' half a task the rates are
    18.5 / 21 and 6.5 / 21: 0.119 * (1 - 0.6025 - 0.0002) and 0.6905 * (1 - 0.0092 - 0.2273)."""
    action = made(weak(0.3, 0.9), known(measured=sums(0.9, 0.3)))["reweight"]
    own = mixture.from_settings(action.settings)
    p, q = 18.5 / 21, 6.5 / 21
    ratio = ((1 - p) * (1 - p**4 - (1 - p) ** 4)) / ((1 - q) * (1 - q**4 - (1 - q) ** 4))
    assert ratio < mixture.LEAST  # 0.09: what is nearly learnt keeps a fifth
    assert own.weight(task("x", "5 - 3")) == 1.0
    assert own.weight(task("y", "5 + 3")) == mixture.LEAST
    assert action.target == Target(figure='word "-"', split="gate", direction="up", before=0.3)


def test_easy_tasks_come_first_while_hard_ones_are_never_right() -> None:
    """The trap: to weight by weakness alone draws what nobody can learn from yet."""
    action = made(weak(0.0, 0.5), known(never=0.5, measured=sums(0.5, 0.0)))["reweight"]
    own = mixture.from_settings(action.settings)
    assert own.weight(task("y", "5 + 3")) == 1.0
    assert mixture.LEAST <= own.weight(task("x", "5 - 3")) < 0.5
    assert "easier tasks first" in action.reason


def test_slices_that_hold_the_same_tasks_are_one_axis_and_an_even_mixture_is_left_alone() -> None:
    plus = Cell(name='word "+"', by="found", slice=Slice(by="word", key="+"), n=20, rate=0.9)
    both = replace(weak(0.3, 0.9), gate=(*weak(0.3, 0.9).gate, plus), heaviest=('word "-"', 'word "+"'))
    own = mixture.mixture(both, sums(0.9, 0.3), n=4)
    assert own is not None and own.axes == (MINUS,)
    assert mixture.mixture(both, sums(0.5, 0.45), n=4) is None
    assert mixture.mixture(both, sums(0.9, 0.3, each=2), n=4) is None  # too few to say anything


def test_more_samples_where_nothing_is_right_and_no_free_remedy() -> None:
    action = made(NOTHING, known(never=0.6))["sample-more"]
    assert action.settings == {"generate.n": 8} and action.target.before == 0.6
    assert "sample-more" not in made(NOTHING, known(never=0.4))
    # Another mixture costs nothing: it is tried first.
    assert "sample-more" not in made(weak(0.0, 0.5), known(never=0.6, measured=sums(0.5, 0.0)))
    # Before the first round only the gate is known.
    start = known(never=None, train_mean=None, truncated=None, varied=None, rounds=(ended(0),))
    assert made(NOTHING, replace(start, gate_mean=0.02))["sample-more"].target.figure == "gate.mean"
    assert made(NOTHING, start) == {}


def test_samples_are_doubled_up_to_four_times_and_no_further() -> None:
    before = Plan(
        round=1,
        mode="auto",
        actions=(Action(kind="sample-more", reason="", target=TARGET, settings={"generate.n": 16}),),
    )
    assert "sample-more" not in made(NOTHING, known(never=0.6, plans=(before,)))
    eight = replace(before, actions=(replace(before.actions[0], settings={"generate.n": 8}),))
    assert made(NOTHING, known(never=0.6, plans=(eight,)))["sample-more"].settings == {"generate.n": 16}


def test_cooler_where_greedy_answers_are_right_and_samples_are_not() -> None:
    """The demo: 0.43 greedy and 0.10 at temperature 1."""
    action = made(NOTHING, known(never=0.55, gate_mean=0.43, train_mean=0.10))["temperature"]
    assert action.settings == {"generate.temperature": 0.7}
    # Of two different rewards the difference says nothing.
    other = replace(CONFIG, reward=replace(CONFIG.reward, use=("exact",)))
    apart = known(config=other, never=0.55, gate_mean=0.43, train_mean=0.10)
    assert "temperature" not in made(NOTHING, apart)


def test_hotter_where_all_samples_are_alike() -> None:
    action = made(NOTHING, known(never=0.6, varied=0.3))["temperature"]
    assert action.settings == {"generate.temperature": 1.3}


def test_longer_only_where_longer_answers_count() -> None:
    """The trap: to teach answers that are cut off where they are measured."""
    long = {"truncated": 0.3, "gate_over": 0.25}
    assert "longer" not in made(NOTHING, known(**long))
    told = plan(NOTHING, known(**long), index=2, mode="auto").dropped["longer"]
    assert "cut at 24 tokens" in told and "generate.max_new_tokens=48" in told
    roomy = replace(CONFIG, evaluate=EvaluateConfig(measure=("numeric",), max_new_tokens=40))
    action = made(NOTHING, known(config=roomy, **long))["longer"]
    assert action.settings == {"generate.max_new_tokens": 40}  # not 48
    assert action.target == Target(figure="cut off", split="train", direction="down", before=0.3)


def test_samples_that_only_wander_are_sampled_cooler_and_get_no_more_room() -> None:
    """The demo at temperature 1: 47 % of the samples cut off, 2 % of greedy answers; none of them right."""
    roomy = replace(CONFIG, evaluate=EvaluateConfig(measure=("numeric",), max_new_tokens=48))
    told = made(NOTHING, known(config=roomy, truncated=0.47, gate_over=0.02))
    assert list(told) == ["temperature"]
    assert told["temperature"].settings == {"generate.temperature": 0.7}
    assert told["temperature"].target.figure == "cut off"
    # Known from a first look at plain samples, before the first round, when no task has a group of samples.
    start = known(never=None, train_mean=0.03, varied=None, truncated=0.47, gate_over=0.02, gate_mean=0.05)
    assert list(made(NOTHING, start)) == ["temperature"]
    # As long as greedy ones: the length is the task's.
    assert made(NOTHING, known(truncated=0.47, gate_over=0.4)).get("temperature") is None


def test_after_a_veto_replay_and_after_another_rejection_a_lower_rate() -> None:
    vetoed = known(rounds=(ended(0), ended(1, "reject", "forgetting")))
    assert made(NOTHING, vetoed)["replay"].settings == {"train.replay": 0.25}
    assert "lower-lr" not in made(NOTHING, vetoed)
    worse = known(rounds=(ended(0), ended(1, "reject"), ended(2, "reject")))
    assert made(NOTHING, worse)["lower-lr"].settings == {"train.lr": pytest.approx(1e-4)}  # a half, twice
    first = replace(vetoed, learnt_before=False)
    assert made(NOTHING, first)["lower-lr"].settings == {"train.lr": pytest.approx(2e-4)}
    assert made(NOTHING, known(rounds=(ended(0), ended(1, "undecided")))) == {}


def test_rationalise_is_for_what_more_samples_did_not_help() -> None:
    failed = Outcome(round=1, kind="sample-more", target=TARGET, after=0.8, moved=False)
    assert "rationalise" not in made(NOTHING, known(never=0.8))
    told = made(NOTHING, known(never=0.8, outcomes=(failed,)))
    assert told["rationalise"].settings == {"rationalise.n": 3}
    assert "sample-more" not in told  # one action at a time that costs more
    bare = plan(NOTHING, known(never=0.8, references=False), index=2, mode="auto")
    assert bare.dropped["rationalise"] == "the training tasks have no references"
    already = replace(CONFIG, rationalise=RationaliseConfig(n=1))
    assert "anyway" in plan(NOTHING, known(config=already), index=2, mode="auto").dropped["rationalise"]


def test_the_reference_is_shown_where_a_whole_slice_is_never_right() -> None:
    """The demo's subtractions: right in 0 of 116 samples. More samples of them find nothing, and the share of
    all tasks that are never right stays below a half, so nothing else would call for it."""
    subtractions = sums(0.5, 0.0)
    stuck = frozenset(task.id for task, _ in subtractions if task.id.startswith("m"))
    own = known(never=0.45, never_ids=stuck, measured=subtractions)
    action = made(weak(0.0, 0.5), own)["rationalise"]
    assert 'of 20 training tasks in `word "-"`' in action.reason
    some = frozenset(sorted(stuck)[:17])  # 17 of 20 are 85 %
    assert "rationalise" not in made(weak(0.0, 0.5), replace(own, never_ids=some))


def test_more_samples_are_asked_for_after_a_free_remedy_failed() -> None:
    even = known(never=0.6, measured=sums(0.5, 0.0))
    failed = Outcome(round=1, kind="reweight", target=TARGET, after=0.8, moved=False)
    assert "sample-more" not in made(weak(0.0, 0.5), even)
    assert "sample-more" in made(weak(0.0, 0.5), replace(even, outcomes=(failed,)))


def test_a_policy_gradient_learns_nothing_that_was_sampled_otherwise() -> None:
    grpo = replace(CONFIG, objective=ObjectiveConfig(name="grpo"), select=SelectConfig(strategy="groups"))
    told = plan(failure("cut off", 0.5), known(config=grpo, never=0.9), index=2, mode="suggest")
    assert {"hint", "few-shot", "rationalise", "temperature"} <= told.dropped.keys()
    assert [action.kind for action in told.actions] == ["sample-more"]


def test_a_context_is_used_only_where_its_trial_was_better() -> None:
    trial = Trial(kind="hint", text="", tasks=32, without=0.2, with_=0.5, p_value=0.001, better=True)
    own = known(trials=(trial,))
    action = made(failure("cut off", 0.5), own)["hint"]
    assert action.settings == {"system": rules.REPAIRS["cut off"]}
    assert "on 32 training tasks it took the mean reward from 0.200 to 0.500" in action.reason
    assert made(failure("cut off", 0.5), known(trials=(replace(trial, better=False),))) == {}
    assert made(failure("cut off", 0.5), known()) == {}  # not measured: not used


def test_contexts_that_are_worth_trying() -> None:
    examples = (("1 + 1", "2"), ("2 + 2", "4"))
    own = known(examples=examples)
    assert rules.candidates(failure("cut off", 0.5), own) == ["hint"]
    both = replace(CONFIG, reflect=ReflectConfig(hints=2))
    assert rules.candidates(failure("cut off", 0.5), replace(own, config=both)) == ["hint", "few-shot"]
    assert rules.candidates(failure("cut off", 0.05), own) == ["few-shot"]
    # Working a task out takes more than 24 tokens.
    assert rules.candidates(failure("wrong", 0.9), own) == ["few-shot"]
    off = replace(CONFIG, reflect=ReflectConfig(hints=0))
    assert rules.candidates(failure("cut off", 0.5), known(config=off, examples=examples)) == []
    text = rules.REPAIRS["cut off"]
    past = Plan(round=1, mode="auto", hints=({"kind": "hint", "text": text, "better": False},))
    once, twice = (known(plans=plans) for plans in ((past,), (past, past)))
    assert rules.candidates(failure("cut off", 0.5), once) == ["hint"]
    assert rules.candidates(failure("cut off", 0.5), twice) == []
    suggested = made(failure("cut off", 0.5), own, "suggest")["hint"]
    assert suggested.settings == {"system": text} and "not measured" in suggested.reason


def test_an_action_that_fails_twice_is_dropped_and_said() -> None:
    def outcome(index: int, moved: bool | None) -> Outcome:
        return Outcome(round=index, kind="sample-more", target=TARGET, after=0.8, moved=moved)

    def told(*moved: bool | None) -> Plan:
        outcomes = tuple(outcome(i, one) for i, one in enumerate(moved, start=1))
        return plan(NOTHING, known(never=0.8, references=False, outcomes=outcomes), index=4, mode="auto")

    assert "sample-more" in {action.kind for action in told(False).actions}
    twice = told(False, None, False)  # what could not be measured is no failure, and no success
    assert "sample-more" not in {action.kind for action in twice.actions}
    assert twice.dropped["sample-more"] == "failed twice (rounds 1, 3): its number did not move"
    assert "sample-more" in {action.kind for action in told(False, True, False).actions}


def test_what_helped_is_kept_although_what_called_for_it_is_gone() -> None:
    """The trap: with room no answer is cut off, so the next round would have no room again."""
    roomy = replace(CONFIG, evaluate=EvaluateConfig(measure=("numeric",), max_new_tokens=48))
    target = Target(figure="cut off", split="train", direction="down", before=0.3)
    before = Action(kind="longer", reason="", target=target, settings={"generate.max_new_tokens": 48})
    moved = Outcome(round=1, kind="longer", target=target, after=0.0, moved=True)
    own = known(config=roomy, plans=(Plan(round=1, mode="auto", actions=(before,)),), outcomes=(moved,))
    action = made(NOTHING, own)["longer"]
    assert action.settings == before.settings and action.target.before == 0.0
    assert "0.300 → 0.000" in action.reason
    assert made(NOTHING, replace(own, outcomes=(replace(moved, moved=False),))) == {}


def test_stop_where_no_gain_can_be_shown_or_nothing_is_left_to_try() -> None:
    assert list(made(weak(0.3, 0.9), known(gate_mean=1.0, never=0.9))) == ["stop"]
    assert "stop" not in made(NOTHING, known(gate_mean=0.99))
    kinds = ("sample-more", "hint", "few-shot", "rationalise")
    outcomes = tuple(
        Outcome(round=r, kind=kind, target=TARGET, after=1.0, moved=False)  # type: ignore[arg-type]
        for r in (1, 2)
        for kind in kinds
    )
    assert list(made(NOTHING, known(never=1.0, gate_mean=0.0, outcomes=outcomes))) == ["stop"]
    assert "stop" not in made(NOTHING, known(never=1.0, gate_mean=0.0, outcomes=outcomes[1:]))


def test_a_plan_becomes_the_rounds_configuration_and_leaves_the_runs_alone() -> None:
    actions = (
        Action(kind="sample-more", reason="", target=TARGET, settings={"generate.n": 8}),
        Action(kind="lower-lr", reason="", target=TARGET, settings={"train.lr": 1e-4}),
        Action(kind="hint", reason="", target=TARGET, settings={"system": "Be brief."}),
    )
    own = Plan(round=2, mode="auto", actions=actions)
    changed = applied.configured(CONFIG, own)
    assert (changed.generate.n, changed.train.lr, changed.generate.system) == (8, 1e-4, None)
    assert CONFIG.generate.n == 4
    context = applied.context(own)
    assert context is not None and context.system == "Be brief."
