"""What a benchmark leaves behind; `results.json` holds these and `RESULTS.md` is made from nothing else."""

from __future__ import annotations

from msgspec import Struct

from benchmarks.compare import Ratio
from benchmarks.machine import Machine


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


class Row(Struct, frozen=True, kw_only=True):
    """A line of the table of comparisons. share: useful FLOPs over the measured matrix-product rate;
    packed_share: over that of the same product through oneDNN."""

    name: str
    work: str
    against: str
    at_least: float
    aim_for: float | None
    ratio: Ratio
    repeats: int
    runs: str | None = None
    """How often each side ran, where it was not in `repeats` pairs."""
    ours: str
    peer: str
    share: float | None = None
    peer_share: float | None = None
    packed_share: float | None = None
    packed_peer_share: float | None = None
    share_aim: float | None = None
    notes: tuple[str, ...] = ()


class Table(Struct, frozen=True, kw_only=True):
    title: str
    text: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Section(Struct, frozen=True, kw_only=True):
    """Everything one benchmark has to say, and how long it took to find out."""

    name: str
    rows: tuple[Row, ...] = ()
    tables: tuple[Table, ...] = ()
    product_rate: float
    """FLOP/s of the large float32 product in this benchmark's own process: median of before and after."""
    packed_rate: float | None = None
    """The same product through oneDNN with packed weights; null where torch was built without it."""
    seconds: float
    quick: bool = False
    code: str = ""
    """What was measured: the beginning of a hash of our sources."""


class Results(Struct, frozen=True, kw_only=True):
    machine: Machine
    model: str
    sections: tuple[Section, ...] = ()
