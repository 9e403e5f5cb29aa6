"""Tasks that the policy writes: what is dropped, what they are worth, what is learnt from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from harness import Impatient, selfrefine

from selfrefine.cli import common
from selfrefine.engines.scripted import Scripted
from selfrefine.errors import ConfigError, Interrupted
from selfrefine.records import Message, Sample, Task
from selfrefine.runfolder.run import Run
from selfrefine.stages import cycle as loop
from selfrefine.stages.progress import Silent
from selfrefine.stages.propose import Propose, answered
from selfrefine.stages.select import Select
from selfrefine.stages.session import RunSession
from selfrefine.steps import propose
from selfrefine.tasks.families import Family

MODEL = "scripted:script.jsonl"
SETTINGS = [
    "tasks.source=tasks.jsonl",
    "tasks.gate=4",
    "tasks.test=4",
    "cycle.prompts_per_round=8",
    "generate.n=4",
    "generate.max_new_tokens=8",
    'evaluate.measure=["numeric"]',
    "select.min_reward=1.0",
]
PROPOSE = [*SETTINGS, "propose.n=40", "propose.share=0.5", "propose.learn=true", "propose.max_new_tokens=8"]


def task(text: str, answer: str = "") -> Task:
    return Task(id=text, prompt=(Message(role="user", content=text),), references=(answer,))


def row(i: int, text: str) -> Sample:
    return Sample(
        id=f"propose-{i}.r1.s0", task=Task(id=f"propose-{i}", prompt=()), text=text, token_ids=(1, 2)
    )


class SmallUnits(Scripted):
    @property
    def unit_tokens(self) -> int:
        return 64


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sums from 0 + 0 to 3 + 3. The policy writes one of four: two of these, and two that are new."""
    monkeypatch.chdir(tmp_path)
    rows = [{"question": f"What is {i} + {j}?", "answer": str(i + j)} for i in range(4) for j in range(4)]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    texts = [f"{i} + {j}" for i in range(4) for j in range(4)] + ["8+1=5", "4 + 5", "no idea", "9 * 9"]
    script = [
        {"match": r"Write a sum", "answers": texts},
        {"match": r"8 \+ 1", "answers": ["9", "8"]},
        {"match": "", "answers": ["9"]},
    ]
    (tmp_path / "script.jsonl").write_text("".join(json.dumps(rule) + "\n" for rule in script))
    return tmp_path


def work(folder: Path, name: str, sets: list[str], watch: Any = None) -> RunSession:
    words = [word for text in sets for word in ("--set", text)]
    if not (folder / "runs" / name).exists():
        made = selfrefine("runs", "new", name, "--model", MODEL, *words, cwd=folder)
        assert made.code == 0, made.err
    config = common.settings(None, sets, {"model": MODEL}).config
    engine = SmallUnits.from_file(folder / "script.jsonl")
    return RunSession(config, watch or Silent(), lambda: engine, run=Run.open(folder / "runs" / name))


def rows(made: RunSession, name: str) -> list[Sample]:
    return list(made.run.round(1).samples(name))


def test_a_held_out_task_is_never_trained_on_in_whatever_words() -> None:
    """The trap: to compare prompts only. A test task from another file asks 2 + 2 in other words."""
    train = [task("What is 1 + 1?", "2")]
    family = Family("sums", {"max_digits": 2}, train)
    known = propose.Known(
        family, {"train": train, "gate": [task("What is 3 + 3?")], "test": [task("Compute: 2 + 2")]}
    )
    texts = ["2 + 2", "3 + 3", "1 + 1", "12 + 5", "12+5 = 18", "twelve"]
    like = {f"propose-{i}": train[0] for i in range(len(texts))}
    found, total = propose.read([row(i, text) for i, text in enumerate(texts)], known, like)
    [new] = propose.tasks_of(found)
    assert (new.prompt[0].content, new.references) == ("What is 12 + 5?", ("17",))
    assert new.meta["proposed"] == "propose-3.r1.s0"
    assert (total.proposals, total.new, total.held_out, total.given, total.again) == (6, 1, 2, 1, 1)
    assert (total.unreadable, total.why) == (1, {"not a sum of whole numbers": 1})
    assert total.tokens == 12


