"""Name to objective, and what each needs besides logprobs. Lazy strings: naming one must not import torch."""

OBJECTIVES: dict[str, str] = {
    "sft": "selfrefine.objectives.sft:sft",
    "weighted-sft": "selfrefine.objectives.weighted_sft:weighted_sft",
    "dpo": "selfrefine.objectives.dpo:dpo",
    "ipo": "selfrefine.objectives.dpo:ipo",
    "kto": "selfrefine.objectives.kto:kto",
    "reinforce": "selfrefine.objectives.reinforce:reinforce",
    "rloo": "selfrefine.objectives.rloo:rloo",
    "grpo": "selfrefine.objectives.grpo:grpo",
}

PAIRED = frozenset({"dpo", "ipo"})
"""Learn from pairs of a chosen and a rejected completion."""
LABELLED = frozenset({"kto"})
"""Learn from completions that are each chosen or rejected."""
GROUPED = frozenset({"reinforce", "rloo", "grpo"})
"""Learn from how a completion's reward differs from its group's, and from its own old logprobs."""
