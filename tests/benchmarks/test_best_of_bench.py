"""Accuracy against tokens: every method sees the same samples, and a call that was killed goes on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Raw

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.best_of import main  # noqa: E402
from benchmarks.best_of_curve import Point, curve, separation  # noqa: E402
from benchmarks.best_of_page import MARK, page  # noqa: E402
from benchmarks.best_of_rows import JUDGED, SAMPLES, About, Arm, Judged, read  # noqa: E402
from benchmarks.pages import markers  # noqa: E402
from selfrefine.records import Message, Sample, Task  # noqa: E402

BEGIN, END = markers(MARK)

ABOUT = About(
    model="m",
    adapter="",
    policy="0" * 64,
    engine="e",
    source="t",
    seed=0,
    temperature=1.0,
    max_new_tokens=8,
    measure=("numeric",),
)


def sample(task: str, index: int, text: str, p: float | None, **more: Any) -> Sample:
    """Right is 7; two tokens; its question is 10 tokens longer than its text. The critic says 1 - p."""
    note = msgspec.json.encode(
        Judged(p_yes=p, read=10 + len(text), p_ok=None if p is None else 1 - p, read_by_critic=20)
    )
    return Sample(
        id=f"{task}.r0.s{index}",
        task=Task(id=task, prompt=(Message(role="user", content="?"),)),
        index=index,
        text=text,
        reward=float(text == "7"),
        token_ids=(1, 2),
        extra={JUDGED: Raw(note)},
        **more,
    )


def arm(*tasks: tuple[str, list[tuple[str, float | None]]], label: str = "base") -> Arm:
    return Arm(
        label=label,
        about=ABOUT,
        samples={key: [sample(key, i, *one) for i, one in enumerate(own)] for key, own in tasks},
        greedy={key: sample(key, 0, "8", None) for key, _ in tasks},
    )


def at(points: list[Point], n: int, by: str) -> Point:
    [found] = [point for point in points if (point.n, point.by) == (n, by)]
    return found


RARE: list[tuple[str, float | None]] = [("7", 0.9), ("8", 0.2), ("8", 0.2), ("9", 0.3)] * 4
"""Right in a quarter of the samples, and believed in."""
NEVER: list[tuple[str, float | None]] = [("8", 0.8), ("8", 0.8)] * 8


def test_a_small_n_is_the_mean_over_disjoint_sets_of_the_same_samples() -> None:
    points = curve(arm(("a", RARE), ("b", NEVER)), {})
    # Sets of two of a: (7, 8) and (8, 9), four times each. A tie goes to the first.
    assert at(points, 2, "majority").scores == {"a": 0.5, "b": 0.0}
    assert at(points, 2, "oracle").scores == {"a": 0.5, "b": 0.0}
    assert at(points, 1, "one sample").scores == {"a": 0.25, "b": 0.0}
    # Sets of four: 8 has two of four votes; 7 has 0.9 of a weight of 1.6.
    assert at(points, 4, "majority").scores == {"a": 0.0, "b": 0.0}
    assert at(points, 4, "p-true").scores == {"a": 1.0, "b": 0.0}
    assert at(points, 4, "weighted-vote").scores == {"a": 1.0, "b": 0.0}
    assert at(points, 4, "critic").scores == {"a": 0.0, "b": 0.0}
    assert at(points, 16, "p-true").accuracy.mean == 0.5
    assert at(points, 16, "p-true").over_majority.mean == 0.5  # type: ignore[union-attr]
    assert at(points, 1, "greedy").accuracy.mean == 0.0


def test_tokens_are_those_of_all_samples_and_of_each_different_question() -> None:
    points = curve(arm(("a", RARE), ("b", NEVER)), {})
    assert [at(points, n, "p-true").sampled for n in (2, 4, 8, 16)] == [4, 8, 16, 32]
    # A question is 11 tokens; a has 3 different answers of four, b one.
    assert at(points, 4, "p-true").scored == (3 + 1) / 2 * 11
    assert at(points, 2, "weighted-vote").scored == (2 + 1) / 2 * 11
    assert at(points, 4, "critic").scored == (3 + 1) / 2 * 20
    assert at(points, 4, "majority").scored == at(points, 4, "oracle").scored == 0


def test_how_well_it_judges_is_asked_within_a_task() -> None:
    """Over all tasks a judge that knows hard tasks from easy ones looks good and chooses no answer better."""
    hard: list[tuple[str, float | None]] = [("7", 0.1), *[("8", 0.2)] * 15]
    easy: list[tuple[str, float | None]] = [*[("7", 0.8)] * 15, ("8", 0.9)]
    arms = arm(("hard", hard), ("easy", easy), ("never", NEVER))
    found = separation(arms, lambda one: one.p_yes)
    assert found.within.mean == 0.0 and found.within.n == 2
    assert found.right == pytest.approx((0.1 + 15 * 0.8) / 16)
    assert found.right > found.wrong  # type: ignore[operator]
    assert separation(arms, lambda one: one.p_ok).within.mean == 1.0


def test_what_stands_around_the_section_is_kept_and_arms_are_compared() -> None:
    better = arm(("a", [("7", 0.9)] * SAMPLES), ("b", NEVER), label="judge")
    made = page([arm(("a", RARE), ("b", NEVER)), better], {}, "# Title\n\nBy hand.\n")
    assert made.startswith("# Title\n\nBy hand.\n\n## Answering with a verifier\n\n" + BEGIN)
    assert "### judge minus base" in made and "| 4 | majority | +0.500 |" in made
    again = page([arm(("a", RARE))], {}, made + "\nAfter.\n")
    assert again.startswith("# Title\n\nBy hand.") and again.endswith(f"{END}\n\nAfter.\n")
    assert "judge" not in again


def test_a_call_that_was_killed_goes_on_and_another_policy_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", "scripted", "--folder", str(tmp_path / "arms"), "-o", str(tmp_path / "page.md")]
    words += [word for text in ("tasks.n=60", "tasks.gate=5", "tasks.test=20") for word in ("--set", text)]
    assert main([*words, "--tasks", "11"]) == 0
    folder = tmp_path / "arms/base"
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    written = (tmp_path / "page.md").read_text()
    assert len(files) == 5 and "| 16 | oracle |" in written
    (folder / "greedy-001.jsonl").unlink()  # as if it had died before the last file
    assert main([*words, "--tasks", "11"]) == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    assert (tmp_path / "page.md").read_text() == written
    found = read(folder)
    assert len(found.greedy) == 11 and {len(rows) for rows in found.samples.values()} == {SAMPLES}
    assert main([*words, "--tasks", "11", "--seed", "1"]) == 4
    assert "another --label" in capsys.readouterr().err
