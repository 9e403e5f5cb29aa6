"""`critique.critics` in a run and in a pipe: who is asked, what is refused, and what a reader is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from harness import Result, answer, jsonl, refused, selfrefine, task

SETTINGS = [
    "tasks.source=t.jsonl",
    "tasks.gate=2",
    "tasks.test=4",
    "cycle.rounds=0",
    "generate.n=1",
    "generate.max_new_tokens=8",
    "critique.critic_model=scripted:critic.jsonl",
    "critique.passes=1",
    "evaluate.revise=end",
    'reward.use=["exact"]',
]
SAYS = "Off.\nScore: 1\nVerdict: revise"
FINE = "Fine.\nScore: 5\nVerdict: ok"
CRITICS = ["--critics", "model", "--critics", "policy", "--critics", "lint.py:check"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The policy answers 8 and finds it good, the critic does not, and the linter finds the even digit."""
    (tmp_path / "t.jsonl").write_bytes(jsonl(*(task(f"t{i}", f"say {i}", "7") for i in range(8))))
    policy = [
        {"match": "<critique>", "answers": ["7"]},
        {"match": "Verdict:", "answers": [FINE]},
        {"match": "", "answers": ["8"]},
    ]
    (tmp_path / "policy.jsonl").write_bytes(jsonl(*policy))
    (tmp_path / "critic.jsonl").write_bytes(jsonl({"match": "", "answers": [SAYS]}))
    (tmp_path / "lint.py").write_text(
        "def check(sample):\n    return 'an even digit' if sample.text == '8' else ''\n"
    )
    return tmp_path


def sets(*texts: str) -> list[str]:
    return [word for text in texts for word in ("--set", text)]


def cycle(folder: Path, *words: str) -> Result:
    own = [*sets(*SETTINGS), *words]
    return selfrefine("cycle", "--model", "scripted:policy.jsonl", *own, "--run", "r", cwd=folder)


THREE = sets('critique.critics=["model", "policy", "lint.py:check"]')


def test_in_a_run_three_vote_on_the_held_out_drafts_and_the_screen_says_how_far_they_agree(
    folder: Path,
) -> None:
    """Two of three say revise to each of 4 drafts: of 12 verdicts 8 are revise, 4 ok.

    Alpha: 2 ordered pairs of 6 agree in a unit, so 4 differ, / (3 - 1) = 2 a unit, 8 in all; by chance
    (144 - 64 - 16) / 11. 1 - 8 / 5.818 = -0.375: worse than chance, as where each always says the same.
    """
    done = cycle(folder, *THREE)
    assert done.code == 0, done.err
    found = json.loads((folder / "runs/r/final/revised.json").read_text())
    assert found["agreement"]["verdict_alpha"] == pytest.approx(-0.375)
    assert [one["critic"] for one in found["agreement"]["critics"]] == ["model", "policy", "lint.py:check"]
    # the lint's score is 0 of 1, the others' are 1 and 5 of 5
    rows = [json.loads(line) for line in (folder / "runs/r/final/revised.jsonl").read_text().splitlines()]
    drafts = [row for row in rows if row["critiques"]]
    assert [row["critiques"][0]["text"] for row in drafts] == [f"{SAYS}\n\nan even digit"] * 4
    votes = drafts[0]["critiques"][0]["votes"]
    assert [one["verdict"] for one in votes] == ["revise", "ok", "revise"]
    assert votes[2]["critic"] == "rewards:lint.py:check"
    assert found["tokens"]["critique"] == 4 * (len(SAYS) + 1 + len(FINE) + 1)
    asked = selfrefine("runs", "sql", "r", "select verdict, tokens from votes", cwd=folder).rows
    assert asked[:3] == [
        {"verdict": "revise", "tokens": len(SAYS) + 1},
        {"verdict": "ok", "tokens": len(FINE) + 1},
        {"verdict": "revise", "tokens": 0},
    ]
    [whole] = selfrefine("runs", "sql", "r", "select distinct critic, tokens from critiques", cwd=folder).rows
    assert whole == {"critic": "critics", "tokens": len(SAYS) + len(FINE) + 2}
    assert len(asked) == 12


def test_with_the_critic_model_alone_in_the_comparison_nobody_votes(folder: Path) -> None:
    done = cycle(folder, *THREE, *sets("evaluate.critic=model"))
    assert done.code == 0, done.err
    found = json.loads((folder / "runs/r/final/revised.json").read_text())
    assert found["agreement"] is None
    rows = [json.loads(line) for line in (folder / "runs/r/final/revised.jsonl").read_text().splitlines()]
    made = next(row["critiques"][0] for row in rows if row["critiques"])
    assert made["text"] == SAYS and "votes" not in made


def test_in_a_pipe_they_vote_too_and_show_says_how(folder: Path) -> None:
    drafts = selfrefine("generate", "t.jsonl", "--model", "scripted:policy.jsonl", cwd=folder).out
    words = ["--model", "scripted:policy.jsonl", "--critic-model", "scripted:critic.jsonl", *CRITICS]
    found = selfrefine("critique", *words, "-r", "exact", stdin=drafts, cwd=folder)
    assert found.code == 0, found.err
    assert "3 critics: alpha -0.4" in found.err and "on verdicts" in found.err, found.err
    assert "verdicts: model 0 % ok, policy 100 % ok, lint.py:check 0 % ok" in found.err
    shown = selfrefine("show", stdin=found.out, cwd=folder).out.decode()
    assert "critique 0 (revise 0.400; 1 ok, 2 revise): Off." in shown


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["critique.critics=['rewards','model']", "critique.source=rewards"], "leave out critique.source"),
        (["critique.critics=['exact']"], "set critique.source = exact"),
        (["critique.critics=['exact','model','exact']"], "exact is named twice"),
        (["critique.critics=['model','nonsense']"], "critique.critics nonsense: use model, policy, rewards"),
        (["critique.critics=['rewards','exact']"], "critique.critic_model is not used"),
        (["critique.critics=['model','exact']", "select.learn=both"], "set critique.source"),
        (["critique.critics=['model','exact']", "select.learn=details"], "set critique.source"),
        (["critique.source=policy", "evaluate.critic=model"], "critique.source policy: use model, rewards"),
    ],
)
def test_what_contradicts_itself_is_refused_with_a_way_out(folder: Path, words: list[str], why: str) -> None:
    refused(cycle(folder, *sets(*words, "cycle.rounds=1")), 3, why)


