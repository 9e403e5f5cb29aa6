"""A run that plans its rounds: what really changes, what never does, and what is looked at.

The engine is a script, so nothing is learnt: `finetune` makes an empty adapter. Subtractions are never right.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from harness import refused, selfrefine
from planning import (
    BRIEF,
    TARGET,
    Unlearning,
    drawn,
    file,
    make_folder,
    minus,
    rows,
    script,
    started,
    work,
    write,
)

from selfrefine.errors import ConfigError
from selfrefine.reflection.findings import PLAN_FILE, Action, Plan
from selfrefine.runfolder import audit
from selfrefine.stages import cycle as loop
from selfrefine.stages.in_run import formatted
from selfrefine.stages.planned import following, plan_of
from selfrefine.stages.reflect import last_outcomes, reflect
from selfrefine.stages.session import RunSession


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_folder(tmp_path, monkeypatch)


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
