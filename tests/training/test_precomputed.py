"""What is known before the first step: old and reference logprobs, and under whose weights they are computed.

The trap has a name: `disable_adapter` gives the bare base, and where training starts from an adapter that is
neither the policy it started from nor, always, the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from folder import Folder
from msgspec.structs import replace
from policies import LORA, answers, close, fixed, scored, trained

from selfrefine.config import ObjectiveConfig
from selfrefine.engines.local import LocalEngine
from selfrefine.errors import Interrupted
from selfrefine.layers import objective_settings
from selfrefine.objectives import OBJECTIVES
from selfrefine.objectives.base import Item
from selfrefine.training.loop import StepLog
from selfrefine.training.precomputed import baseline, fix

RL = sorted(name for name in OBJECTIVES if OBJECTIVES.get(name).rows == "groups")


@pytest.mark.parametrize("start", [None, "first", "accepted"])
@pytest.mark.parametrize("reference", [None, "first", "accepted"])
def test_the_reference_is_who_it_is_said_to_be_wherever_training_starts(
    engine: LocalEngine, adapters: dict[str, Path], start: str | None, reference: str | None
) -> None:
    """None is the bare base: round 0 of a run without `adapter`; "first" is round 0 of a run with it."""
    items = answers(engine)
    folders = {None: None, **adapters}
    own = ObjectiveConfig(name="dpo")
    made = fixed(engine, items, own, start=folders[start], reference=folders[reference])
    close([i.reference_logprobs for i in made], scored(engine, folders[reference], items))
    for other in set(folders) - {reference}:  # the three could be told apart
        far = scored(engine, folders[other], items)
        assert abs(sum(far[0]) - sum(made[0].reference_logprobs or ())) > 0.05, other


def test_afterwards_the_model_under_training_is_what_it_was(
    engine: LocalEngine, adapters: dict[str, Path]
) -> None:
    items, own = answers(engine), ObjectiveConfig(name="kto")
    with engine.trainer().open(adapters["first"], LORA, 3) as wrapped:
        before = {n: p.detach().clone() for n, p in wrapped.named_parameters()}
        wanted = [n for n, p in wrapped.named_parameters() if p.requires_grad]
        for reference in (None, adapters["accepted"]):
            fix(
                wrapped,
                items,
                OBJECTIVES.get("kto"),
                objective_settings(own),
                64,
                lambda folder: engine.trainer().as_policy(wrapped, folder),
                sampler=None,
                reference=reference,
            )
            after = dict(wrapped.named_parameters())
            assert list(after) == list(before) and all(torch.equal(after[n], before[n]) for n in before)
            assert [n for n, p in after.items() if p.requires_grad] == wanted
        assert wrapped.active_adapter == "default"


def test_at_the_first_step_the_policy_is_its_own_reference(
    engine: LocalEngine, adapters: dict[str, Path]
) -> None:
    """With the start as the reference dpo begins at log 2; with the base, it would not."""
    items = answers(engine)
    losses = {}
    for reference in ("first", None):
        own = ObjectiveConfig(name="dpo", settings={"dpo": {"beta": 1.0}})
        log = trained(
            engine, items, own, start=adapters["first"], reference=adapters.get(reference or ""), steps=1
        )
        losses[reference] = log[0].loss
    assert losses["first"] == pytest.approx(0.693147, abs=1e-4)
    assert abs(losses[None] - 0.693147) > 0.05


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_the_token_budget_changes_memory_and_not_the_gradient(
    engine: LocalEngine, adapters: dict[str, Path], name: str
) -> None:
    """Sums over micro-batches of every objective, KTO's baseline included, and of every metric."""
    items = answers(engine)
    # Old logprobs a little off the policy's: some ratios are clipped, and not all.
    draw = np.random.default_rng(0)
    now = scored(engine, adapters["accepted"], items)
    items = [
        replace(i, old_logprobs=tuple((row + draw.uniform(-0.1, 0.1, len(row))).tolist()))
        for i, row in zip(items, now, strict=True)
    ]
    unlike_the_default = {
        "nll": 0.5,
        "kl": 0.2,
        "weights": "exponential",
        "normalise": "sequences",
        "clip_low": 0.05,
        "clip_high": 0.05,
        "direction": "reverse",
        "top_k": 5,
    }
    known = OBJECTIVES.get(name).settings.__struct_fields__
    given = {key: value for key, value in unlike_the_default.items() if key in known}
    own = ObjectiveConfig(name=name, settings={name: given})
    found: list[tuple[StepLog, dict[str, torch.Tensor]]] = []
    for budget in (1, 64, 4096):
        grads: dict[str, torch.Tensor] = {}
        [row] = trained(
            engine,
            items,
            own,
            start=adapters["accepted"],
            steps=1,
            clip=0.0,
            token_budget=budget,
            grads=grads,
        )
        found.append((row, grads))
    (one, reference), *others = found
    assert one.grad_norm > 1e-3
    for row, grads in others:
        assert (row.loss, row.grad_norm) == pytest.approx((one.loss, one.grad_norm), rel=1e-4, abs=1e-6)
        assert row.metrics == pytest.approx(one.metrics, rel=1e-3, abs=1e-5)
        for key, grad in grads.items():
            assert (grad - reference[key]).norm() <= 1e-4 * one.grad_norm, key


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if "sft" not in name])
@pytest.mark.parametrize("death", [Interrupted, KeyboardInterrupt])
def test_a_resumed_training_has_the_same_reference_and_the_same_numbers(
    adapters: dict[str, Path], name: str, death: type[BaseException], tmp_path: Path
) -> None:
    """Computed from the restored weights, the "reference" of a resumed process would be the last iterate."""
    own = ObjectiveConfig(name=name, settings={name: {"kl": 0.1}} if name in RL else {})
    settings: dict[str, Any] = {"steps": 6, "batch_size": 4, "checkpoint_steps": 2, "lr": 0.02}
    policies: dict[str, Any] = {
        "start": adapters["accepted"],
        "sampler": adapters["accepted"],
        "reference": adapters["first"],
    }
    engine = tiny.engine()
    items = answers(engine)
    whole = trained(
        engine, items, own, store=Folder(tmp_path / "1"), out=tmp_path / "a", **policies, **settings
    )

    def die(row: StepLog, total: int) -> None:
        if row.step == 3:
            raise death("now", 2) if death is Interrupted else death()

    store = Folder(tmp_path / "2")
    with pytest.raises(death):
        trained(engine, items, own, store=store, on_step=die, **policies, **settings)
    fresh = tiny.engine()
    resumed = trained(fresh, items, own, store=store, out=tmp_path / "b", **policies, **settings)
    assert resumed == whole and len(whole) == 6
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


