"""A run that plans its rounds: what really changes, what never does, and what is looked at.

The engine is a script, so nothing is learnt: `finetune` makes an empty adapter. Subtractions are never right.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from harness import refused, selfrefine

from selfrefine.cli import common
from selfrefine.engines.scripted import Scripted
from selfrefine.errors import ConfigError
from selfrefine.records import Sample
from selfrefine.reflection import rules
from selfrefine.reflection.findings import PLAN_FILE, Action, Plan, Target
from selfrefine.runfolder import audit
from selfrefine.runfolder.run import Run
from selfrefine.stages import cycle as loop
from selfrefine.stages.in_run import formatted
from selfrefine.stages.planned import following, plan_of
from selfrefine.stages.progress import Silent
from selfrefine.stages.reflect import last_outcomes, reflect
from selfrefine.stages.session import RunSession

SETTINGS = [
    "tasks.source=tasks.jsonl",
    "tasks.gate=40",
    "tasks.test=8",
    "cycle.prompts_per_round=24",
    "cycle.rounds=2",
    "generate.n=2",
    "generate.max_new_tokens=8",
    'evaluate.measure=["numeric"]',
    "gate.mode=off",
    "guards.probe=false",
    "select.strategy=all",
    "reflect.causes=false",
]
SCRIPT = [{"match": "-", "answers": ["8"]}, {"match": "", "answers": ["7", "7", "7", "8"]}]
TARGET = Target(figure="gate.mean", split="gate", direction="up", before=0.5)
BRIEF = rules.REPAIRS["cut off"]


class Says(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


class Unlearning(Scripted):
    """Takes any adapter and stays what it is. With a hint in the system message it is brief and right."""

    def use_adapter(self, folder: Path | None) -> None:
        pass

    def _answers(self, prompt: Sequence[int]) -> list[tuple[int, ...]]:
        if BRIEF in self.decode(prompt):
            return [self.encode_answer("7")]
        return super()._answers(prompt)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [
        {"id": f"{'m' if i % 2 else 'p'}{i:03}", "question": f"{i} {'-' if i % 2 else '+'} 1", "answer": "7"}
        for i in range(148)
    ]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    script(tmp_path, SCRIPT)
    monkeypatch.setattr(loop, "ROUND", tuple(_trains if s is loop.finetune_round else s for s in loop.ROUND))
    return tmp_path


def script(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "script.jsonl").write_text("".join(json.dumps(rule) + "\n" for rule in rows))


def _trains(session: RunSession, k: int) -> None:
    session.run.round(k).put_directory("adapter", lambda place: (place / "weights").write_text("none"))


def work(folder: Path, name: str, *more: str) -> RunSession:
    sets = [*SETTINGS, *more]
    words = [word for text in sets for word in ("--set", text)]
    if not (folder / "runs" / name).exists():
        made = selfrefine("runs", "new", name, "--model", "scripted:script.jsonl", *words, cwd=folder)
        assert made.code == 0, made.err
    config = common.settings(None, sets, {"model": "scripted:script.jsonl"}).config
    engine = Unlearning.from_file(folder / "script.jsonl")
    return RunSession(config, Says(), lambda: engine, run=Run.open(folder / "runs" / name))


def started(folder: Path, name: str, *more: str) -> RunSession:
    made = work(folder, name, *more)
    loop.baseline(made)
    return made


def rows(made: RunSession, name: str, k: int = 1) -> list[Sample]:
    return list(made.run.round(k).samples(name))


def drawn(made: RunSession, k: int = 1) -> list[str]:
    return [row.task.id for row in rows(made, "generate", k) if row.index == 0]


def minus(ids: list[str]) -> int:
    return sum(one.startswith("m") for one in ids)


def file(made: RunSession, name: str, k: int = 1) -> bytes:
    return (made.run.round(k).path / name).read_bytes()


def test_auto_draws_what_is_weak_and_suggest_changes_nothing(folder: Path) -> None:
    off, suggest, auto = (
        started(folder, plan, f"reflect.plan={plan}") for plan in ("off", "suggest", "auto")
    )
    for made in (off, suggest, auto):
        reflect(made, 1)
        loop.generate(made, 1)
    assert file(off, "generate.jsonl") == file(suggest, "generate.jsonl")
    assert not (off.run.round(1).path / "plan.json").exists()
    told = plan_of(suggest.run.round(1))
    assert told is not None and told.mode == "suggest"
    assert [action.kind for action in told.actions] == ["reweight"]
    # Half of the tasks are subtractions. Their weight is 1 and that of the rest a fifth.
    assert 8 <= minus(drawn(off)) <= 16
    assert minus(drawn(auto)) >= 17 and len(set(drawn(auto))) == 24
    assert 'word "-"' in "\n".join(auto.reporter.said)  # type: ignore[attr-defined]


def test_nothing_right_doubles_the_samples_of_this_round_and_no_measure(folder: Path) -> None:
    script(folder, [{"match": "", "answers": ["8"]}])
    made = started(folder, "r", "reflect.plan=auto")
    reflect(made, 1)
    loop.generate(made, 1)
    assert len(rows(made, "generate")) == 24 * 4 and made.config.generate.n == 2
    assert len(rows(made, "gate", 0)) == 40


def write(made: RunSession, *actions: Action, mode: Any = "auto", k: int = 1) -> None:
    """A round's reflection as if it had come to this."""
    place = made.run.round(k)
    place.put("plan.json", formatted(Plan(round=k, mode=mode, actions=actions)))
    place.put("reflect.json", b"{}")


