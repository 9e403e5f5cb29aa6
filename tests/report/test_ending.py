"""How a cycle ends, and what it says to type next: never what would end at once."""

from __future__ import annotations

from typing import Any

import pytest

from selfrefine.config import CycleConfig
from selfrefine.runfolder.ends import going_on, stop
from selfrefine.runfolder.summaries import Cost, GateDecision, RoundSummary
from selfrefine.stats import Interval


def rounds(*outcomes: Any, gate: float = 0.5, tokens: int = 100) -> list[RoundSummary]:
    """The baseline, and a round for each outcome; each of `tokens`, the accepted policy at `gate`."""
    found = []
    for k, outcome in enumerate((None, *outcomes)):
        decision = outcome and GateDecision(
            outcome=outcome, accepted=outcome == "accept", before=0.0, after=0.0, n=8, reason=""
        )
        found.append(
            RoundSummary(
                index=k,
                policy_before="a",
                policy_after="b",
                cost=Cost(tokens=tokens),
                measures={"gate": Interval(mean=gate, lo=None, hi=None, n=8)},
                gate=decision,
            )
        )
    return found


ENDS: dict[str, tuple[dict[str, Any], list[RoundSummary], str, list[str] | None]] = {
    "one round": ({"rounds": 1}, rounds("accept"), "1 round done", ["--rounds", "2"]),
    "three rounds": (
        {"rounds": 3},
        rounds("accept", "accept", "reject"),
        "3 rounds done",
        ["--rounds", "4"],
    ),
    # The run was extended before: what is done counts.
    "extended": ({"rounds": 1}, rounds(*["accept"] * 4), "4 rounds done", ["--rounds", "5"]),
    # Its default of two: `--rounds 4` was advised, and ended at once.
    "patience": (
        {"rounds": 3},
        rounds("reject", "reject"),
        "no improvement in the last 2 rounds (patience 2)",
        None,
    ),
    "patience of one": (
        {"rounds": 9, "patience": 1},
        rounds("accept", "reject"),
        "no improvement in the last round (patience 1)",
        None,
    ),
    # The rounds are the reason, but patience would be the next.
    "rounds and patience": ({"rounds": 2}, rounds("reject", "reject"), "2 rounds done", None),
    "until": (
        {"rounds": 3, "until": 0.5},
        rounds("accept", gate=0.51),
        "gate target reached: 0.510 of 0.5",
        None,
    ),
    "rounds, until and tokens": (
        {"rounds": 1, "until": 0.2, "max_tokens": 150},
        rounds("accept"),
        "1 round done",
        None,
    ),
    "tokens": (
        {"rounds": 9, "max_tokens": 40_000},
        rounds("accept", "accept", tokens=14_400),
        "token budget reached: 43,200 of 40,000",
        None,
    ),
    "minutes": ({"rounds": 9, "max_minutes": 30.0}, rounds("accept"), "time limit reached: 30 min", []),
    "measured only": ({"rounds": 0}, rounds(), "0 rounds done", None),
}


@pytest.mark.parametrize("what", ENDS)
def test_an_end_says_why_and_how_to_go_on(what: str) -> None:
    settings, done, said, flags = ENDS[what]
    config = CycleConfig(**settings)
    ends = stop(config, done, elapsed_s=1801.0)
    assert ends == said
    assert going_on(config, done) == flags


@pytest.mark.parametrize("what", [name for name, (*_, flags) in ENDS.items() if flags])
def test_the_flags_begin_another_round(what: str) -> None:
    settings, done, _, flags = ENDS[what]
    assert flags is not None
    assert stop(CycleConfig(**settings | {"rounds": int(flags[1])}), done) is None
