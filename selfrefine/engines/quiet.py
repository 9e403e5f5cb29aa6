"""Libraries that print on their own are told not to: stderr belongs to our summary lines."""

from __future__ import annotations

import os
import warnings


def quiet_transformers() -> None:
    """Call before transformers is first used."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module=r"(transformers|peft|torch)\.")
