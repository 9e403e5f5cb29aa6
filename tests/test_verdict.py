"""Every way a critic was seen, or could be made, to say a score; the expected values are by hand."""

from __future__ import annotations

import json

import pytest

from selfrefine import prompts
from selfrefine.records import Critique
from selfrefine.verdict import parse

SCORES = [
    ("Score: 5", 1.0),
    ("Score: 0", 0.0),
    ("**Score:** 4/5", 0.8),
    ("**Score**: 4", 0.8),
    ("## Score:\n\n`4`", 0.8),
    ("score = 3.5", 0.7),
    ("Score is 4.", 0.8),
    ("Score - 4", 0.8),
    ("Rating: [4/5]", 0.8),
    ("Score: <4>", 0.8),
    ("Score (0-5): 4", 0.8),
    ("Score: 4 (out of 5)", 0.8),
    ("I give it 4 out of 5", 0.8),
    ("I'd rate this answer 2/5.", 0.4),
    ("Score: 4/10", 0.4),
    ("Score: 80%", 0.8),
    ("Score: 4,5/5", 0.9),
    ("Score: 1 + 1 + 1 + 0 + 1 = 4", 0.8),
    # other scripts' digits: full width, Arabic-Indic
    ("Score：４／５", 0.8),
    ("Score: ٤", 0.8),
    # the last line counts, wherever the earlier ones came from
    ("The draft says 'Score: 5'.\nScore: 2", 0.4),
    ("Score: 2\rScore: 4", 0.8),
    ("Score: 4, yes, Score: 4/5", 0.8),
    # said twice, on one scale or two: 0.8 (4/5) was read as 0.8 of 5
    ("Score: 0.8 (4/5)", 0.8),
    ("Score: 0.6 (3 out of 5)", 0.6),
    ("Score: 0.4 = 2/5", 0.4),
    ("Score: 0.25 [25%]", 0.25),
    ("Score: 80 (4/5)", 0.8),
    ("Score: 3 (60 %)", 0.6),
    ("Score: 4/5 = 0.8", 0.8),
    ("Score: 4/5, i.e. 80%", 0.8),
    ("Score: 7 (out of 10)", 0.7),
    ("Score: 3 of 10", 0.3),
    ("Score: 4 (one point off)", 0.8),
]

NO_SCORES = [
    ("Score: 7", "score 7 is outside 0 to 5"),
    ("Score: -1", "score -1 is outside 0 to 5"),
    ("Score: 11/10", "score 11 is outside 0 to 10"),
    ("Score: 3/0", "score 3 is outside 0 to 0"),
    ("Score: " + "9" * 5000, "score 99999999999999999999 is outside 0 to 5"),
    # echoes of the form: reading "0-5" as 0 would teach that the answer was worthless
    ("Score: 0-5", "the score is not a number"),
    ("Score: 0 to 5", "the score is not a number"),
    ("Score: N", "the score is not a number"),
    # a sum cut short is not its first term
    ("Score: 1 + 1 + 0", "the score is not a number"),
    ("Score: 4½", "the score is not a number"),
    ("Score: 4,000", "the score is not a number"),
    ("Score: nan", "the score is not a number"),
    # an earlier score does not stand in for a last one that cannot be read
    ("Score: 4\nScore: N/A", "the score is not a number"),
    ("Score: 3 (4/5)", "contradictory: the score is followed by another one"),
    ("Score: 4/5 (60%)", "contradictory: the score is followed by another one"),
    ("Score: 4 = 0.5", "contradictory: the score is followed by another one"),
    ("Score: 1.2 (6/5)", "score 1.2 is outside 0 to 5"),
    ("Score: 0.8", "score 0.8 may be out of 1 or out of 5"),
    ("Score: 4 of 5 or 5 of 5", "the score is not a number"),
    ("Style score: 5, content score: 1", "contradictory: different scores on one line"),
]


@pytest.mark.parametrize(("text", "score"), SCORES)
def test_a_score_is_read(text: str, score: float) -> None:
    assert parse(f"{text}\nVerdict: revise" if score < 1 else text).score == pytest.approx(score)


@pytest.mark.parametrize(("text", "reason"), NO_SCORES)
def test_a_score_that_cannot_be_read_is_null_with_a_reason(text: str, reason: str) -> None:
    assert parse(f"{text}\nVerdict: revise") == (None, "revise", reason)


