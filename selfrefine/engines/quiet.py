"""Libraries that print on their own are told not to: stderr belongs to our summary lines."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


def quiet_transformers() -> None:
    """Call before transformers is first used."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module=r"(transformers|peft|torch)\.")


@contextmanager
def no_gguf_bar() -> Iterator[None]:
    """Inside, reading a GGUF file shows no bar: this one asks neither transformers nor the terminal."""
    from transformers import modeling_gguf_pytorch_utils as gguf

    bar = gguf.tqdm
    gguf.tqdm = functools.partial(bar, disable=True)
    try:
        yield
    finally:
        gguf.tqdm = bar
