"""The same numbers as TRL, on the same logprobs and on the same model, with options that make the two alike.

TRL 1.16.0. Losses within 1e-5, gradients within 1e-4.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import trl_peer
from rows import batch, gradients, item, near, ragged, settings
from torch import Tensor

from selfrefine.compute.forward import completion_logprobs
from selfrefine.objectives import OBJECTIVES
from selfrefine.objectives.base import Item
from selfrefine.objectives.dpo import dpo, ipo
from selfrefine.objectives.grpo import grpo
from selfrefine.objectives.kto import kto
from selfrefine.objectives.rloo import rloo
from selfrefine.objectives.sft import sft

LENGTHS = (3, 7, 1, 5)


def same(ours: Tensor, theirs: Tensor, rows: Sequence[Tensor]) -> None:
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5, rel=1e-5)
    one, other = gradients(ours, rows), gradients(theirs, rows)
    assert other.abs().max() > 1e-4  # equal zeros would prove nothing
    torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def total(values: Sequence[float]) -> float:
    return float(np.sum(values))


@pytest.mark.parametrize(
    ("name", "nll", "losses"),
    [
        ("dpo", 0.0, {"sigmoid": 1.0}),
        ("ipo", 0.0, {"ipo": 1.0}),
        ("dpo", 0.7, {"sigmoid": 1.0, "sft": 0.7}),
    ],
)
def test_dpo(name: str, nll: float, losses: dict[str, float]) -> None:
    """TRL's "sft" term divides by all chosen tokens, ours by each answer's: alike where lengths are."""
    chosen = ragged((4, 4, 4) if nll else (3, 7, 1), 1, scale=3.0)
    rejected = ragged((5, 2, 6), 2, scale=3.0)
    before = near(chosen, 3, 0.8), near(rejected, 4, 0.8)
    items, rows = [], []
    for i in range(3):
        for role, row, ref in (
            ("chosen", chosen[i], before[0][i]),
            ("rejected", rejected[i], before[1][i]),
        ):
            items.append(item(len(row), pair=str(i), role=role, reference_logprobs=ref))
            rows.append(row)
    own = settings(name, beta=0.3, nll=nll)
    ours = (ipo if name == "ipo" else dpo)(rows, batch(items, own))
    reference = tuple(torch.tensor([total(r) for r in side], dtype=torch.float32) for side in before)
    theirs, told = trl_peer.dpo(chosen, rejected, reference, 0.3, losses)  # type: ignore[arg-type]
    same(ours.value, theirs, [*chosen, *rejected])
    assert ours.metrics["accuracy"] == pytest.approx(told["rewards/accuracies"][0])
    if name == "dpo":
        assert ours.metrics["margin"] == pytest.approx(told["rewards/margins"][0], abs=1e-5)


@pytest.mark.parametrize("drift", [0.6, -0.6], ids=["above the reference", "clamped at zero"])
def test_kto(drift: float) -> None:
    rows = ragged(LENGTHS, 1, scale=3.0)
    before = near(rows, 2, 0.8)
    labels = [True, False, False, True]
    items = [
        item(len(row), role="chosen" if good else "rejected", reference_logprobs=ref)
        for row, good, ref in zip(rows, labels, before, strict=True)
    ]
    policy = torch.tensor([-9.0, -4.0, -6.0, -5.0])
    unrelated = policy, policy - drift
    own = settings("kto", beta=0.2, desirable_weight=1.3, undesirable_weight=0.8)
    ours = kto(rows, batch(items, own, z0=max(0.0, drift)))
    reference = torch.tensor([total(ref) for ref in before], dtype=torch.float32)
    theirs = trl_peer.kto(rows, reference, labels, unrelated, 0.2, (1.3, 0.8))
    same(ours.value, theirs, rows)


def sampled(rows: Sequence[Tensor], spread: float) -> list[Item]:
    """Advantages of both signs; old logprobs off by enough that some ratios are clipped on either side."""
    old, reference = near(rows, 5, spread), near(rows, 6, 0.5)
    return [
        item(len(row), advantage=a, old_logprobs=o, reference_logprobs=r)
        for row, a, o, r in zip(rows, (1.2, -0.7, 0.4, -0.9), old, reference, strict=True)
    ]


def tensors(values: Sequence[tuple[float, ...] | None]) -> list[Tensor]:
    return [torch.tensor(row, dtype=torch.float32) for row in values if row is not None]


@pytest.mark.parametrize(("normalise", "loss_type"), [("tokens", "dapo"), ("sequences", "grpo")])
@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_grpo_off_policy(normalise: str, loss_type: str, beta: float) -> None:
    """TRL's default is dapo, epsilon 0.2 on both sides."""
    rows = ragged(LENGTHS, 1, scale=3.0)
    items = sampled(rows, 0.6)
    own = settings("grpo", clip_low=0.15, clip_high=0.3, normalise=normalise, kl=beta)
    ours = grpo(rows, batch(items, own))
    theirs, told = trl_peer.grpo(
        rows,
        tensors([i.old_logprobs for i in items]),
        tensors([i.reference_logprobs for i in items]),
        [i.advantage for i in items],
        loss_type=loss_type,
        low=0.15,
        high=0.3,
        beta=beta,
    )
    same(ours.value, theirs, rows)
    assert 0.1 < ours.metrics["clip_share"] < 0.9
    assert ours.metrics["clip_share"] == pytest.approx(told["clip_ratio/region_mean"][0])
    if beta:
        assert ours.metrics["kl"] == pytest.approx(told["kl"][0], rel=1e-5)


