"""Runs that learn to judge, whole: what they train on, and that killed between stages they have equal bytes.

`learn = details`: a program criticises, and the policy learns to find what it found. `learn = verdicts`: the
policy learns Yes or No to its own answers; of two answers to a held-out task the one that it believes counts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from forks import Job
from letters import FAULT, LEAST, share, wrong
from test_every_crash import survive
from world import Case, World

from selfrefine.records import Message, Sample, Task


class Judging:
    """The small run with other settings; `whole` is the one nobody interrupted."""

    def __init__(self, world: World, name: str, **changes: Any) -> None:
        self.world, self.name = world, name
        self.config = world.configured(name, **changes)
        log = world.folder / f"{name}.log"
        self.whole = world.case(name)
        assert world.run(self.cycle(self.whole, log=str(log))) == [0], self.whole.said
        self.points = world.numbered(log)

    def cycle(self, case: Case, **fate: object) -> Job:
        return case.job("cycle", "--run", "r", "--config", str(self.config), **fate)

    def rows(self, place: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.whole.run / f"{place}.jsonl").read_text().splitlines()]

    def told(self, place: str) -> Any:
        return json.loads((self.whole.run / f"{place}.json").read_text())

    def killed(self, doors: Sequence[str], inside: Sequence[str]) -> None:
        """At the doors of these stages, and in the middle of those; then continued to the end."""
        fates: list[dict[str, Any]] = [{"until": stage} for stage in doors]
        for stage in inside:
            numbers = [point.number for point in self.points if point.stage == stage]
            fates.append({"at": numbers[len(numbers) // 2]})
        cases = [self.world.case(f"{self.name} {fate}") for fate in fates]
        chains = [
            [self.cycle(case, **fate), self.cycle(case)] for case, fate in zip(cases, fates, strict=True)
        ]
        survive(cases, chains, self.whole, fates)


def sample(text: str) -> Sample:
    return Sample(id="a", task=Task(id="t", prompt=(Message(role="user", content="?"),)), text=text)


@pytest.fixture(scope="module")
def details(world: World) -> Judging:
    source = f"{world.folder / 'letters.py'}:wrong"
    return Judging(world, "details", critique__source=source, critique__revise=False, select__learn="details")


def test_what_a_program_finds_is_learnt_by_its_critic(details: Judging) -> None:
    """Each answer's critique is a row: the critic's prompt, written out here, and what the program found."""
    for k in ("round-001", "round-002"):
        drafts = details.rows(f"{k}/generate")
        learnt = {row["id"]: row for row in details.rows(f"{k}/selected") if row["round"] == int(k[-1])}
        assert learnt.keys() == {f"{row['id']}.c0" for row in drafts} and drafts
        for row in drafts:
            one = learnt[f"{row['id']}.c0"]
            question = row["task"]["prompt"][-1]["content"]
            assert one["messages"][-1]["content"] == f"{question} {row['text']}?"
            found = wrong(sample(row["text"]))
            assert one["text"] == (f"{found}\nVerdict: revise" if found else "Verdict: ok")
            assert one["lesson"]["teaches"] == "critique"
        assert details.told(f"{k}/critique")["cost"]["tokens"] == 0  # nobody was asked
    said = [row["text"].partition("\n")[0] for row in details.rows("round-001/selected")]
    assert {*said} == {FAULT, "Verdict: ok"}


def test_a_run_that_learns_details_is_continued(details: Judging) -> None:
    details.killed(("critique 1", "select 1"), ("finetune 1",))


@pytest.fixture(scope="module")
def verdicts(world: World) -> Judging:
    return Judging(
        world,
        "verdicts",
        generate__n=4,
        critique__passes=0,
        select__learn="verdicts",
        select__min_reward=LEAST,
        evaluate__best_of=2,
        evaluate__by="p-true",
        evaluate__temperature=1.0,
        gate__mode="significant",
    )


def test_its_own_right_and_wrong_answers_are_learnt_and_the_believed_one_is_measured(
    verdicts: Judging,
) -> None:
    answers = {row["id"]: row for row in verdicts.rows("round-001/reward")}
    learnt = verdicts.rows("round-001/selected")
    said = [row["text"] for row in learnt]
    assert said.count("Yes") == said.count("No") > 0
    for row in learnt:
        own = answers[row["id"].removesuffix(".q")]
        assert (row["text"] == "Yes") == (share(sample(own["text"])) >= LEAST)
        assert [m["content"] for m in row["messages"][:2]] == [
            row["task"]["prompt"][0]["content"],
            own["text"],
        ]
    for place in ("round-000/gate", "round-001/gate", "round-002/gate", "final/test"):
        held_out = verdicts.rows(place)
        assert len(held_out) == 4  # of 8 samples: one for each task
        assert {(row["best_of"]["of"], row["best_of"]["by"]) for row in held_out} == {(2, "p-true")}
    decisions = [verdicts.told(f"round-00{k}/round")["gate"] for k in (1, 2)]
    # Of four tasks no test can be significant, so the gate is on and never keeps a round.
    assert [(own["n"], own["accepted"]) for own in decisions] == [(4, False)] * 2


def test_a_run_that_learns_verdicts_is_continued(verdicts: Judging) -> None:
    verdicts.killed(("select 1", "gate 1"), ("finetune 1", "gate 1"))


@pytest.mark.long
@pytest.mark.parametrize("which", ["details", "verdicts"])
def test_they_are_continued_from_the_door_of_any_stage(which: str, request: pytest.FixtureRequest) -> None:
    run: Judging = request.getfixturevalue(which)
    stages = list(dict.fromkeys(point.stage for point in run.points if point.stage != "create"))
    run.killed(stages, stages[1:])
