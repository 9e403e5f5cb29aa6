"""From a run's folder to points: which there are, where they stand, and when they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from runs import SECONDS, end, event, make, one_round, start, whole
from selfrefine.errors import DataError
from selfrefine.tracking.points import Point, name
from selfrefine.tracking.reading import about, points


def at(found: list[Point], series: str) -> list[tuple[int, float | str]]:
    return [(point.step, point.value) for point in found if point.series == series]


def test_the_points_of_a_run(tmp_path: Path) -> None:
    found = points(whole(tmp_path))
    assert at(found, "gate/mean") == [(0, 0.25), (1, 0.5), (2, 0.5)]
    assert at(found, "gate/lo") == [(0, 0.15), (1, 0.4), (2, 0.4)]
    assert at(found, "gate/decision") == [(1, 1.0), (2, -1.0)]
    assert at(found, "gate/difference") == [(1, 0.25), (2, 0.25)]
    assert at(found, "gate/difference_lo") == [(1, 0.125), (2, 0.125)]
    assert at(found, "decision") == [(1, "accept: accept: better"), (2, "reject: reject: better")]
    assert at(found, "run/accepted_round") == [(0, 0), (1, 1), (2, 0)]
    # Round 0 only measures; then 20 sampled, 5 of them measuring, and 7 trained on: 22 a round.
    assert at(found, "tokens/spent_so_far") == [(0, 0.0), (1, 22.0), (2, 44.0)]
    assert at(found, "generate/truncated") == [(1, 3.0), (2, 3.0)]
    assert at(found, "finetune/first_loss") == [(1, 1.0), (2, 1.0)]
    # 0 of 7 before, all after; the end stands at the last round.
    assert at(found, "test/mean") == [(0, 0.0), (2, 1.0)] and at(found, "test/gain") == [(2, 1.0)]
    assert at(found, "alarm/truncated") == [(1, 0.375), (2, 0.375)]
    assert at(found, "alarms")[0] == (1, "generate truncated: 0.375 (limit 0.3)")
    assert at(found, "warnings") == [(1, "worn 1"), (2, "worn 2")]


def test_tables_and_plans_are_no_curves(tmp_path: Path) -> None:
    """A plan's settings and the counts of a table were series of one point among those that tell."""
    run = whole(tmp_path)
    for file in ("plan.json", "weaknesses.json"):
        (run.round(1).path / file).write_text('{"round": 1, "tokens": 7, "level": 0.05}')
    (run.round(1).path / "reflect.json").write_text('{"looked_at": 3, "weak": 1}')
    found = points(run)
    assert not {point.series.split("/")[0] for point in found} & {"plan", "weaknesses"}
    assert at(found, "reflect/weak") == [(1, 1.0)]


def test_optimizer_steps_are_counted_through_all_rounds(tmp_path: Path) -> None:
    """Each round begins at 1 again: drawn by that, the second round lies over the first."""
    found = points(whole(tmp_path))
    losses = [1.0, 0.5, 1.0, 0.5, 1 / 3]
    assert at(found, "train/loss") == list(enumerate(losses, start=1))
    assert {point.axis for point in found if point.series.startswith("train/")} == {"step"}
    assert at(found, "train/entropy")[-1] == (5, 2.0)


def test_what_was_not_computed_is_no_point(tmp_path: Path) -> None:
    """The trap: null as 0 draws a curve that falls to the floor."""
    series = {point.series for point in points(whole(tmp_path))}
    assert not series & {"generate/entropy", "train/grad_norm", "gate/hi", "guard/gold", "gate/p_value"}


def test_times_are_those_of_the_events(tmp_path: Path) -> None:
    found = {(p.series, p.step): p.time - SECONDS for p in points(whole(tmp_path))}
    assert found["gate/mean", 0] == 1 and found["generate/truncated", 1] == 11
    assert found["train/loss", 1] == found["train/loss", 2] == 12 and found["train/loss", 5] == 22
    assert found["gate/mean", 2] == found["decision", 2] == 23 and found["test/gain", 2] == 50


def test_without_events_the_time_is_that_of_the_file(tmp_path: Path) -> None:
    """A power cut can lose the events, and no figure with them."""
    run = whole(tmp_path)
    before = {point.key for point in points(run) if point.series not in ("alarms", "warnings")}
    run.events.path.unlink()
    found = points(run)
    assert {p.key for p in found} == {key for key in before if not key[0].startswith("alarm/")}
    modified = (run.round(1).path / "round.json").stat().st_mtime
    assert {p.time for p in found if p.series == "gate/mean" and p.step == 1} == {modified}


def test_each_key_comes_once_and_a_prefix_of_a_run_has_a_part_of_its_points(tmp_path: Path) -> None:
    """What following relies on: what was sent stays as it is."""
    run = make(tmp_path)
    seen: dict[object, object] = {}
    for go_on in (
        lambda: start(run),
        lambda: one_round(run, 1),
        lambda: one_round(run, 2, "reject"),
        lambda: end(run, 2),
    ):
        go_on()
        found = points(run)
        keys = [point.key for point in found]
        assert len(keys) == len(set(keys))
        now = {point.key: point for point in found}
        assert seen.items() <= now.items() and len(now) > len(seen)
        seen = dict(now)


def test_an_extended_run_keeps_its_earlier_end(tmp_path: Path) -> None:
    run = make(tmp_path)
    start(run)
    one_round(run, 1)
    end(run, 1)
    before = {point.key for point in points(run)}
    run.final.path.rename(run.path / "final-after-001")
    one_round(run, 2)
    end(run, 2)
    found = points(run)
    assert before <= {point.key for point in found}
    assert at(found, "test/gain") == [(1, 1.0), (2, 1.0)]


def test_events_of_no_round_stand_at_the_round_before_them(tmp_path: Path) -> None:
    run = whole(tmp_path)
    event(run, 52, "failed", code=5, why="disk full")
    assert at(points(run), "events") == [(2, "failed {'code': 5, 'why': 'disk full'}")]


def test_a_damaged_training_log_is_named(tmp_path: Path) -> None:
    run = whole(tmp_path)
    run.round(1).file("train").write_text('{"step":1,"loss":1}\n{"loss":')
    with pytest.raises(DataError, match=r"train\.jsonl:2: "):
        points(run)


def test_names_keep_what_every_tracker_takes_and_stay_apart() -> None:
    assert name("reward-length") == "reward-length"
    odd = ["mine.py:f", "mine.py_f", "a/../b", "..", "", "\x1b[31m", "x" * 99, "ä", "ö"]
    made = [name(one) for one in odd]
    assert len(set(made)) == len(odd)
    assert all(one.isascii() and "/" not in one and one.strip(".") for one in made)


def test_what_was_asked_is_flat(tmp_path: Path) -> None:
    asked = about(whole(tmp_path))
    assert asked["train.lr"] == 0.1 and asked["train.lora.targets"] == '["a"]' and asked["base.id"] == "tiny"
    assert "adapter" not in asked
