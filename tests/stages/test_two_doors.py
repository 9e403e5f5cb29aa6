"""A verb as a filter and inside a run is one stage: what one door refuses or scores, so does the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from harness import jsonl, refused, selfrefine, task, tree

from selfrefine.runfolder.run import Run
from selfrefine.stats import interval

SCRIPT = ["--model", "scripted:script.jsonl"]
SETTINGS = [
    "tasks.source=t.jsonl",
    "tasks.gate=4",
    "tasks.test=2",
    "cycle.prompts_per_round=4",
    "generate.n=2",
    "generate.max_new_tokens=8",
]


def sets(*texts: str) -> list[str]:
    return [word for text in texts for word in ("--set", text)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [task(f"t{i:02}", f"say {i}", "7") for i in range(20)]
    (tmp_path / "t.jsonl").write_bytes(jsonl(*rows))
    # "7 ok" has the right number and is no exact match: half of a mean of the two, all or nothing of a gate.
    (tmp_path / "script.jsonl").write_bytes(jsonl({"match": "", "answers": ["7 ok"]}))
    (tmp_path / "mine.py").write_text("def half(sample):\n    return 0.5\n")
    return tmp_path


def told(folder: Path, name: str) -> Any:
    return json.loads((folder / "runs/r" / name).read_text())


def test_a_gating_reward_counts_in_evaluate_as_in_a_run(folder: Path) -> None:
    """As a filter it was dropped: the same row scored 0.5 there and 0.0 in a run."""
    gated = sets('evaluate.measure=["numeric","exact"]', "reward.gate_on=exact")
    alone = selfrefine("evaluate", "t.jsonl", "--json", *SCRIPT, *gated, cwd=folder)
    assert alone.rows[0]["mean"] == 0.0
    plain = selfrefine("evaluate", "t.jsonl", "--json", *SCRIPT, "-m", "numeric", "-m", "exact", cwd=folder)
    assert plain.rows[0]["mean"] == 0.5
    words = [*SCRIPT, *sets(*SETTINGS, "cycle.rounds=0"), *gated, "--run", "r"]
    done = selfrefine("cycle", *words, cwd=folder)
    assert done.code == 0, done.err
    assert told(folder, "round-000/round.json")["measures"]["gate"]["mean"] == 0.0


def test_critique_settings_that_contradict_each_other_are_refused_at_both_doors(folder: Path) -> None:
    words = ["--passes", "3", *sets("critique.revise=false")]
    drafts = selfrefine("generate", "t.jsonl", *SCRIPT, "-n", "1", cwd=folder).out
    refused(selfrefine("critique", *SCRIPT, *words, stdin=drafts, cwd=folder), 3, "counts revisions")
    own = sets(*SETTINGS, "cycle.rounds=0", 'reward.use=["numeric"]')
    run = ["cycle", *SCRIPT, *own, "--run", "r"]
    again = ["--critique", "3", *sets("critique.revise=false")]
    refused(selfrefine(*run, *again, cwd=folder), 3, "counts revisions")


def test_an_edited_reward_file_is_drift_and_its_rewards_are_not_paired(folder: Path) -> None:
    """The gate would pair old rewards with new ones: a gain that nobody learnt."""
    words = [*sets(*SETTINGS, 'reward.use=["mine.py:half"]', "select.strategy=all", "cycle.rounds=0")]
    first = selfrefine("cycle", *SCRIPT, *words, "--run", "r", cwd=folder)
    assert first.code == 0, first.err
    assert list(told(folder, "manifest.json")["code"]) == ["mine.py"]
    (folder / "mine.py").write_text("def half(sample):\n    return 1.0\n")
    again = selfrefine("cycle", "--run", "r", cwd=folder)
    assert again.code == 5 and "mine.py was edited" in again.err
    from selfrefine.errors import DataError
    from selfrefine.gating.comparison import check_signatures

    rows = list(Run.open(folder / "runs/r").round(0).samples("gate"))
    check_signatures(rows, rows)
    rescored = selfrefine(
        "reward", "runs/r/round-000/gate.jsonl", "-r", "mine.py:half", "-o", "now.jsonl", cwd=folder
    )
    assert rescored.code == 0, rescored.err
    from selfrefine.records import decode_sample

    lines = (folder / "now.jsonl").read_bytes().splitlines()
    now = [decode_sample(line, "now") for line in lines]
    with pytest.raises(DataError, match="computed in two different ways"):
        check_signatures(rows, now)


def test_a_selection_is_counted_once_and_read_from_there(folder: Path) -> None:
    """Under --allow-drift fresh counts were reported while training used the old file."""
    words = sets(*SETTINGS, 'reward.use=["numeric"]', "select.strategy=all")
    made = selfrefine("runs", "new", "r", *SCRIPT, *words, cwd=folder)
    assert made.code == 0, made.err
    for verb in ("generate", "reward", "select"):
        done = selfrefine(verb, "--run", "r", cwd=folder)
        assert done.code == 0, done.err
    assert "select: 4 of 8 rows" in done.err  # the last line of three: it said 0 of 8
    stored = told(folder, "round-001/selected.json")
    assert stored["selected"] == 4 and stored["duplicates"] == 4  # two equal answers to each of 4 prompts
    other = ["select", "--run", "r", "--no-dedupe", "--allow-drift", "--summary-json", "s.json"]
    assert selfrefine(*other, cwd=folder).code == 0
    assert json.loads((folder / "s.json").read_text())["selected"] == 4


def test_runs_ls_says_what_became_of_each_run(folder: Path) -> None:
    def state() -> str:
        listed = selfrefine("runs", "ls", "--json", cwd=folder)
        return str(listed.rows[0]["state"])

    words = [*SCRIPT, *sets(*SETTINGS, 'reward.use=["numeric"]')]
    assert selfrefine("runs", "new", "r", *words, cwd=folder).code == 0
    assert state() == "new"
    assert selfrefine("generate", "--run", "r", cwd=folder).code == 0
    assert state() == "by hand"
    early = selfrefine("finetune", "--run", "r", cwd=folder)
    assert early.code == 5 and state() == "by hand"  # refused before it began
    assert selfrefine("reward", "--run", "r", cwd=folder).code == 0
    failed = selfrefine("finetune", "--run", "r", cwd=folder)  # a script cannot be trained
    assert failed.code != 0 and state().startswith(f"failed (exit {failed.code}): ")
    run = Run.open(folder / "runs/r")
    with run.lock():
        assert state() == "running"
    run.events.append("cycle", continued=True, argv=[])
    assert state() == "interrupted"  # begun, not ended, and nobody holds the lock
    run.events.append("end", why="3 rounds done")
    assert state() == "ended: 3 rounds done"
    other = selfrefine("cycle", "--run", "r", "-n", "5", "--rounds", "0", cwd=folder)
    assert other.code == 5 and "was made with other settings" in other.err
    assert state() == "ended: 3 rounds done"  # who is refused changes nothing of the run


def test_or_new_makes_the_other_run_with_its_own_critic(folder: Path) -> None:
    """It had the critic of the run that it is not, and could not be continued."""
    (folder / "other.jsonl").write_bytes(jsonl(*(task(f"o{i:02}", f"tell {i}", "7") for i in range(20))))
    words = [*SCRIPT, *sets(*SETTINGS, "cycle.rounds=0", 'reward.use=["numeric"]'), "--critique", "1"]
    first = [*words, *sets("critique.critic_model=scripted:script.jsonl"), "--run", "r"]
    assert selfrefine("cycle", *first, cwd=folder).code == 0
    assert json.loads((folder / "runs/r/manifest.json").read_text())["critic"]
    made = selfrefine("cycle", *words, "--run", "r", "--or-new", "--tasks", "other.jsonl", cwd=folder)
    assert made.code == 0, made.err
    assert not json.loads((folder / "runs/r-2/manifest.json").read_text())["critic"]
    again = selfrefine("cycle", "--run", "r-2", cwd=folder)
    assert again.code == 0, again.err


def test_or_new_goes_on_with_the_run_that_it_made(folder: Path) -> None:
    """The second time it was compared with what the first run had been told besides, and made a third."""
    words = [*SCRIPT, *sets(*SETTINGS, "cycle.rounds=0", 'reward.use=["numeric"]'), "--run", "r"]
    other = [*words, *sets("train.lr=0.25"), "--or-new"]
    assert selfrefine("cycle", *words, *sets("tasks.suffix=!"), cwd=folder).code == 0
    for said in ("new run runs/r-2", "continuing runs/r-2"):
        done = selfrefine("cycle", *other, cwd=folder)
        assert done.code == 0 and said in done.err, done.err
    assert not (folder / "runs/r-3").exists()


@pytest.mark.parametrize(
    ("verb", "done", "first"),
    [
        ("reward", [], "generate"),
        ("select", [], "generate"),
        ("select", ["generate"], "reward"),
        ("finetune", ["generate"], "reward"),
        ("evaluate", ["generate", "reward", "select"], "finetune"),
        ("gate", [], "generate"),
        ("gate", ["generate", "reward"], "finetune"),
    ],
)
def test_a_stage_out_of_order_names_the_command_to_run_first(
    folder: Path, verb: str, done: list[str], first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It said "the stage before has not finished here", after the model had been loaded."""
    own = sets(*SETTINGS, "tasks.gate=0", "gate.mode=off", "guards.probe=false", 'reward.use=["numeric"]')
    words = "select.strategy=all"
    made = selfrefine("runs", "new", "r", *SCRIPT, *own, "--set", words, cwd=folder)
    assert made.code == 0 and made.err.endswith(
        "next: selfrefine generate --run r\n"
    )  # no cycle for a script
    for each in done:
        assert selfrefine(each, "--run", "r", cwd=folder).code == 0
    monkeypatch.setattr("selfrefine.cli.common.load", lambda *_, **__: pytest.fail("a model was loaded"))
    out = selfrefine(verb, "--run", "r", cwd=folder)
    assert out.code == 5 and f"first run `selfrefine {first} --run r`" in out.err
    # From another folder the run has another name.
    (folder / "else where").mkdir()
    out = selfrefine(verb, "--run", "../runs/r", cwd=folder / "else where")
    assert out.code == 5 and f"first run `selfrefine {first} --run ../runs/r`" in out.err


