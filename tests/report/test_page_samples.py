"""What of a run its page shows: every answer once, whole tasks, and no more than a page holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import page_runs
import pytest

from selfrefine.errors import RunFolderError
from selfrefine.records import Sample, encode
from selfrefine.report.page.samples import payload

Shown = dict[str, Any]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    return payload(page_runs.small(tmp_path_factory.mktemp("runs") / "small"))


def answers(shown: Shown, task: str) -> list[Shown]:
    return next(one["answers"] for one in shown["tasks"] if one["id"] == task)


def test_a_row_that_stands_in_three_files_is_shown_once_with_all_that_was_added(small: Shown) -> None:
    """Trap: drawn.r1.s1 stands in generate, reward and selected; read naively it is three answers, and the
    first has no reward."""
    (row,) = (one for one in answers(small, "drawn") if one["id"] == "drawn.r1.s1")
    assert row["reward"] == 1.0
    assert row["learnt"] == ["learnt in round 1"]
    assert (small["answers"], small["all_answers"], small["all_tasks"]) == (16, 16, 5)


def test_a_task_is_followed_in_the_order_of_the_rounds_and_says_when_it_turned(small: Shown) -> None:
    """Trap: measured answers have round 0 and one id in every round; by these they would be one answer."""
    places = [place["name"] for place in small["places"]]
    assert places == ["round-000", "round-001", "round-002", "final"]
    way = [(places[one["place"]], one.get("became", "")) for one in answers(small, "add")]
    assert way == [("round-000", ""), ("round-001", "right"), ("round-002", "wrong")]
    assert [place.get("decision", "") for place in small["places"]] == ["", "kept", "rolled back", ""]
    assert answers(small, "check")[1]["became"] == "right"


def test_a_revision_has_its_changes_and_both_texts_come_back_from_them(small: Shown) -> None:
    row = next(one for one in answers(small, "drawn") if one.get("parent"))
    assert row["diff"] == [("=", "It is a "), ("-", "quick brown hare"), ("+", "red kangaroo")]
    assert row["became"] == "right"


def test_an_unscored_answer_is_no_zero_and_says_why(small: Shown) -> None:
    row = answers(small, "cut")[-1]
    assert row.get("reward") is None
    assert row["rewards"] == [{"name": "exact", "value": None, "error": "nothing to read"}]


def test_why_an_answer_failed_is_told_where_it_is_more_than_wrong(small: Shown) -> None:
    kinds = [one.get("failure", "") for task in ("check", "add") for one in answers(small, task)]
    assert kinds == ["empty", "", "", "", ""]


def test_token_ids_and_logprobs_stay_in_the_run(tmp_path: Path) -> None:
    run = page_runs.Run.create(
        tmp_path / "run", page_runs.manifest("run"), {"train": [], "gate": [page_runs.ADD], "test": []}, {}
    )
    row = Sample(id="add.r0.s0", task=page_runs.ADD, text="42", token_ids=(77_123,), logprobs=(-0.77123,))
    page_runs.write(run, 0, gate=[row])
    assert b"77123" not in msgspec.json.encode(payload(run))


def test_a_larger_run_shows_whole_tasks_the_same_each_time_and_tasks_that_turned(tmp_path: Path) -> None:
    """30 tasks of 4 answers, 40 answers fit: 10 tasks. Even tasks turn in every round, all do: a sample of
    another seed would be another; the same run gives the same page."""
    run = page_runs.many(tmp_path / "run", tasks=30, rounds=4)
    shown = payload(run, answers=40)
    assert [len(one["answers"]) for one in shown["tasks"]] == [4] * 10
    assert (shown["answers"], shown["all_answers"], shown["all_tasks"]) == (40, 120, 30)
    assert payload(run, answers=40) == shown
    assert [one["id"] for one in shown["tasks"]] != [f"t{i}" for i in range(10)]


def test_a_rare_fate_is_in_the_sample(tmp_path: Path) -> None:
    """Of 300 tasks one became wrong, the others were right twice. A plain draw of 10 has it in 1 of 30."""
    tasks = [page_runs.task(f"t{i}", f"{i}?", "x") for i in range(300)]
    run = page_runs.Run.create(
        tmp_path / "run", page_runs.manifest("run"), {"train": [], "gate": tasks, "test": []}, {}
    )
    for index in (0, 1):
        rows = [
            page_runs.answer(one, f"{one.id}.r0.s0", "x", float(one.id != "t217" or not index))
            for one in tasks
        ]
        page_runs.write(run, index, "accept" if index else None, gate=rows)
    assert "t217" in [one["id"] for one in payload(run, answers=20)["tasks"]]
    kept = payload(run, answers=20, keep=["t5.r0.s0", "t6"])["tasks"]
    assert {"t5", "t6", "t217"} <= {one["id"] for one in kept}


def test_a_task_with_more_answers_than_a_page_holds_is_shown_in_part(tmp_path: Path) -> None:
    """Trap: a run with one prompt and thousands of samples would show nothing at all."""
    run = page_runs.Run.create(
        tmp_path / "run", page_runs.manifest("run"), {"train": [page_runs.ADD], "gate": [], "test": []}, {}
    )
    rows = [page_runs.answer(page_runs.ADD, f"add.r0.s{i}", str(i), 0.0) for i in range(100)]
    page_runs.write(run, 0, reward=rows)
    (one,) = payload(run, answers=40)["tasks"]
    ids = [int(row["text"]) for row in one["answers"]]
    assert len(ids) == 10
    assert ids == sorted(ids) != list(range(10))


def test_long_texts_are_cut_and_say_so_and_the_page_keeps_its_size(tmp_path: Path) -> None:
    """20 answers of 30,000 letters are 600 kB; 8,000 of each are shown, and of those as many tasks as fit."""
    tasks = [page_runs.task(f"t{i}", f"{i}?", "x") for i in range(20)]
    run = page_runs.Run.create(
        tmp_path / "run", page_runs.manifest("run"), {"train": [], "gate": tasks, "test": []}, {}
    )
    page_runs.write(
        run, 0, gate=[page_runs.answer(one, f"{one.id}.r0.s0", "x" * 30_000, 0.0) for one in tasks]
    )
    shown = payload(run, size=100_000)
    assert shown["tasks"][0]["answers"][0]["text"] == "x" * 8_000 + " … [22,000 more characters]"
    assert len(msgspec.json.encode(shown["tasks"])) <= 100_100
    assert (len(shown["tasks"]), shown["all_tasks"]) == (12, 20)


def test_two_runs_are_joined_by_task_and_tasks_of_one_id_but_other_prompts_are_not(tmp_path: Path) -> None:
    runs = []
    for name, question in (("one", "2 + 2?"), ("two", "3 + 3?")):
        tasks = [page_runs.ADD, page_runs.task("1", question, "x")]
        run = page_runs.Run.create(
            tmp_path / name, page_runs.manifest(name), {"train": [], "gate": tasks, "test": []}, {}
        )
        page_runs.write(run, 0, gate=[page_runs.answer(one, f"{one.id}.r0.s0", name, 0.0) for one in tasks])
        runs.append(run)
    shown = payload(*runs)
    texts = {one["prompt"][0]["content"]: [row["text"] for row in one["answers"]] for one in shown["tasks"]}
    assert texts == {"What is 20 + 22?": ["one", "two"], "2 + 2?": ["one"], "3 + 3?": ["two"]}


def test_a_system_message_is_kept_once(tmp_path: Path) -> None:
    run = page_runs.Run.create(
        tmp_path / "run", page_runs.manifest("run"), {"train": [page_runs.ADD], "gate": [], "test": []}, {}
    )
    chat = (page_runs.Message(role="system", content="Be brief."), *page_runs.ADD.prompt)
    page_runs.write(
        run,
        0,
        reward=[page_runs.answer(page_runs.ADD, f"add.r0.s{i}", "42", 1.0, messages=chat) for i in (0, 1)],
    )
    shown = payload(run)
    assert shown["systems"] == ["Be brief."]
    assert [row["system"] for row in answers(shown, "add")] == [0, 0]


def test_rows_that_were_changed_after_the_commit_are_not_shown(tmp_path: Path) -> None:
    run = page_runs.small(tmp_path / "run")
    path = run.round(1).file("gate")
    path.write_bytes(path.read_bytes() + encode(page_runs.answer(page_runs.ADD, "x.r0.s0", "", 0.0)) + b"\n")
    with pytest.raises(RunFolderError, match=r"gate\.jsonl was changed"):
        payload(run)


def test_a_run_without_answers_has_an_empty_page(tmp_path: Path) -> None:
    splits = {"train": [page_runs.ADD], "gate": [], "test": []}
    run = page_runs.Run.create(tmp_path / "run", page_runs.manifest("run"), splits, {})
    assert payload(run)["tasks"] == []