@pytest.mark.parametrize("name", RL)
def test_recorded_logprobs_stay_and_only_what_is_missing_is_computed(
    engine: LocalEngine, adapters: dict[str, Path], name: str
) -> None:
    """Missing ones come from the policy that sampled, not from where training starts."""
    items = answers(engine)
    truth = scored(engine, adapters["first"], items)
    recorded = tuple(-9.0 for _ in items[0].completion_token_ids)
    items[0] = replace(items[0], old_logprobs=recorded)
    cut = (-8.0, *truth[1][1:-1])  # the end-of-turn after a stop string was not sampled
    items[1] = replace(items[1], old_logprobs=cut)
    own = ObjectiveConfig(name=name)
    made = fixed(engine, items, own, start=adapters["accepted"], sampler=adapters["first"])
    assert made[0].old_logprobs == recorded
    assert made[1].old_logprobs is not None and made[1].old_logprobs[:-1] == cut
    close([made[1].old_logprobs[-1:]], [truth[1][-1:]])
    close([i.old_logprobs for i in made[2:]], truth[2:])
    assert all(i.reference_logprobs is None for i in made)  # nothing is computed that nobody reads


@pytest.mark.parametrize("name", RL)
def test_a_second_pass_is_held_against_sampling_and_not_against_the_first(
    engine: LocalEngine, name: str
) -> None:
    """One prompt's group in one step, three passes: from the second on the ratio is off one."""
    items = answers(engine)[:4]
    own = ObjectiveConfig(name=name)
    log = trained(engine, items, own, lr=0.01, epochs=3.0, batch_size=4)
    assert len(log) == 3
    assert log[0].metrics["ratio_max"] == pytest.approx(1.0, abs=1e-4)
    assert log[0].metrics["clip_share"] == 0.0
    assert log[2].metrics["ratio_max"] > log[1].metrics["ratio_max"] > 1.01
    if name == "grpo":
        assert log[0].loss == pytest.approx(-sum_of_token_advantages(items), abs=1e-5)
    assert 0.0 < log[0].metrics["entropy"] < 6.0