def test_one_model_is_not_two_critics(folder: Path) -> None:
    drafts = selfrefine("generate", "t.jsonl", "--model", "scripted:policy.jsonl", cwd=folder).out
    words: list[Any] = ["--model", "scripted:policy.jsonl", *CRITICS]
    refused(selfrefine("critique", *words, stdin=drafts, cwd=folder), 3, "are one model")
    unknown = ["--model", "scripted:policy.jsonl", "--critics", "model", "--critics", "nonsense"]
    refused(selfrefine("critique", *unknown, stdin=drafts, cwd=folder), 3, "critique.critics nonsense")


def test_who_criticises_has_no_weight_and_is_not_the_reward_that_reads_critiques(folder: Path) -> None:
    """`exact:2` would vote like any other, and pass for another critic than `exact`; `critic` would find
    no critique to read."""
    rows = jsonl(answer("a.r0.s0", "7"))
    for words, said in (
        (["--critique-source", "exact:2"], "write exact"),
        (["--critics", "exact", "--critics", "exact:2"], "write exact"),
        (["--critique-source", "critic"], "use model"),
        (
            sets("critique.revise=false", "critique.revision_temperature=0.5"),
            "critique.revision_temperature is not used without critique.revise",
        ),
        (
            sets("select.corrections=broken", "critique.source=rewards", "critique.feedback=rewards"),
            "its turns show neither feedback nor principles",
        ),
        (
            ["-r", "majority", *sets("select.corrections=broken", "critique.source=rewards")],
            "broken copies are scored one by one",
        ),
        (
            sets("critique.revise_from=fault", "critique.source=rewards", "select.learn=revisions"),
            "a revision from a fault is an answer to the task",
        ),
        (
            sets("critique.revise_from=fault"),
            "critique.revise_from fault is not used without rewards that place a fault",
        ),
    ):
        own = ["critique", "-r", "exact", "--model", "scripted", *words]
        refused(selfrefine(*own, stdin=rows, cwd=folder), 3, said)


def test_a_critic_that_fails_is_told_and_one_that_always_fails_is_an_error(folder: Path) -> None:
    """Its rows would look like texts that nobody found fault with: 0 revisions, and no word why."""
    (folder / "bad.py").write_text(
        "def never(sample):\n    raise ValueError('no compiler')\n"
        "def odd(sample):\n    return 'even' if int(sample.text) % 2 == 0 else 1 / 0\n"
    )
    rows = jsonl(answer("a.r0.s0", "7"), answer("b.r0.s0", "8"))
    own = ["critique", "--model", "scripted"]

    def asked(*words: str) -> Result:
        return selfrefine(*own, *words, stdin=rows, cwd=folder)

    for words in (
        ["--critique-source", "bad.py:never"],
        ["--critics", "bad.py:never", "--critics", "rewards"],
    ):
        done = asked(*words)
        assert done.code == 4 and "any of the 2 texts: bad.py:never: ValueError: no compiler" in done.err
    nothing = asked("--critique-source", "rewards")
    assert nothing.code == 4 and "score them with -r NAME" in nothing.err
    mute = asked("--critics", "bad.py:never", "--critics", "bad.py:odd")
    assert "bad.py:never no verdict (ValueError: no compiler)" in mute.err
    assert "bad.py:odd 0 % ok (1 without: ZeroDivisionError: division by zero)" in mute.err
    some = asked("--critique-source", "bad.py:odd")
    assert some.code == 0, some.err
    assert "1 critique failed (bad.py:odd: ZeroDivisionError: division by zero)" in some.err


def test_a_file_that_places_the_fault_has_the_draft_revised_from_there(folder: Path) -> None:
    """By a file, in a pipe: "71" is wrong from its second character on, and "7" is kept."""
    (folder / "place.py").write_text(
        "from selfrefine.records import Reward\n"
        "def fault(sample):\n"
        "    right = sample.text == '7'\n"
        "    return Reward(name='p', value=float(right), detail=None if right else 'too long', keep=1)\n"
        "def bad(sample):\n"
        "    return Reward(name='p', value=0.0, keep=-1)\n"
    )
    drafts = jsonl({**answer("a.r0.s0", "71"), "token_ids": [55, 49, 256]})
    own = ["critique", "--model", "scripted", *sets("critique.revise_from=fault", "critique.control=false")]
    done = selfrefine(*own, "--critique-source", "place.py:fault", stdin=drafts, cwd=folder)
    assert done.code == 0, done.err
    first, revision = done.rows
    assert first["critiques"][0]["keep"] == 1
    assert (
        revision["text"].startswith("7") and revision["kept_tokens"] == 1 and revision["token_ids"][0] == 55
    )
    bad = selfrefine(*own, "--critique-source", "place.py:bad", stdin=drafts, cwd=folder)
    assert bad.code == 4 and "its keep is -1" in bad.err
