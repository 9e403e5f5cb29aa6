"""`--dry-run`: what a cycle would do at most. Reads tasks, loads no weights, writes nothing."""

from __future__ import annotations

from typing import Any

from selfrefine.config import Config
from selfrefine.report.words import compact, number
from selfrefine.steps.prepare import make_splits


def plan(config: Config) -> str:
    """Batches, tokens, disk and memory at most, as text. Raises what making the splits raises."""
    splits = make_splits(config)
    facts = _model_facts(config.model)
    own, held = config.generate, config.evaluate
    per_round = min(config.cycle.prompts_per_round, len(splits["train"]))
    new = own.max_new_tokens
    held_new = (held.max_new_tokens or new) * held.n
    sampled = per_round * own.n * new
    rewritten = new if config.critique.revise else 0
    critique = per_round * own.n * config.critique.passes * (config.critique.max_new_tokens + rewritten)
    hints = per_round * config.rationalise.n * new
    further = config.resample.max_tokens if config.resample.groups else 0
    each = new + config.critique.passes * (config.critique.max_new_tokens + new)
    looks = {"off": 0, "end": 1, "both": 2}[held.revise]
    revised = looks * len(splits["test"]) * each
    learning = sampled + critique + hints + further
    gate, test = len(splits["gate"]) * held_new, len(splits["test"]) * held_new
    rounds = config.cycle.rounds
    rows = per_round * own.n
    lines = [
        f"model          {config.model}",
        f"tasks          train {number(len(splits['train']))}, gate {number(len(splits['gate']))}, "
        f"test {number(len(splits['test']))}",
        f"a round        {number(per_round)} prompts x {own.n} samples = {number(rows)} answers",
        f"new tokens     at most {compact(learning + gate)} a round, "
        f"{compact(rounds * (learning + gate) + gate + 2 * test + revised)} in {rounds} rounds",
        f"disk           about {compact(rounds * rows * 4 * 2500)}B of rows at most"
        + (f", {compact(rounds * facts['adapter_bytes'])}B of adapters" if facts else ""),
    ]
    if facts:
        lines.append(
            f"memory         about {compact(facts['weights_bytes'] * 2 + facts['cache_bytes'])}B "
            f"(weights {compact(facts['weights_bytes'])}B, their copy beside a merged adapter, "
            f"key/value cache {compact(facts['cache_bytes'])}B)"
        )
    else:
        lines.append("memory         unknown: the model is not on this machine yet")
    return "\n".join(lines) + "\n"


def _model_facts(name: str) -> dict[str, Any] | None:
    """Sizes from the model's config.json, without torch; None when it is not at hand."""
    import json
    from pathlib import Path

    from selfrefine.engines import embedded

    folder = embedded.converted_dir() if name == embedded.NAME else Path(name)
    file = folder / "config.json"
    if not file.is_file():
        return None
    told = json.loads(file.read_text())
    told = told.get("text_config", told)
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    heads = told.get("num_key_value_heads") or told["num_attention_heads"]
    head = told.get("head_dim") or told["hidden_size"] // told["num_attention_heads"]
    per_token = 2 * 4 * told["num_hidden_layers"] * heads * head
    hidden, middle = told["hidden_size"], told.get("intermediate_size", 4 * told["hidden_size"])
    adapter = 4 * 16 * told["num_hidden_layers"] * (8 * hidden + 3 * (hidden + middle))
    return {"weights_bytes": weights, "cache_bytes": per_token * 49_152, "adapter_bytes": adapter}