def sum_of_token_advantages(items: Sequence[Item]) -> float:
    kind = OBJECTIVES.get("grpo")
    assert kind.prepare is not None
    made = kind.prepare(list(items), kind.settings())
    lengths = [len(i.completion_token_ids) for i in made]
    return sum(i.advantage * n for i, n in zip(made, lengths, strict=True)) / sum(lengths)


def test_ktos_baseline_by_the_engine_that_samples(engine: LocalEngine, adapters: dict[str, Path]) -> None:
    """Mean over all eight rows of log p - log p_ref for the other prompt's answer, without gradient."""
    items, own = answers(engine), ObjectiveConfig(name="kto")
    asks = OBJECTIVES.get("kto").step_baseline
    made = fixed(engine, items, own, start=adapters["first"])
    crossed = [replace(i, completion_token_ids=i.other_token_ids) for i in made]
    assert {i.prompt_token_ids for i in crossed[:4]} == {items[0].prompt_token_ids}
    assert [i.other_token_ids for i in made[:4]] == [i.completion_token_ids for i in items[4:]]
    policy, base = (list(map(sum, scored(engine, a, crossed))) for a in (adapters["first"], None))
    expected = (sum(policy) - sum(base)) / 8
    with engine.trainer().open(adapters["first"], LORA, 3) as wrapped:
        for budget in (1, 4096):
            assert baseline(wrapped, made, asks, budget) == pytest.approx(max(0.0, expected), abs=1e-3)
        swapped = [replace(i, other_reference=p + 2.0) for i, p in zip(made, policy, strict=True)]
        assert baseline(wrapped, swapped, asks, 64) == 0.0  # 2 nats below the reference: never negative
        raised = [replace(i, other_reference=p - 2.0) for i, p in zip(made, policy, strict=True)]
        assert baseline(wrapped, raised, asks, 64) == pytest.approx(2.0, abs=1e-3)
    assert baseline(None, [replace(i, other_token_ids=()) for i in made], asks, 64) == 0.0


def test_a_step_of_kto_is_taken_against_its_baseline(engine: LocalEngine, adapters: dict[str, Path]) -> None:
    items, own = answers(engine), ObjectiveConfig(name="kto")
    made = fixed(engine, items, own)
    crossed = [replace(i, completion_token_ids=i.other_token_ids) for i in made]
    one, other = (sum(map(sum, scored(engine, adapters[name], crossed))) for name in ("first", "accepted"))
    # The same two policies both ways round: one of them has a positive mean, the other is clamped.
    for start, reference, off in (("first", "accepted", one - other), ("accepted", "first", other - one)):
        [row] = trained(
            engine, items, own, start=adapters[start], reference=adapters[reference], steps=1, token_budget=64
        )
        assert row.metrics["baseline"] == pytest.approx(max(0.0, off / 8), abs=1e-3)
    assert abs(one - other) / 8 > 0.1