def test_rloo_off_policy() -> None:
    rows = ragged(LENGTHS, 1, scale=3.0)
    items = sampled(rows, 0.3)
    ours = rloo(rows, batch(items, settings("rloo", clip_low=0.05, clip_high=0.1)))
    old = tensors([i.old_logprobs for i in items])
    theirs, told = trl_peer.rloo(rows, old, [i.advantage for i in items], low=0.05, high=0.1)
    same(ours.value, theirs, rows)
    assert ours.metrics["clip_share"] == pytest.approx(told["clip_ratio/region_mean"][0]) != 0.0


ONE_QUIET_STEP: dict[str, Any] = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "max_steps": 1,
    "learning_rate": 0.0,
    "report_to": [],
    "save_strategy": "no",
    "logging_strategy": "no",
    "disable_tqdm": True,
}
"""Arguments of a TRL trainer that takes its step and leaves weights and disk as they were."""


class Seen:
    """A step of a TRL trainer: its inputs, its loss and the gradient of every weight."""

    loss: Tensor
    inputs: dict[str, Tensor]
    grads: Sequence[Tensor]


def one_step(trainer: Any, config: Any, folder: Path, **settings: Any) -> tuple[Seen, Any]:
    """TRL samples 2 prompts x 4 on a tiny model and takes its step, with a learning rate of zero."""
    from datasets import Dataset

    seen = Seen()

    def reward(completion_ids: list[list[int]], **_kwargs: object) -> list[float]:
        return [rewarded(ids) for ids in completion_ids]

    class Watched(trainer):  # type: ignore[misc]
        def _compute_loss(self, model: Any, inputs: Any) -> Tensor:
            seen.loss, seen.inputs = super()._compute_loss(model, inputs), inputs
            seen.grads = torch.autograd.grad(seen.loss, list(model.parameters()), retain_graph=True)
            return seen.loss

    model = tiny.model().requires_grad_(True)
    args = config(
        output_dir=str(folder),
        **ONE_QUIET_STEP,
        num_generations=4,
        per_device_train_batch_size=8,
        max_completion_length=6,
        beta=0.0,
        seed=1,
        **settings,
    )
    prompts = Dataset.from_list([{"prompt": "what is 17"}, {"prompt": "the answer"}])
    made = Watched(
        model=model,
        reward_funcs=[reward],
        args=args,
        train_dataset=prompts,
        processing_class=tiny.tokenizer(),
    )
    made.train()
    return seen, model


def rewarded(ids: Sequence[int]) -> float:
    """By content: TRL shuffles the samples after they were scored."""
    return sum(ids) % 7 / 6


