"""What --dry-run says of memory: the arithmetic by hand, and against what real processes took."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from harness import environment

from selfrefine.engines import embedded
from selfrefine.report import footprint
from selfrefine.report.footprint import Load, Room, Shape

LOAD = Load(
    longest_prompt=20,
    trained_prompt=20,
    answers=6,
    samples=3,
    new_tokens=30,
    trained_tokens=200,
    completions=3,
    lora_rank=4,
)


def test_sizes_are_read_from_the_files_of_a_model(tiny_model_dir: Path) -> None:
    """Two layers of hidden 32, 4 heads of 8 of which 2 have keys, MLP 48, 303 tokens, a head of its own.

    A layer: q and o 1,024 each, k and v 512 each, MLP 3 x 1,536, norms 64, so 7,744; a last norm of 32; the
    embeddings and the head 9,696 each.
    """
    model = footprint.shape(tiny_model_dir)
    assert model is not None
    assert (model.parameters, model.embeddings) == (2 * 7_744 + 32 + 2 * 9_696, 2 * 9_696)
    assert model.slot_bytes == 2 * 2 * 2 * 8 * 4  # keys and values, layers, heads, dimension, float32
    # q and o 32 + 32, k and v 32 + 16, MLP 3 x (32 + 48): 464 a layer and rank
    assert model.adapter_parameters(4) == 2 * 464 * 4
    assert footprint.shape(tiny_model_dir / "nowhere") is None


def tiny(folder: Path) -> Shape:
    model = footprint.shape(folder)
    assert model is not None
    return model


def test_sampling_by_hand(tiny_model_dir: Path) -> None:
    """20 + 30 + 4 columns; 500 slots would hold 9 rows, 6 are wanted; 2 prompts of 3 samples fill them."""
    room = Room(rows=256, slots=500, slack=4, prefill_tokens=45)
    parts = footprint.sampling(tiny(tiny_model_dir), LOAD, room)
    expected = {
        "key/value cache of 6 rows × 54": 6 * 54 * 256,
        "40 prompt tokens": 40 * (256 + 4 * (3 * 48 + 4 * 32)),
        "logits": (2 + 5 * 6) * 303 * 4,  # each prompt's last place, then the draw
        "attention buffers": 2 * 6 * 54 * 32 * 4,
    }
    assert parts == {name: int(1.1 * count) for name, count in expected.items()}


def test_a_cache_never_outgrows_its_budget_but_for_a_single_row(tiny_model_dir: Path) -> None:
    room = Room(rows=256, slots=100, slack=4, prefill_tokens=45)
    assert "key/value cache of 1 row × 54" in footprint.sampling(tiny(tiny_model_dir), LOAD, room)


def test_training_by_hand(tiny_model_dir: Path) -> None:
    """The trap: memory follows the token budget, and a budget of 200 tokens is not 200 vocabulary rows."""
    parts = footprint.training(tiny(tiny_model_dir), LOAD)
    keys = 2 * 16 * (1 + 20 / 90)  # three answers of 30 tokens share a prompt of 20
    kept = 4 * 32 + 3 * 32 + keys + 4 * 48 + 7 * 4
    assert parts == {
        "activations of 200 tokens": int(1.5 * 200 * 2 * kept * 4),
        "logits of the trained tokens": int(1.5 * 3 * 128 * 303 * 4),
        "adapter and optimizer": 6 * 2 * 464 * 4 * 4,
    }


CHILD = """
import random, sys
from selfrefine.config import TrainConfig
from selfrefine.config import Sampling
from selfrefine.engines.base import Request
from selfrefine.engines.load import load_engine
from selfrefine.objectives.base import Item
from selfrefine.objectives.sft import SFT
from selfrefine.steps.finetune import NoCheckpoints
from selfrefine.training.loop import train

what, prompt, answer, prompts, n = sys.argv[1], *map(int, sys.argv[2:])
engine, random = load_engine("smollm2"), random.Random(0)
engine.stop_ids = frozenset()  # every answer as long as it may be

def ids(length):
    return tuple(random.randrange(1_000, 40_000) for _ in range(length))

if what == "sampling":
    asked = [Request(prompt_token_ids=ids(prompt), seeds=tuple(range(n))) for _ in range(prompts)]
    list(engine.generate(asked, Sampling(max_new_tokens=answer)))
else:
    items = []
    for i in range(prompts):
        asked = ids(prompt)
        items += [Item(id="x", prompt_token_ids=asked, completion_token_ids=ids(answer)) for _ in range(n)]
    config = TrainConfig(steps=1, batch_size=len(items))
    with engine.trainer().open(None, config.lora, 0) as model:
        train(model, items, SFT, config, 0, NoCheckpoints(), lambda row, total: None)
with open("/proc/self/status") as status:
    print(next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM")))
"""


@pytest.mark.long
@pytest.mark.real
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize(
    ("what", "prompt", "answer", "prompts", "n"),
    [
        ("sampling", 2_000, 16, 4, 4),
        ("sampling", 50, 1_000, 8, 1),
        ("training", 45, 40, 20, 4),
    ],
)
def test_a_real_process_stays_within_the_estimate_and_above_half_of_it(
    what: str, prompt: int, answer: int, prompts: int, n: int
) -> None:
    from selfrefine.compute.device import BUDGETS, SLACK, token_budget
    from selfrefine.config import TrainConfig

    model = footprint.shape(embedded.converted_dir())
    if model is None:
        pytest.skip("the embedded model is not converted here")
    budget, config = BUDGETS["cpu"], TrainConfig()
    load = Load(
        longest_prompt=prompt,
        trained_prompt=prompt,
        answers=prompts * n,
        samples=n,
        new_tokens=answer,
        trained_tokens=token_budget(config, "cpu"),
        completions=n,
        lora_rank=config.lora.r,
    )
    room = Room(rows=budget.rows, slots=budget.tokens, slack=SLACK, prefill_tokens=budget.prefill_tokens)
    own = footprint.sampling(model, load, room) if what == "sampling" else footprint.training(model, load)
    estimate = footprint.peak(footprint.resident(model), own)
    words = [what, *map(str, (prompt, answer, prompts, n))]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *words], capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stderr
    assert estimate / 2 < int(done.stdout) <= estimate, f"{int(done.stdout):,} of {estimate:,}"


def test_figures_that_are_repeated_without_torch_are_those_of_the_code() -> None:
    """The estimate must not import torch, so it repeats them: changed in one place only, it would lie."""
    from selfrefine.compute import head, packing

    assert (footprint.JOINT_TOKENS, footprint.HEAD_ROWS) == (packing.JOINT_TOKENS, head.ROWS)
