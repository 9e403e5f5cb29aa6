"""The optimizer loop: what is trained, what the budget may change, and what a crash may change: nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from folder import Folder
from msgspec.structs import replace
from wrapping import gradients, off, wrapped

from selfrefine.compute import head
from selfrefine.compute.packing import why_not
from selfrefine.config import LoraConfig, TrainConfig
from selfrefine.engines.local import LocalEngine
from selfrefine.errors import Interrupted, TrainingError
from selfrefine.objectives.base import Batch, Item, Loss, ObjectiveKind
from selfrefine.objectives.sft import SFT, sft
from selfrefine.objectives.weighted_sft import WEIGHTED_SFT
from selfrefine.records import Message
from selfrefine.training.loop import StepLog, train
from selfrefine.training.plan import longest_row, micro_batches, plan_steps

END = 302


def pupil(engine: LocalEngine, question: str, answer: str) -> Item:
    chat = [Message(role="user", content=question)]
    return Item(
        id=question,
        prompt_token_ids=engine.encode_chat(chat),
        completion_token_ids=engine.encode_answer(answer),
    )


def lessons(engine: LocalEngine) -> list[Item]:
    """Ragged: answers of 1 to 12 tokens, prompts of different lengths."""
    answers = ["42", "the answer is 42", "", "no", "so the sum of the two is 17"]
    return [pupil(engine, "what is " + "17 + " * i + "25?", answer) for i, answer in enumerate(answers)]


def run(
    engine: LocalEngine,
    items: Sequence[Item],
    config: TrainConfig,
    store: Folder,
    *,
    objective: ObjectiveKind = SFT,
    on_step: Callable[[StepLog, int], None] = lambda row, total: None,
    out: Path | None = None,
) -> tuple[list[StepLog], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The log, the trained weights and their last gradients; optionally the adapter, saved."""
    with engine.trainer().open(None, config.lora, 3) as wrapped:
        parameters = {n: p for n, p in wrapped.named_parameters() if p.requires_grad}
        try:
            log = train(wrapped, items, objective, config, 3, store, on_step)
        finally:
            if out is not None:
                engine.trainer().save(wrapped, out)
        return (
            log,
            {n: p.detach().clone() for n, p in parameters.items()},
            {n: p.grad.clone() for n, p in parameters.items() if p.grad is not None},
        )


def config(**settings: Any) -> TrainConfig:
    own: dict[str, Any] = {"lora": LoraConfig(r=4), "warmup": 0.0, "schedule": "constant"}
    return TrainConfig(**own | settings)


def test_the_loss_of_two_rows_by_hand(tmp_path: Path) -> None:
    """Completion tokens only, the stop token with them, over the tokens of the whole step."""
    engine = tiny.engine()
    items = [pupil(engine, "a", "42"), pupil(engine, "what is 17 + 25?", "the answer")]
    total, tokens = 0.0, 0
    for item in items:
        ids = [*item.prompt_token_ids, *item.completion_token_ids]
        assert ids[-1] == END
        with torch.no_grad():
            table = engine.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        for place in range(len(item.prompt_token_ids), len(ids)):
            total -= table[place - 1, ids[place]].item()
            tokens += 1
    [row], _, _ = run(engine, items, config(steps=1), Folder(tmp_path / "c"))
    assert row.loss == pytest.approx(total / tokens, rel=1e-5)
    assert (row.tokens, row.items, row.step) == (tokens, 2, 1)


def test_the_stop_token_is_trained_though_it_is_also_the_pad(tmp_path: Path) -> None:
    """The trap: labels equal to pad are masked, pad is eos, and the model never learns to stop."""
    engine = tiny.engine()
    assert engine.tokenizer.pad_token_id == engine.tokenizer.eos_token_id == END
    items = [pupil(engine, "stop", ""), pupil(engine, "what is 17 + 25?", "42")]
    assert items[0].completion_token_ids == (END,)
    run(engine, items, config(steps=30, lr=0.02), Folder(tmp_path / "c"), out=tmp_path / "a")
    engine.use_adapter(tmp_path / "a")
    scored = engine.score([i.prompt_token_ids for i in items], [i.completion_token_ids for i in items])
    assert all(math.exp(row[-1]) > 0.9 for row in scored)