@pytest.mark.parametrize(("right", "worth"), [(0, 0.0), (1, 0.75), (3, 0.25), (4, 0.0)])
def test_a_task_is_worth_most_that_is_seldom_solved_and_nothing_that_never_or_always_is(
    right: int, worth: float
) -> None:
    family = Family("sums", {"max_digits": 2}, [task("What is 1 + 1?", "2")])
    [text], _ = propose.read([row(0, "12 + 5")], propose.Known(family, {}), {"propose-0": family.given[0]})
    [made] = propose.tasks_of([text])
    answers = [Sample(id=f"a{i}", task=made, text="", reward=float(i < right)) for i in range(4)]
    helped = Sample(id="v", task=made, text="", parent_id="a0", reward=1.0)  # a revision had help
    [rated] = propose.rated([text], [*answers, helped], 1.0)
    assert rated.reward == worth and propose.pass_rate(rated) == right / 4
    assert len(propose.turns([rated])) == (worth > 0)
    [nothing] = propose.rated([text], [Sample(id="a", task=made, text="", reward=None)], 1.0)
    assert nothing.reward is None and propose.pass_rate(nothing) is None  # null is not 0
    assert propose.rated([text], [], 1.0) == []


def test_a_round_answers_new_tasks_and_learns_what_was_solved_sometimes(folder: Path) -> None:
    made = work(folder, "r", PROPOSE)
    loop.generate(made, 1)
    loop.reward(made, 1)
    splits = {name: {one.id for one in made.run.tasks(name)} for name in ("train", "gate", "test")}
    asked = {one.task.id: one.task for one in rows(made, "generate")}
    written = {one.references[0] for one in asked.values() if "proposed" in one.meta}
    assert written == {"9"} and len(asked) == 8  # 8 + 1 and 4 + 5, and six given ones
    assert sum("proposed" not in one.meta for one in asked.values()) == 6
    assert not set(asked) & (splits["gate"] | splits["test"])
    told = json.loads(made.run.round(1).summary_file("proposed").read_text())
    assert told["new"] == 2 and told["held_out"] > 0 and told["given"] > 0 and told["again"] > 0
    assert told["new"] + told["unreadable"] + told["given"] + told["held_out"] + told["again"] == 40
    assert told["cost"]["tokens"] == sum(len(one.token_ids) for one in rows(made, "proposed"))
    rated = {one.text: one for one in rows(made, "learnable")}
    assert rated["4 + 5"].reward == 0.0  # all right
    loop.select(made, 1)
    learnt = [one for one in rows(made, "selected") if one.lesson and one.lesson.teaches == "proposal"]
    wanted = ["8+1=5"] if rated["8+1=5"].reward else []
    assert [one.text for one in learnt] == wanted == ["8+1=5"]
    assert learnt[0].context[-1].content.startswith("Write a sum")
    counts = json.loads(made.run.round(1).summary_file("selected").read_text())
    assert counts["proposals"] == 1 and counts["selected"] == len(rows(made, "selected"))


