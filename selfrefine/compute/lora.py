"""LoRA adapters in peft's own format, and a merge that leaves no trace.

Merging and unmerging by adding and subtracting the same product drifts (0.27 % of the weights changed in
float32), so the touched weights are copied before and put back after: the base stays bit-identical.
Source: Hu et al. 2021, LoRA, eq. 3 (h = W0 x + alpha/r B A x).
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peft
import torch
from peft.tuners.lora import LoraLayer
from peft.utils.save_and_load import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from selfrefine.compute import adapted, adapter_files
from selfrefine.compute.adapter_files import CONFIG, SIDECAR, WEIGHTS, sidecar
from selfrefine.config import LoraConfig
from selfrefine.errors import ConfigError


def attach_new(model: Any, settings: LoraConfig, seed: int) -> Any:
    """A PeftModel around `model` with a fresh adapter: A random from `seed`, B zero."""
    targets: Any = list(settings.targets)
    if targets == ["all-linear"]:
        targets = "all-linear"
    config = peft.LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)
    try:
        wrapped = peft.get_peft_model(model, config)
        _refuse_layers(wrapped)
    except ValueError as error:
        detach_leftovers(model)
        raise ConfigError(f"train.lora.targets {list(settings.targets)}: {error}") from None
    adapted.install(wrapped)
    return wrapped


def _refuse_layers(wrapped: Any) -> None:
    """Raises: ValueError for embeddings, and for a layer whose weight is another module's too, as a head tied
    to the embeddings.

    Trained, such an adapter changes one of the two; merged, it would change both: another policy.
    """
    base = wrapped.get_base_model()
    owners: dict[int, list[str]] = {}
    for name, parameter in base.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    for name, module in base.named_modules():
        if isinstance(module, LoraLayer) and isinstance(module.get_base_layer(), torch.nn.Embedding):
            raise ValueError(f"{name} is an embedding; only linear layers can have an adapter")
        if isinstance(module, LoraLayer) and len(owners[id(module.get_base_layer().weight)]) > 1:
            raise ValueError(
                f"{name} shares its weight with another layer and cannot have an adapter of its own"
            )


def attach(model: Any, folder: Path, weights_sha256: str, *, trainable: bool) -> Any:
    """A PeftModel with the adapter of `folder`. Raises: ConfigError when it is another model's."""
    config = _read_config(folder, weights_sha256)
    config.inference_mode = not trainable
    try:
        wrapped = peft.get_peft_model(model, config)
        _refuse_layers(wrapped)
        placed = set_peft_model_state_dict(wrapped, load_file(folder / WEIGHTS))
        odd = [*placed.unexpected_keys, *(key for key in placed.missing_keys if "lora_" in key)]
        if odd:
            raise ValueError(f"its tensors do not match the model's layers, such as {odd[0]}")
    except (RuntimeError, ValueError, TypeError, ZeroDivisionError, SafetensorError) as error:
        detach_leftovers(model)
        raise ConfigError(f"{folder}: the adapter does not fit this model: {_first(error)}") from None
    adapted.install(wrapped)
    return wrapped


_MISMATCH = re.compile(
    r"size mismatch for (\S+): copying a param with shape torch\.Size\(\[(.*?)\]\)"
    r".* current model is torch\.Size\(\[(.*?)\]\)"
)


def _first(error: Exception) -> str:
    """What is wrong in one line: of a table of shapes its first row, with the name as the file has it."""
    if found := _MISMATCH.search(str(error)):
        name, there, here = (
            found[1].replace(".default.", "."),
            *(found[i].replace(", ", " × ") for i in (2, 3)),
        )
        return f"{name} is {there} in the file, {here} is needed here"
    return next(iter(str(error).splitlines()), type(error).__name__)


