"""What is known before the first step: old and reference logprobs, and under whose weights they are computed.

The trap has a name: `disable_adapter` gives the bare base, and where training starts from an adapter that is
neither the policy it started from nor, always, the reference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from folder import Folder
from msgspec.structs import replace

from selfrefine.compute.device import token_budget
from selfrefine.config import LoraConfig, ObjectiveConfig, TrainConfig
from selfrefine.engines.local import LocalEngine
from selfrefine.errors import Interrupted
from selfrefine.layers import objective_settings
from selfrefine.objectives import OBJECTIVES
from selfrefine.objectives.base import Item
from selfrefine.objectives.sft import SFT
from selfrefine.steps.finetune import NoCheckpoints
from selfrefine.training.loop import StepLog, train
from selfrefine.training.precomputed import baseline, fix, taught

LORA = LoraConfig(r=4)
RL = sorted(name for name in OBJECTIVES if OBJECTIVES.get(name).rows == "groups")


def answers(engine: LocalEngine) -> list[Item]:
    """Two prompts with four answers each, ragged, a pair and a label and a reward on every one."""
    texts = ["42", "the answer is 42", "no", "so the sum of the two is 17"]
    made = []
    for p, question in enumerate(("what is 17 + 25?", "the question was what")):
        prompt = engine.encode_text(question)
        for i, text in enumerate(texts):
            made.append(
                Item(
                    id=f"{p}.{i}",
                    prompt_token_ids=prompt,
                    completion_token_ids=engine.encode_answer(text),
                    reward=(i * (p + 1) % 4) / 3,
                    role="chosen" if i % 2 else "rejected",
                    pair=f"{p}.{i // 2}",
                    group="g",
                    teacher_prompt_token_ids=engine.encode_text(f"{question} it is {17 + i % 2}"),
                )
            )
    return made


@pytest.fixture(scope="module")
def engine() -> LocalEngine:
    return tiny.engine()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def adapters(engine: LocalEngine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two policies that are far from the base and from each other, of different rank."""
    folder = tmp_path_factory.mktemp("adapters")
    narrow = LoraConfig(r=2, targets=("q_proj",))
    for seed, (name, lora) in enumerate((("first", LORA), ("accepted", narrow))):
        with engine.trainer().open(None, lora, seed) as wrapped:
            settings = TrainConfig(steps=15, lr=0.05, warmup=0.0, lora=lora)
            lesson = answers(engine)[seed :: 4 - seed]
            train(wrapped, lesson, SFT, settings, 0, NoCheckpoints(), lambda row, total: None)
            engine.trainer().save(wrapped, folder / name)
    return {"first": folder / "first", "accepted": folder / "accepted"}


def scored(engine: LocalEngine, adapter: Path | None, items: Sequence[Item]) -> list[tuple[float, ...]]:
    """By the engine that samples, which merges adapters: another way to the same numbers."""
    engine.use_adapter(adapter)
    found = engine.score([i.prompt_token_ids for i in items], [i.completion_token_ids for i in items])
    engine.use_adapter(None)
    return found


def fixed(
    engine: LocalEngine,
    items: Sequence[Item],
    own: ObjectiveConfig,
    *,
    start: Path | None = None,
    sampler: Path | None = None,
    reference: Path | None = None,
    budget: int = 64,
) -> list[Item]:
    with engine.trainer().open(start, LORA, 3) as wrapped:
        return fix(
            wrapped,
            items,
            OBJECTIVES.get(own.name),
            objective_settings(own),
            budget,
            lambda folder: engine.trainer().as_policy(wrapped, folder),
            sampler=sampler,
            reference=reference,
        )


