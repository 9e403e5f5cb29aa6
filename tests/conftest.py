"""Shared fixtures. Nothing here imports torch until a test asks for a model."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# One thread: the tiny models lose more to thread start-up than they gain, and sums keep their order.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved random Llama with a ChatML tokenizer: `--model` for tests that need a folder."""
    import tiny

    return tiny.save(tmp_path_factory.mktemp("models") / "tiny-llama")
