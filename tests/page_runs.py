"""Runs for the browser: a small one whose every answer is known, and one whose every text is hostile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import made_runs
from msgspec.structs import replace

from selfrefine.records import Critique, Lesson, Message, Reward, Sample, Task, encode
from selfrefine.runfolder.run import Run
from selfrefine.runfolder.summaries import GateDecision, RoundSummary, RunManifest


def task(id: str, question: str, reference: str, **tags: str) -> Task:
    prompt = (Message(role="user", content=question),)
    return Task(id=id, prompt=prompt, references=(reference,), tags=tags)


def manifest(name: str) -> RunManifest:
    return replace(
        made_runs.manifest(name, {}), config={"recipe": "expert-iteration", "cycle": {"rounds": 2}}
    )


def answer(task: Task, id: str, text: str, reward: float | None, **more: Any) -> Sample:
    """Scored by a reward named `exact`, which says why where it has no value."""
    error = "nothing to read" if reward is None else None
    detail = None if reward in (None, 1.0) else f"{text[:20]!r} is not it"
    scores = (Reward(name="exact", value=reward, detail=detail, error=error),)
    return Sample(id=id, task=task, text=text, reward=reward, **({"rewards": scores} | more))


def write(run: Run, index: int, outcome: str | None = None, **stages: list[Sample]) -> None:
    folder = run.round(index)
    for name, rows in stages.items():
        folder.stage(name, [0], lambda _, rows=rows: ([encode(row) for row in rows], b"null"))
    gate = None
    if outcome is not None:
        gate = GateDecision(
            outcome=outcome, accepted=outcome == "accept", before=0.0, after=0.5, n=2, reason=""
        )  # type: ignore[arg-type]
    folder.commit(RoundSummary(index=index, policy_before="p", policy_after="p", gate=gate))


ADD = task("add", "What is 20 + 22?", "42", op="+")
SUB = task("sub", "What is 9 - 4?", "5", op="-")
CUT = task("cut", "Count to three.", "1 2 3", op="+")
DRAWN = task("drawn", "Which animal hops?", "kangaroo", op="-")
ADD_TEST = task("check", "What is 1 + 1?", "2", op="+")


def small(path: Path) -> Run:
    """16 answers to 5 tasks: 2 rounds (kept, rolled back) after the start, and the end.

    gate `add`: wrong, right, wrong. gate `sub`: wrong, wrong, right. gate `cut`: cut off, cut off, unscored.
    training `drawn`: round 1 a draft (0.25, critique with the word wallaby) and its revision (right), and a
    right answer that was learnt; round 2 two answers (0.5 and right). test `check`: empty, at the end right.
    """
    path.parent.mkdir(exist_ok=True)
    splits = {"train": [DRAWN], "gate": [ADD, SUB, CUT], "test": [ADD_TEST]}
    run = Run.create(path, manifest(path.name), splits, {})
    run.events.append("cycle", continued=False, argv=["selfrefine", "cycle"])

    def gate(add: str, sub: str, cut: float | None) -> list[Sample]:
        rows = [
            answer(ADD, "add.r0.s0", add, float(add == "42")),
            answer(SUB, "sub.r0.s0", sub, float(sub == "5")),
        ]
        return [*rows, answer(CUT, "cut.r0.s0", "1 2", cut, finish_reason="length")]

    write(run, 0, gate=gate("41", "6", 0.0), test=[answer(ADD_TEST, "check.r0.s0", "", 0.0)])
    critique = Critique(text="A wallaby hops as well, but name one animal.", score=0.25, verdict="revise")
    draft = answer(DRAWN, "drawn.r1.s0", "It is a quick brown hare", 0.25, round=1, critiques=(critique,))
    chat = (*DRAWN.prompt, Message(role="assistant", content=draft.text))
    revision = answer(
        DRAWN, "drawn.r1.s0.v1", "It is a red kangaroo", 1.0, round=1, parent_id=draft.id, messages=chat
    )
    learnt = answer(DRAWN, "drawn.r1.s1", "kangaroo", 1.0, round=1, index=1)
    lesson = Sample(id=learnt.id, task=DRAWN, text=learnt.text, round=1, lesson=Lesson())
    rows = [draft, revision, learnt]
    write(
        run, 1, "accept", generate=[draft, learnt], reward=rows, selected=[lesson], gate=gate("42", "6", 0.0)
    )
    later = [
        answer(DRAWN, f"drawn.r2.s{i}", f"a hopper {i}", value, round=2) for i, value in enumerate((0.5, 1.0))
    ]
    write(run, 2, "reject", reward=later, gate=gate("40", "5", None))
    end = [answer(ADD_TEST, "check.r0.s0", "2", 1.0)]
    run.final.stage("test", [0], lambda _: ([encode(row) for row in end], b"null"))
    return run


HOSTILE = {
    "script": "</script><script>window.ran = 1</script>",
    "comment": "<!--<script>window.ran = 2//",
    "image": '<img src=x onerror="window.ran = 3">',
    "braces": "{{7*7}} ${7*7} {% raw %}",
    "link": "[click](javascript:window.ran=4) <a href='javascript:window.ran=5'>here</a>",
    "bidi": "admin\u202etxt.exe\u2066 \u200bhidden\ufeff",
    "nul": "a\x00b\x1b[31mred\x07",
    "lines": "x" * 30_000,
    "separators": "one\u2028two\u2029three",
    "style": "</style><style>* { display: none }</style>",
    "entity": "&lt;b&gt; &amp; \"'`",
    "emoji": "👩\u200d🚀 می\u200cخواهم 字",
}
"""Texts that would act in a page that took them for anything but text."""


def hostile(path: Path) -> Run:
    """Each of HOSTILE as prompt, answer, tag, tag's value, reference, critique, reward's detail and name."""
    tasks = [
        Task(
            id=f"task {text[:60]}",
            prompt=(Message(role=text[:80], content="first"), Message(role="user", content=text)),
            references=(text,),
            tags={text[:100]: text[:100]},
        )
        for text in HOSTILE.values()
    ]
    run = Run.create(path, manifest(path.name), {"train": [], "gate": tasks, "test": []}, {})
    run.events.append("cycle", continued=False, argv=[])
    rows = []
    for one in tasks:
        text = one.references[0]
        scores = (Reward(name=text[:100], value=0.5, detail=text, error=text),)
        critique = Critique(text=text, verdict="revise", error=text)
        draft = answer(one, f"{one.id}.r0.s0", text, 0.5, rewards=scores, critiques=(critique,), error=text)
        rows += [draft, answer(one, f"{one.id}.r0.s0.v1", f"{text} more", 0.5, parent_id=draft.id)]
    write(run, 0, gate=rows)
    return run


def many(path: Path, tasks: int, rounds: int) -> Run:
    """`rounds` gate answers to each of `tasks`, half of them right, every seventh cut off."""
    asked = [task(f"t{i}", f"What is {i} + {i}?", str(2 * i), parity=str(i % 2)) for i in range(tasks)]
    run = Run.create(path, manifest(path.name), {"train": [], "gate": asked, "test": []}, {})
    run.events.append("cycle", continued=False, argv=[])
    for index in range(rounds):
        rows = [
            answer(
                one,
                f"{one.id}.r0.s0",
                f"The sum is {2 * i + (i + index) % 2}",
                float((i + index) % 2 == 0),
                finish_reason="stop" if i % 7 else "length",
            )
            for i, one in enumerate(asked)
        ]
        write(run, index, "accept" if index else None, gate=rows)
    return run
