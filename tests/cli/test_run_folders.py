"""Runs from the command line: made, continued, shown, verified; by hand and by `cycle`, which must agree."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
from harness import Result, jsonl, refused, selfrefine, task, tree

# Answers of the tiny model end at one of these, or it would babble to max_new_tokens and learn nothing.
SETTINGS = """
model = {model}
[tasks]
source = "t.jsonl"
gate = 6
test = 6
[reward]
use = ["mine.py:f"]
[generate]
n = 3
max_new_tokens = 40
stop = ["a", "e", "o", " ", "n"]
[cycle]
rounds = 1
prompts_per_round = 5
[select]
strategy = "all"
[train]
lr = 1e-3
[train.lora]
r = 2
alpha = 4
"""
CONSTANT = "def f(sample):\n    return 0.5\n"


def workshop(folder: Path, model: Path, reward: str = CONSTANT) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "mine.py").write_text(reward)
    (folder / "c.toml").write_text(SETTINGS.format(model=json.dumps(str(model))))
    sums = (task(f"t{i}", f"What is {i} + 2?", str(i + 2)) for i in range(24))
    (folder / "t.jsonl").write_bytes(jsonl(*sums))
    return folder


@pytest.fixture(scope="module")
def ran(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A folder with one finished run, `run-001`, whose candidate was kept because the gate is off."""
    folder = workshop(tmp_path_factory.mktemp("ran"), tiny_model_dir)
    words = ["cycle", "--config", "c.toml", "--set", "gate.mode=off", "--summary-json", "s.json"]
    return folder, selfrefine(*words, "--require-improvement", cwd=folder)


@pytest.fixture
def mine(ran: tuple[Path, Result], tmp_path: Path) -> Path:
    """A copy to change."""
    shutil.copytree(ran[0], tmp_path / "copy", symlinks=True)
    return tmp_path / "copy"


def frozen(run: Path) -> dict[str, bytes]:
    """Everything but clock times and the lock."""
    aside = {"events.jsonl", ".lock"}
    return {
        str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name not in aside
    }


def test_a_cycle_without_a_name_is_run_001(ran: tuple[Path, Result]) -> None:
    folder, done = ran
    assert done.code == 0, done.err
    assert done.out == b""  # everything a cycle says is for a person; its data is the folder
    assert "new run runs/run-001" in done.err and "run folder: runs/run-001" in done.err
    assert (folder / "runs/run-001/adapter").resolve() == folder / "runs/run-001/round-001/adapter"
    summary = json.loads((folder / "s.json").read_text())
    assert summary["accepted_round"] == 1 and [r["index"] for r in summary["rounds"]] == [0, 1]
    assert summary["test"]["n"] == 6 and summary["test_gain"]["mean"] == 0.0
    assert "flipped   0 became right, 0 became wrong, of 6 test tasks" in done.err
    # Which reward is which: one trains, one measures.
    assert done.err.count("mine.py:f 0.500") > 3 and "· reward 0." not in done.err


