"""With the fast path off the same comes out: whoever finds a difference knows whose fault it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from harness import environment, jsonl, selfrefine, task
from wrapping import gradients, off

from selfrefine.compute import adapted, forward, head, packing, plain, products
from selfrefine.compute.forward import completion_logprobs
from selfrefine.config import LoraConfig, Sampling
from selfrefine.engines.base import Request
from selfrefine.engines.local import LocalEngine
from selfrefine.errors import ConfigError
from selfrefine.sampling import decode
from selfrefine.training.entropy import EntropyMeter

PROMPT = tuple(range(40, 70))
PAIRS = [
    *((PROMPT, tuple(range(k, 12 * k, k + 1))) for k in range(1, 6)),
    ((*PROMPT[:20], 7, 8), (9, 10, 11)),
    ((5, 6), (7,)),
]
"""Completions of one prompt, a prompt that begins like it, and one that does not."""

NATS = 3e-5
"""Of a logprob of some ten nats: float32 sums of 50 terms in another order, through two layers, with weights
ten times as wide as usual (`tiny`), are off by up to 8e-6."""
SHARE = 1e-4
"""Of an adapter tensor's gradient, by its norm: such errors add up over some 50 tokens and two layers."""


def one_way(engine: LocalEngine) -> dict[str, Any]:
    """Logprobs, gradients, entropy and greedy answers, as this process computes them now."""
    prompts = [(*PROMPT, *engine.encode_text(text)) for text in ("a", "the sum")]
    requests = [Request(prompt_token_ids=prompt, seeds=(1,)) for prompt in prompts]
    batches = engine.generate(requests, Sampling(temperature=0.0, max_new_tokens=16))
    greedy = sorted((one for batch in batches for one in batch), key=lambda one: one.request)
    with engine.trainer().open(None, LoraConfig(r=4), 3) as model:
        generator = torch.Generator().manual_seed(5)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # zero at first, which would hide everything that A does
                parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
        model.eval()  # gpt2 has dropout
        with EntropyMeter(active=True) as meter:
            rows = completion_logprobs(model, PAIRS)
        torch.cat(rows).sum().backward()
        slopes = gradients(model)
        learnt = torch.cat(rows).detach()
    return {
        "text": [one.text for one in greedy],
        "sampled": torch.tensor([nats for one in greedy for nats in one.logprobs]),
        "learnt": learnt,
        "scored": torch.tensor([nats for row in engine.score(*zip(*PAIRS, strict=True)) for nats in row]),
        "gradients": slopes,
        "entropy": meter.mean(len(learnt))["entropy"],
    }


def touched(*_args: Any, **_named: Any) -> Any:
    raise AssertionError("the fast path is off")


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2"])
def test_both_ways_agree(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "_asked", False)
    engine = tiny.engine(kind)
    fast, made_by, facts = one_way(engine), engine.signature, engine.facts()
    monkeypatch.setattr(plain, "_asked", True)
    for module, names in (
        (products, ["onednn"]),
        (adapted, ["adapted"]),
        (head, ["picked"]),
        (forward, ["_shared_rows", "packed"]),
        (packing, ["attend"]),
        (decode, ["head_at", "shared_beginning"]),
    ):
        for name in names:
            monkeypatch.setattr(module, name, touched)
    monkeypatch.setattr(head, "head_at", touched)
    engine = tiny.engine(kind)
    slow = one_way(engine)
    assert slow["text"] == fast["text"]
    for name in ("sampled", "learnt", "scored"):
        torch.testing.assert_close(slow[name], fast[name], rtol=0, atol=NATS)
    assert slow["entropy"] == pytest.approx(fast["entropy"], rel=1e-5)
    errors = off(fast["gradients"], slow["gradients"])
    assert len(errors) >= 16 and max(errors.values()) < SHARE
    assert engine.signature == f"{made_by}|plain"
    assert engine.facts().model == facts.model | {"kernels": "plain"} != facts.model


TASKS = jsonl(*(task(f"t{i}", f"What is {i} + 2?") for i in range(6)))


def test_generate_both_ways_from_the_command_line(tiny_model_dir: Path, tmp_path: Path) -> None:
    rows = {}
    for switch in ("0", "1"):
        words = ["generate", "--model", str(tiny_model_dir), "-n", "2", "--max-new-tokens", "12"]
        done = subprocess.run(
            [sys.executable, "-m", "selfrefine", *words],
            input=TASKS,
            capture_output=True,
            cwd=tmp_path,
            env=environment(SELFREFINE_PLAIN=switch, OMP_NUM_THREADS="1"),
        )
        assert done.returncode == 0, done.stderr
        rows[switch] = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows["0"]) == 12
    for fast, slow in zip(rows["0"], rows["1"], strict=True):
        assert slow.pop("engine") == fast.pop("engine") + "|plain"
        assert slow.pop("logprobs") == pytest.approx(fast.pop("logprobs"), abs=NATS)
        assert slow == fast


def test_a_run_goes_on_only_as_it_was_made(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "_asked", None)  # put back afterwards
    (tmp_path / "t.jsonl").write_bytes(TASKS)
    words = ["cycle", "--run", "x", "--tasks", "t.jsonl", "-r", "length", "--model", str(tiny_model_dir)]
    words += ["--rounds", "0", "--set", "evaluate.max_new_tokens=4", "--set", "reward.settings.length.max=9"]
    monkeypatch.setenv("SELFREFINE_PLAIN", "1")
    assert selfrefine(*words, cwd=tmp_path).code == 0
    for word, wanted in {"": False, "0": False, "false": False, "No": False, "true": True}.items():
        monkeypatch.setenv("SELFREFINE_PLAIN", word)
        plain.choose(False)
        assert plain.plain() is wanted  # "false" turned it on
    monkeypatch.setenv("SELFREFINE_PLAIN", "nein")
    with pytest.raises(ConfigError, match="SELFREFINE_PLAIN=nein"):
        plain.choose(False)
    monkeypatch.setenv("SELFREFINE_PLAIN", "")
    done = selfrefine("cycle", "--run", "x", cwd=tmp_path)
    assert done.code == 5 and 'model.kernels: "plain" in the run, not set now' in done.err
    done = selfrefine("cycle", "--run", "x", "--set", "compute.plain=true", cwd=tmp_path)
    assert done.code == 5 and "compute.plain: false in the run, true now" in done.err
    monkeypatch.setenv("SELFREFINE_PLAIN", "1")
    assert selfrefine("cycle", "--run", "x", cwd=tmp_path).code == 0


def test_a_fine_tune_says_why_no_prompt_was_shared(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "_asked", None)
    row = {"id": "a", "task": task("a"), "text": "3", "reward": 1.0}
    words = ["finetune", "--set", "select.strategy=all", "--set", "compute.plain=true", "--model"]
    done = selfrefine(*words, tiny_model_dir, stdin=jsonl(row), cwd=tmp_path)
    assert done.code == 0 and "because the fast path is off (compute.plain, SELFREFINE_PLAIN)" in done.err