def test_what_is_trained_becomes_probable_and_the_base_stays_bit_for_bit(tmp_path: Path) -> None:
    engine = tiny.engine(hidden_size=64)  # at 32 the frozen head itself keeps a token below 0.9
    before = {name: tensor.clone() for name, tensor in engine.model.state_dict().items()}
    items = lessons(engine)
    prompts, completions = [i.prompt_token_ids for i in items], [i.completion_token_ids for i in items]
    at_first = engine.score(prompts, completions)
    trained = config(steps=60, lr=0.01, batch_size=5)
    log, _, _ = run(engine, items, trained, Folder(tmp_path / "c"), out=tmp_path / "a")
    assert log[-1].loss < 0.05 < 2 < log[0].loss
    now = engine.model.state_dict()
    assert now.keys() == before.keys() and all(torch.equal(now[n], before[n]) for n in now)
    assert engine.score(prompts, completions) == at_first  # afterwards the policy is the base
    engine.use_adapter(tmp_path / "a")
    assert all(math.exp(sum(row)) > 0.9 for row in engine.score(prompts, completions))


def test_the_token_budget_changes_memory_and_not_the_gradient(tmp_path: Path) -> None:
    engine = tiny.engine()
    items = lessons(engine)
    found = []
    for budget in (1, 64, 4096):
        settings = config(steps=1, batch_size=5, token_budget=budget, clip=0.0)
        [row], _, grads = run(engine, items, settings, Folder(tmp_path / str(budget)))
        found.append((row, grads))
    (one, reference), *others = found
    assert one.grad_norm > 0
    for row, grads in others:
        assert (row.loss, row.grad_norm) == pytest.approx((one.loss, one.grad_norm), rel=1e-5)
        for name, grad in grads.items():
            difference = (grad - reference[name]).norm()
            assert difference <= 1e-5 * reference[name].norm() + 1e-9, name


def siblings() -> list[Item]:
    """Three prompts that begin with the same nine tokens, four answers each of 2 to 9; a weight of its own
    for each, so that mixed-up ones show."""
    made = []
    for p, own in enumerate((3, 5, 6)):
        prompt = (*range(100, 109), *range(20 + p, 20 + p + own))
        for k, length in enumerate((2, 5, 9, 4)):
            answer = tuple((7 * p + 31 * k + 3 * i) % 250 for i in range(length))
            made.append(
                Item(
                    id=f"{p}.{k}",
                    prompt_token_ids=prompt,
                    completion_token_ids=answer,
                    weight=0.5 + p + k / 4,
                )
            )
    return made


@pytest.mark.parametrize(
    ("kind", "passes"),
    [
        ("llama", {4096: 1, 60: 2, 30: 6, 1: 12}),
        ("qwen2", {4096: 1, 60: 2, 30: 6, 1: 12}),
        ("gemma3", {4096: 1, 60: 5, 30: 12, 1: 12}),  # its window is short: an answer a row
    ],
)
def test_groups_that_are_split_teach_every_adapter_tensor_the_same(
    kind: str, passes: dict[int, int], tmp_path: Path
) -> None:
    """Traps: B = 0, which hides what reaches A; prompts of nothing in common; groups that stay whole."""
    items, shared = siblings(), kind != "gemma3"
    found: dict[int, tuple[StepLog, dict[str, torch.Tensor]]] = {}
    for budget, expected in passes.items():
        model = wrapped(kind)
        assert head.gives_logits(model)  # found out by a pass of its own
        reason = why_not(model, longest_row(items))
        assert reason is None if shared else reason is not None and "sliding window" in reason
        seen: list[None] = []
        model.get_base_model().register_forward_hook(lambda *_, seen=seen: seen.append(None))
        settings = config(steps=1, batch_size=12, token_budget=budget, clip=0.0)
        [row] = train(
            model, items, WEIGHTED_SFT, settings, 3, Folder(tmp_path / "c"), lambda row, total: None
        )
        assert len(seen) == expected
        found[budget] = row, gradients(model)
    cut = micro_batches(items, 30, shared=True)
    assert [[items[i].id for i in micro] for micro in cut[:2]] == [
        ["0.0", "0.1", "0.2"],
        ["0.3"],
    ]
    one, whole = found[4096]
    for row, grads in found.values():
        assert (row.loss, row.grad_norm) == pytest.approx((one.loss, one.grad_norm), rel=1e-5)
        errors = off(grads, whole)
        assert len(errors) == 2 * 2 * 7
        assert max(errors.values()) < 1e-5, max(errors, key=errors.__getitem__)


