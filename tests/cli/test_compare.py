"""`compare`: finished runs, paired by the test tasks they share."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from harness import jsonl, refused, selfrefine, task

SETTINGS = """
model = {model}
[tasks]
source = "t.jsonl"
gate = 4
test = 8
[reward]
use = ["mine.py:f"]
[generate]
n = 2
max_new_tokens = 4
[cycle]
rounds = 0
"""
REWARD = "def f(sample):\n    return None if sample.task.id == 't0' else float(len(sample.text) % 2)\n"


@pytest.fixture(scope="module")
def folder(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two measured runs of one split, one of another; `better` is `first` with its end rewritten by hand."""
    place = tmp_path_factory.mktemp("compared")
    (place / "mine.py").write_text(REWARD)
    (place / "c.toml").write_text(SETTINGS.format(model=json.dumps(str(tiny_model_dir))))
    (place / "t.jsonl").write_bytes(jsonl(*(task(f"t{i}", f"What is {i} + 2?") for i in range(24))))
    for name, seed in (("first", "0"), ("other", "1")):
        done = selfrefine("cycle", "--config", "c.toml", "--run", name, "--seed", seed, cwd=place)
        assert done.code == 0, done.err
    shutil.copytree(place / "runs/first", place / "runs/better")
    end = place / "runs/better/final/test.jsonl"
    rows = [json.loads(line) for line in end.read_text().splitlines()]
    scored = [row for row in rows if row["reward"] is not None]
    for row in scored:
        row["reward"] = 1.0
    end.write_bytes(jsonl(*rows))
    return place


def rewards(folder: Path, name: str) -> list[float | None]:
    lines = (folder / "runs" / name / "final/test.jsonl").read_text().splitlines()
    return [json.loads(line)["reward"] for line in lines]


def test_runs_are_compared_task_by_task(folder: Path) -> None:
    done = selfrefine("compare", "first", "better", cwd=folder)
    assert done.code == 0, done.err
    [told] = done.rows
    [pair] = told["pairs"]
    old = [value for value in rewards(folder, "first") if value is not None]
    up = old.count(0.0)
    found = pair["found"]
    assert (pair["run"], pair["against"], pair["unshared"]) == ("better", "first", 0)
    assert (found["before"], found["after"]) == (pytest.approx(sum(old) / len(old)), 1.0)
    assert (found["n"], found["ties"], found["unscored"]) == (len(old), len(old) - up, 8 - len(old))
    assert found["test"] == "mcnemar-exact" and found["p_value"] == pytest.approx(min(1.0, 2 * 0.5**up))
    assert [gain["run"] for gain in told["gains"]] == ["first", "better"]
    assert told["gains"][0]["found"]["difference"] == 0.0 and told["gains"][0]["against"] == "start"


def test_only_test_tasks_of_both_are_compared(folder: Path) -> None:
    """Runs of two seeds are split otherwise: a test task of one may have been learnt from in the other."""
    ids = [
        {json.loads(line)["id"] for line in (folder / f"runs/{name}/tasks/test.jsonl").open()}
        for name in ("first", "other")
    ]
    shared, every = ids[0] & ids[1], ids[0] | ids[1]
    assert 0 < len(shared) < 8, "the seeds of this test must give splits that overlap in part"
    [told] = selfrefine("compare", "first", "other", cwd=folder).rows
    [pair] = told["pairs"]
    assert pair["found"]["n"] + pair["found"]["unscored"] == len(shared)
    assert pair["unshared"] == len(every) - len(shared)


def test_as_text_and_as_markdown(folder: Path) -> None:
    text = selfrefine("compare", "first", "better", "other", cwd=folder, terminal=True).out.decode()
    assert "end against start of each run" in text and "end against the end of first" in text
    assert "p is two-sided, not corrected for the number of rows\ntest: mcnemar-exact\n" in text
    assert "other: " in text and "in only one of the two runs, not compared" in text
    page = selfrefine("compare", "first", "better", "--markdown", cwd=folder).out.decode()
    lines = page.splitlines()
    assert lines.count("| run | before → after | difference [95 %] | p | n | ties | unscored |") == 2
    assert sum(line.startswith("| better |") for line in lines) == 2


def test_one_run_is_compared_with_its_start_only(folder: Path) -> None:
    [told] = selfrefine("compare", "better", cwd=folder).rows
    assert told["pairs"] == [] and told["gains"][0]["found"]["after"] == 1.0


def test_what_cannot_be_compared_is_refused(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "copy"
    shutil.copytree(folder, place, symlinks=True)
    manifest = place / "runs/other/manifest.json"
    manifest.write_text(manifest.read_text().replace('"mine.py:f"', '"exact"'))
    refused(
        selfrefine("compare", "first", "other", cwd=place),
        4,
        "other was measured by exact, first by mine.py:f",
    )
    manifest = place / "runs/better/manifest.json"
    told = json.loads(manifest.read_text())
    told["config"]["evaluate"]["temperature"] = 1.0  # draws against greedy answers: not the policies alone
    manifest.write_text(json.dumps(told))
    refused(
        selfrefine("compare", "first", "better", cwd=place),
        4,
        "better and first were measured with different evaluate.temperature",
    )
    told["config"]["evaluate"]["temperature"] = 0.0
    told["config"]["generate"]["stop"] = ["\n"]
    manifest.write_text(json.dumps(told))
    refused(selfrefine("compare", "first", "better", cwd=place), 4, "with different evaluate.stop")
    told["config"]["generate"]["stop"] = []
    (place / "runs/better/final/summary.json").unlink()
    manifest.write_text(json.dumps(told))
    refused(selfrefine("compare", "first", "better", cwd=place), 5, "has no final measurement", "--final")
    refused(selfrefine("compare", "first", "nobody", cwd=place), 5, "no run 'nobody'")
    refused(selfrefine("compare", "first", "--json", "--markdown", cwd=place), 2, "not both")