NAMES: dict[str, tuple[list[str], int, str]] = {
    "a reward": (["-r", "exakt"], 3, "did you mean 'exact'?"),
    "a measure": (["-r", "numeric", "--measure", "bleuu"], 3, "'bleuu'"),
    "a reward's file": (["-r", "no.py:f"], 3, "no.py"),
    "the gold reward": (["-r", "numeric", "--set", "guards.gold=nope"], 3, "'nope'"),
    "an objective": (["-r", "numeric", "--set", "objective.name=ppo"], 3, "'ppo'"),
    "a source": (["-r", "numeric", "--tasks", "gim:chain_sum"], 3, "gym:chain_sum"),
}


@pytest.mark.parametrize("what", NAMES)
def test_names_are_looked_at_before_a_model_is_loaded_or_tasks_are_read(
    folder: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`-r exakt` took ten to twenty seconds to say so."""
    words, code, said = NAMES[what]
    monkeypatch.setattr("selfrefine.cli.common.load", lambda *_, **__: pytest.fail("a model was loaded"))
    if what != "a source":
        no_tasks = lambda *_: pytest.fail("tasks were read")  # noqa: E731
        monkeypatch.setattr("selfrefine.cli.open_run.make_splits", no_tasks)
    done = selfrefine("cycle", *sets(*SETTINGS), *words, "--run", "r", cwd=folder)
    refused(done, code, said)


def test_a_run_that_is_there_is_seen_before_a_model_is_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*SCRIPT, *sets(*SETTINGS, 'reward.use=["numeric"]')]
    assert selfrefine("runs", "new", "r", *words, cwd=folder).code == 0
    (folder / "runs/other").mkdir()
    monkeypatch.setattr("selfrefine.cli.common.load", lambda *_, **__: pytest.fail("a model was loaded"))
    again = selfrefine("runs", "new", "r", *words, cwd=folder)
    refused(again, 5, "runs/r already exists", "`selfrefine cycle --run r`")
    taken = selfrefine("runs", "new", "other", *words, cwd=folder)
    refused(taken, 5, "already exists: choose another name")  # it is no run and cannot be continued
    drift = selfrefine("cycle", "--run", "r", "-n", "5", cwd=folder)
    assert drift.code == 5 and "generate.n: 2 in the run, 5 now" in drift.err


FROZEN = {
    "cycle.patience=9": "cycle.patience: 2 in the run, 9 now",
    "cycle.prompts_per_round=5": "cycle.prompts_per_round: 4 in the run, 5 now",
    "guards.probe=false": "guards.probe: true in the run, false now",
    "alarms.kl=3": "alarms.kl: 2.0 in the run, 3.0 now",
}


@pytest.mark.parametrize("setting", FROZEN)
@pytest.mark.parametrize("verb", ["cycle", "reward"])
def test_only_the_documented_settings_may_change_in_a_run(folder: Path, setting: str, verb: str) -> None:
    """patience=9 was taken, was not written down, and `verify` said that the run is whole."""
    words = [*SCRIPT, *sets(*SETTINGS, "cycle.rounds=0", 'reward.use=["numeric"]'), "--run", "r"]
    assert selfrefine("cycle", *words, cwd=folder).code == 0
    done = selfrefine(verb, "--run", "r", "--set", setting, cwd=folder)
    assert done.code == 5 and FROZEN[setting] in done.err and "--allow-drift" in done.err
    free = sets("cycle.until=0.9", "cycle.max_minutes=5", "cycle.max_tokens=9")
    assert selfrefine("cycle", "--run", "r", *free, cwd=folder).code == 0


def test_runs_show_has_a_line_for_each_stage(folder: Path) -> None:
    words = [*SCRIPT, *sets(*SETTINGS, "cycle.rounds=0", 'reward.use=["numeric"]'), "--run", "r"]
    assert selfrefine("cycle", *words, cwd=folder).code == 0
    shown = selfrefine("runs", "show", "r", "--all", cwd=folder).out.decode()
    assert "gate: mean 1.000" in shown and "test: mean 1.000" in shown
    # A folder of 0.1 has its counts in round.json and no file a stage.
    for name in ("gate", "test"):
        (folder / f"runs/r/round-000/{name}.json").unlink()
    path = folder / "runs/r/round-000/round.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"counts": {"tokens": 12, "unscored": 3}}))
    assert "12 tokens · 3 unscored" in selfrefine("runs", "show", "r", "--all", cwd=folder).out.decode()


def test_the_interval_of_evaluate_follows_its_seed(folder: Path) -> None:
    words = ["evaluate", "t.jsonl", "-m", "random", "--json", *SCRIPT, "--seed", "5"]
    told = selfrefine(*words, cwd=folder).rows[0]
    values = [row["reward"] for row in selfrefine(*words, "-o", "-", cwd=folder).rows]
    wanted = interval(values, seed=5)
    assert (told["lo"], told["hi"]) == (wanted.lo, wanted.hi) != (interval(values).lo, interval(values).hi)


def test_a_measure_that_fails_on_every_row_leaves_nothing_behind(folder: Path) -> None:
    """The unscored answers were kept: the same error for ever, without its reason, however it was mended."""
    (folder / "mine.py").write_text("def f(sample):\n    return {}[sample.text]\n")
    words = ["cycle", "--run", "r", *SCRIPT, *sets(*SETTINGS, "cycle.rounds=0", 'reward.use=["mine.py:f"]')]
    done = selfrefine(*words, cwd=folder)
    assert done.code == 4 and "KeyError" in done.err, done.err
    (folder / "mine.py").write_text("def f(sample):\n    return 1.0\n")
    again = selfrefine(*words, "--allow-drift", cwd=folder)
    assert again.code == 0, again.err


@pytest.mark.parametrize(
    "setting",
    [
        'reward.use=["coverag"]',
        'evaluate.measure=["nonono"]',
        "reward.numeric.tol=1",
        "guards.gold=nope",
        "reward.gate_on=length",
        'reward.use=["numeric","numeric"]',
        "critique.passes=2\0critique.revise=false",
    ],
)
def test_a_dry_run_refuses_what_the_run_would_refuse(folder: Path, setting: str) -> None:
    """It printed a plan, and hours later the real command was refused."""
    words = [*SCRIPT, *sets(*SETTINGS, 'reward.use=["numeric"]', *setting.split("\0"))]
    assert selfrefine("cycle", *words, "--dry-run", cwd=folder).code == 3
    assert selfrefine("runs", "new", "r", *words, cwd=folder).code == 3
    assert (
        selfrefine("cycle", *SCRIPT, *sets(*SETTINGS, 'reward.use=["numeric"]'), "--dry-run", cwd=folder).code
        == 0
    )


def test_critique_without_rewards_claims_no_transitions(folder: Path) -> None:
    """0 wrong to right is a count of what was looked at; nobody looked."""
    drafts = selfrefine("generate", "t.jsonl", *SCRIPT, "-n", "1", cwd=folder).out
    plain = selfrefine("critique", *SCRIPT, stdin=drafts, cwd=folder).err
    assert "20 revisions unscored" in plain and "wrong→right" not in plain
    scored = selfrefine("critique", *SCRIPT, "-r", "exact", stdin=drafts, cwd=folder).err
    assert "wrong→right 0" in scored and "unscored" not in scored
    none = selfrefine("critique", *SCRIPT, "--passes", "0", stdin=drafts, cwd=folder)
    refused(none, 2, "--passes 0 makes no critique")


def test_a_critique_is_scored_where_it_is_made_and_a_reward_that_scores_nothing_is_refused(
    folder: Path,
) -> None:
    """`critique -r critic` left every draft unscored, exit 0, and said nothing. 4 of 5 is 0.8."""
    drafts = selfrefine("generate", "t.jsonl", *SCRIPT, "-n", "1", cwd=folder).out
    for name, said in (("judge", "Score: 4\nVerdict: revise"), ("mute", "Verdict: revise")):
        (folder / name).write_bytes(jsonl({"match": "", "answers": [said]}))
    (folder / "mine.py").write_text("def raises(sample):\n    raise KeyError('gold')\n")

    def judged(judge: str, reward: str) -> Any:
        words = ["--model", f"scripted:{judge}", "-r", reward, *sets("critique.revise=false")]
        return selfrefine("critique", *words, "-o", "out.jsonl", stdin=drafts, cwd=folder)

    assert judged("judge", "critic").code == 0
    rows = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert [row["reward"] for row in rows] == [0.8] * 20
    again = selfrefine("critique", *SCRIPT, "-r", "critic", "out.jsonl", cwd=folder)
    assert (
        again.code == 0 and [row["reward"] for row in again.rows] == [0.8] * 20
    )  # passed through: no failure
    (folder / "out.jsonl").unlink()
    refused(
        judged("mute", "critic"), 4, "reward critic could not be computed on any of the 20 rows", "no score"
    )
    refused(judged("judge", "mine.py:raises"), 4, "could not be computed on any of the 20 rows", "KeyError")
    assert not (folder / "out.jsonl").exists()


def test_in_a_run_too_the_critique_is_scored_where_it_is_made(folder: Path) -> None:
    (folder / "judge").write_bytes(
        jsonl(
            {"match": "Verdict:", "answers": ["Score: 4\nVerdict: revise"]}, {"match": "", "answers": ["7"]}
        )
    )
    words = sets(*SETTINGS, 'reward.use=["critic"]', 'evaluate.measure=["numeric"]', "critique.revise=false")
    new = ["--model", "scripted:judge", *words, *sets("critique.passes=1")]
    assert selfrefine("runs", "new", "r", *new, cwd=folder).code == 0
    for verb in ("generate", "critique"):
        assert selfrefine(verb, "--run", "r", cwd=folder).code == 0
    rows = (folder / "runs/r/round-001/critique.jsonl").read_text().splitlines()
    assert [json.loads(row)["reward"] for row in rows] == [0.8] * 8


def test_what_is_advised_where_nothing_was_selected_can_be_done(folder: Path) -> None:
    """A run's settings are frozen: by hand it advised more samples, which that run refuses."""
    words = sets(*SETTINGS, 'reward.use=["mine.py:half"]')
    assert selfrefine("runs", "new", "r", *SCRIPT, *words, cwd=folder).code == 0
    for verb in ("generate", "reward"):
        assert selfrefine(verb, "--run", "r", cwd=folder).code == 0
    done = selfrefine("select", "--run", "r", cwd=folder)
    assert (
        done.code == 8
        and "round 1: nothing to learn from 8 answers: all answers to 4 prompts have the same reward"
        in done.err
    )
    advice = done.err.splitlines()[-1]
    assert advice.startswith("try --set select.min_reward=0.5 --allow-drift in this run, or a new run with ")
    again = selfrefine("select", "--run", "r", *advice.split()[1:4], cwd=folder)
    assert again.code == 0 and told(folder, "round-001/selected.json")["selected"] == 4
    assert selfrefine("gate", "--run", "r", cwd=folder).code == 5  # and the next stage takes it as it is


def test_in_a_run_nothing_that_was_typed_is_ignored(folder: Path) -> None:
    """A file, an output and --json were taken, and had no effect."""
    words = [*SCRIPT, *sets(*SETTINGS, 'reward.use=["numeric"]')]
    assert selfrefine("runs", "new", "r", *words, cwd=folder).code == 0
    before = tree(folder)
    done = selfrefine("generate", "t.jsonl", "--run", "r", "-o", "x.jsonl", "--json", cwd=folder)
    refused(done, 2, "leave out FILE, -o, --json")
    refused(
        selfrefine("reward", "--run", "r", "--selftest", "t.jsonl", cwd=folder), 2, "leave out --selftest"
    )
    refused(selfrefine("gate", "--run", "r", "--final", "--require-improvement", cwd=folder), 2, "--final")
    assert tree(folder) == before
    done = selfrefine("generate", "--run", "r", cwd=folder)
    assert done.err.splitlines()[-1].startswith("round 1 generate: 8 samples of 4 tasks · "), done.err
    refused(selfrefine("show", "r", cwd=folder), 2, "or the run: selfrefine runs show r")