def test_a_task_beyond_the_share_was_never_asked_and_may_be_written_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two new tasks, 8 + 1 and 4 + 5, and a share of one: the other would be lost for the whole run."""
    made = work(folder, "r", [*PROPOSE, "propose.share=0.125"])
    loop.generate(made, 1)
    first, second = propose.tasks_of(rows(made, "proposed"))
    assert answered(made.config, made.run.round(1)) == [first]
    monkeypatch.setattr(type(made.run), "rounds", lambda run: [run.round(0), run.round(1)])
    known = Propose(made, 2).known
    assert (known.add(first), known.add(second)) == ("again", "")


def test_the_examples_are_training_tasks(folder: Path) -> None:
    made = work(folder, "r", PROPOSE)
    loop.generate(made, 1)
    family = Family("sums", {}, made.run.tasks("train"))
    train = {family.show(one) for one in made.run.tasks("train")}
    for one in rows(made, "proposed"):
        shown = [message.content for message in one.context if message.role == "assistant"]
        assert len(set(shown)) == 4 and set(shown) <= train


def test_killed_after_each_unit_it_goes_on_to_the_same_bytes(folder: Path) -> None:
    """The trap: to remember the tasks that were read in memory only. They would come twice."""
    whole = work(folder, "whole", PROPOSE)
    loop.generate(whole, 1)
    wanted = whole.run.round(1).file("proposed").read_bytes()
    kills = 0
    while not (folder / "runs" / "killed" / "round-001" / "generate.jsonl").exists():
        made = work(folder, "killed", PROPOSE, Impatient(1))
        try:
            loop.generate(made, 1)
        except Interrupted:
            kills += 1
    assert kills >= 3
    assert made.run.round(1).file("proposed").read_bytes() == wanted


def test_without_it_a_round_is_as_it_was(folder: Path) -> None:
    made = work(folder, "r", SETTINGS)
    loop.generate(made, 1)
    loop.reward(made, 1)
    list(Select(made, 1).inputs(made))
    assert {path.name for path in made.run.round(1).path.glob("*.jsonl")} == {
        "generate.jsonl",
        "reward.jsonl",
    }
    assert not (made.run.prompts_dir / "propose.md").exists()


def test_a_dry_run_counts_it(folder: Path) -> None:
    """8 prompts x 4 samples x 8 tokens, 40 texts of 8 tokens, 4 gate tasks of 8."""
    words = [word for text in PROPOSE for word in ("--set", text)]
    told = selfrefine("cycle", "--dry-run", "--model", MODEL, *words, cwd=folder).out.decode()
    assert "40 texts to become tasks, of which up to 4 are answered" in told
    assert "at most 608 per round" in told


def test_a_lone_text_is_not_compared(folder: Path) -> None:
    from selfrefine.stages.settings import check_method

    with pytest.raises(ConfigError, match=r"propose\.learn"):
        check_method(
            common.settings(
                None, [*PROPOSE[:-4], "propose.n=4", "propose.learn=true", "select.strategy=pairs"], {}
            ).config
        )


def _new(folder: Path, name: str, *sets: str) -> Any:
    words = [word for text in [*SETTINGS, "propose.n=4", *sets] for word in ("--set", text)]
    return selfrefine("runs", "new", name, "--model", MODEL, *words, cwd=folder)


def test_a_family_has_settings_which_a_run_keeps(folder: Path) -> None:
    """The trap: a name with two dots was an unknown key, in a flag, a file and the run's own manifest; and a
    flag on top of it was written into the manifest's table, so that nothing differed and nothing was said."""
    assert _new(folder, "r", "propose.settings.max_digits=1").code == 0
    assert selfrefine("generate", "--run", "r", cwd=folder).code == 0
    proposed = json.loads((folder / "runs/r/round-001/proposed.json").read_text())
    assert proposed["proposals"] == 4
    for key in ("propose.settings.max_digits", "tasks.settings.max_terms"):
        other = selfrefine("generate", "--run", "r", "--set", f"{key}=3", cwd=folder)
        assert other.code == 5 and key in other.err
    wrong = _new(folder, "s", "propose.settings.max_terms=1")
    assert wrong.code == 3 and "no sum has 2 numbers or more and 1 at most" in wrong.err


def test_what_would_write_tasks_for_nothing_is_refused(folder: Path) -> None:
    """A tenth of 8 prompts is no task, and without rounds nothing answers them."""
    none = _new(folder, "r", "propose.share=0.1")
    assert none.code == 3 and "less than one task" in none.err
    taught = ["propose.learn=true", "objective.name=distil", "select.strategy=all"]
    told = _new(folder, "r", *taught)
    assert told.code == 3 and "set objective.name = sft" in told.err
    never = _new(folder, "r", "cycle.rounds=0", 'reward.use=["numeric"]')
    assert never.code == 3 and "propose.n" in never.err
