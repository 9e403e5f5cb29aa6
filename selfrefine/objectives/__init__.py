"""Name to objective. Lazy strings: naming one must not import torch."""

OBJECTIVES: dict[str, str] = {"sft": "selfrefine.objectives.sft:sft"}
