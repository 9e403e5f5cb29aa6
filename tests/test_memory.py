"""Memory runs out: a smaller budget is found, recorded and said once, and the answers are those of before."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from harness import environment, jsonl, selfrefine, task

from selfrefine.compute import forward
from selfrefine.config import LoraConfig, Sampling, TrainConfig
from selfrefine.engines import local
from selfrefine.engines.base import Completion, Request
from selfrefine.errors import EngineError
from selfrefine.memory import Memory, PlanChange, out_of_memory
from selfrefine.objectives.base import Item
from selfrefine.objectives.sft import SFT
from selfrefine.steps.finetune import NoCheckpoints
from selfrefine.training import loop, precomputed

CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
    "allocate 81604378624 bytes. Error code 12 (Cannot allocate memory)"
)


def test_what_is_out_of_memory_and_what_is_a_bug() -> None:
    for error in (CPU, MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")):
        assert out_of_memory(error)
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory.\nGPU 0 has")) == "CUDA out of memory."
    for bug in (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory")):
        assert out_of_memory(bug) is None


def test_halvings_that_would_cut_the_work_as_before_are_passed_over() -> None:
    """A budget of 100 and four rows of 10: half of it still holds all four, a quarter holds two."""
    memory, seen = Memory(), []
    memory.on_change = seen.append

    def rows(tokens: int) -> int:
        return max(1, min(4, tokens // 10))

    memory.halve("sampling", 100, rows, "full", "buy some")
    assert (memory.tokens("sampling", 100), memory.tokens("training", 100)) == (25, 100)
    memory.halve("sampling", 100, rows, "full", "buy some")
    assert memory.tokens("sampling", 100) == 12  # one row: there is nothing smaller
    with pytest.raises(EngineError, match=r"out of memory while sampling.*full.*\nbuy some"):
        memory.halve("sampling", 100, rows, "full", "buy some")
    assert [(change.before, change.after) for change in seen] == [(100, 25), (25, 12)]


def asked(engine: Any, rows: int = 6) -> list[Request]:
    texts = ("what is 17 + 25?", "the sum of the two", "a")
    return [
        Request(
            prompt_token_ids=tuple(engine.encode_text(text)),
            seeds=tuple(100 * i + k for k in range(rows)),
        )
        for i, text in enumerate(texts)
    ]


def starve(monkeypatch: pytest.MonkeyPatch, limit: int, error: Exception = CPU) -> list[int]:
    """Decoding fails after its first finished rows while its budget is above `limit`; returns the budgets."""
    real, tried = local.decode, []

    def decode(model: Any, jobs: Any, how: Any, stop: Any, budget: Any, *rest: Any) -> Iterator[Any]:
        tried.append(budget.tokens)
        for rows in real(model, jobs, how, stop, budget, *rest):
            yield rows
            if budget.tokens > limit:
                raise error

    monkeypatch.setattr(local, "decode", decode)
    return tried


def answers(engine: Any, requests: Sequence[Request]) -> dict[tuple[int, int], Completion]:
    """As the steps collect them: the later one counts."""
    batches = engine.generate(requests, Sampling(max_new_tokens=20))
    return {(one.request, one.index): one for batch in batches for one in batch}


def test_sampling_begins_again_and_gives_the_same_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, changes = tiny.engine(), []
    requests = asked(engine)
    expected = answers(engine, requests)
    engine.memory.on_change = changes.append
    # 18 rows of 30 + 20 + 64 columns at most: 2,052 slots. 1,536 is the first halving that holds fewer rows.
    tried = starve(monkeypatch, 1_000)
    found = answers(engine, requests)
    assert tried == [49_152, 1_536, 768]
    assert found.keys() == expected.keys()
    for key, one in found.items():
        assert one.token_ids == expected[key].token_ids
        assert one.logprobs == pytest.approx(expected[key].logprobs, abs=1e-5)
    assert [(c.work, c.before, c.after) for c in changes] == [
        ("sampling", 49_152, 1_536),
        ("sampling", 1_536, 768),
    ]
    assert "can't allocate memory" in changes[0].why
    tried.clear()
    answers(engine, requests)
    assert tried == [768]  # the next unit does not run into it again


def test_when_not_even_one_row_fits_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = tiny.engine()
    starve(monkeypatch, 0, torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(EngineError, match="CUDA out of memory") as caught:
        answers(engine, asked(engine))
    said = str(caught.value)
    assert "a single answer of 20 tokens" in said and "generate.max_new_tokens" in said


def test_another_error_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = tiny.engine()
    tried = starve(monkeypatch, 0, RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        answers(engine, asked(engine))
    assert len(tried) == 1


def scarce(real: Callable[..., Any], most: int) -> Callable[..., Any]:
    """`completion_logprobs` that has no room for more than `most` completion tokens at once."""

    def fake(model: Any, pairs: Sequence[Any]) -> Any:
        if sum(len(completion) for _, completion in pairs) > most:
            raise CPU
        return real(model, pairs)

    return fake


def test_scoring_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, changes = tiny.engine(), []
    prompts, completions = [(1, 2, 3)] * 4 + [(4, 5)], [(7,) * 5, (8,) * 5, (9,), (10, 11), (12,)]
    expected = engine.score(prompts, completions)
    engine.memory.on_change = changes.append
    real = forward.completion_logprobs
    monkeypatch.setattr(forward, "completion_logprobs", scarce(real, 9))
    for found, row in zip(engine.score(prompts, completions), expected, strict=True):
        assert found == pytest.approx(row, abs=1e-5)
    assert changes and all(change.work == "scoring" for change in changes)
    monkeypatch.setattr(forward, "completion_logprobs", scarce(real, 4))
    with pytest.raises(EngineError, match="out of memory while scoring"):
        engine.score(prompts, completions)


def trained(most: int | None, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], list[PlanChange]]:
    """The adapter after three steps, in which `most` completion tokens fit into memory at once."""
    engine, changes = tiny.engine(), []
    engine.memory.on_change = changes.append
    items = [
        Item(id=f"{i}", prompt_token_ids=(i % 2, 5, 6), completion_token_ids=tuple(range(9, 14 + i)))
        for i in range(6)
    ]
    config = TrainConfig(steps=3, batch_size=4, lr=0.01, lora=LoraConfig(r=2))
    with monkeypatch.context() as patch:
        if most is not None:
            patch.setattr(precomputed, "completion_logprobs", scarce(precomputed.completion_logprobs, most))
        with engine.trainer().open(None, config.lora, 3) as model:
            nothing = NoCheckpoints()
            loop.train(model, items, SFT, config, 3, nothing, lambda row, n: None, memory=engine.memory)
            weights = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    return weights, changes


def test_a_training_step_begins_again_with_the_same_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trap: gradients of the micro-batches before the failure stay and are counted twice."""
    whole, none = trained(None, monkeypatch)
    halved, changes = trained(12, monkeypatch)
    assert not none and changes[0].before == 240 and changes[-1].after < 40
    for name, weight in whole.items():
        assert torch.allclose(halved[name], weight, rtol=1e-4, atol=1e-6), name
    with pytest.raises(EngineError, match=r"out of memory while training(.|\n)*drop the longest rows"):
        trained(3, monkeypatch)


