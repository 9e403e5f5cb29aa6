"""What the summary line says, and what it must not swallow."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from selfrefine.report.words import (
    compact,
    duration,
    number,
    percent,
    revised_lines,
    size,
    stage_line,
    summary_line,
    with_interval,
)
from selfrefine.stages.revisions import RevisionSummary
from selfrefine.stats import Difference, Interval
from selfrefine.steps.critique_outcome import Tokens


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (7.25, "7.2 s"),
        (9.97, "10 s"),
        (59.7, "1 min 00 s"),
        (305, "5 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7262, "2 h 01 min"),
    ],
)
def test_durations_never_show_sixty_seconds(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_numbers() -> None:
    assert [number(x) for x in (1234567, 503.7, 0.28512, 0)] == ["1,234,567", "504", "0.285", "0"]
    assert [size(x) for x in (938_000_000, 34_200, 512)] == ["938 MB", "34.2 kB", "512 B"]
    assert [percent(0.876), percent(0.125, 1)] == ["88 %", "12.5 %"]
    assert [compact(x) for x in (950, 12345, 999_960, 1_234_567)] == ["950", "12.3k", "1M", "1.23M"]


def test_a_mean_is_shown_with_its_interval_and_a_difference_with_its_sign() -> None:
    assert with_interval(Interval(mean=0.285, lo=0.243, hi=0.331, n=400)) == "0.285 [0.243, 0.331]"
    assert with_interval(Difference(mean=0.3, lo=-0.01, hi=0.6, n=9)) == "+0.300 [-0.010, +0.600]"
    assert with_interval(Interval(mean=0.4, lo=None, hi=None, n=1)) == "0.400"
    # Trap: a score that could not be computed is not 0.000.
    assert with_interval(Interval(mean=None, lo=None, hi=None, n=0)) == "–"


def test_the_line_of_the_design() -> None:
    line = summary_line(
        {"stage": "generate", "samples": 512, "tasks": 64, "truncated": 3, "tokens_per_s": 503.7}
    )
    assert line == "generate: 512 samples of 64 tasks · 3 truncated · 504 tok/s"


def test_one_is_singular() -> None:
    told = {"stage": "x", "samples": 1, "tasks": 1, "prompts_selected": 1, "trained_tokens": 1, "unscored": 1}
    assert summary_line(told) == (
        "x: 1 sample of 1 task · 1 prompt selected · 1 trained token · 1 unscored"  # "1 samples of 1 tasks"
    )


def test_no_truncation_is_silent_but_no_unscored_row_is_news() -> None:
    line = summary_line({"stage": "reward", "rows": 8, "truncated": 0, "unscored": 0, "seconds": 61.0})
    assert line == "reward: 8 rows · 0 unscored · 1 min 01 s"


def test_counts_that_say_nothing_are_left_out_and_none_is_a_bare_letter() -> None:
    """ "8 n", "960 below · 0 over the cap", and groups where no task has two answers."""
    told = {"n": 8, "unscored": 0, "below": 960, "over_the_cap": 0, "groups": 0, "groups_without_spread": 0}
    assert summary_line(told) == "8 tasks · 0 unscored · 960 below the threshold"


def test_a_stored_stage_reads_from_what_went_in_to_what_came_out() -> None:
    """Its keys are sorted in the file: twenty counts by the alphabet, the result among many zeros."""
    told = {
        "below": 290,
        "duplicates": 0,
        "entropy": 0.0,
        "prompts_selected": 61,
        "samples": 1024,
        "selected": 61,
        "truncated": 12,
        "unscored": 0,
    }
    assert stage_line("selected", told) == (
        "selected: 1,024 samples · 290 below the threshold · 12 truncated · 0 unscored · 61 prompts selected"
        " · 61 selected · entropy 0"  # a figure of zero is news, a count of zero is not
    )


def test_measures_shares_nested_figures_and_nulls() -> None:
    line = summary_line(
        {
            "stage": "critique",
            "drafts": 64,
            "unparsed_share": 0.125,
            "passes": [{"revisions": 3}],  # one line has no room for a list
            "rewards": {"numeric": {"mean": 0.5, "lo": 0.25, "hi": 0.75, "n": 8, "unscored": 2}},
            "comparison": {"compared": 60, "right": {"draft": 0.1, "fresh": None}},
        }
    )
    assert line == (
        "critique: 64 drafts · 12.5 % unparsed · numeric 0.500 [0.250, 0.750] (2 unscored) · "
        "comparison: compared 60 · right: draft 0.1, fresh –"
    )


def test_a_reward_named_by_a_hostile_file_stays_on_one_line() -> None:
    line = summary_line({"stage": "reward", "rewards": {"evil\n\x1b[2J.py:f": {"mean": 1.0}}})
    assert line == "reward: evil␊␛[2J.py:f 1.000"


def test_the_held_out_comparison_says_in_words_who_won() -> None:
    """An interval that holds 0 is no victory, whatever the mean says."""

    def gain(mean: float, lo: float | None, hi: float | None, n: int = 400) -> Difference:
        return Difference(mean=mean, lo=lo, hi=hi, n=n)

    told = RevisionSummary(
        draft=Interval(mean=0.5, lo=0.45, hi=0.55, n=400),
        revision=Interval(mean=0.52, lo=0.47, hi=0.57, n=400),
        fresh=Interval(mean=0.55, lo=0.5, hi=0.6, n=400),
        revision_minus_draft=gain(0.02, -0.01, 0.05),
        revision_minus_fresh=gain(-0.03, -0.05, -0.01),
        tokens=Tokens(),
    )
    first, second, third = revised_lines(told)
    assert "draft 0.500" in first and "fresh 0.550" in first
    assert second.startswith("revision does not beat the draft") and "400 tasks" in second
    assert third.startswith("revision is worse than asking again for the same tokens")
    # Stored by a run from before few changes lost their interval: width zero says nothing, above zero or not.
    for lo, hi in ((None, None), (0.25, 0.25)):
        found = replace(told, revision_minus_fresh=gain(0.25, lo, hi))
        assert revised_lines(found)[2].endswith("too few of 400 tasks changed to tell")
    found = replace(told, revision_minus_fresh=gain(0.0, None, None, 0))
    assert revised_lines(found)[2].endswith("nothing to compare")