def test_a_candidate_that_is_not_better_is_rolled_back_and_can_be_exit_9(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    folder = workshop(tmp_path, tiny_model_dir)
    done = selfrefine("cycle", "--config", "c.toml", "--run", "x", "--require-improvement", cwd=folder)
    assert done.code == 9
    assert (
        done.err.splitlines()[-1]
        == "error: no round was kept: no candidate measured better than the starting policy"
    )
    assert "rolled back: 0.500 → 0.500" in done.err
    assert not (folder / "runs/x/adapter").exists()
    # Without the flag that is an ordinary end.
    assert selfrefine("cycle", "--run", "x", cwd=folder).code == 0


def test_the_same_command_again_continues_and_changes_nothing(mine: Path) -> None:
    before = frozen(mine / "runs/run-001")
    done = selfrefine("cycle", "--run", "run-001", cwd=mine)
    assert done.code == 0 and "continuing runs/run-001" in done.err
    assert frozen(mine / "runs/run-001") == before
    # It printed the whole report once more, as if something had been done.
    assert "nothing to do: 1 round done" in done.err and "mean [95 %" not in done.err
    assert "selfrefine cycle --run run-001 --rounds 2" in done.err
    more = selfrefine("cycle", "--run", "run-001", "--rounds", "2", cwd=mine)
    assert "nothing to do" not in more.err and "mean [95 %" in more.err
    assert more.code == 0 and (mine / "runs/run-001/round-002/round.json").is_file()
    assert "run-002" not in " ".join(tree(mine))


def test_what_a_cycle_says_to_type_next_works(mine: Path, ran: tuple[Path, Result]) -> None:
    """`try it` left out --model, and asked the embedded one to take another model's adapter. Of 400 tasks it
    drew eight answers each: nobody who tries it waits for 3,200."""
    told = {line.partition(": ")[0]: line.partition(": ")[2] for line in ran[1].err.splitlines()}
    head, tried = told["try it"].split(" | ")
    assert head == "head -3 runs/run-001/tasks/test.jsonl"
    few = b"".join((mine / head.split()[2]).read_bytes().splitlines(keepends=True)[:3])
    done = selfrefine(*shlex.split(tried)[1:], stdin=few, cwd=mine)
    assert (done.code, len(done.rows)) == (0, 3), done.err
    commands = told["next"].split(" · ")
    assert commands == [
        "selfrefine runs show run-001",
        "selfrefine cycle --run run-001 --rounds 2",
    ]
    for command in commands:
        done = selfrefine(*shlex.split(command)[1:], cwd=mine)
        assert done.code == 0, (command, done.err)
    assert (mine / "runs/run-001/round-002/round.json").is_file()


def test_other_settings_are_drift_and_named(mine: Path) -> None:
    path = mine / "runs/run-001/manifest.json"
    told = json.loads(path.read_text())
    for key in ("isolate", "isolate_memory_gib", "isolate_cpu_s"):
        del told["config"]["reward"][key]  # as a version without these settings wrote it
    path.write_text(json.dumps(told))
    assert selfrefine("cycle", "--run", "run-001", cwd=mine).code == 0
    words = ["cycle", "--run", "run-001", "--rounds", "2", "--set", "generate.temperature=0.5"]
    before = frozen(mine / "runs/run-001")
    done = selfrefine(*words, cwd=mine)
    assert done.code == 5 and "generate.temperature: 1.0 in the run, 0.5 now" in done.err
    assert "--allow-drift" in done.err and frozen(mine / "runs/run-001") == before
    assert selfrefine(*words, "--allow-drift", cwd=mine).code == 0
    events = [json.loads(line) for line in (mine / "runs/run-001/events.jsonl").read_text().splitlines()]
    assert ["generate.temperature: 1.0 in the run, 0.5 now"] in [
        e["differs"] for e in events if "differs" in e
    ]


def test_other_threads_and_an_edited_reward_are_drift_before_a_model_is_loaded(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfrefine.cli.common.load", lambda *a, **k: pytest.fail("loaded a model"))
    threads = json.loads((mine / "runs/run-001/manifest.json").read_text())["threads"]
    monkeypatch.setenv("OMP_NUM_THREADS", "77")
    done = selfrefine("cycle", "--run", "run-001", cwd=mine)
    assert done.code == 5 and f"threads: {threads} in the run, 77 now" in done.err
    assert f"set OMP_NUM_THREADS={threads}" in done.err
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
    (mine / "mine.py").write_text("def f(sample):\n    return 0.25\n")
    done = selfrefine("cycle", "--run", "run-001", cwd=mine)
    shown = [line for line in done.err.splitlines() if "mine.py" in line]
    assert shown == ["  mine.py was edited since the run began"]


def test_a_damaged_run_is_refused_by_every_writing_command_before_a_model_is_loaded(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trap: `cycle` ended with 0, with the adapter of the round before the gap. Said before anything else
    that the command is wrong about, because --allow-drift is no way out of it."""
    monkeypatch.setattr("selfrefine.cli.common.load", lambda *a, **k: pytest.fail("loaded a model"))
    shutil.rmtree(mine / "runs/run-001/round-000")
    before = frozen(mine / "runs/run-001")
    named, drift = ("--run", "run-001"), ("--set", "generate.temperature=0.5")
    verbs = ("generate", "critique", "reward", "select", "finetune", "evaluate", "gate")
    commands = [[verb, *named] for verb in (*verbs, "cycle")]
    commands += [["gate", "--final", *named], ["cycle", *named, *drift], ["generate", *named, *drift]]
    for words in (*commands, ["cycle", *named, "--or-new"]):
        done = selfrefine(*words, cwd=mine)
        said = "error: runs/run-001 is damaged: round-000/round.json is missing, but round 1 was committed"
        assert done.code == 5 and said in done.err and "try it" not in done.err, (words, done.err)
    assert frozen(mine / "runs/run-001") == before


@pytest.mark.parametrize("words", [("cycle",), ("gate", "--final")])
def test_a_run_without_its_events_goes_on_and_says_so_once(mine: Path, words: tuple[str, ...]) -> None:
    """A power cut may take events that were not on disk yet, and the run is to go on after one. But without a
    word the new events passed for the whole history."""
    events = mine / "runs/run-001/events.jsonl"
    events.unlink()
    said = "events.jsonl is missing, but round-000 was begun"
    found = selfrefine("runs", "verify", "run-001", cwd=mine)
    assert found.code == 5 and f"{said}: a file that has no hash yet cannot be missed" in found.err
    refused = selfrefine(*words, "--run", "run-001", "--set", "train.lr=0.5", cwd=mine)
    assert refused.code == 5 and not events.exists()
    done = [selfrefine(*words, "--run", "run-001", cwd=mine) for _ in range(2)]
    assert [one.code for one in done] == [0, 0]
    assert [one.err.count(f"{said}: what happened before is lost") for one in done] == [1, 0]
    kinds = [json.loads(line)["kind"] for line in events.read_text().splitlines()]
    assert kinds[0] == "history-lost" and kinds.count("history-lost") == 1
    found = selfrefine("runs", "verify", "run-001", cwd=mine)
    assert found.code == 0 and "the earlier one was lost" in found.err
    [listed] = selfrefine("runs", "ls", "--json", cwd=mine).rows
    assert listed["problem"] is None and listed["state"] != "damaged"


def test_by_hand_is_the_same_as_cycle(ran: tuple[Path, Result], tmp_path: Path, tiny_model_dir: Path) -> None:
    """design 10.6: equal samples, rewards, adapter and decision."""
    folder = workshop(tmp_path / "hand", tiny_model_dir)
    words = ["--config", "c.toml", "--set", "gate.mode=off"]
    made = selfrefine("runs", "new", "run-001", *words, cwd=folder)
    assert made.code == 0 and "made runs/run-001; next: " in made.err
    for verb in ("generate", "reward", "select", "finetune", "evaluate", "gate"):
        done = selfrefine(verb, "--run", "run-001", "--summary-json", f"{verb}.json", cwd=folder)
        assert done.code == 0, (verb, done.err)
    assert json.loads((folder / "gate.json").read_text())["accepted"] is True
    by_hand, by_cycle = frozen(folder / "runs/run-001"), frozen(ran[0] / "runs/run-001")
    rounds = {name for name in by_cycle if name.startswith("round-")}
    assert {"round-001/generate.jsonl", "round-001/adapter/adapter_model.safetensors"} <= rounds
    for name in rounds:
        assert by_hand[name] == by_cycle[name], name
    final = selfrefine("gate", "--run", "run-001", "--final", cwd=folder)
    assert final.code == 0
    assert frozen(folder / "runs/run-001")["final/test.jsonl"] == by_cycle["final/test.jsonl"]


def test_a_gate_file_of_another_adapter_does_not_decide(mine: Path) -> None:
    """By hand: measured, trained again on other rows, decided. Those scores are another policy's."""
    run = mine / "runs/run-001"
    (run / "round-001/round.json").unlink()
    shutil.rmtree(run / "round-001/adapter")
    (run / "round-001/train.jsonl").unlink()
    shutil.rmtree(run / "final")  # measured after that round: with it the run would be damaged
    done = selfrefine("finetune", "--run", "run-001", "--set", "train.lr=1e-2", "--allow-drift", cwd=mine)
    assert done.code == 0, done.err
    refused = selfrefine("gate", "--run", "run-001", "--allow-drift", cwd=mine)
    assert refused.code == 5 and "gate.jsonl: row " in refused.err and "was sampled by policy" in refused.err
    assert not (run / "round-001/round.json").exists()


def test_critiques_that_no_reward_would_read_are_not_made(tiny_model_dir: Path, tmp_path: Path) -> None:
    folder = workshop(tmp_path, tiny_model_dir)
    assert selfrefine("runs", "new", "x", "--config", "c.toml", cwd=folder).code == 0
    assert selfrefine("generate", "--run", "x", cwd=folder).code == 0
    done = selfrefine("critique", "--run", "x", cwd=folder)
    assert done.code == 3 and "this run has critique.passes = 0" in done.err


def test_rows_without_any_weight_end_the_cycle_and_not_without_its_end(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    """Found out when training is about to begin: the run ends measured, with exit 8."""
    folder = workshop(tmp_path, tiny_model_dir, "def f(sample):\n    return 0.0\n")
    words = ["cycle", "--config", "c.toml", "--run", "x", "--set", "objective.name=weighted-sft"]
    words += ["--set", "select.strategy=all"]
    done = selfrefine(*words, cwd=folder)
    assert done.code == 8, done.err
    assert "weighted-sft can learn from none of" in done.err
    assert (folder / "runs/x/final/summary.json").is_file()


def test_stages_out_of_order_say_what_is_missing(tiny_model_dir: Path, tmp_path: Path) -> None:
    folder = workshop(tmp_path, tiny_model_dir)
    assert selfrefine("runs", "new", "x", "--config", "c.toml", cwd=folder).code == 0
    for verb in ("reward", "select", "finetune", "gate"):
        done = selfrefine(verb, "--run", "x", cwd=folder)
        assert done.code == 5, (verb, done.err)
        assert "Traceback" not in done.err and "round-001" in done.err.splitlines()[-1]
    assert "first run `selfrefine generate --run x`, then `selfrefine reward --run x`, then" in done.err


def test_a_run_is_made_once(mine: Path) -> None:
    refused(
        selfrefine("runs", "new", "run-001", "--config", "c.toml", cwd=mine),
        5,
        "already exists",
        "--run run-001",
    )


def test_two_processes_on_one_run(mine: Path) -> None:
    from selfrefine.runfolder.run import Run

    with Run.open(mine / "runs/run-001").lock():
        done = selfrefine("generate", "--run", "run-001", cwd=mine)
        assert done.code == 5 and "locked by process" in done.err.splitlines()[-1]


def test_runs_ls_and_show(mine: Path) -> None:
    (mine / "runs/broken").mkdir()
    (mine / "runs/broken/manifest.json").write_text("{")
    listed = selfrefine("runs", "ls", cwd=mine)
    assert listed.code == 0
    found = {row["name"]: row for row in listed.rows}
    line = next(line for line in listed.out.splitlines() if b"run-001" in line)
    assert len(line) < 400  # it was nine kilobytes a run
    told = found["run-001"]
    assert (told["rounds"], told["accepted_round"], told["state"]) == (1, 1, "ended: 1 round done")
    assert (told["gate"], told["test"], told["gain"], told["problem"]) == (0.5, 0.5, 0.0, None)
    assert told["began"] < told["changed"]
    assert found["broken"]["state"] == "damaged" and "damaged" in found["broken"]["problem"]
    table = selfrefine("runs", "ls", cwd=mine, terminal=True).out.decode()
    assert "run-001" in table and "damaged" in table
    shown = selfrefine("runs", "show", "run-001", "--all", cwd=mine)
    text = shown.out.decode()
    assert shown.code == 0 and "gate.mode" in text and "mine.py:f, mean" in text
    assert "final" in text and "kept" in text
    assert "gain on 6 test tasks, paired: +0.000" in text
    places = [text.index(f"  {stage}: ") for stage in ("generate", "reward", "selected", "train", "gate")]
    assert places[:4] == sorted(places[:4])
    told = selfrefine("runs", "show", "runs/run-001", "--json", cwd=mine).rows[0]
    assert told["manifest"]["origins"]["gate.mode"] == "flag"
    assert told["manifest"]["origins"]["train.lr"] == "file"
    assert told["manifest"]["origins"]["train.clip"] == "default"
    assert told["final"]["test"]["n"] == 6


def test_runs_verify_finds_what_was_changed(mine: Path) -> None:
    whole = selfrefine("runs", "verify", "run-001", cwd=mine)
    assert whole.code == 0 and "is whole: 1 committed round" in whole.err and whole.out == b""
    rows = mine / "runs/run-001/round-001/reward.jsonl"
    rows.write_bytes(rows.read_bytes().replace(b'"reward":0.5', b'"reward":0.9', 1))
    changed = selfrefine("runs", "verify", "run-001", cwd=mine)
    assert changed.code == 5 and "round-001/reward.jsonl: changed since it was written" in changed.err


def test_a_merged_model_answers_as_model_and_adapter_do(
    ran: tuple[Path, Result], tiny_model_dir: Path, tmp_path: Path
) -> None:
    adapter = ran[0] / "runs/run-001/adapter"
    words = ["adapter", "merge", adapter, "--model", tiny_model_dir]
    done = selfrefine(*words, "-o", "merged", cwd=tmp_path)
    assert done.code == 0 and done.out == b""
    assert not list((tmp_path / "merged").glob("adapter*"))
    asked = jsonl(*(task(f"t{i}", f"What is {i} + 2?") for i in range(8)))
    greedy = ["generate", "--temperature", "0", "-n", "1", "--max-new-tokens", "12"]

    def answers(*model: str | Path) -> list[list[int]]:
        rows = selfrefine(*greedy, *model, stdin=asked, cwd=tmp_path).rows
        return [row["token_ids"] for row in rows]

    merged = answers("--model", "merged")
    assert len(merged) == 8 and merged == answers("--model", tiny_model_dir, "--adapter", adapter)
    refused(selfrefine(*words, "-o", "merged", cwd=tmp_path), 5, "merged already exists")
    words = ["adapter", "merge", adapter, "--model", "scripted"]
    refused(selfrefine(*words, "-o", "other", cwd=tmp_path), 3, "scripted")


def test_a_dry_run_prints_the_plan_and_writes_nothing(tiny_model_dir: Path, tmp_path: Path) -> None:
    folder = workshop(tmp_path, tiny_model_dir)
    before = tree(folder)
    done = selfrefine("cycle", "--config", "c.toml", "--dry-run", "--rounds", "2", cwd=folder)
    assert done.code == 0 and tree(folder) == before
    plan = done.out.decode()
    assert "train 12, gate 6, test 6" in plan
    assert "5 prompts × 3 samples = 15 answers" in plan
    # 15 answers and 6 gate tasks of 40 tokens a round; gate once and test twice more: 2 x 840 + 240 + 480.
    assert "at most 840 per round, 2,400 in all (2 rounds)" in plan
    assert "disk" in plan and "memory         at most about" in plan
    for part in ("always  ", "sampling", "training", "embeddings", "key/value cache of 15 rows", "optimizer"):
        assert part in plan