def test_a_plans_settings_hold_for_the_stages_of_its_round_and_not_for_the_gate(folder: Path) -> None:
    """The trap: a candidate that is measured with the plan's temperature or length is not compared with one
    that was measured with the run's."""
    script(folder, [{"match": "-", "answers": ["8 it is"]}, {"match": "", "answers": ["7", "7 okay"]}])
    made = started(folder, "r", "reflect.plan=auto", "evaluate.n=2", "evaluate.temperature=1")
    settings = {"generate.temperature": 0.0, "generate.max_new_tokens": 3}
    write(made, Action(kind="temperature", reason="", target=TARGET, settings=settings))
    for stage in loop.ROUND[1:]:
        stage(made, 1)
    sampled = {(row.task.id[0], row.text, row.finish_reason) for row in rows(made, "generate")}
    assert sampled == {("p", "7", "stop"), ("m", "8 i", "length")}  # greedy, and cut off at three bytes
    before, after = ({(row.id, row.text) for row in rows(made, "gate", k)} for k in (0, 1))
    assert before == after
    assert {text for _, text in after} == {"7", "7 okay", "8 it is"}
    assert made.config.generate.max_new_tokens == 8 and made.plan is None


def test_a_plan_that_only_suggests_is_not_followed(folder: Path) -> None:
    made = started(folder, "r", "reflect.plan=suggest")
    write(
        made, Action(kind="sample-more", reason="", target=TARGET, settings={"generate.n": 8}), mode="suggest"
    )
    with following(made, 1):
        assert made.config.generate.n == 2


def test_a_hint_that_helps_is_sampled_with_and_learnt_without(folder: Path) -> None:
    """Answers are cut off at three bytes, and brief with the hint: 0 of the trial's tasks become all."""
    script(folder, [{"match": "", "answers": ["it is seven, or 7"]}])
    made = started(
        folder, "r", "reflect.plan=auto", "generate.system=You count.", "generate.max_new_tokens=3"
    )
    loop_until_selected(made)
    told = plan_of(made.run.round(1))
    assert told is not None
    (trial,) = told.hints
    assert (trial["without"], trial["with"], trial["tasks"], trial["better"]) == (0.0, 1.0, 48, True)
    hint = next(action for action in told.actions if action.kind == "hint")
    assert hint.settings == {"system": BRIEF} and "from 0.000 to 1.000" in hint.reason
    plain = {row.task.id: row for row in rows(made, "hints") if row.index == 0}
    for row in rows(made, "selected"):
        assert row.text == "7" and row.logprobs is None
        assert isinstance(row.extra, dict) and bytes(row.extra["sampled_with"]) == b'"hint"'
        assert [m.content for m in row.context] == ["You count.", row.task.prompt[0].content]
        assert made.engine.decode(row.prompt_token_ids) == "You count." + row.task.prompt[0].content
    assert told.tokens == sum(len(row.token_ids) for row in rows(made, "hints"))
    assert len(plain) == 48
    generated = sum(len(row.token_ids) for row in rows(made, "generate"))
    assert made.run.round(1).cost().tokens == told.tokens + generated


