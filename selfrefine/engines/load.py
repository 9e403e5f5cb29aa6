"""From what the user calls a model to an engine: `smollm2`, a folder, a hub id, `scripted[:rules.jsonl]`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from selfrefine.engines import ENGINES, EngineKind, LoadOptions, embedded
from selfrefine.engines.base import Engine, Identity, Place
from selfrefine.engines.quiet import quiet_transformers
from selfrefine.errors import EngineError
from selfrefine.registry import BUILT_IN, Contained, outside_code, split
from selfrefine.runfolder.jsonl import sha256_file
from selfrefine.serving import EngineConfig

if TYPE_CHECKING:
    from selfrefine.engines.local import LocalEngine

_ADAPTER = "adapter_config.json"
_PATTERNS = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.jinja"]


def load_engine(
    name: str,
    adapter: Path | None = None,
    *,
    trust_remote_code: bool = False,
    servers: EngineConfig = EngineConfig(),
    say: Callable[[str], object] = lambda line: None,
) -> Engine:
    """The engine for a model name, with an adapter merged if one is given; `say` is told of long waits.
    `servers`: where and how `openai:NAME` is asked.

    Raises: EngineError when the model can't be found or loaded; ConfigError for an adapter of another one or
    a script that cannot be read.
    """
    kind, _, rest = split(name)
    options = LoadOptions(trust_remote_code=trust_remote_code, servers=servers, say=say)
    # A folder or a hub id has a slash; `local:name` is a folder that is called as an engine is.
    if kind == embedded.NAME or ("/" in kind and ".py:" not in kind) or kind not in ENGINES:
        kind, rest = "local", name
    found = ENGINES.get(kind)
    with outside_code("engine", kind, found.origin):
        engine = found.load(rest, adapter, options)
    if found.origin != BUILT_IN:
        engine = cast("Engine", Contained(engine, "engine", kind, found.origin))
    return engine


def _local(name: str, adapter: Path | None, options: LoadOptions) -> LocalEngine:
    folder, revision = resolve(name, options.say)
    engine = _load_local(name, folder, revision, options)
    engine.use_adapter(adapter)
    return engine


LOCAL = EngineKind(
    name="local",
    spelling="smollm2 (embedded), a folder, a hub id such as org/name",
    about="a causal language model, run with transformers on CPU, CUDA or MPS; smollm2 is embedded",
    load=_local,
)


def resolve(
    name: str, say: Callable[[str], object] = lambda line: None, kinds: Iterable[EngineKind] | None = None
) -> tuple[Path, str]:
    """The folder that holds a model, and its revision. Raises: EngineError, with the `kinds` there are."""
    if name == embedded.NAME:
        return embedded.ensure(say), embedded.GGUF_SHA256[:12]
    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        return _without_adapter(name, folder), ""
    if (folder / _ADAPTER).is_file():
        raise EngineError(
            f"--model {name}: that is an adapter; use it with --adapter, and its base with --model"
        )
    if folder.is_dir() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise EngineError(
            f"--model {name}: no model there (a model folder has a config.json); "
            f"use one of: {'; '.join(kind.spelling for kind in kinds or ENGINES.usable())}"
        )
    return _from_hub(name)


def _from_hub(name: str) -> tuple[Path, str]:
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "5")
    quiet_transformers()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, allow_patterns=_PATTERNS))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EngineError(
            f"--model {name}: not in the local hub cache, and the hub did not answer ({first})\n"
            f"without a network, use a folder or the embedded model: --model {embedded.NAME}"
        ) from None
    return _without_adapter(name, folder), folder.name


def _without_adapter(name: str, folder: Path) -> Path:
    """transformers applies an adapter that lies beside the model and says nothing; --adapter replaces it."""
    if (folder / _ADAPTER).is_file():
        raise EngineError(
            f"--model {name}: the folder holds an adapter too, so it is not clear which model is meant\n"
            f"move {_ADAPTER} and adapter_model.safetensors to another folder and use that with --adapter"
        )
    return folder


def _load_local(name: str, folder: Path, revision: str, how: LoadOptions) -> LocalEngine:
    quiet_transformers()
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from selfrefine.compute.device import pick_device
    from selfrefine.engines.local import LocalEngine

    if not weight_files(folder):
        raise EngineError(
            f"{folder}: no model.safetensors and no index of shards; pickled weights are not loaded, "
            "convert them first"
        )
    device = pick_device()
    dtype = torch.bfloat16 if device == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": how.trust_remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), **options)
        model, report = AutoModelForCausalLM.from_pretrained(
            str(folder), dtype=dtype, use_safetensors=True, output_loading_info=True, **options
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise EngineError(f"--model {name}: cannot be loaded: {first}") from None
    if report["missing_keys"]:
        # transformers fills them with random numbers and goes on.
        raise EngineError(
            f"--model {name}: the weights lack {len(report['missing_keys']):,} tensors of a causal language "
            f"model, such as {min(report['missing_keys'])}"
        )
    _refuse_recurrent(model, name)
    from_hub = bool(revision) and name != embedded.NAME
    return LocalEngine(
        model.to(device),
        tokenizer,
        identity(name, folder, revision),
        place=Place(name, revision) if from_hub else Place(str(folder.resolve())),
        say=lambda line: how.say(f"{name}: {line}"),
    )


def _refuse_recurrent(model: Any, name: str) -> None:
    """State-space and linear-attention layers keep no keys and values that a slot cache could hold."""
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
    strange = sorted(kinds - {"full_attention", "sliding_attention"})
    if strange or getattr(model, "_is_stateful", False):
        raise EngineError(
            f"--model {name}: layers of kind {', '.join(strange) or 'recurrent'} are not supported; "
            "use a model with attention layers only"
        )


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers loads: what else lies there is not part of the model."""
    named = _read_json(folder / "config.json").get("transformers_weights")
    found = folder / str(named or "model.safetensors")
    if found.suffix != ".json" and (named or found.is_file()):
        return [found] if found.suffix == ".safetensors" else []
    shards = _read_json(found if named else folder / "model.safetensors.index.json").get("weight_map", {})
    return sorted(folder / str(shard) for shard in set(shards.values()))


def _read_json(file: Path) -> dict[str, Any]:
    """Empty where it cannot be read: whoever needs it says so."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(file.read_text())
        return found if isinstance(found, dict) else {}
    return {}


def identity(name: str, folder: Path, revision: str) -> Identity:
    """Name, revision and weights hash of a model folder; the hash is cached by size and mtime."""
    if folder == embedded.converted_dir():  # elsewhere a sidecar may outlive the weights it speaks of
        known = json.loads((folder / embedded.SIDECAR).read_text())
        return Identity(name=known["name"], revision=revision, weights_sha256=known["weights_sha256"])
    files = weight_files(folder)
    key = json.dumps([[str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns] for f in files])
    note = embedded.cache_dir() / "hashes" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    if note.is_file():
        return Identity(name=name, revision=revision, weights_sha256=json.loads(note.read_text()))
    digest = hashlib.sha256()
    for file in files:
        digest.update(bytes.fromhex(sha256_file(file)))
    with contextlib.suppress(OSError):  # without a cache the hash is computed again, that is all
        note.parent.mkdir(parents=True, exist_ok=True)
        scratch = note.with_suffix(f".{os.getpid()}.tmp")
        scratch.write_text(json.dumps(digest.hexdigest()))
        scratch.replace(note)
    return Identity(name=name, revision=revision, weights_sha256=digest.hexdigest())