def real(row: Tensor, mask: Tensor) -> tuple[int, ...]:
    return tuple(row[mask.bool()].tolist())


@pytest.mark.parametrize(
    ("name", "ours", "theirs"),
    [
        ("grpo", {}, {"loss_type": "dapo"}),
        ("grpo", {"normalise": "sequences"}, {"loss_type": "grpo"}),
        ("grpo", {"divide_by_std": False}, {"loss_type": "dapo", "scale_rewards": "none"}),
        ("rloo", {}, {}),
    ],
    ids=["dapo", "grpo", "without std", "rloo"],
)
def test_a_whole_step_on_the_same_model(
    name: str, ours: dict[str, Any], theirs: dict[str, Any], tmp_path: Path
) -> None:
    """Rewards to advantages to loss to the gradient of every weight; a prompt is computed once here."""
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    trainer, config = (GRPOTrainer, GRPOConfig) if name == "grpo" else (RLOOTrainer, RLOOConfig)
    seen, model = one_step(trainer, config, tmp_path, **theirs)
    inputs = seen.inputs
    own = settings(name, clip_high=0.2, **ours)
    pairs = [
        (
            real(inputs["prompt_ids"][i], inputs["prompt_mask"][i]),
            real(inputs["completion_ids"][i], inputs["completion_mask"][i]),
        )
        for i in range(8)
    ]
    assert len({prompt for prompt, _ in pairs}) == 2
    logprobs = completion_logprobs(model, pairs)
    items = [
        Item(
            id="",
            prompt_token_ids=prompt,
            completion_token_ids=ids,
            reward=rewarded(ids),
            old_logprobs=tuple(row.tolist()),
        )
        for (prompt, ids), row in zip(pairs, logprobs, strict=True)
    ]
    items = OBJECTIVES.get(name).prepare(items, own)  # type: ignore[misc]
    assert [i.advantage for i in items] == pytest.approx(inputs["advantages"].tolist(), abs=1e-5)
    assert max(i.advantage for i in items) > 0.1
    loss = (grpo if name == "grpo" else rloo)(logprobs, batch(items, own)).value
    assert loss.item() == pytest.approx(seen.loss.item(), abs=1e-5)
    found = torch.autograd.grad(loss, list(model.parameters()))
    largest = max(float(g.norm()) for g in seen.grads)
    assert largest > 1e-3
    for one, other in zip(found, seen.grads, strict=True):
        assert float((one - other).norm()) <= 1e-4 * largest


def test_an_sft_step_on_the_same_model(tmp_path: Path) -> None:
    """Completion-only loss over ragged rows, two of one prompt: TRL pads them, here the prompt is shared."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    seen = Seen()

    class Watched(SFTTrainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, *args: Any, **kwargs: Any) -> Any:
            told = super().compute_loss(model, *args, **kwargs)
            seen.loss = told[0] if isinstance(told, tuple) else told
            seen.grads = torch.autograd.grad(seen.loss, list(model.parameters()), retain_graph=True)
            return told

    pairs = [((5, 6, 7), (8, 9)), ((5, 6, 7), (9, 4, 4, 8, 3)), ((11, 12), (6,)), ((3, 3, 3, 3), (7, 7, 2))]
    rows = [{"input_ids": [*p, *c], "completion_mask": [0] * len(p) + [1] * len(c)} for p, c in pairs]
    args = SFTConfig(
        output_dir=str(tmp_path),
        **ONE_QUIET_STEP,
        per_device_train_batch_size=4,
        completion_only_loss=True,
    )
    model = tiny.model().requires_grad_(True)
    Watched(
        model=model, args=args, train_dataset=Dataset.from_list(rows), processing_class=tiny.tokenizer()
    ).train()
    ours = sft(completion_logprobs(model, pairs), batch([item(len(c)) for _, c in pairs])).value
    assert ours.item() == pytest.approx(seen.loss.item(), rel=1e-5)
    largest = max(float(g.norm()) for g in seen.grads)
    for one, other in zip(torch.autograd.grad(ours, list(model.parameters())), seen.grads, strict=True):
        assert float((one - other).norm()) <= 1e-4 * largest
