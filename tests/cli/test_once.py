"""What is paid once: the weights by a process, the tokens of a text by its row."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from harness import jsonl, selfrefine, task

from selfrefine.engines.chat import ChatEncoder
from selfrefine.engines.local import LocalEngine

SETTINGS = """
model = {model}
[tasks]
source = "t.jsonl"
gate = 6
test = 6
[reward]
use = ["fluency"]
[generate]
n = 3
max_new_tokens = 8
stop = ["a", "e", "o", " ", "n"]
[critique]
passes = 1
max_new_tokens = 4
[cycle]
rounds = 2
prompts_per_round = 5
[gate]
mode = "off"
[select]
strategy = "all"
min_reward = 0.0
[train]
replay = 0.3
[train.lora]
r = 2
alpha = 4
"""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often weights are loaded, chats are tokenised, answers are tokenised."""
    from transformers import AutoModelForCausalLM

    found: Counter[str] = Counter()

    def counted(owner: Any, name: str, label: str) -> None:
        real = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            found[label] += 1
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    counted(AutoModelForCausalLM, "from_pretrained", "loads")
    counted(ChatEncoder, "encode", "chats")
    counted(LocalEngine, "encode_answer", "answers")
    return found


def workshop(folder: Path, model: Path) -> Path:
    (folder / "c.toml").write_text(SETTINGS.format(model=json.dumps(str(model))))
    (folder / "t.jsonl").write_bytes(jsonl(*(task(f"t{i}", f"What is {i} + 2?") for i in range(24))))
    return folder


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_a_cycle_loads_the_weights_once_and_tokenises_a_prompt_once(
    tiny_model_dir: Path, tmp_path: Path, calls: Counter[str]
) -> None:
    """Two rounds with critique, a reward that asks the model, fine-tuning, a changed policy to measure.

    The traps: a load per stage or per adapter; a reward, the critique's fresh samples and the fine-tune that
    render and tokenise a chat again whose ids stand in the row.
    """
    folder = workshop(tmp_path, tiny_model_dir)
    done = selfrefine("cycle", "--config", "c.toml", "--run", "x", cwd=folder)
    assert done.code == 0, done.err
    # gate and test at the start, test at the end; then per round its tasks, the gate, and what is new text:
    # the critics' and the revisers' prompts
    expected = 6 + 6 + 6
    for k in (1, 2):
        told = json.loads((folder / f"runs/x/round-00{k}/critique.json").read_text())
        assert told["comparison"]["fresh_samples"] > 0
        expected += 5 + 6 + told["critiques"] + told["revisions"]
        expected += 5 * k  # the probe answers the five tasks of each round so far again
        # The drafts stand in critique.jsonl too; their tokens belong to generate.
        cost = json.loads((folder / f"runs/x/round-00{k}/round.json").read_text())["cost"]
        assert told["cost"]["tokens"] == told["tokens"]["critique"] + told["tokens"]["revision"] > 0
        drafted = rows(folder / f"runs/x/round-00{k}/generate.jsonl")
        measured = rows(folder / f"runs/x/round-00{k}/gate.jsonl")
        sampled = sum(len(row["token_ids"]) for row in drafted + measured)
        assert cost["tokens"] == sampled + told["cost"]["tokens"]
    assert calls == {"loads": 1, "chats": expected}


def test_reward_and_finetune_take_the_ids_that_rows_carry(
    tiny_model_dir: Path, tmp_path: Path, calls: Counter[str]
) -> None:
    folder = workshop(tmp_path, tiny_model_dir)
    common = ("--model", tiny_model_dir)
    words = ("generate", "t.jsonl", "-n", "2", "--stop", "a", "--stop", "e", "-o", "s.jsonl", *common)
    assert selfrefine(*words, cwd=folder).code == 0
    assert calls.pop("chats") == 24  # a prompt, not a sample
    calls.clear()
    assert selfrefine("reward", "s.jsonl", "-r", "fluency", "-o", "r.jsonl", *common, cwd=folder).code == 0
    assert calls == {"loads": 1}
    words = ("finetune", "r.jsonl", "-o", "a", "--select", "all", "--min-reward", "0", *common)
    assert (done := selfrefine(*words, cwd=folder)).code == 0, done.err
    assert calls == {"loads": 2}
    # Rows without ids pay: the count would see a tokenisation.
    ids = ("prompt_token_ids", "token_ids")
    bare = [{k: v for k, v in row.items() if k not in ids} for row in rows(folder / "r.jsonl")]
    (folder / "bare.jsonl").write_bytes(jsonl(*bare))
    calls.clear()
    assert selfrefine("reward", "bare.jsonl", "-r", "fluency", "-o", "b.jsonl", *common, cwd=folder).code == 0
    assert calls["chats"] == len(bare) and calls["answers"] > 0
