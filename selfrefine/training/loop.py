"""The optimizer loop: seeded order, micro-batches by token budget, exact accumulation, checkpoints.

A resumed loop makes the same steps with the same numbers as one that was never interrupted: everything
random is seeded per step, and a checkpoint holds the adapter, Adam's moments and the log so far.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import msgspec
import torch
from msgspec import Struct
from safetensors.torch import load_file, save

from selfrefine import seeds
from selfrefine.compute.device import token_budget
from selfrefine.compute.forward import shares_rows
from selfrefine.config import TrainConfig
from selfrefine.errors import Interrupted, TrainingError
from selfrefine.memory import Memory, out_of_memory
from selfrefine.objectives.base import Batch, Item, ObjectiveKind, add_metrics
from selfrefine.training.entropy import EntropyMeter
from selfrefine.training.plan import longest_row, micro_batches, plan_steps, rate_at
from selfrefine.training.precomputed import baseline, policy_logprobs, tokens_of


class StepLog(Struct, frozen=True, kw_only=True):
    """A row of train.jsonl."""

    step: int
    loss: float
    lr: float
    grad_norm: float
    tokens: int
    items: int
    metrics: dict[str, float] = {}
    """What there is to tell of the step: `kl`, `clip_share`, `entropy`, `accuracy`, `ratio_max` …"""


class CheckpointStore(Protocol):
    """Where checkpoints go; `RoundDir` makes their replacement atomic."""

    def load(self) -> Path | None: ...
    def replace(self, build: Callable[[Path], None]) -> None: ...


def train(
    model: Any,
    items: Sequence[Item],
    objective: ObjectiveKind,
    settings: TrainConfig,
    seed: int,
    checkpoints: CheckpointStore,
    on_step: Callable[[StepLog, int], None],
    own: Any = None,
    memory: Memory | None = None,
) -> list[StepLog]:
    """Train the adapter of a PeftModel in place; a row per step. `own`: the objective's settings, or None.

    Where memory runs out the token budget is halved (`memory` keeps it) and the step begins again:
    accumulation is exact, so its gradient is the same.

    `on_step(row, total steps)` is called after each step and may raise to stop between steps.
    Raises: TrainingError on a non-finite loss or gradient; the weights are then those whose loss was finite.
    EngineError when a single row does not fit into memory.
    """
    memory = memory or Memory()
    settings = msgspec.structs.replace(
        settings,
        token_budget=token_budget(settings, model.device.type, longest_row(items)),
        lr=(peak := settings.lr or objective.learning_rate),
    )
    own = objective.settings() if own is None else own
    steps = plan_steps(items, settings, seed)
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=peak, betas=(0.9, 0.999), weight_decay=settings.weight_decay
    )
    good = _copies(parameters)
    log = _restore(checkpoints.load(), parameters, optimizer, good)
    step = partial(_step, model, list(parameters.values()), optimizer, objective, own=own, memory=memory)
    model.train()
    for index in range(len(log), len(steps)):
        rate = rate_at(index, len(steps), settings)
        for group in optimizer.param_groups:
            group["lr"] = rate
        chosen = [items[i] for i in steps[index]]
        now = _copies(parameters)
        attempt = partial(step, chosen, index=index, rate=rate)
        with _gone_back_to(good, parameters):
            row = _within_memory(
                attempt, model, chosen, settings, memory, seeds.derive(seed, "dropout", index)
            )
        optimizer.step()
        good = now
        log.append(row)
        store = partial(_store, parameters, optimizer, log, good)
        if (index + 1) % settings.checkpoint_steps == 0 and index + 1 < len(steps):
            checkpoints.replace(store)
        try:
            on_step(row, len(steps))
        except Interrupted:
            checkpoints.replace(store)
            raise
    model.eval()
    return log


@contextmanager
def _gone_back_to(good: Sequence[Any], parameters: dict[str, Any]) -> Iterator[None]:
    """Where a loss is bad the weights are what they were when the last one was good.

    It is the step before that broke them, where the rate was too high and not a row bad.
    """
    try:
        yield
    except TrainingError:
        for parameter, value in zip(parameters.values(), good, strict=True):
            parameter.data.copy_(value)
        raise


def _copies(parameters: dict[str, Any]) -> list[Any]:
    return [parameter.detach().clone() for parameter in parameters.values()]


def _within_memory(
    attempt: Callable[..., StepLog],
    model: Any,
    items: Sequence[Item],
    settings: TrainConfig,
    memory: Memory,
    dropout_seed: int,
) -> StepLog:
    """A step's gradient, under a smaller token budget when there is no memory for it. The optimizer's own
    update is not in `attempt`: half done, it could not be done again."""
    while True:
        budget = memory.tokens("training", settings.token_budget)
        # Dropout's stream depends on the step alone, so a resume draws what an uninterrupted run draws.
        torch.manual_seed(dropout_seed)
        try:
            return attempt(settings=msgspec.structs.replace(settings, token_budget=budget))
        except (RuntimeError, MemoryError) as error:
            if (why := out_of_memory(error)) is None:
                raise
        memory.halve(
            "training",
            settings.token_budget,
            partial(micro_batches, items, shared=shares_rows(model, list(map(tokens_of, items)))),
            why,
            "a single prompt and its answer do not fit: drop the longest rows, train fewer layers "
            "(train.lora.targets), or use a smaller --model",
        )


def _step(
    model: Any,
    parameters: list[Any],
    optimizer: Any,
    objective: ObjectiveKind,
    items: Sequence[Item],
    settings: TrainConfig,
    own: Any,
    index: int,
    rate: float,
    memory: Memory,
) -> StepLog:
    """The gradient of one step, clipped, and its row of the log."""
    optimizer.zero_grad(set_to_none=True)
    tokens = sum(len(item.completion_token_ids) for item in items)
    shared = shares_rows(model, list(map(tokens_of, items)))
    z0 = baseline(model, items, objective.step_baseline, settings.token_budget, memory)
    loss, metrics = 0.0, dict[str, float]()
    # Entropy tells of collapse where a policy learns from its own samples.
    on_policy = objective.needs_old_logprobs or objective.teacher is not None
    with EntropyMeter(active=on_policy) as entropy:
        for micro in micro_batches(items, settings.token_budget, shared=shared):
            part = [items[i] for i in micro]
            logprobs = policy_logprobs(model, part, objective)
            found = objective.loss(logprobs, Batch(part, len(items), tokens, own, z0))
            found.value.backward()
            loss += float(found.value.detach())
            add_metrics(metrics, found.metrics)
    metrics |= entropy.mean(tokens)
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, settings.clip or math.inf))
    if not (math.isfinite(loss) and math.isfinite(norm)):
        ids = ", ".join(item.id for item in items)
        raise TrainingError(
            f"step {index + 1}: the loss is {loss} and the gradient norm {norm}, so training stopped; "
            f"rows in the batch: {ids}. Lower train.lr, or check these rows."
        )
    return StepLog(
        step=index + 1,
        loss=loss,
        lr=rate,
        grad_norm=norm,
        tokens=tokens,
        items=len(items),
        metrics=metrics,
    )


def _store(
    parameters: dict[str, Any],
    optimizer: Any,
    log: Sequence[StepLog],
    good: Sequence[torch.Tensor],
    folder: Path,
) -> None:
    """`good`: the weights before the last step, which are gone back to when the next one's loss is bad."""
    tensors: dict[str, torch.Tensor] = {}
    for (name, parameter), before in zip(parameters.items(), good, strict=True):
        tensors[f"{name}/weight"] = parameter.detach().cpu().contiguous()
        tensors[f"{name}/good"] = before.cpu().contiguous()
        state = optimizer.state.get(parameter)
        if state is None:  # no gradient ever reached it (an expert that was not routed to)
            continue
        tensors[f"{name}/step"] = state["step"].cpu()
        tensors[f"{name}/exp_avg"] = state["exp_avg"].cpu().contiguous()
        tensors[f"{name}/exp_avg_sq"] = state["exp_avg_sq"].cpu().contiguous()
    # Not save_file: on a full disk that raises an error of its own, which nobody would take for one.
    (folder / "state.safetensors").write_bytes(save(tensors))
    (folder / "log.jsonl").write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in log))
    (folder / "checkpoint.json").write_text(json.dumps({"steps": len(log)}) + "\n")


def _restore(
    folder: Path | None, parameters: dict[str, Any], optimizer: Any, good: Sequence[torch.Tensor]
) -> list[StepLog]:
    if folder is None:
        return []
    lines = (folder / "log.jsonl").read_bytes().splitlines()
    log = [msgspec.json.decode(line, type=StepLog) for line in lines]
    tensors = load_file(folder / "state.safetensors")
    with torch.no_grad():
        for (name, parameter), before in zip(parameters.items(), good, strict=True):
            parameter.copy_(tensors[f"{name}/weight"])
            before.copy_(tensors[f"{name}/good"])
            if f"{name}/exp_avg" not in tensors:
                continue
            optimizer.state[parameter] = {
                "step": tensors[f"{name}/step"],
                "exp_avg": tensors[f"{name}/exp_avg"].to(parameter.device),
                "exp_avg_sq": tensors[f"{name}/exp_avg_sq"].to(parameter.device),
            }
    return log
