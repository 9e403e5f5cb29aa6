"""A run's figures as points: series, step, value, wall time. Pure; `reading.py` reads the files.

A figure that could not be computed is no point: a tracker would draw it as a number. Names of rewards, guards
and metrics may be somebody's; in a series they keep the characters that every tracker takes.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from msgspec import Struct

from selfrefine.runfolder.order import titled
from selfrefine.runfolder.summaries import Cost, FinalSummary, RoundSummary
from selfrefine.stats import Difference, Interval

Axis = Literal["round", "step"]
Key = tuple[str, int, str]

DECISIONS = {"accept": 1.0, "undecided": 0.0, "reject": -1.0}


class Point(Struct, frozen=True, kw_only=True):
    """One value of one series."""

    series: str
    """`gate/mean`, `train/loss`, `guard/length`; a name of texts, as `decision`."""
    axis: Axis
    step: int
    """The round from 0, or the optimizer step from 1, counted through all rounds."""
    value: float | str
    time: float
    """Seconds since 1970 in UTC."""

    @property
    def key(self) -> Key:
        """What it is a point of: a run has one with this key. A round can have several texts of a series."""
        return self.series, self.step, self.value if isinstance(self.value, str) else ""


def of_round(summary: RoundSummary, spent: Cost, time: float) -> Iterator[Point]:
    """What round.json says. `spent`: the cost of all rounds up to this one, this one included."""
    k = summary.index
    for split, measured in summary.measures.items():
        yield from _interval(name(split), measured, k, time)
    if (gate := summary.gate) is not None:
        figures = {
            "difference": gate.difference,
            "difference_lo": gate.lo,
            "difference_hi": gate.hi,
            "p_value": gate.p_value,
            "decision": DECISIONS[gate.outcome],
        }
        yield from _numbers("gate", figures, "round", k, time)
        yield _text("decision", f"{gate.outcome}: {gate.reason}", k, time)
    cost = summary.cost
    tokens = {"sampled": cost.tokens, "measured": cost.measured_tokens, "trained": cost.trained_tokens}
    yield from _numbers("tokens", tokens | {"spent_so_far": spent.spent}, "round", k, time)
    yield from _numbers("run", {"accepted_round": summary.accepted_round}, "round", k, time)
    for guard in summary.guards:
        yield from _numbers("guard", {guard.name: guard.value}, "round", k, time)
        if guard.state != "ok":
            yield _text("guards", f"{guard.name} {guard.state}: {guard.reason}", k, time)


def of_stage(file: str, figures: Mapping[str, Any], k: int, time: float) -> Iterator[Point]:
    """Every number of a stage's summary, `file`.json, but for its cost and a mean that round.json has too."""
    told = {key: value for key, value in figures.items() if key not in ("cost", "mean")}
    yield from _numbers(titled(file), dict(_flat(told)), "round", k, time)


def of_training(rows: Iterable[Mapping[str, Any]], before: int, time: float) -> Iterator[Point]:
    """train.jsonl; `before` optimizer steps were made in earlier rounds. All have the `time` at which the
    training was done: steps are not timed one by one."""
    for row in rows:
        figures = {key: value for key, value in row.items() if key not in ("step", "metrics")}
        figures |= row.get("metrics") or {}
        yield from _numbers("train", figures, "step", before + int(row["step"]), time)


def of_event(event: Mapping[str, Any], k: int, time: float) -> Iterator[Point]:
    """Alarms, warnings, and what interrupted the run; `k` is the round that was going on."""
    kind = event.get("kind")
    if kind == "alarm":
        what = str(event.get("alarm"))
        yield from _numbers("alarm", {what: event.get("value")}, "round", k, time)
        figures = f"{event.get('value')} (limit {event.get('limit')})"
        yield _text("alarms", f"{event.get('stage')} {what}: {figures}", k, time)
    elif kind == "warning":
        yield _text("warnings", str(event.get("reason")), k, time)
    elif kind in ("failed", "drift", "plan-change", "history-lost"):
        told = {key: value for key, value in event.items() if key not in ("time", "kind")}
        yield _text("events", f"{kind} {told}", k, time)


def of_end(final: FinalSummary, gain: Difference | None, time: float) -> Iterator[Point]:
    """A final measurement, at the last round before it."""
    yield from _interval("test", final.test, final.after_round, time)
    if gain is not None:
        figures = {"gain": gain.mean, "gain_lo": gain.lo, "gain_hi": gain.hi}
        yield from _numbers("test", figures, "round", final.after_round, time)


def name(text: str) -> str:
    """A part of a series' name. Where characters have to go, a hash keeps two names apart."""
    kept = re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip("._-")[:60]
    if kept and kept == text:
        return kept
    return f"{kept or 'x'}-{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:4]}"


def _interval(series: str, found: Interval, k: int, time: float) -> Iterator[Point]:
    yield from _numbers(
        series, {"mean": found.mean, "lo": found.lo, "hi": found.hi, "tasks": found.n}, "round", k, time
    )


def _numbers(group: str, figures: Mapping[str, Any], axis: Axis, step: int, time: float) -> Iterator[Point]:
    for key, value in figures.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            series = f"{group}/{name(key)}"
            yield Point(series=series, axis=axis, step=step, value=float(value), time=time)


def _text(series: str, value: str, k: int, time: float) -> Point:
    return Point(series=series, axis="round", step=k, value=value, time=time)


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat({k: v for k, v in item.items() if k != "cost"}, f"{prefix}{key}.")
        else:
            yield prefix + key, item