@contextmanager
def as_policy(wrapped: Any, folder: Path | None, weights_sha256: str) -> Iterator[None]:
    """Inside, a PeftModel under training computes as base + the adapter in `folder`, or as the bare base.

    The base's weights are shared, only the adapter's few are loaded beside. Turning adapters off gives the
    base, which is another policy than an adapter that training started from: hence the second adapter.
    """
    if folder is None:
        with wrapped.disable_adapter():
            yield
        return
    config = _read_config(folder, weights_sha256)
    config.inference_mode = True
    wrapped.add_adapter("other", config)
    try:
        set_peft_model_state_dict(wrapped, load_file(folder / WEIGHTS), adapter_name="other")
        wrapped.set_adapter("other")
        yield
    finally:
        wrapped.set_adapter("default")
        wrapped.delete_adapter("other")


def _read_config(folder: Path, weights_sha256: str) -> Any:
    adapter_files.check(folder)
    known = sidecar(folder)
    if known and known.get("weights_sha256") != weights_sha256:
        raise ConfigError(
            f"{folder}: this adapter was trained on {known.get('base')} "
            f"(weights {str(known.get('weights_sha256'))[:12]}…), not on the model given "
            f"(weights {weights_sha256[:12]}…); pass that model with --model"
        )
    try:
        config = peft.PeftConfig.from_pretrained(str(folder))
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{folder / CONFIG}: {error}") from None
    if not isinstance(config, peft.LoraConfig):
        raise ConfigError(f"{folder}: adapters of type {config.peft_type} are not supported, only LoRA")
    default, told = _settings(peft.LoraConfig()), _settings(config)
    adapter_files.refuse_odd_settings(told, default, folder)
    for name in default.keys() - adapter_files.PLAIN:
        if not told[name] and name != "init_lora_weights":  # other versions write null, false or []
            setattr(config, name, default[name])
    return config


def _settings(config: Any) -> dict[str, Any]:
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}


def detach_leftovers(model: Any) -> None:
    """Take LoRA layers out of a model again after a failed attach."""
    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            parent = model.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], module.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config
    model.requires_grad_(False)


def deltas(wrapped: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Module name and alpha/r * B A in float32, for every adapted layer, one at a time: all together are as
    large as the model."""
    for name, module in wrapped.get_base_model().named_modules():
        if isinstance(module, LoraLayer):
            yield name, module.get_delta_weight("default").detach().float()


class Merge:
    """An adapter added into the weights of a float32 model, and the pristine copies to undo it."""

    def __init__(self, model: Any, changes: Iterable[tuple[str, torch.Tensor]]) -> None:
        self.model = model
        self.pristine: dict[str, torch.Tensor] = {}
        self.merged: dict[str, torch.Tensor] = {}
        with torch.no_grad():
            for name, delta in changes:
                weight = model.get_submodule(name).weight
                self.pristine[name] = weight.data
                weight.data = weight.data + delta
                self.merged[name] = weight.data

    def undo(self) -> None:
        self._point_at(self.pristine)

    def redo(self) -> None:
        self._point_at(self.merged)

    def _point_at(self, tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            self.model.get_submodule(name).weight.data = tensor


def save(
    wrapped: Any, folder: Path, name: str, weights_sha256: str, base: tuple[str, str | None] | None = None
) -> None:
    """Write the adapter as peft does, without its model card and with lists in a fixed order.

    peft keeps target_modules in a set, whose order changes from process to process. `name` is the user's for
    the base; plain peft finds it by `base`, a folder or a hub id, and a revision.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    tensors = {k: state[k].contiguous().cpu() for k in sorted(state)}
    # Not save_file: on a full disk that raises an error of its own, which nobody would take for one.
    (folder / WEIGHTS).write_bytes(to_bytes(tensors, metadata={"format": "pt"}))
    config = wrapped.peft_config["default"].to_dict()
    config["base_model_name_or_path"], config["revision"] = base or (name, None)
    config["inference_mode"] = True
    plain = {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()}
    (folder / CONFIG).write_text(adapter_files.written(plain))
    base_said = {"base": name, "weights_sha256": weights_sha256}
    (folder / SIDECAR).write_text(json.dumps(base_said, indent=1) + "\n")
