"""Shared fixtures. Nothing here imports torch until a test asks for a model."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

# One thread: the tiny models lose more to thread start-up than they gain, and sums keep their order.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# A shell starts `make test &` with Ctrl-C ignored, and programs hand that on: no child could be stopped.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved random Llama with a ChatML tokenizer: `--model` for tests that need a folder."""
    import tiny

    return tiny.save(tmp_path_factory.mktemp("models") / "tiny-llama")


SLOWEST = (
    "test_every_crash.py",
    "test_changed.py",
    "test_pipes.py",
    "test_interrupted.py",
    "test_by_hand.py",
    "test_bench_recipes.py",
    "test_tutorial.py",
    "test_recipe_runs.py",
    "test_memory.py",
    "test_decode.py",
)
"""The longest first. Workers take whole files (`make test`), in the order of the tests: begun last, one of
these would keep one worker busy while the other has nothing left."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: i for i, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(SLOWEST)))
