"""Peak memory of the epoch with 8 completions per prompt: each side alone in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import machine, rows, training, work
from benchmarks.compare import ratio
from benchmarks.context import QUICK, Context
from benchmarks.records import Row, Section
from selfrefine.compute.device import token_budget
from selfrefine.compute.forward import by_budget
from selfrefine.config import TrainConfig
from selfrefine.records import Sample

GIB = 2**30


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a child process is to do."""

    side: str
    model: str
    threads: int
    settings: TrainConfig
    cut: training.Setting
    steps: int = -1
    samples: tuple[Sample, ...]
    """For the peer: in the order of `same_steps`."""


class Peak(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes: resident with the model loaded and the libraries imported, and the peak of the process."""

    loaded: int
    peak: int


def peak_memory(context: Context) -> Section:
    training.quiet()
    made, settings = rows.sft_rows(context, 8), rows.sft_settings(context, 8)
    context.measure_product()
    peer, (best, _) = rows.trainer(context, 8), rows.best_cut(context, 8)
    order = Order(
        side="ours",
        model=context.model,
        threads=context.threads,
        settings=settings,
        cut=best,
        samples=tuple(made),
    )
    other = msgspec.structs.replace(order, side="peer", samples=tuple(peer.rows))
    ours = run_child(order)
    context.say(f"ours: {ours.peak / GIB:.2f} GiB")
    pairs = [(row.prompt_token_ids or (), row.token_ids) for row in made]
    budget = token_budget(settings, "cpu", max(len(prompt) + len(answer) for prompt, answer in pairs))
    passes = len(by_budget(pairs, budget))
    equal = training.Setting(rows=round(len(pairs) / passes), padding_free=False)
    found = []
    for cut, why in ((best, "its fastest"), (equal, "as many rows per pass as ours on average")):
        theirs = run_child(msgspec.structs.replace(other, cut=cut))
        context.say(f"SFTTrainer, {cut}: {theirs.peak / GIB:.2f} GiB")
        note = f"Our token budget is {budget:,} per forward pass: {passes} passes for {len(pairs)} rows."
        what = "peak memory of that last epoch"
        found.append(_row(context, what, f"the same: {cut}, {why}", ours, theirs, note))
    return context.section(tuple(found))


def _row(context: Context, what: str, against: str, ours: Peak, theirs: Peak, note: str) -> Row:
    over, their_over = max(1, ours.peak - ours.loaded), theirs.peak - theirs.loaded
    return Row(
        name=context.name,
        work=what + (QUICK if context.quick else ""),
        against=against,
        at_least=2.0,
        aim_for=3.0,
        ratio=ratio([1 / ours.peak], [1 / theirs.peak]),
        repeats=1,
        ours=f"{ours.peak / GIB:.2f} GiB",
        peer=f"{theirs.peak / GIB:.2f} GiB",
        notes=(
            "VmHWM, each side in its own process, nothing subtracted. Above the memory with the model loaded "
            f"({ours.loaded / GIB:.2f} and {theirs.loaded / GIB:.2f} GiB): {over / GIB:.2f} and "
            f"{their_over / GIB:.2f} GiB, ratio {their_over / over:.2f}.",
            note,
        ),
    )


def run_child(order: Order) -> Peak:
    """Raises: RuntimeError with what the child said."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "order.json"
        file.write_bytes(msgspec.json.encode(order))
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.memory", str(file)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": str(order.threads)},
            cwd=Path(__file__).parent.parent,
        )
    if done.returncode:
        raise RuntimeError(f"the process of {order.side} failed: {done.stderr.strip().splitlines()[-1:]}")
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Peak)


def child(order: Order) -> Peak:
    """One epoch of one side. The trainer gets the model itself here, not a copy of it."""
    import torch

    torch.set_num_threads(order.threads)
    training.quiet()
    if order.side == "ours":
        engine = work.load(order.model)
        loaded = _resident(engine.model)
        training.ours(engine, order.samples, order.settings)
    else:
        import trl

        assert trl.SFTTrainer  # lazy modules: what it costs to import belongs to the baseline
        model, tokenizer = work.load_plain(order.model), work.load_tokenizer(order.model)
        loaded = _resident(model)
        peer = training.Peer(model, tokenizer, order.samples, order.settings, copies=False)
        peer.train(order.cut, steps=order.steps)
    return Peak(loaded=loaded, peak=machine.peak_bytes())


def _resident(model: Any) -> int:
    """Bytes held once every weight was read: loading only maps the file into memory."""
    for parameter in model.parameters():
        parameter.sum()
    return machine.resident_bytes()


def main(file: str) -> None:
    peak = child(msgspec.json.decode(Path(file).read_bytes(), type=Order))
    print(json.dumps(msgspec.to_builtins(peak)))


if __name__ == "__main__":
    main(sys.argv[1])