CHILD = """
import resource, sys
import torch
sys.path[:0] = [{tests!r}]
import tiny
from selfrefine.config import Sampling
from selfrefine.engines.base import Request
engine = tiny.engine(num_hidden_layers=24, head_dim=64, num_key_value_heads=4)
engine.memory.on_change = lambda change: print(change.sentence())
requests = [Request(prompt_token_ids=tuple(range(9, 40)), seeds=tuple(range(i, i + 8))) for i in range(32)]
with open("/proc/self/statm") as file:
    size = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 300 * 2**20, resource.RLIM_INFINITY))
batches = engine.generate(requests, Sampling(max_new_tokens=8))
print(len({{(one.request, one.index) for batch in batches for one in batch}}))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_the_allocators_own_refusal_is_understood() -> None:
    """Nothing faked: 128 rows of 103 columns at 48 KiB a slot want 618 MiB, and the process may have 300."""
    code = CHILD.format(tests=str(Path(__file__).parent))
    child = [sys.executable, "-c", code]
    done = subprocess.run(child, capture_output=True, text=True, env=environment(OMP_NUM_THREADS="1"))
    assert done.returncode == 0, done.stderr
    *said, count = done.stdout.splitlines()
    lowered = "out of memory while sampling: token budget lowered"
    assert said and all(line.startswith(lowered) for line in said)
    assert count == "256"


SETTINGS = """
model = {model}
[tasks]
source = "t.jsonl"
gate = 6
test = 6
[reward]
use = ["random"]
[generate]
n = 3
max_new_tokens = 20
[cycle]
rounds = 1
prompts_per_round = 5
[gate]
mode = "off"
[select]
strategy = "all"
[train.lora]
r = 2
"""


def test_a_run_records_it_says_it_once_and_goes_on_with_what_fitted(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c.toml").write_text(SETTINGS.format(model=json.dumps(str(tiny_model_dir))))
    (tmp_path / "t.jsonl").write_bytes(jsonl(*(task(f"t{i}", f"What is {i} + 2?") for i in range(24))))
    with monkeypatch.context() as patch:
        starve(patch, 500)
        done = selfrefine("cycle", "--config", "c.toml", "--run", "x", cwd=tmp_path)
    assert done.code in (0, 8), done.err
    run = tmp_path / "runs/x"
    plan = json.loads((run / "plan.json").read_text())
    assert plan == {"policy": {"sampling": 384}}
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    changes = [event for event in events if event["kind"] == "plan-change"]
    assert [change["after"] for change in changes][-1] == 384
    assert done.err.count("out of memory while sampling") == len(changes)
    rows = (run / "round-001/generate.jsonl").read_bytes().splitlines()
    assert len(rows) == 15  # each answer once, though half of them came twice
    assert "round 1 generate: 15 rows" in done.err

    tried = starve(monkeypatch, 500)
    more = selfrefine("cycle", "--run", "x", "--rounds", "2", cwd=tmp_path)
    assert more.code in (0, 8) and "a repeat may differ in the last digits" in more.err
    assert set(tried) == {384}
    assert "a repeat may differ in the last digits" in selfrefine("runs", "verify", "x", cwd=tmp_path).err