def test_clipping_bounds_the_step_and_reports_the_norm_before(tmp_path: Path) -> None:
    engine = tiny.engine()
    norms = {}
    for clip in (0.0, 0.01):
        [row], _, grads = run(
            engine, lessons(engine), config(steps=1, clip=clip), Folder(tmp_path / str(clip))
        )
        norms[clip] = math.sqrt(sum(float(g.pow(2).sum()) for g in grads.values()))
        assert row.grad_norm == pytest.approx(norms[0.0], rel=1e-4)
    assert norms[0.01] == pytest.approx(0.01, rel=1e-3) and norms[0.0] > 0.1


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("death", [Interrupted, KeyboardInterrupt])
def test_a_resumed_run_is_byte_equal_to_one_that_was_not_interrupted(
    dropout: float, death: type[BaseException], tmp_path: Path
) -> None:
    """Interrupted writes a checkpoint first; any other end falls back to the last one, steps before."""
    settings = config(
        steps=7,
        batch_size=2,
        checkpoint_steps=2,
        lr=0.01,
        weight_decay=0.1,
        warmup=0.3,
        schedule="cosine",
        lora=LoraConfig(r=4, dropout=dropout),
    )
    engine = tiny.engine()
    items = lessons(engine)
    whole, _, _ = run(engine, items, settings, Folder(tmp_path / "c1"), out=tmp_path / "whole")

    def die(row: StepLog, total: int) -> None:
        if row.step == 5:
            raise death("now", 2) if death is Interrupted else death()

    store = Folder(tmp_path / "c2")
    with pytest.raises(death):
        run(engine, items, settings, store, on_step=die)
    steps = json.loads((tmp_path / "c2" / "checkpoint.json").read_text())["steps"]
    assert steps == (5 if death is Interrupted else 4)
    torch.manual_seed(99)  # whatever else happened in between
    torch.rand(3)
    done: list[int] = []
    fresh = tiny.engine()
    resumed, _, _ = run(
        fresh,
        items,
        settings,
        store,
        on_step=lambda row, total: done.append(row.step),
        out=tmp_path / "resumed",
    )
    assert done == list(range(steps + 1, 8))  # only what was missing was done again
    assert resumed == whole
    for file in (tmp_path / "whole").iterdir():
        assert file.read_bytes() == (tmp_path / "resumed" / file.name).read_bytes(), file.name


def test_dropout_acts_and_its_stream_depends_on_the_step(tmp_path: Path) -> None:
    """Equal runs with dropout are worth something only if dropout was on."""
    engine = tiny.engine()
    losses = {}
    for dropout in (0.0, 0.5):
        settings = config(steps=3, lr=0.02, lora=LoraConfig(r=4, dropout=dropout))
        log, _, _ = run(engine, lessons(engine), settings, Folder(tmp_path / str(dropout)))
        losses[dropout] = [row.loss for row in log]
    assert losses[0.0][0] == pytest.approx(losses[0.5][0])  # B is still zero at the first step
    assert losses[0.0][2] != pytest.approx(losses[0.5][2])


def poisoned(logprobs: Sequence[Any], batch: Batch) -> Loss:
    """The loss is not a number for the one bad row."""
    loss = sft(logprobs, batch)
    bad = any(item.id == "bad" for item in batch.items)
    return Loss(loss.value * math.nan, {}) if bad else loss


def infinite_gradient(logprobs: Sequence[Any], batch: Batch) -> Loss:
    """The loss is finite and its gradient is not: sqrt at 0."""
    loss = sft(logprobs, batch)
    bad = any(item.id == "bad" for item in batch.items)
    return Loss(loss.value + ((logprobs[0].sum() * 0.0).sqrt() if bad else 0.0), {})


