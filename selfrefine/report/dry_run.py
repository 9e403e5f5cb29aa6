"""`--dry-run`: what a cycle would do at most. Reads tasks, loads no weights, writes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from selfrefine.config import Config
from selfrefine.judging import MODELS
from selfrefine.records import Task
from selfrefine.reflection import causes, rules
from selfrefine.report import footprint
from selfrefine.report.words import number, size
from selfrefine.rewards.p_true import QUESTION
from selfrefine.stages.prepare import make_splits, run_prompts
from selfrefine.stages.settings import most_written
from selfrefine.words import count

TEMPLATE_TOKENS = 64
"""For what a chat template puts around a prompt."""


def plan(config: Config, splits: dict[str, list[Task]] | None = None) -> str:
    """Batches, tokens, disk and memory at most, as text. `splits`: those of a run that is there.

    Raises: ConfigError, DataError for its tasks.
    """
    splits = splits or make_splits(config)
    own, held = config.generate, config.evaluate
    written = most_written(config)
    per_round = min(config.cycle.prompts_per_round, len(splits["train"]) + written)
    held_new = (held.max_new_tokens or own.max_new_tokens) * (held.best_of or held.n)
    planned = config.reflect.plan == "auto"
    new = max(own.max_new_tokens, held.max_new_tokens or 0) if planned else own.max_new_tokens
    n = own.n * rules.MOST_SAMPLES if planned else own.n
    sampled = per_round * n * new
    rewritten = new if config.critique.revise else 0
    writing = sum(who in MODELS for who in config.critique.asked) * config.critique.max_new_tokens
    critique = per_round * n * config.critique.passes * (writing + rewritten)
    hints = per_round * max(config.rationalise.n, rules.RATIONALISED if planned else 0) * new
    hints += _reflection(config, new)
    further = config.resample.max_tokens if config.resample.groups else 0
    told = config.critique.max_new_tokens if held.critic == "model" else writing
    each = new + config.critique.passes * (told + new)
    looks = {"off": 0, "end": 1, "both": 2}[held.revise]
    revised = looks * len(splits["test"]) * each
    proposing = config.propose.n * config.propose.max_new_tokens
    learning = sampled + critique + hints + further + proposing
    gate, test = len(splits["gate"]) * held_new, len(splits["test"]) * held_new
    rounds = config.cycle.rounds
    rows = per_round * n
    folder = _folder(config.model)
    model = footprint.shape(folder, _element_bytes()) if folder else None
    adapter = 4 * model.adapter_parameters(config.train.lora.r) if model else 0
    lines = [
        f"model          {config.model}",
        f"tasks          train {number(len(splits['train']))}, gate {number(len(splits['gate']))}, "
        f"test {number(len(splits['test']))}",
        f"per round      {count(per_round, 'prompt')} × {count(own.n, 'sample')} = "
        f"{count(per_round * own.n, 'answer')}"
        + (f", up to {rules.MOST_SAMPLES} times as many by plan" if planned else ""),
        *_written(config, written),
        f"new tokens     at most {number(learning + gate)} per round, "
        f"{number(rounds * (learning + gate) + gate + 2 * test + revised)} in all "
        f"({count(rounds, 'round')})",
        *_compared(config, critique, looks * len(splits["test"]) * (each - new)),
    ]
    disk = {"rows": rounds * (rows * 4 + 3 * config.propose.n) * 2500, "adapters": rounds * adapter}
    if any(disk.values()):
        parts = (f"{size(space)} of {what}" for what, space in disk.items() if space)
        lines.append(f"disk           at most about {', '.join(parts)}")
    if model and folder:
        lines += _memory(config, model, _load(config, splits, _counter(folder), rows))
    else:
        elsewhere = {"scripted": "none for a scripted model", "openai": "none here: the model is on a server"}
        unknown = "unknown: the model is not on this machine yet"
        known = elsewhere.get(config.model.partition(":")[0], unknown)
        lines.append(f"memory         {known}")
    return "\n".join(lines) + "\n"


def _written(config: Config, most: int) -> list[str]:
    """Of the tasks that the policy writes itself."""
    if not config.propose.n:
        return []
    texts = count(config.propose.n, "text")
    return [f"               {texts} to become tasks, of which up to {number(most)} are answered"]


def _compared(config: Config, round_tokens: int, measured: int) -> list[str]:
    """Of the fresh samples that a critique is compared with, which cost as much again for each way to draw
    them: their number is known when critiques and revisions are."""
    own, cooler = config.critique, config.critique.revision_temperature
    if not (own.passes and own.revise):
        return []
    ways = 1 if cooler is None or cooler == config.generate.temperature else 2
    per_round, measured = ways * round_tokens * own.control, ways * measured
    if not (per_round * config.cycle.rounds or measured):
        return []
    return [
        f"comparison     fresh samples for about {number(per_round)} more per round, "
        f"{number(config.cycle.rounds * per_round + measured)} in all"
    ]


def _reflection(config: Config, new: int) -> int:
    """Tokens at most, per round, for what a reflection tries on training tasks and asks of the critic."""
    own = config.reflect
    tried = own.hint_tasks * (1 + own.hints) * new if own.plan == "auto" and own.hints else 0
    asked = causes.MOST * causes.SAMPLING.max_new_tokens if own.plan != "off" and own.causes else 0
    return tried + asked


def _memory(config: Config, model: footprint.Shape, load: footprint.Load) -> list[str]:
    """The estimate and its parts: what is always there, and on top of it whichever work takes more."""
    from selfrefine.compute.device import BUDGETS, SLACK, pick_device

    device = pick_device()
    budget = BUDGETS[device]
    room = footprint.Room(
        rows=budget.rows, slots=budget.tokens, slack=SLACK, prefill_tokens=budget.prefill_tokens
    )
    always = footprint.resident(model)
    parts = {
        "always": always,
        "sampling": footprint.merged_copy(model) | footprint.sampling(model, load, room),
    }
    if config.cycle.rounds:
        parts["training"] = footprint.training(model, load)
    most = footprint.peak(always) + max(
        footprint.peak(own) for name, own in parts.items() if name != "always"
    )
    larger = "sampling or training, whichever needs more" if config.cycle.rounds else "sampling"
    lines = [f"memory         at most about {size(most)} on {device}: what is always there, plus {larger}"]
    for name, own in parts.items():
        shown = ", ".join(f"{what} {size(space)}" for what, space in own.items() if space)
        lines.append(f"  {name:<12} {size(footprint.peak(own))}: {shown}")
    return lines


def _load(
    config: Config, splits: dict[str, list[Task]], length: Callable[[str], int], rows: int
) -> footprint.Load:
    """The longest prompt there may be and the most new tokens: of answers, critiques and revisions."""
    from selfrefine.compute.device import pick_device, token_budget

    tasks = [task for own in splits.values() for task in own]
    system = length(config.generate.system or "") + TEMPLATE_TOKENS
    prompts = [system + sum(length(message.content) for message in task.prompt) for task in tasks]
    new = max(config.generate.max_new_tokens, config.evaluate.max_new_tokens or 0)
    longest = max(prompts, default=TEMPLATE_TOKENS)
    trained = longest
    if own := config.critique.passes and config.critique:
        written = max(map(length, run_prompts(config).values()))
        longest += written + config.generate.max_new_tokens + own.max_new_tokens
        new = max(new, own.max_new_tokens)
        trained = longest if config.select.learn != "answers" else trained
    if config.propose.n:
        asked = length(run_prompts(config)["propose.md"]) + config.propose.examples * max(prompts, default=0)
        longest, new = max(longest, system + asked), max(new, config.propose.max_new_tokens)
        trained = max(trained, longest) if config.propose.learn else trained
    if config.select.learn == "verdicts":  # the answer stands in the prompt, and the question after it
        trained += config.generate.max_new_tokens + length(QUESTION)
    # A step is cut into micro-batches of the token budget, and is often smaller than one.
    chosen = config.select.max_per_prompt or (
        1 if config.select.strategy == "best-of-n" else config.generate.n
    )
    return footprint.Load(
        longest_prompt=longest,
        trained_prompt=trained,
        answers=max(rows, *(len(splits[name]) * config.evaluate.n for name in ("gate", "test"))),
        # Fewest: what is measured or criticised has a prompt for each row, and those are prefilled together.
        samples=1 if config.critique.passes else min(config.generate.n, config.evaluate.n),
        new_tokens=new,
        trained_tokens=min(
            token_budget(config.train, pick_device(), trained + new),
            config.train.batch_size * (trained + new),
        ),
        completions=chosen,
        lora_rank=config.train.lora.r,
    )


def _counter(folder: Path) -> Callable[[str], int]:
    """Tokens of a text; its bytes, which are never fewer, for a tokenizer that is not in one file."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        return lambda text: len(text.encode())
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def _element_bytes() -> int:
    """Weights are bf16 on CUDA and float32 elsewhere, as `engines.load` has it."""
    from selfrefine.compute.device import pick_device

    return 2 if pick_device() == "cuda" else 4


def _folder(name: str) -> Path | None:
    """Where the model's files are; None when it is not at hand."""
    from selfrefine.engines import embedded

    folder = embedded.converted_dir() if name == embedded.NAME else Path(name).expanduser()
    return folder if (folder / "config.json").is_file() else None
