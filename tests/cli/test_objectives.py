"""`finetune --objective` from the command line: what it trains on, what it tells, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from harness import answer, jsonl, refused, selfrefine, task

LEARN = {"teaches": "answer", "role": "learn", "pair": None}


def scored(task_id: str, index: int, text: str, reward: float, **more: Any) -> dict[str, Any]:
    return answer(f"{task_id}.r0.s{index}", text, reward=reward, index=index, **more)


def pairs() -> bytes:
    """Two pairs as `select` marks them. A second selection by reward would drop every rejected row."""
    rows = []
    for name in "ab":
        for i, (text, role) in enumerate((("3", "chosen"), ("4", "rejected"))):
            lesson = LEARN | {"role": role, "pair": f"{name}.r0.s0"}
            rows.append(scored(name, i, text, 1.0 - i, lesson=lesson))
    return jsonl(*rows)


def groups() -> bytes:
    """Task a: rewards 1, 0, 0. Task b: all right, nothing to learn."""
    rows = [scored("a", i, str(3 + i), float(i == 0), lesson=LEARN) for i in range(3)]
    rows += [scored("b", i, "3", 1.0, lesson=LEARN) for i in range(3)]
    return jsonl(*rows)


def unselected() -> bytes:
    """One group as `reward` writes it."""
    return jsonl(*(scored("a", i, str(3 + i), float(i == 0)) for i in range(4)))


@pytest.fixture
def model_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfrefine.cli.common.load", lambda *a, **k: pytest.fail("loaded a model"))


def trained(
    objective: str, rows: bytes, model: Path, folder: Path, *words: str
) -> tuple[Any, list[Any], str]:
    """The summary, train.jsonl and what was said."""
    done = selfrefine(
        *("finetune", "--model", model, "--objective", objective, "--epochs", "2", "-o", "ad"),
        *("--set", "train.lora.r=2", "--summary-json", "s.json", *words),
        stdin=rows,
        cwd=folder,
    )
    assert done.code == 0, done.err
    log = [json.loads(line) for line in (folder / "ad/train.jsonl").read_text().splitlines()]
    return json.loads((folder / "s.json").read_text()), log, done.err


@pytest.mark.parametrize("objective", ["dpo", "ipo", "kto"])
def test_rows_that_were_selected_are_not_selected_again(
    objective: str, tiny_model_dir: Path, tmp_path: Path
) -> None:
    summary, log, _ = trained(objective, pairs(), tiny_model_dir, tmp_path)
    assert summary["rows"] == 4
    assert [row["items"] for row in log] == [4, 4]
    assert {"accuracy", "margin"} <= set(log[0]["metrics"])
    if objective == "dpo":
        assert log[0]["loss"] == pytest.approx(0.6931, abs=1e-3)


@pytest.mark.parametrize("objective", ["dpo", "ipo", "kto"])
def test_a_pair_of_equal_texts_is_no_pair(objective: str, tmp_path: Path, model_free: None) -> None:
    """It trained nothing and said: 2 selected, loss 0.693, an adapter, exit code 0."""
    rows = jsonl({"prompt": "q", "chosen": "same", "rejected": "same"})
    done = selfrefine("finetune", "--objective", objective, stdin=rows, cwd=tmp_path)
    why = f"error: {objective} can learn from none of 2 rows: 2 in equal pairs"
    assert (done.code, done.err.splitlines()[-1]) == (8, why)


def test_pairs_of_equal_texts_are_counted_and_the_others_learnt(tiny_model_dir: Path, tmp_path: Path) -> None:
    """To the last character: white space may be what a pair is about. `sft` follows what is chosen."""
    sides = [("same", "same"), ("4", "4 "), ("4", "5")]
    rows = jsonl(*({"prompt": "q", "chosen": good, "rejected": bad} for good, bad in sides))
    (tmp_path / "dpo").mkdir()
    summary, log, said = trained("dpo", rows, tiny_model_dir, tmp_path / "dpo")
    assert (summary["rows"], summary["in_equal_pairs"], log[0]["items"]) == (4, 2, 4)
    assert "2 in equal pairs" in said
    summary, _, _ = trained("sft", rows, tiny_model_dir, tmp_path)
    assert (summary["rows"], summary["rejected"], "in_equal_pairs" in summary) == (3, 3, False)


@pytest.mark.parametrize("objective", ["reinforce", "rloo", "grpo"])
def test_groups_and_those_without_spread(objective: str, tiny_model_dir: Path, tmp_path: Path) -> None:
    """Rows written by hand have no logprobs: they are computed, so the first ratio is exactly one."""
    summary, log, said = trained(objective, groups(), tiny_model_dir, tmp_path)
    assert (summary["rows"], summary["groups_without_spread"]) == (3, 1)
    assert "1 group without spread" in said.replace("_", " ")
    first = log[0]["metrics"]
    assert first["ratio_max"] == pytest.approx(1.0, abs=1e-5) and "entropy" in first
    assert first["kl"] == pytest.approx(0.0, abs=1e-4)  # from what sampled, which the policy still is


def test_a_kl_term_brings_its_metric(tiny_model_dir: Path, tmp_path: Path) -> None:
    _, log, _ = trained("grpo", groups(), tiny_model_dir, tmp_path, "--set", "objective.kl=0.1")
    assert log[0]["metrics"]["kl"] == pytest.approx(0.0, abs=1e-5)  # a fresh adapter is the reference


def test_weighted_sft_leaves_out_what_has_no_weight(tiny_model_dir: Path, tmp_path: Path) -> None:
    summary, _, _ = trained("weighted-sft", groups(), tiny_model_dir, tmp_path)
    assert (summary["rows"], summary["weightless"]) == (4, 2)


REFUSED: dict[str, tuple[list[str], bytes, int, list[str]]] = {
    "an objective that does not exist": (["--objective", "pdo"], groups(), 3, ["objective.name", "'pdo'"]),
    "a setting it does not read": (
        ["--objective", "grpo", "--set", "objective.beta=0.5"],
        groups(),
        3,
        ["objective.beta", "grpo does not use it", "dpo, ipo, kto"],
    ),
    "a reference that nothing reads": (
        ["--objective", "grpo", "--set", "objective.reference=accepted"],
        groups(),
        3,
        ["objective.reference", "objective.kl is 0"],
    ),
    "a temperature without exponents": (
        ["--objective", "weighted-sft", "--set", "objective.weight_temperature=0.5"],
        groups(),
        3,
        ["objective.weight_temperature", "exponential"],
    ),
    "earlier rounds where there are none": (
        ["--set", "train.replay=0.5"],
        groups(),
        2,
        ["train.replay", "needs --run"],
    ),
    # Of four rewards 1, 0, 0, 0 the best two would have advantages of plus and minus 1/2, not 3/4 and -1/4.
    "groups that were cut to their best": (
        ["--objective", "grpo", "--max-per-prompt", "2"],
        unselected(),
        3,
        ["objective grpo learns from groups", "select.strategy is best-of-n", "set select.strategy=groups"],
    ),
    "whole groups with a cap": (
        ["--objective", "grpo", "--select", "groups", "--max-per-prompt", "2"],
        unselected(),
        3,
        ["select.max_per_prompt is not used by select.strategy groups"],
    ),
    # The way out is the setting that it belongs to, not the strategy.
    "corrections of what is not learnt": (
        ["--set", "select.corrections=near"],
        unselected(),
        3,
        ["select.corrections is not used without select.learn = revisions"],
    ),
    "groups for likelihood": (
        ["--select", "groups"],
        unselected(),
        3,
        ["objective sft learns from good answers", "reinforce, rloo, grpo"],
    ),
    "no pairs": (["--objective", "dpo"], groups(), 4, ["dpo needs pairs", "--select pairs"]),
    "no labels": (["--objective", "kto"], groups(), 4, ["kto", "select labels"]),
    "no spread at all": (
        ["--objective", "grpo"],
        jsonl(*(scored("b", i, "3", 1.0, lesson=LEARN) for i in range(2))),
        8,
        ["grpo can learn from none of 2 rows", "1 groups without spread"],
    ),
}


def test_what_keeps_answers_from_sharing_their_prompt_is_said(tiny_model_dir: Path, tmp_path: Path) -> None:
    """It costs time only, which is why nobody would notice."""
    _, _, said = trained("grpo", groups(), tiny_model_dir, tmp_path, "--set", "train.lora.dropout=0.1")
    assert said.count("prompts are computed again for each answer (slower), because dropout is on") == 1
    (tmp_path / "plain").mkdir()
    _, _, said = trained("grpo", groups(), tiny_model_dir, tmp_path / "plain")
    assert "computed again" not in said


def test_alarms_ring_in_a_pipeline_too(tiny_model_dir: Path, tmp_path: Path) -> None:
    """Each once, however many steps pass its threshold."""
    words = ["--set", "alarms.kl=0", "--set", "alarms.grad_norm=0", "--set", "objective.beta=0.5"]
    _, log, said = trained("dpo", pairs(), tiny_model_dir, tmp_path, *words, "--lr", "0.01")
    assert log[1]["metrics"]["kl"] > 0
    lines = [line for line in said.splitlines() if " alarm: " in line]
    assert [line.split("(alarms.")[1].split()[0] for line in lines] == ["grad_norm", "kl"], said
    assert "nats per token from the reference" in lines[1]


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_learnt_is_refused(what: str, tiny_model_dir: Path, tmp_path: Path) -> None:
    words, rows, code, said = REFUSED[what]
    done = selfrefine("finetune", "--model", tiny_model_dir, "-o", "ad", *words, stdin=rows, cwd=tmp_path)
    assert done.code == code and done.out == b"", done.err
    error = done.err.splitlines()[-1]
    assert error.startswith("error: ") and all(word in error for word in said), error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("objective", "needed"), [("dpo", "pairs"), ("ipo", "pairs"), ("kto", "labels"), ("grpo", "groups")]
)
def test_a_cycle_that_selects_something_else_makes_no_run(
    objective: str, needed: str, tiny_model_dir: Path, tmp_path: Path
) -> None:
    """Found out by the first fine-tune, it would have cost a round's sampling."""
    sums = jsonl(*(task(f"t{i}", f"What is {i} + 2?", str(i + 2)) for i in range(24)))
    (tmp_path / "t.jsonl").write_bytes(sums)
    words = ["--tasks", "t.jsonl", "-r", "numeric", "--set", f"objective.name={objective}"]
    done = selfrefine("cycle", "--model", tiny_model_dir, *words, cwd=tmp_path)
    refused(done, 3, f"objective {objective} learns from {needed}", f"select.strategy={needed}")
    assert not (tmp_path / "runs").exists()
