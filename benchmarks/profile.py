"""Where the remaining time goes: a sampling batch and a training step under torch's profiler, by kind."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from benchmarks import rows, sampling, training, work
from benchmarks.context import Context
from benchmarks.records import Section, Table, percent
from benchmarks.sampling import Job

KINDS = ("matrix products", "attention", "head", "elementwise and copies", "Python and the rest")
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "matmul", "linear", "_linear_pointwise", "_mkl_linear")
ATTENTION = "scaled_dot_product"


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """Self time of one operator with one set of input shapes."""

    name: str
    shapes: tuple[tuple[int, ...], ...]
    seconds: float


def profiles(context: Context) -> Section:
    training.quiet()
    context.measure_product()
    engine = context.engine
    vocabulary = engine.model.config.vocab_size
    prompts = work.demo_prompts(engine, 4 if context.quick else 64)
    job = Job(n=4, max_new_tokens=2 if context.quick else 8, fixed=True)

    def sample(start: Mark, stop: Mark) -> None:
        start()
        sampling.ours(engine, prompts, job, 0)
        stop()

    step = rows.sft_rows(context, 8)[: rows.sft_settings(context, 8).batch_size]
    sampled = profile(sample, vocabulary)
    trained = profile(lambda start, stop: training.second_step(engine, step, start, stop), vocabulary)
    context.say("both profiled")
    body = tuple((kind, percent(sampled[0][kind]), percent(trained[0][kind])) for kind in KINDS)
    shares = Table(
        title="Where the time goes",
        text=f"Shares of wall time: {len(prompts)} prompts × {job.n} samples, {job.max_new_tokens} new "
        f"tokens each, and one training step of {len(step)} completions, 8 per prompt. Operators are timed "
        "by torch's profiler; the rest of the time that the same work takes without the profiler counts as "
        f"Python and the rest. Without the profiler: {sampled[1]:.2f} s and {trained[1]:.2f} s; with it: "
        f"{sampled[2]:.2f} s and {trained[2]:.2f} s.",
        head=("kind", "sampling", "training step"),
        rows=body,
    )
    return context.section(tables=(shares, _top(sampled[3], trained[3])))


Mark = Callable[[], None]
Work = Callable[[Mark, Mark], None]
"""Calls the first mark where the part that counts begins, and the second where it ends."""
Profile = tuple[dict[str, float], float, float, list[Spent]]
"""(share by kind, seconds without the profiler, seconds with it, operators)."""


def profile(run: Work, vocabulary: int) -> Profile:
    """Runs it twice: for the time it takes, which also warms up, and for the operators."""
    plain = 0.0

    def start() -> None:
        nonlocal plain
        plain = -time.perf_counter()

    def stop() -> None:
        nonlocal plain
        plain += time.perf_counter()

    run(start, stop)
    spent, traced = operators(run)
    return shares(spent, plain, vocabulary), plain, traced, spent


def operators(run: Work) -> tuple[list[Spent], float]:
    """Operators with the time spent in themselves, and the wall time of the part between the marks."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as torch_profile

    record: Any = torch_profile(activities=[ProfilerActivity.CPU], record_shapes=True)
    marks: list[float] = []

    def start() -> None:
        record.start()
        marks.append(time.perf_counter())

    def stop() -> None:
        marks.append(time.perf_counter())
        record.stop()

    run(start, stop)
    events: Any = record.key_averages(group_by_input_shape=True)
    spent = [
        Spent(name=e.key, shapes=_shapes(e.input_shapes), seconds=e.self_cpu_time_total / 1e6) for e in events
    ]
    return spent, marks[1] - marks[0]


def _shapes(found: Iterable[Any]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(shape) for shape in found if isinstance(shape, list | tuple) and _flat(shape))


def _flat(shape: Iterable[Any]) -> bool:
    return all(isinstance(size, int) for size in shape)


def kind_of(operator: Spent, vocabulary: int) -> str:
    """A product or an elementwise pass over the vocabulary is the head's (the draw included)."""
    name = operator.name.rpartition("::")[2]
    if ATTENTION in name:
        return "attention"
    if "::" not in operator.name and not operator.name.startswith("autograd"):
        return "Python and the rest"
    if any(vocabulary in shape for shape in operator.shapes):
        return "head"
    return "matrix products" if name in PRODUCTS else "elementwise and copies"


def shares(spent: Iterable[Spent], seconds: float, vocabulary: int) -> dict[str, float]:
    """Each kind's share of `seconds`; they add up to 1. What the operators do not account for is Python."""
    sums = dict.fromkeys(KINDS, 0.0)
    for operator in spent:
        sums[kind_of(operator, vocabulary)] += operator.seconds
    rest = "Python and the rest"
    counted = sum(value for kind, value in sums.items() if kind != rest)
    whole = max(seconds, counted)  # the profiler's own cost can make the operators exceed the plain time
    found = {kind: value / whole for kind, value in sums.items()}
    found[rest] = (whole - counted) / whole
    return found


def _top(*profiles_: list[Spent]) -> Table:
    columns = []
    for spent in profiles_:
        by_name: dict[str, float] = {}
        for operator in spent:
            by_name[operator.name] = by_name.get(operator.name, 0.0) + operator.seconds
        top = sorted(by_name.items(), key=lambda item: -item[1])[:8]
        columns.append([f"`{name.partition('<')[0][:64]}` {seconds:.2f} s" for name, seconds in top])
    height = min(map(len, columns))
    return Table(
        title="Slowest operators",
        text="Self time, including the profiler's overhead.",
        head=("sampling", "training step"),
        rows=tuple(tuple(column[i] for column in columns) for i in range(height)),
    )
