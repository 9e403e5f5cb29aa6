"""TRL's own losses, called on given logprobs: its trainers' `_compute_loss` on a stand-in for the trainer.

Imported by one test module only: TRL takes seconds to import.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.kto_trainer import KTOTrainer
from trl.trainer.rloo_trainer import RLOOTrainer

ACCELERATOR = SimpleNamespace(
    device=torch.device("cpu"),
    num_processes=1,
    gather=lambda value: value,
    gather_for_metrics=lambda value: value,
    reduce=lambda value, reduction: value,
)


def trainer(**settings: Any) -> Any:
    common: dict[str, Any] = {
        "accelerator": ACCELERATOR,
        "aux_loss_enabled": False,
        "model": SimpleNamespace(training=True),
        "_metrics": {"train": defaultdict(list)},
        "_total_train_tokens": 0,
        "_tp_size": 1,
        "precompute_ref_logps": True,
    }
    return SimpleNamespace(**common | settings)


def padded(rows: Sequence[Tensor], width: int) -> Tensor:
    return torch.stack([torch.cat([row, torch.zeros(width - len(row))]) for row in rows])


def masks(rows: Sequence[Tensor]) -> tuple[Tensor, int]:
    width = max(map(len, rows))
    return padded([torch.ones(len(row)) for row in rows], width).long(), width


class Said:
    """A model that gives the logprobs it was made with: TRL reads them from its patched head."""

    training = True

    def __init__(self, rows: Sequence[Tensor]) -> None:
        self.mask, width = masks(rows)
        self.log_probs = padded(rows, width)
        self.other = torch.zeros_like(self.log_probs).detach()

    def __call__(self, **_kwargs: Any) -> Any:
        return SimpleNamespace(
            log_probs=self.log_probs,
            entropy=self.other,
            mean_logits=self.other,
            is_top1=self.other.bool(),
        )

    def inputs(self) -> dict[str, Tensor]:
        """A prompt of one token before each completion."""
        one = torch.ones((len(self.mask), 1), dtype=torch.long)
        ids = torch.cat([one, self.mask], dim=1)
        return {
            "input_ids": ids,
            "attention_mask": ids,
            "completion_mask": torch.cat([0 * one, self.mask], dim=1),
        }


def dpo(
    chosen: Sequence[Tensor],
    rejected: Sequence[Tensor],
    reference: tuple[Tensor, Tensor],
    beta: float,
    losses: dict[str, float],
) -> tuple[Tensor, dict[str, Any]]:
    """`losses`: TRL's loss types and their weights. reference: whole completions, chosen and rejected."""
    model = Said([*chosen, *rejected])
    me = trainer(
        beta=beta,
        loss_types=list(losses),
        loss_weights=list(losses.values()),
        ld_alpha=None,
        f_divergence_type="reverse_kl",
        label_smoothing=0.0,
        use_weighting=False,
    )
    inputs = model.inputs() | {"ref_chosen_logps": reference[0], "ref_rejected_logps": reference[1]}
    return DPOTrainer._compute_loss(me, model, inputs, False), me._metrics["train"]


def kto(
    rows: Sequence[Tensor],
    reference: Tensor,
    labels: Sequence[bool],
    unrelated: tuple[Tensor, Tensor],
    beta: float,
    weights: tuple[float, float],
) -> Tensor:
    """unrelated: nats of the mismatched completions under the policy and under the reference."""
    model = Said(rows)
    me = trainer(
        beta=beta,
        loss_type="kto",
        calculate_KL=True,
        desirable_weight=weights[0],
        undesirable_weight=weights[1],
        _compute_kl_logps=lambda model, batch: unrelated[0],
    )
    inputs = model.inputs() | {
        "label": torch.tensor(list(labels)),
        "ref_logps": reference,
        "ref_KL_logps": unrelated[1],
    }
    return KTOTrainer._compute_loss(me, model, inputs, False)


def _completions(rows: Sequence[Tensor], advantages: Sequence[float]) -> tuple[dict[str, Tensor], Tensor]:
    mask, width = masks(rows)
    one = torch.ones((len(mask), 1), dtype=torch.long)
    inputs = {
        "prompt_ids": one,
        "prompt_mask": one,
        "completion_ids": mask,
        "completion_mask": mask,
        "advantages": torch.tensor(list(advantages)),
        "num_items_in_batch": mask.sum(),
    }
    return inputs, padded(rows, width)


def grpo(
    rows: Sequence[Tensor],
    old: Sequence[Tensor],
    reference: Sequence[Tensor],
    advantages: Sequence[float],
    *,
    loss_type: str,
    low: float,
    high: float,
    beta: float,
) -> tuple[Tensor, dict[str, Any]]:
    inputs, logprobs = _completions(rows, advantages)
    width = logprobs.shape[1]
    me = trainer(
        _get_per_token_logps_and_entropies=lambda *_args, **_kwargs: (
            logprobs,
            torch.zeros_like(logprobs),
            None,
        ),
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        beta=beta,
        loss_type=loss_type,
        epsilon_low=low,
        epsilon_high=high,
        use_vllm=False,
        current_gradient_accumulation_steps=1,
        _entropy_bonus_enabled=False,
    )
    inputs |= {"old_per_token_logps": padded(old, width), "ref_per_token_logps": padded(reference, width)}
    return GRPOTrainer._compute_loss(me, None, inputs), me._metrics["train"]


def rloo(
    rows: Sequence[Tensor], old: Sequence[Tensor], advantages: Sequence[float], *, low: float, high: float
) -> tuple[Tensor, dict[str, Any]]:
    inputs, logprobs = _completions(rows, advantages)
    me = trainer(
        _get_per_token_logps_and_entropies=lambda *_args, **_kwargs: (
            logprobs,
            torch.zeros_like(logprobs),
            None,
        ),
        epsilon_low=low,
        epsilon_high=high,
    )
    inputs["old_logps"] = torch.stack([row.sum() for row in old])
    return RLOOTrainer._compute_loss(me, None, inputs), me._metrics["train"]