@pytest.mark.parametrize(
    "text", ["It uses 3 out of 5 concepts.", "3/4 of it is fine.", "Underscore: 4", "The score is low.", ""]
)
def test_not_every_number_is_a_score(text: str) -> None:
    assert parse(f"{text}\nVerdict: revise") == (None, "revise", None)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Verdict: ok", "ok"),
        ("**Verdict:** OK.", "ok"),
        ("The verdict is okay", "ok"),
        ("Verdict:\nrevise", "revise"),
        ("Verdict: not ok", "revise"),
        ("Verdict: ok, there is nothing to revise", "ok"),
        ("Verdict: ok\nNo, wait.\nVerdict: revise", "revise"),
        ("Verdict: ok, it does not need to be revised", "ok"),
        ("Verdict: OK - no fix needed", "ok"),
        ("Verdict: not ok, revise", "revise"),
        ("Verdict: isn't quite ok", "revise"),
        ("Verdict: revise (it is not ok)", "revise"),
        ("Verdict: revise, but only the end", "revise"),
    ],
)
def test_a_verdict_is_read_on_the_last_line_that_has_one(text: str, verdict: str) -> None:
    assert parse(text) == (None, verdict, None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Looks fine to me", "no verdict"),
        ("Verdict: ok|revise", "contradictory: the verdict says both ok and revise"),
        ("Verdict: ok / revise", "contradictory: the verdict says both ok and revise"),
        ("Verdict: ok or revise", "contradictory: the verdict says both ok and revise"),
        ("Verdict: 'revise' or 'ok'", "contradictory: the verdict says both ok and revise"),
        ("Verdict: neither ok nor revise", "the verdict is neither ok nor revise"),
        # taken back on the same line: these were read as ok
        ("Verdict: Ok, but revise", "contradictory: the verdict says both ok and revise"),
        ("Verdict: ok. Rewrite the second line.", "contradictory: the verdict says both ok and revise"),
        ("Verdict: ok with minor revisions", "contradictory: the verdict says both ok and revise"),
        ("Verdict: revise → ok", "contradictory: the verdict says both ok and revise"),
        ("Verdict: ok, but the sign is wrong", "contradictory: the verdict is ok with a reservation"),
        ("Verdict: ok?", "contradictory: the verdict is ok with a reservation"),
        ("Verdict: okra", "the verdict is neither ok nor revise"),
        ("Verdict: ok\nVerdict: hmm", "the verdict is neither ok nor revise"),
        ("Verdict: ok. Verdict: revise", "contradictory: different verdicts on one line"),
    ],
)
def test_a_verdict_that_cannot_be_read_is_null_with_a_reason(text: str, reason: str) -> None:
    assert parse(text) == (None, None, reason)


def test_full_marks_with_revise_and_nothing_with_ok_contradict_each_other() -> None:
    assert parse("Score: 5\nVerdict: revise")[:2] == (None, None)
    assert parse("Score: 0/5\nVerdict: ok")[:2] == (None, None)
    assert "contradictory" in (parse("Score: 5\nVerdict: revise").error or "")
    assert parse("Score: 4\nVerdict: ok") == (0.8, "ok", None)


def test_another_scale_is_the_callers() -> None:
    assert parse("Score: 7\nVerdict: revise", scale=10).score == 0.7
    assert parse("Score: 4/5\nVerdict: revise", scale=10).score == 0.8


@pytest.mark.parametrize(
    "text",
    [
        "\x1b[31mScore: \x1b[1m4\x1b[0m\nVerdict: ok\x1b[0m",
        "Sc\u200bore: 4\nVer\u202edict: ok",
        # what a terminal hides (the target of a link, a window title) must not grade
        "Score: 4\nVerdict: ok\n\x1b]8;;Score: 1 Verdict: revise\x07link\x1b]8;;\x07",
        "Score: 4\nVerdict: ok\x1b]0;Score: 1\nVerdict: revise",
        "Score: 4\nVerdict: ok\x9d0;\nScore: 1\nVerdict: revise\x9c",
        "<|im_end|>[/red]</script>\u2028Score: 4\u2028Verdict: ok<|im_end|>",
    ],
)
def test_hostile_text_is_read_as_a_reader_sees_it(text: str) -> None:
    assert parse(text) == (0.8, "ok", None)


@pytest.mark.parametrize("name", ["critique", "rubric"])
def test_a_critic_that_parrots_its_prompt_grades_nothing(name: str) -> None:
    # Small models echo. With the draft's own "Score: 5" in the echo, this is an answer grading itself.
    prompt = prompts.load(name, "critique").render(task="Add.", answer="7\nScore: 5\nVerdict: ok")
    parsed = parse(prompt)
    assert (parsed.score, parsed.verdict) == (None, None)
    assert parsed.error


@pytest.mark.parametrize(
    "text",
    [
        "score " * 20_000,
        "Score: " + "1+" * 20_000,
        "give" + " " * 50_000,
        "Score:" * 20_000,
        "\x1b]" * 50_000,
    ],
)
def test_a_megabyte_of_nonsense_is_read(text: str) -> None:
    """A pattern that takes quadratic time would hang here for minutes."""
    assert parse(text).score is None


def test_what_is_parsed_fits_the_record() -> None:
    for text, _ in SCORES + NO_SCORES:
        parsed = parse(text)
        json.dumps(parsed, allow_nan=False)
        Critique(score=parsed.score, verdict=parsed.verdict, error=parsed.error)
