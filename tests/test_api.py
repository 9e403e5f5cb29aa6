"""`import selfrefine`: what it loads, and that runs, tables and rewards come out of it as they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

import selfrefine
from selfrefine.api import Rows
from selfrefine.config import Config
from selfrefine.errors import ConfigError, DataError, RunFolderError, UsageError
from selfrefine.records import Message, Sample, Task, encode
from selfrefine.runfolder.run import Run
from selfrefine.runfolder.summaries import GateDecision, RoundSummary, RunManifest

TASK = Task(id="a", prompt=(Message(role="user", content="1 + 1"),), references=("2",))


def answer(text: str, **fields: Any) -> Sample:
    return Sample(id=f"a.{text}", task=TASK, text=text, **fields)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A run of round 0 and an accepted round 1; round 2 has sampled and is not committed."""
    asked: dict[str, Any] = {key: {} for key in ("config", "origins", "seeds", "git", "packages", "model")}
    made = RunManifest(
        name="demo", argv=("selfrefine",), chat_template_sha256="", prompts={}, tasks={}, device="cpu",
        dtype="float32", threads=1, token_budget=64, **asked,
    )  # fmt: skip
    run = Run.create(tmp_path / "demo", made, {"train": [TASK], "gate": [], "test": []}, {})
    decision = GateDecision(outcome="accept", accepted=True, before=0.25, after=0.5, n=8, reason="better")
    for index in (0, 1, 2):
        folder = run.round(index)
        folder.stage("generate", ["2", "3"], lambda text, k=index: ([encode(answer(text, round=k))], b"null"))
        if index == 1:
            folder.put_directory("adapter", lambda d: (d / "adapter_model.safetensors").write_bytes(b"w"))
        if index < 2:
            gate = decision if index else None
            folder.commit(
                RoundSummary(
                    index=index, policy_before="b", policy_after="b", accepted_round=index, gate=gate
                )
            )
    run.events.append("gate", round=1)
    run.events.append("end", place="final", why="1 round done")
    return run.path


def test_importing_selfrefine_loads_nothing_and_its_names_are_there() -> None:
    code = (
        "import sys, selfrefine; print(sorted(m for m in sys.modules if m.startswith('selfrefine')));"
        "heavy = {'torch', 'transformers', 'scipy', 'rich', 'typer', 'numpy', 'msgspec'};"
        "print(heavy & {*sys.modules}, all(getattr(selfrefine, name) for name in selfrefine.__all__));"
        "print((heavy - {'numpy', 'msgspec'}) & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["['selfrefine']", "set() True", "set()"]
    with pytest.raises(AttributeError, match="no attribute 'opn_run'"):
        selfrefine.opn_run  # type: ignore[attr-defined]  # noqa: B018


def test_a_run_is_read_round_by_round(path: Path) -> None:
    run = selfrefine.open_run(path)
    assert repr(run) == f"OpenedRun({str(path)!r}, 1 round)"
    assert [(one.index, one.summary.accepted_round, one.stages) for one in run.rounds] == [
        (0, 0, ["generate"]),
        (1, 1, ["generate"]),
    ]
    first, second = (one.decision for one in run.rounds)
    assert first is None and second is not None and (second.outcome, second.after) == ("accept", 0.5)
    assert [(row.text, row.round) for row in run.rounds[1].samples("generate")] == [("2", 1), ("3", 1)]
    assert [row.round for row in run.samples(round=2, stage="generate")] == [2, 2]  # in progress
    assert run.final is None and run.manifest.device == "cpu"
    assert [event["kind"] for event in run.events] == ["gate", "end"]
    assert run.tasks("train") == [TASK]
    with pytest.raises(RunFolderError, match="has no rows of 'reward'; available: generate"):
        run.rounds[1].samples()


def test_rows_changed_after_the_commit_are_not_handed_out(path: Path) -> None:
    file = path / "round-001/generate.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"text":"3"', b'"text":"2"'))
    with pytest.raises(RunFolderError, match="was changed after its round was committed"):
        selfrefine.open_run(path).rounds[1].samples("generate")


def test_rows_become_tables_with_foreign_columns_and_values_of_several_kinds(path: Path) -> None:
    arrow, pandas = pytest.importorskip("pyarrow"), pytest.importorskip("pandas")
    mine = msgspec.structs.replace(answer("2"), extra={"mark": msgspec.Raw(b'"x"')})
    table = Rows([answer("3"), mine]).to_arrow()
    assert isinstance(table, arrow.Table) and table.column("mark").to_pylist() == [None, "x"]
    assert table.column("task").to_pylist()[0]["references"] == ["2"]
    mixed = Rows([{"round": 1}, {"round": "final"}, {"seconds": 0.5}]).to_arrow()  # as in events.jsonl
    assert mixed.column("round").to_pylist() == ["1", '"final"', None]
    frame = selfrefine.open_run(path).events.to_pandas()
    assert isinstance(frame, pandas.DataFrame) and list(frame["why"])[1] == "1 round done"


def test_a_table_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match=r"to_pandas\(\) needs pandas, which is not installed"):
        Rows([{"a": 1}]).to_pandas()


def test_a_reward_scores_samples_and_mappings_with_its_own_settings() -> None:
    rows = [answer("2"), {"id": "b", "task": {"id": "b", "prompt": []}, "text": "2"}]
    known, unknown = selfrefine.reward("exact", rows)
    assert (known.value, unknown.value, unknown.error) == (1.0, None, "no references")
    assert [one.value for one in selfrefine.reward("regex", [answer("2 apples")], pattern=r"\d apples")] == [
        1.0
    ]
    with pytest.raises(ConfigError, match="regex"):
        selfrefine.reward("regex", [answer("2")], patern="x")
    with pytest.raises(DataError, match="samples:1"):
        selfrefine.reward("exact", [{"text": "2"}])
    with pytest.raises(ConfigError, match="model"):
        selfrefine.reward("fluency", [answer("2")])


def test_the_loop_runs_in_this_process_from_a_table_or_a_config_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    table = {"model": "scripted", "tasks": {"source": "gym:chain_sum", "train": 8, "gate": 4, "test": 4},
             "reward.use": ["gym"], "cycle.rounds": 0}  # fmt: skip
    run = selfrefine.run_cycle(table)
    assert run.name == "run-001" and run.final is not None and run.final.summary.test.n == 4
    assert len(run.final.samples()) == 4
    whole = msgspec.convert(run.manifest.config, Config)
    again = selfrefine.run_cycle(whole, name="run-001")  # the run's own settings, as a struct: it continues
    assert "continuing runs/run-001" in capsys.readouterr().err
    assert [event["continued"] for event in again.events if event["kind"] == "cycle"] == [False, True]
    with pytest.raises(ConfigError, match="rounds"):
        selfrefine.run_cycle({"cycle": {"ronds": 1}})


@pytest.mark.parametrize("what", ["half a pair", "an object", "a deep list"])
def test_a_mapping_that_json_cannot_hold_is_named(what: str) -> None:
    deep: list[Any] = []
    for _ in range(2_000):
        deep = [deep]
    value = {"half a pair": "\ud83d", "an object": object(), "a deep list": deep}[what]
    with pytest.raises(DataError, match="samples:1: cannot be written as JSON"):
        selfrefine.reward(
            "exact", [{"id": "a", "task": {"id": "a", "prompt": []}, "text": "4"} | {"x": value}]
        )
