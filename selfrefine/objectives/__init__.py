"""One file per objective, which describes itself; here is only where each is. Naming one imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfrefine.registry import Registry

if TYPE_CHECKING:
    from selfrefine.objectives.base import ObjectiveKind


OBJECTIVES: Registry[ObjectiveKind] = Registry(
    "objective",
    "selfrefine.objectives",
    "selfrefine.objectives.base:ObjectiveKind",
    {
        "sft": "selfrefine.objectives.sft:SFT",
        "weighted-sft": "selfrefine.objectives.weighted_sft:WEIGHTED_SFT",
        "dpo": "selfrefine.objectives.dpo:DPO",
        "ipo": "selfrefine.objectives.dpo:IPO",
        "kto": "selfrefine.objectives.kto:KTO",
        "reinforce": "selfrefine.objectives.reinforce:REINFORCE",
        "rloo": "selfrefine.objectives.rloo:RLOO",
        "grpo": "selfrefine.objectives.grpo:GRPO",
        "distil": "selfrefine.objectives.distil:DISTIL",
    },
)