def loop_until_selected(made: RunSession) -> None:
    for stage in (reflect, loop.generate, loop.reward, loop.select):
        stage(made, 1)


def test_a_whole_run_says_what_became_of_its_plans(folder: Path) -> None:
    made = work(folder, "r", "reflect.plan=auto")
    ended = loop.cycle(made)
    assert ended.why == "2 rounds done"
    told = plan_of(made.run.round(2))
    assert told is not None
    (outcome,) = told.outcomes
    # Nothing was learnt, so subtractions are where they were.
    assert (outcome.round, outcome.kind, outcome.target.figure) == (1, "reweight", 'word "-"')
    assert (outcome.target.before, outcome.after, outcome.moved) == (0.0, 0.0, False)
    said: list[str] = made.reporter.said  # type: ignore[attr-defined]
    assert 'round 1 reweight: word "-" (gate) 0.000 → 0.000, did not move' in said
    assert any(
        line.startswith("round 2 reweight:") for line in said
    )  # at the end, where no reflection follows
    for k in (1, 2):
        artifacts = made.run.summary(k).artifacts
        assert {"weaknesses.json", "causes.md", "plan.json", "reflect.json"} <= artifacts.keys()
    assert audit.verify(made.run) == []
    kinds = {event["kind"] for event in made.run.events.read()}
    assert {"plan", "outcome"} <= kinds
    assert max(run.gate.looks for run in ended.summaries if run.gate) == 0  # the gate is off: no look more


def test_a_plan_that_says_stop_ends_the_run_before_the_round(folder: Path) -> None:
    script(folder, [{"match": "", "answers": ["7"]}])
    made = work(folder, "r", "reflect.plan=auto")
    ended = loop.cycle(made)
    assert (
        ended.why == "the plan of round 1 says stop: every gate task is right: no further gain can be shown"
    )
    assert made.run.next_round() == 1 and made.run.final_summary() is not None
    # No round.json will count what is sampled for a round that never comes, so nothing is.
    assert not made.run.round(1).has("hints") and made.run.round(1).cost().tokens == 0
    assert not (made.run.round(1).path / "generate.jsonl").exists()
    assert loop.cycle(work(folder, "r", "reflect.plan=auto")).why == ended.why  # and again
    assert audit.verify(made.run) == []


def test_the_last_plan_is_judged_once(folder: Path) -> None:
    """Round 1 follows a plan, and the plan of round 2 says stop: its reflection has judged it."""
    made = started(folder, "r", "reflect.plan=auto")
    for stage in loop.ROUND:
        stage(made, 1)
    stop = Plan(round=2, mode="auto", actions=(Action(kind="stop", reason="told", target=TARGET),))
    made.run.round(2).put(PLAN_FILE, formatted(stop))
    made.run.round(2).put("reflect.json", b"{}")
    last_outcomes(made)
    assert not [event for event in made.run.events.read() if event["kind"] == "outcome"]


