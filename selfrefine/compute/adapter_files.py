"""What an adapter folder's small files say: whether it can be used at all, before a model is loaded.

Read without torch and peft: the configuration is JSON, and so is the header of a safetensors file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfrefine.errors import ConfigError

WEIGHTS, CONFIG, SIDECAR = "adapter_model.safetensors", "adapter_config.json", "selfrefine.json"

PLAIN = {
    "peft_type",
    "task_type",
    "peft_version",
    "auto_mapping",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "r",
    "lora_alpha",
    "lora_dropout",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "fan_in_fan_out",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "megatron_core",
    "eva_config",  # of the initialisation
}
"""Settings that leave an adapter W + alpha/r * B A. What else departs from peft's default (DoRA, a trained
bias, PiSSA, which rewrites the base) is refused: merging the product alone would be another policy."""
DEFAULTS: dict[str, Any] = dict.fromkeys(
    (
        "alora_invocation_tokens",
        "arrow_config",
        "corda_config",
        "ensure_weight_tying",
        "kasa_config",
        "layer_replication",
        "loftq_config",
        "lora_bias",
        "lora_ga_config",
        "megatron_config",
        "modules_to_save",
        "monteclora_config",
        "target_parameters",
        "trainable_token_indices",
        "use_bdlora",
        "use_dora",
        "use_qalora",
        "velora_config",
    )
) | {"bias": "none", "init_lora_weights": True, "qalora_group_size": 16}
"""The rest, by peft's defaults; `lora` asks the installed peft itself, once that is imported."""
_MATRIX = re.compile(r"\.lora_[AB]\.weight$")
_HARMLESS_INITS = (False, "gaussian", "orthogonal", "eva")


def check(folder: Path) -> None:
    """Raises: ConfigError where the folder holds no plain LoRA adapter, whatever the model."""
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise ConfigError(f"{folder}: not an adapter folder, it has no {name}")
    sidecar(folder)
    told = _object(folder / CONFIG)
    if (kind := told.get("peft_type")) != "LORA":
        raise ConfigError(f"{folder}: adapters of type {kind} are not supported, only LoRA")
    refuse_odd_settings(told, DEFAULTS, folder)
    _refuse_odd_tensors(folder)


def sidecar(folder: Path) -> dict[str, Any]:
    """The base an adapter was trained on; empty for one that we did not write. Raises: ConfigError."""
    file = folder / SIDECAR
    return _object(file) if file.is_file() else {}


def unchecked(folder: Path) -> str:
    """A sentence where nothing says which base an adapter was trained on: its shapes fit others too."""
    if sidecar(folder).get("weights_sha256"):
        return ""
    named = _object(folder / CONFIG).get("base_model_name_or_path")
    trained_on = f"; its config names {named}" if named else ""
    return f"{folder} has no {SIDECAR}: cannot check that it was trained on this model{trained_on}"


def written(config: Mapping[str, Any]) -> str:
    """A configuration as `lora.save` writes it."""
    return json.dumps(config, indent=2, sort_keys=True, default=str) + "\n"


def adapter_sha256(folder: Path) -> str:
    """Hash of what decides the policy: the adapter's weights and its configuration.

    Where the base lies does not: of an adapter of ours, the base's name stands in the configuration instead.
    Nor does what is written about it, as a model card. Raises: ConfigError, OSError, ValueError.
    """
    digest = hashlib.sha256()
    config = (folder / CONFIG).read_bytes()
    if (name := sidecar(folder).get("base")) is not None:
        said = json.loads(config)
        if said.get("base_model_name_or_path") != name:
            config = written(said | {"base_model_name_or_path": name, "revision": None}).encode()
    for data in ((folder / WEIGHTS).read_bytes(), config):
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def policy(weights_sha256: str, adapter_sha256: str) -> str:
    """The name of base + adapter as a policy; "" is no adapter."""
    return hashlib.sha256(f"{weights_sha256}+{adapter_sha256}".encode()).hexdigest()[:16]


def refuse_odd_settings(told: Mapping[str, Any], default: Mapping[str, Any], folder: Path) -> None:
    """Raises: ConfigError. Empty values pass: some versions write null, false or [] for "not used"."""
    for name in (name for name in told if name in default and name not in PLAIN):
        value = told[name]
        if value and value != default[name] and (name != "init_lora_weights" or value not in _HARMLESS_INITS):
            raise ConfigError(f"{folder}: LoRA adapters with {name} are not supported, only plain ones")


def _refuse_odd_tensors(folder: Path) -> None:
    """Whatever else is in the file, peft would load over the base's own weights, and nothing undoes that."""
    file = folder / WEIGHTS
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > file.stat().st_size:
                raise ValueError("not a safetensors file, or cut short")
            header = json.loads(stream.read(length))
    except (ValueError, OSError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from None
    odd = sorted(name for name in header if name != "__metadata__" and not _MATRIX.search(name))
    if odd:
        more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        raise ConfigError(
            f"{file} holds {odd[0]}{more}, which would change the base: only LoRA matrices of "
            "linear layers are supported (in peft: save_pretrained(…, save_embedding_layers=False))"
        )


def _object(file: Path) -> dict[str, Any]:
    """Raises: ConfigError."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{file}: not a JSON object")
    return found
