"""What a run folder says of itself: its manifest, its rounds' ends, what their stages cost."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct

from selfrefine.records import SCHEMA_VERSION, Count
from selfrefine.stats import Interval
from selfrefine.sums import Sums


class Cost(Sums, frozen=True, kw_only=True):
    """Tokens sampled (critiques, hints and revisions included), those of them that only measure, and those
    that an objective was computed on."""

    tokens: Count = 0
    measured_tokens: Count = 0
    trained_tokens: Count = 0

    @property
    def spent(self) -> int:
        """Sampled to learn from, and trained on. What measuring costs is the same for every method."""
        return self.tokens - self.measured_tokens + self.trained_tokens


class StageCost(Struct, frozen=True, kw_only=True):
    """What every stage's summary (NAME.json) has in common."""

    cost: Cost = Cost()


Outcome = Literal["accept", "undecided", "reject"]
SAID: dict[Outcome, str] = {"accept": "kept", "undecided": "undecided", "reject": "rolled back"}
"""What people read for an outcome."""


class GateDecision(Struct, frozen=True, kw_only=True):
    """Candidate against accepted policy on the gate tasks: accept, reject (go back), or undecided: training
    goes on from the candidate while the accepted policy stays what it is."""

    outcome: Outcome
    accepted: bool
    before: float | None
    after: float | None
    difference: float | None = None
    lo: float | None = None
    hi: float | None = None
    level: float | None = None
    """lo and hi enclose the difference with this confidence."""
    p_value: float | None = None
    """One-sided: how often two equal policies differ in the candidate's favour by as much."""
    alpha: float | None = None
    """What p_value had to reach in this round; null where the gate is off."""
    test: str = "none"
    n: Count
    """Tasks scored under both policies; of them `ties` did not change. `unscored` ones are left out."""
    ties: Count = 0
    unscored: Count = 0
    looks: Count = 0
    """How often the gate tasks have decided in this run, this time included."""
    reason: str


class Guard(Struct, frozen=True, kw_only=True):
    """A figure watched beside the main measure."""

    name: str
    value: float | None
    against: float | None = None
    """What it is compared with: that of the starting policy, the first round, or the accepted policy."""
    limit: float | None = None
    """The threshold it passed."""
    state: Literal["ok", "warn", "veto"] = "ok"
    reason: str | None = None
    """One sentence where it warns or vetoes, or why `value` is null."""


class RoundSummary(Struct, frozen=True, kw_only=True):
    """`round.json`: written last; its presence means the round is committed.

    What its stages came to stands in their own summaries (NAME.json), once.
    """

    index: Count
    policy_before: str
    """The policy this round sampled from."""
    policy_after: str
    """The policy the next round samples from."""
    cost: Cost = Cost()
    measures: dict[str, Interval] = {}
    """Split to its mean with an interval."""
    gate: GateDecision | None = None
    guards: tuple[Guard, ...] = ()
    probe: dict[str, dict[str, float | None]] = {}
    """What this round's policy still knows, by set of prompts: a row of the run's rounds x tasks matrix."""
    accepted_round: int = 0
    """The round whose adapter is the accepted policy after this one; 0 is the starting policy."""
    undecided_round: int | None = None
    """The round whose candidate training goes on from; null where it goes on from the accepted policy."""
    artifacts: dict[str, str] = {}
    """File name in the round's folder to sha256."""

    @property
    def decision(self) -> str:
        """`kept`, `undecided`, `rolled back`; `start` of round 0, and "" of a round without a gate."""
        if self.gate is not None:
            return SAID[self.gate.outcome]
        return "" if self.index else "start"


def decode_round(data: bytes) -> RoundSummary:
    """round.json, also of 0.1: `counts` held the cost, `measures` more than intervals.

    Raises: msgspec.DecodeError.
    """
    told = msgspec.json.decode(data, type=dict[str, Any])
    if "counts" in told:
        told["cost"] = {key: told["counts"].get(key, 0) for key in Cost.__struct_fields__}
        measures = told.get("measures", {})
        told["measures"] = {name: one for name, one in measures.items() if "mean" in one}
    return msgspec.convert(told, RoundSummary)


class FinalSummary(Struct, frozen=True, kw_only=True):
    """`final/summary.json`: the accepted policy on the test tasks."""

    after_round: Count
    """The last committed round when it was measured."""
    accepted_round: Count
    policy: str
    test: Interval
    test_reads: Count
    """How often the test split had been read by then."""


class RunManifest(Struct, frozen=True, kw_only=True):
    """`manifest.json`: what was asked. Never changes after the run is made."""

    schema_version: int = SCHEMA_VERSION
    name: str
    argv: tuple[str, ...]
    config: dict[str, Any]
    origins: dict[str, str]
    """Dotted key to `default`, `recipe`, `file` or `flag`: who decided it."""
    seeds: dict[str, int]
    git: dict[str, Any]
    packages: dict[str, str]
    model: dict[str, str]
    critic: dict[str, str] = {}
    """As `model`, where another model is the critic."""
    code: dict[str, str] = {}
    """Outside code that decides (a reward's file) to its sha256, plugins to distribution and version."""
    chat_template_sha256: str
    prompts: dict[str, str]
    tasks: dict[str, str]
    """Split name to sha256 of its frozen file."""
    device: str
    dtype: str
    threads: int
    token_budget: int