def test_the_test_split_is_never_looked_at(folder: Path) -> None:
    """Its rows are made right, and then broken and removed: the same bytes come out."""
    made = work(folder, "r", "reflect.plan=auto", "cycle.rounds=1")
    loop.cycle(made)
    shutil.copytree(made.run.path, folder / "runs/poisoned", symlinks=True)
    for path in (folder / "runs/poisoned").rglob("test.jsonl"):
        if "tasks" in path.parts:
            path.unlink()
        else:
            path.write_text("this is no row\n")
    for name in ("r", "poisoned"):
        done = selfrefine("reflect", name, "--no-causes", cwd=folder)
        assert done.code == 0, done.err
        again = work(folder, name, "reflect.plan=auto", "cycle.rounds=1")
        reflect(again, 2)
    for name in ("weaknesses.json", "causes.md", "plan.json"):
        for place in ("reflection", "round-002"):
            one, other = (folder / "runs" / run / place / name for run in ("r", "poisoned"))
            assert one.read_bytes() == other.read_bytes(), name


def test_by_hand_and_in_a_cycle_a_round_is_the_same(folder: Path) -> None:
    whole = started(folder, "whole", "reflect.plan=auto")
    loop_until_selected(whole)
    work(folder, "hand", "reflect.plan=auto")
    early = selfrefine("generate", "--run", "hand", cwd=folder)
    refused(early, 5, "first run `selfrefine reflect --run hand`")
    early = selfrefine("select", "--run", "hand", cwd=folder)
    refused(early, 5, "`selfrefine reflect --run hand`, then `selfrefine generate --run hand`")
    for verb in ("reflect", "generate", "reward", "select"):
        done = selfrefine(verb, "--run", "hand", cwd=folder)
        assert done.code == 0, done.err
    for path in sorted(whole.run.round(1).path.iterdir()):
        assert path.read_bytes() == (folder / "runs/hand/round-001" / path.name).read_bytes(), path.name


def test_a_run_made_before_there_was_a_plan_goes_on_as_it_was(folder: Path) -> None:
    """Without a word of it in the manifest: the same answers, and its own command continues it."""
    new = started(folder, "new", "reflect.plan=off")
    old = work(folder, "old", "reflect.plan=off")
    path = old.run.path / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["config"]["reflect"]
    manifest["origins"] = {k: v for k, v in manifest["origins"].items() if not k.startswith("reflect.")}
    path.write_text(json.dumps(manifest))
    loop_until_selected(new)
    for verb in ("generate", "reward", "select"):
        done = selfrefine(verb, "--run", "old", cwd=folder)
        assert done.code == 0, done.err
    for name in ("generate.jsonl", "reward.jsonl", "selected.jsonl", "selected.json"):
        assert file(new, name) == file(old, name), name
    assert sorted(p.name for p in new.run.round(1).path.iterdir()) == sorted(
        p.name for p in old.run.round(1).path.iterdir()
    )
    assert selfrefine("reflect", "old", "--no-causes", cwd=folder).code == 0
    refused(
        selfrefine("reflect", "--run", "old", cwd=folder), 3, "reflect.plan = off", "selfrefine reflect old"
    )


def test_reflect_looks_at_any_run_without_a_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = work(folder, "r")
    monkeypatch.setattr("selfrefine.cli.common.load", lambda *_, **__: pytest.fail("a model was loaded"))
    new = selfrefine("reflect", "r", "--no-causes", cwd=folder)
    assert new.code == 0 and new.rows[0]["weaknesses"]["notes"], new.err
    loop.baseline(made)
    before = {p: p.read_bytes() for p in (made.run.path / "round-000").iterdir()}
    done = selfrefine("reflect", "r", "--no-causes", cwd=folder)
    assert done.code == 0, done.err
    (told,) = done.rows
    assert told["weaknesses"]["heaviest"] == ['word "-"']
    assert told["plan"]["mode"] == "suggest" and told["plan"]["round"] == 1
    assert before == {p: p.read_bytes() for p in (made.run.path / "round-000").iterdir()}
    kept = json.loads((made.run.path / "reflection/plan.json").read_text())
    assert kept["actions"][0]["kind"] == "reweight"
    refused(selfrefine("reflect", "r", "--min-reward", "0.5", cwd=folder), 2, "its own settings")
    shown = selfrefine("reflect", "runs/r", "--no-causes", cwd=folder, terminal=True)
    assert b"weakness" in shown.out and b'reweight: `word "-"` is at 0.000' in shown.out
    assert audit.verify(made.run) == []
    (made.run.path / "reflection/plan.json").write_text("{")
    assert any("reflection/plan.json" in line for line in audit.verify(made.run))
    refused(selfrefine("reflect", "nothing", cwd=folder), 5, "no run 'nothing'")