POISONED, INFINITE = (replace(SFT, loss=loss) for loss in (poisoned, infinite_gradient))


@pytest.mark.parametrize("objective", [POISONED, INFINITE], ids=["loss", "gradient"])
def test_a_loss_that_is_not_finite_stops_before_the_weights_change(
    objective: ObjectiveKind, tmp_path: Path
) -> None:
    engine = tiny.engine()
    items = [pupil(engine, f"good {i}", "42") for i in range(4)] + [pupil(engine, "bad", "17")]
    settings = config(epochs=1, batch_size=1, lr=0.01)
    bad_step = next(k for k, step in enumerate(plan_steps(items, settings, 3)) if items[step[0]].id == "bad")
    seen: list[StepLog] = []
    with pytest.raises(TrainingError, match=r"rows in the batch: bad\b") as caught:
        run(
            engine,
            items,
            settings,
            Folder(tmp_path / "c"),
            objective=objective,
            on_step=lambda row, total: seen.append(row),
            out=tmp_path / "kept",
        )
    assert "good" not in str(caught.value) and len(seen) == bad_step
    # What is left are the weights whose loss was last finite, to the byte: the step after that may be what
    # broke them, and an adapter that answers NaN is no last good one.
    assert bad_step > 1
    good = range(bad_step - 1)

    def stop_there(row: StepLog, total: int) -> None:
        if row.step == len(good):
            raise Interrupted("here", 2)

    with engine.trainer().open(None, settings.lora, 3) as wrapped:
        if good:
            with pytest.raises(Interrupted):
                train(wrapped, items, SFT, settings, 3, Folder(tmp_path / "d"), stop_there)
        engine.trainer().save(wrapped, tmp_path / "good")
    for file in (tmp_path / "kept").iterdir():
        assert file.read_bytes() == (tmp_path / "good" / file.name).read_bytes()


def test_the_last_good_weights_are_the_same_after_a_resume(tmp_path: Path) -> None:
    """Resumed right at the bad step, the weights at hand are those that broke: the ones before them count."""
    engine = tiny.engine()
    items = [pupil(engine, f"good {i}", "42") for i in range(4)] + [pupil(engine, "bad", "17")]
    settings = config(epochs=1, batch_size=1, lr=0.01)
    bad_step = next(k for k, step in enumerate(plan_steps(items, settings, 3)) if items[step[0]].id == "bad")

    def stop_before_it(row: StepLog, total: int) -> None:
        if row.step == bad_step:
            raise Interrupted("here", 2)

    with pytest.raises(TrainingError):
        run(engine, items, settings, Folder(tmp_path / "a"), objective=POISONED, out=tmp_path / "whole")
    store = Folder(tmp_path / "b")
    with pytest.raises(Interrupted):
        run(engine, items, settings, store, objective=POISONED, on_step=stop_before_it)
    with pytest.raises(TrainingError):
        run(engine, items, settings, store, objective=POISONED, out=tmp_path / "resumed")
    for file in (tmp_path / "whole").iterdir():
        assert file.read_bytes() == (tmp_path / "resumed" / file.name).read_bytes()


def test_training_continues_from_an_adapter(tmp_path: Path) -> None:
    engine = tiny.engine()
    items = lessons(engine)
    settings = config(steps=20, lr=0.02, batch_size=5)
    run(engine, items, settings, Folder(tmp_path / "c"), out=tmp_path / "a")
    engine.use_adapter(tmp_path / "a")
    expected = -sum(
        sum(row)
        for row in engine.score([i.prompt_token_ids for i in items], [i.completion_token_ids for i in items])
    ) / sum(len(i.completion_token_ids) for i in items)
    with engine.trainer().open(tmp_path / "a", settings.lora, 4) as wrapped:
        assert any(p.requires_grad for p in wrapped.parameters())
        [row] = train(
            wrapped, items, SFT, config(steps=1, batch_size=5), 4, Folder(tmp_path / "d"), lambda row, n: None
        )
    assert row.loss == pytest.approx(expected, rel=1e-3)
