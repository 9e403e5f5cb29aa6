"""The rounds x tasks matrix and the guards' figures, as `runs show` has them."""

from __future__ import annotations

import io

from rich.console import Group

from selfrefine.report.console import make_console
from selfrefine.report.guards import watched_view
from selfrefine.runfolder.summaries import Guard, RoundSummary


def shown(summaries: list[RoundSummary]) -> list[str]:
    page = io.StringIO()
    make_console(page).print(Group(*watched_view(summaries)))
    return [" ".join(line.split()) for line in page.getvalue().splitlines()]


def summary(index: int, *guards: Guard, **probe: dict[str, float | None]) -> RoundSummary:
    return RoundSummary(
        index=index,
        policy_before="a",
        policy_after="b",
        guards=guards,
        probe={name.replace("_", "-"): cell for name, cell in probe.items()},
    )


def test_a_column_begins_with_the_round_it_belongs_to() -> None:
    lines = shown(
        [
            summary(0, general={"accuracy": 0.944, "perplexity": 9.04}),
            summary(1, general={"accuracy": 0.889, "perplexity": None}, round_001={"perplexity": 1.25}),
        ]
    )
    assert "0 0.944 · 9.04 –" in lines  # nothing had been learnt yet
    assert "1 0.889 · – 1.25" in lines  # a figure that could not be computed is no 0
    assert any("general" in line for line in lines) and any("round-001" in line for line in lines)
    # What the columns are, and which way is good: nobody could guess.
    assert any("24 general texts · round-NNN: tasks learnt in that round" in line for line in lines)
    assert any("perplexity: lower is better" in line for line in lines)


def test_guards_are_lines_and_warnings_sentences() -> None:
    warned = Guard(
        name="distinct", value=1.5, against=3.0, limit=0.5, state="warn", reason="answers \x1b[2J gone"
    )
    forgotten = Guard(name="forgetting", value=0.1, state="veto", reason="it forgets")
    lines = shown(
        [
            summary(0, Guard(name="length", value=4.0)),
            summary(1, Guard(name="length", value=5.0), warned, forgotten),
        ]
    )
    assert "length 4 5" in lines and "distinct 1.5" in lines
    assert any(line.startswith("round 1 veto: it forgets; it answers other tasks worse") for line in lines)
    assert "distinct: different answers per training prompt" in lines  # a bare name said nothing
    assert not any(line.startswith("forgetting") for line in lines)  # it stands in the matrix
    assert any(line.startswith("round 1 warn: answers") and "\x1b[2J" not in line for line in lines)


def test_a_run_without_guards_shows_nothing() -> None:
    assert watched_view([summary(0)]) == []