def test_as_a_filter_it_takes_scored_samples(folder: Path) -> None:
    samples = selfrefine("generate", "tasks.jsonl", "--model", "scripted:script.jsonl", "-n", "2", cwd=folder)
    refused(
        selfrefine("reflect", stdin=samples.out, cwd=folder), 4, "no row has a reward", "selfrefine reward"
    )
    scored = selfrefine("reward", "-r", "numeric", stdin=samples.out, cwd=folder)
    for vain in ("--no-causes", "--model=smollm2"):  # ignored, they would look as if they had done something
        refused(selfrefine("reflect", vain, stdin=scored.out, cwd=folder), 2, "reflect on rows takes no")
    done = selfrefine("reflect", stdin=scored.out, cwd=folder)
    assert done.code == 0 and len(done.rows) == 1, done.err
    (told,) = done.rows
    assert told["samples"] == 296 and told["weaknesses"]["heaviest"][0] == 'word "-"'
    never = next(cell for cell in told["weaknesses"]["train"] if cell["name"] == "never right")
    assert never["n"] >= 74  # every subtraction


def test_a_dry_run_counts_what_a_plan_may_sample(folder: Path) -> None:
    """By hand: 24 tasks x 2 samples x 4 times x 8 tokens, rationalised 24 x 3 x 8, tried 48 x 2 x 8, and the
    gate's 40 x 8."""
    words = [word for text in SETTINGS for word in ("--set", text)]
    command = ["cycle", "--dry-run", "--model", "scripted:script.jsonl", *words]
    plain, planned = selfrefine(*command, cwd=folder), selfrefine(*command, "--plan", "auto", cwd=folder)
    assert b"at most 704 per round" in plain.out  # 384 + 320
    assert b"at most 3,200 per round" in planned.out and b"up to 4 times as many by plan" in planned.out
    refused(selfrefine("cycle", "--plan", "always", cwd=folder), 3, "reflect.plan", "auto, off, suggest")


def test_a_template_that_refuses_a_system_message_costs_only_the_hint(folder: Path) -> None:
    class Plain(Unlearning):
        def encode_chat(self, messages: Any) -> tuple[int, ...]:
            if any(message.role == "system" for message in messages):
                raise ConfigError("the model's chat template refuses these messages")
            return super().encode_chat(messages)

    script(folder, [{"match": "", "answers": ["it is seven, or 7"]}])
    made = started(folder, "r", "reflect.plan=auto", "generate.max_new_tokens=3")
    made.load = lambda: Plain.from_file(folder / "script.jsonl")
    vars(made).pop("engine", None)
    reflect(made, 1)
    told = plan_of(made.run.round(1))
    assert told is not None and told.hints == ()
    assert any("no hint is tried" in line for line in made.reporter.said)  # type: ignore[attr-defined]


def test_a_hostile_tag_stays_text_on_a_terminal(folder: Path) -> None:
    """Tags and words of tasks become names of weaknesses, in the table and in what is said."""
    evil = "\x1b]0;owned\x07-\u202e"
    lines = [
        {"id": f"t{i}.r0.s0", "text": "8", "reward": float(i % 2)}
        | {"task": {"id": f"t{i}", "prompt": [], "tags": {"op": evil if i % 2 == 0 else "+"}}}
        for i in range(40)
    ]
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    shown = selfrefine("reflect", stdin=data, cwd=folder, terminal=True)
    assert shown.code == 0, shown.err
    printed = shown.out.decode()
    assert "owned" in printed  # it is the first weakness, by a harmless name
    for byte in ("\x1b]", "\x07", "\u202e"):
        assert byte not in printed and byte not in shown.err
