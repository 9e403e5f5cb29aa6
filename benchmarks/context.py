"""What every benchmark is given, and the arithmetic they share."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from benchmarks import machine, work
from benchmarks.compare import Compared
from benchmarks.records import Row, Section, Table
from selfrefine.engines.local import LocalEngine

T = TypeVar("T")

QUICK = " (test run of a tiny job instead)"

FLOPS_SAMPLED, FLOPS_TRAINED = 2, 4
"""Per parameter and useful token: forward only; forward and the gradients of activations."""


@dataclass
class Context:
    """What the benchmarks of one process share: models are loaded when first asked for."""

    model: str
    threads: int
    quick: bool
    search: bool = False
    """Try the peers' settings one by one; else the best of docs/performance-log.md is taken."""
    minutes: float = math.inf
    """What all benchmarks together may take; the tables leave out what would pass it."""
    name: str = ""
    _kept: dict[str, Any] = field(default_factory=dict)
    _rates: list[float] = field(default_factory=list)
    _packed: list[float | None] = field(default_factory=list)
    _begun: float = field(default_factory=time.perf_counter)
    _created: float = field(default_factory=time.perf_counter)

    def begin(self, name: str) -> None:
        self.name, self._begun = name, time.perf_counter()
        self._rates.clear()
        self._packed.clear()

    @property
    def out_of_time(self) -> bool:
        return time.perf_counter() - self._created > self.minutes * 60

    def once(self, key: str, make: Callable[[], T]) -> T:
        """What `make` gave the first time it was asked for under this key."""
        if key not in self._kept:
            self._kept[key] = make()
        found: T = self._kept[key]
        return found

    @property
    def engine(self) -> LocalEngine:
        return self.once("engine", lambda: work.load(self.model))

    @property
    def plain(self) -> Any:
        """The peer's model: the same weights, loaded by transformers and touched by nobody else."""
        return self.once("plain", lambda: work.load_plain(self.model))

    def say(self, line: str) -> None:
        print(f"{time.perf_counter() - self._begun:5.0f} s  {self.name}: {line}", file=sys.stderr, flush=True)

    def measure_product(self) -> float:
        """The matrix-product rate now; the median of all measurements is what shares are taken of."""
        seconds = 0.1 if self.quick else 0.7
        self._rates.append(machine.product_rate(seconds))
        self._packed.append(machine.packed_rate(seconds))
        return self.product_rate

    @property
    def product_rate(self) -> float:
        return statistics.median(self._rates)

    @property
    def packed_rate(self) -> float | None:
        packed = [rate for rate in self._packed if rate is not None]
        return statistics.median(packed) if packed else None

    def share(self, tokens_per_s: float, flops_per_parameter: int) -> float:
        """Useful FLOPs as a share of the matrix-product rate."""
        return tokens_per_s * flops_per_parameter * work.parameters(self.plain) / self.product_rate

    def packed_share(self, share: float) -> float | None:
        """The same of oneDNN's rate."""
        return None if self.packed_rate is None else share * self.product_rate / self.packed_rate

    def section(self, rows: tuple[Row, ...] = (), tables: tuple[Table, ...] = ()) -> Section:
        return Section(
            name=self.name,
            rows=rows,
            tables=tables,
            product_rate=self.product_rate,
            packed_rate=self.packed_rate,
            seconds=time.perf_counter() - self._begun,
            quick=self.quick,
            code=machine.sources(),
        )

    def throughput_row(
        self, goal: Goal, compared: Compared, flops_per_parameter: int, notes: tuple[str, ...]
    ) -> Row:
        """The row of a comparison of rates. Measures the product once more, behind the work."""
        self.measure_product()
        share, peer_share = (
            self.share(rate, flops_per_parameter) for rate in (compared.our_rate, compared.peer_rate)
        )
        return Row(
            name=self.name,
            work=goal.work + (QUICK if self.quick else ""),
            against=goal.against,
            at_least=goal.at_least,
            aim_for=goal.aim_for,
            share_aim=goal.share_aim,
            ratio=compared.ratio,
            repeats=len(compared.ours),
            ours=f"{compared.our_rate:,.0f} tokens/s",
            peer=f"{compared.peer_rate:,.0f} tokens/s",
            share=share,
            peer_share=peer_share,
            packed_share=self.packed_share(share),
            packed_peer_share=self.packed_share(peer_share),
            notes=notes,
        )


@dataclass(frozen=True)
class Goal:
    """What a row is to show: ratios, and a share of the matrix-product rate where one is aimed for."""

    work: str
    against: str
    at_least: float
    aim_for: float
    share_aim: float | None = None


Benchmark = Callable[[Context], Section]