def close(found: Sequence[Any], expected: Sequence[tuple[float, ...]]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert list(one) == pytest.approx(list(other), abs=2e-4)


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


def trained(
    engine: LocalEngine,
    items: Sequence[Item],
    own: ObjectiveConfig,
    *,
    start: Path | None = None,
    sampler: Path | None = None,
    reference: Path | None = None,
    store: Any = None,
    on_step: Any = lambda row, total: None,
    out: Path | None = None,
    grads: dict[str, torch.Tensor] | None = None,
    **settings: Any,
) -> list[StepLog]:
    config = TrainConfig(**{"lora": LORA, "warmup": 0.0, "schedule": "constant", "batch_size": 8} | settings)
    kind = OBJECTIVES.get(own.name)
    with engine.trainer().open(start, config.lora, 3) as wrapped:
        made = fix(
            wrapped,
            items,
            kind,
            objective_settings(own),
            token_budget(config, "cpu"),
            lambda folder: engine.trainer().as_policy(wrapped, folder),
            sampler=sampler,
            reference=reference,
        )
        store = store or NoCheckpoints()
        log = train(wrapped, made, kind, config, 3, store, on_step, objective_settings(own))
        if out is not None:
            engine.trainer().save(wrapped, out)
        if grads is not None:
            grads |= {n: p.grad.clone() for n, p in wrapped.named_parameters() if p.grad is not None}
    return log


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


def test_the_teacher_is_the_policy_that_sampled_with_more_in_view(
    engine: LocalEngine, adapters: dict[str, Path]
) -> None:
    """Not the policy that training starts from, nor the reference, nor under the prompt that is learnt."""
    items = answers(engine)
    own = ObjectiveConfig(name="distil", settings={"distil": {"top_k": 3}})
    made = fixed(
        engine,
        items,
        own,
        start=adapters["accepted"],
        sampler=adapters["first"],
        reference=adapters["accepted"],
    )
    engine.use_adapter(adapters["first"])
    for item in made:
        assert item.taught is not None and item.taught.top_k == 3
        for place in range(len(item.completion_token_ids)):
            seen = torch.tensor([[*item.teacher_prompt_token_ids, *item.completion_token_ids[:place]]])
            with torch.inference_mode():
                best = engine.model(seen).logits[0, -1].log_softmax(-1).topk(3)
            assert list(item.taught.ids[3 * place : 3 * place + 3]) == best.indices.tolist()
            told = list(item.taught.logprobs[4 * place : 4 * place + 4])
            assert told[:3] == pytest.approx(best.values.tolist(), abs=2e-4)
            assert sum(map(math.exp, told)) == pytest.approx(1.0, abs=1e-5)
    engine.use_adapter(None)
    assert all(item.reference_logprobs is None and item.old_logprobs is None for item in made)


def test_who_sees_no_more_than_the_policy_teaches_it_nothing(engine: LocalEngine) -> None:
    """Teacher and policy alike: no loss, and not even a gradient."""
    items = [replace(i, teacher_prompt_token_ids=i.prompt_token_ids) for i in answers(engine)]
    for direction in ("forward", "reverse"):
        own = ObjectiveConfig(name="distil", settings={"distil": {"direction": direction}})
        [row] = trained(engine, items, own, steps=1, clip=0.0)
        assert row.loss == pytest.approx(0.0, abs=1e-6) and row.grad_norm == pytest.approx(0.0, abs=1e-5)
        assert row.metrics["agreement"] == 1.0 and 0.0 < row.metrics["rest"] < 1.0


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_with_the_whole_vocabulary_it_is_the_divergence_of_two_softmaxes(
    engine: LocalEngine, adapters: dict[str, Path], direction: str
) -> None:
    """Loss and gradient of every adapter tensor, by whole tables of logits and autograd."""
    items, grads = answers(engine), dict[str, torch.Tensor]()
    own = ObjectiveConfig(name="distil", settings={"distil": {"direction": direction, "top_k": 303}})
    [row] = trained(
        engine,
        items,
        own,
        start=adapters["accepted"],
        sampler=adapters["first"],
        steps=1,
        clip=0.0,
        grads=grads,
    )
    total, tokens = torch.zeros(()), 0
    with engine.trainer().open(adapters["accepted"], LORA, 3) as wrapped:
        for item in items:
            answer = item.completion_token_ids
            with engine.trainer().as_policy(wrapped, adapters["first"]), torch.no_grad():
                q = table(wrapped, item.teacher_prompt_token_ids, answer)
            s = table(wrapped, item.prompt_token_ids, answer)
            terms = q.exp() * (q - s) if direction == "forward" else s.exp() * (s - q)
            total, tokens = total + terms.sum(), tokens + len(answer)
        (total / tokens).backward()
        expected = {n: p.grad.clone() for n, p in wrapped.named_parameters() if p.grad is not None}
    assert row.loss == pytest.approx(total.item() / tokens, rel=1e-4) and row.loss > 0.01
    assert grads.keys() == expected.keys()
    for name, grad in expected.items():
        assert (grads[name] - grad).norm() <= 2e-4 * row.grad_norm, name


def table(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> torch.Tensor:
    logits = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
    return torch.Tensor(logits.log_softmax(-1))


def test_what_a_teacher_says_is_kept_to_the_bit() -> None:
    ids, logprobs = torch.tensor([[7, 1], [302, 0]]), torch.tensor([[-0.1, -3.0, -4.5], [0.0, -9.0, -1e30]])
    kept = taught(ids, logprobs)
    assert list(kept.ids) == [7, 1, 302, 0] and kept.top_k == 2
    assert torch.tensor(kept.logprobs.tolist()).view(2, 3).equal(logprobs)


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
