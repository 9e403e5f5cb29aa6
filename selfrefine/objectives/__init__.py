"""One file per objective, which describes itself; here is only where each is. Naming one imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfrefine.registry import Origin, Registry

if TYPE_CHECKING:
    from selfrefine.objectives.base import ObjectiveKind


def _adopt(name: str, value: object, origin: Origin) -> ObjectiveKind | None:
    from selfrefine.objectives.base import ObjectiveKind
    from selfrefine.registry import of_kind

    return of_kind(ObjectiveKind)(name, value, origin)


OBJECTIVES: Registry[ObjectiveKind] = Registry(
    "objective",
    "selfrefine.objectives",
    {
        "sft": "selfrefine.objectives.sft:SFT",
        "weighted-sft": "selfrefine.objectives.weighted_sft:WEIGHTED_SFT",
        "dpo": "selfrefine.objectives.dpo:DPO",
        "ipo": "selfrefine.objectives.dpo:IPO",
        "kto": "selfrefine.objectives.kto:KTO",
        "reinforce": "selfrefine.objectives.reinforce:REINFORCE",
        "rloo": "selfrefine.objectives.rloo:RLOO",
        "grpo": "selfrefine.objectives.grpo:GRPO",
    },
    _adopt,
)
