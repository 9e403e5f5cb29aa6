"""Adapters on a local model: merged and taken off again, refused where they are more than LoRA matrices."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import peft
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from selfrefine.compute import adapter_files
from selfrefine.config import LoraConfig
from selfrefine.engines.base import Place, exact_logprobs
from selfrefine.engines.local import LocalEngine
from selfrefine.engines.scripted import Scripted
from selfrefine.errors import ConfigError, EngineError


def adapter(engine: LocalEngine, folder: Path, seed: int = 0, **settings: Any) -> Path:
    """An adapter whose B is not zero, so that it changes what the model says."""
    with engine.trainer().open(None, LoraConfig(r=4, **settings), seed) as wrapped:
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(0, 0.2, generator=generator)
        engine.trainer().save(wrapped, folder)
    return folder


def bits(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same_bits(model: Any, before: dict[str, torch.Tensor]) -> bool:
    now = model.state_dict()
    return now.keys() == before.keys() and all(torch.equal(now[name], before[name]) for name in now)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.tensor([[5, 9, 2, 77, 31]])).logits
    return found


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2", "gpt2"])
def test_a_merged_adapter_speaks_as_plain_peft_does(kind: str, tmp_path: Path) -> None:
    """Also the proof that what `save` writes is an adapter for everybody, not for us alone."""
    engine = tiny.engine(kind)
    base = logits(engine.model)
    engine.use_adapter(adapter(engine, tmp_path / "a"))
    plain = peft.PeftModel.from_pretrained(tiny.model(kind), str(tmp_path / "a"))
    assert (logits(engine.model) - logits(plain)).abs().max() < 1e-4
    assert (logits(engine.model) - base).abs().max() > 0.1
    assert "lm_head" not in (tmp_path / "a" / "adapter_config.json").read_text()


def test_base_weights_come_back_bit_for_bit(tmp_path: Path) -> None:
    """Subtracting what was added drifts; after a hundred rounds it is another model."""
    engine = tiny.engine()
    before, base = bits(engine.model), logits(engine.model)
    first, second = adapter(engine, tmp_path / "a", 1), adapter(engine, tmp_path / "b", 2)
    assert same_bits(engine.model, before)
    policies = [engine.policy]
    for folder in (first, second):
        engine.use_adapter(folder)
        policies.append(engine.policy)
    # B on the base, not on top of A.
    plain = peft.PeftModel.from_pretrained(tiny.model(), str(second))
    assert (logits(engine.model) - logits(plain)).abs().max() < 1e-4
    engine.use_adapter(None)
    assert same_bits(engine.model, before) and torch.equal(logits(engine.model), base)
    assert len(set(policies)) == 3 and engine.policy == policies[0]


def test_bare_is_the_model_without_any_adapter_while_one_is_merged(tmp_path: Path) -> None:
    """The trap: a reference policy that silently is the last iterate."""
    engine = tiny.engine()
    pair: tuple[list[Sequence[int]], list[Sequence[int]]] = ([(1, 2, 3)], [(4, 5, 6)])
    base = engine.score(*pair)
    engine.use_adapter(adapter(engine, tmp_path / "a"))
    tuned = engine.score(*pair)
    assert engine.score(*pair, bare=True) == base
    assert engine.score(*pair) == tuned != base  # and the adapter is back in place
    with pytest.raises(EngineError):
        engine.score([()], [(1,)], bare=True)
    assert engine.score(*pair) == tuned


def test_below_float32_the_adapter_stays_beside_the_weights(tmp_path: Path) -> None:
    """Merging into bfloat16 rounds a small adapter away."""
    engine = tiny.engine()
    folder = adapter(engine, tmp_path / "a")
    half = LocalEngine(tiny.model().bfloat16(), engine.tokenizer, engine.identity)
    before = bits(half.model)
    pair: tuple[list[Sequence[int]], list[Sequence[int]]] = ([(1, 2, 3)], [(4, 5, 6)])
    base = half.score(*pair)
    half.use_adapter(folder)
    tuned = half.score(*pair)
    assert "unmerged" in half.signature and half.score(*pair, bare=True) == base != tuned
    engine.use_adapter(folder)
    assert tuned[0] == pytest.approx(engine.score(*pair)[0], abs=0.3)
    with pytest.raises(EngineError, match="float32"):
        half.save_merged(tmp_path / "m")
    half.use_adapter(None)
    assert same_bits(half.model, before)


def test_a_merged_model_saved_is_a_plain_model(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    engine = tiny.engine()
    engine.use_adapter(adapter(engine, tmp_path / "a"))
    engine.save_merged(tmp_path / "plain")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    assert torch.equal(logits(loaded), logits(engine.model))
    assert not list(tmp_path.glob("plain/*.bin"))


@pytest.mark.parametrize("kind", ["llama", "qwen2"])  # qwen2: the head is tied to the embeddings
def test_a_merged_model_is_rounded_after_the_merge(kind: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    engine = tiny.engine(kind)
    engine.use_adapter(adapter(engine, tmp_path / "a"))
    before = bits(engine.model)
    for dtype in (torch.bfloat16, torch.float16):
        folder = tmp_path / str(dtype)
        engine.save_merged(folder, str(dtype).removeprefix("torch."))
        loaded = AutoModelForCausalLM.from_pretrained(folder)
        assert loaded.dtype == dtype and same_bits(engine.model, before)
        name = "model.layers.0.self_attn.q_proj.weight"
        assert torch.equal(loaded.state_dict()[name], before[name].to(dtype))
        tied = "lm_head.weight" not in load_file(folder / "model.safetensors")
        assert tied == (kind == "qwen2")
    engine.model.lm_head.weight.data[0, 0] = 1e6
    with pytest.raises(EngineError, match="too large for float16; use --dtype bfloat16"):
        engine.save_merged(tmp_path / "large", "float16")


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600), (0o002, 0o664)])
def test_what_is_written_has_the_permissions_of_the_umask(umask: int, mode: int, tmp_path: Path) -> None:
    """safetensors makes its files for their owner only: a merged model that nobody else could read."""
    engine = tiny.engine()
    before = os.umask(umask)
    try:
        for folder in (adapter(engine, tmp_path / "a"), tmp_path / "merged"):
            if not folder.exists():
                engine.save_merged(folder)
            assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {mode}
    finally:
        os.umask(before)


def test_an_adapter_of_an_unknown_base_is_said_to_be_unchecked_once(tmp_path: Path) -> None:
    """Its shapes fit any model of the architecture: on another base it answers nonsense."""
    said: list[str] = []
    folder = adapter(tiny.engine(), tmp_path / "a")
    engine = LocalEngine(tiny.model(seed=5), tiny.tokenizer(), tiny.engine().identity, say=said.append)
    engine.use_adapter(folder)
    assert said == []  # its sidecar was read
    (folder / "selfrefine.json").unlink()
    for _ in range(2):
        engine.use_adapter(folder)
        with engine.trainer().open(folder, LoraConfig(), 0):
            pass
    [line] = said
    assert str(folder) in line and "cannot check" in line and "its config names tiny-llama" in line


def test_where_the_base_lies_is_written_and_is_no_part_of_the_policy(tmp_path: Path) -> None:
    """Plain peft finds the base by its path. The policy's hash is the same wherever the model was put."""
    hashes, policies = set(), set()
    for place in (None, Place("/here/model"), Place("/there/model"), Place("org/name", "0123abc")):
        engine = LocalEngine(tiny.model(), tiny.tokenizer(), tiny.engine().identity, place)
        folder = adapter(engine, tmp_path / str(len(policies) + len(hashes)))
        said = json.loads((folder / "adapter_config.json").read_text())
        assert (said["base_model_name_or_path"], said["revision"]) == (place or ("tiny-llama", None))
        sidecar = json.loads((folder / "selfrefine.json").read_text())
        assert sidecar == {"base": "tiny-llama", "weights_sha256": engine.identity.weights_sha256}
        engine.use_adapter(folder)
        policies.add(engine.policy)
        hashes.add(adapter_files.adapter_sha256(folder))
        shutil.rmtree(folder)
    assert len(policies) == len(hashes) == 1


def edit_json(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_an_adapter_that_does_not_fit_is_refused_and_the_model_is_intact(tmp_path: Path) -> None:
    engine = tiny.engine()
    good = adapter(engine, tmp_path / "good")
    other = adapter(tiny.engine("qwen2"), tmp_path / "other")
    bad = {"other weights": (other, r"trained on tiny-qwen2 .* pass that model")}
    foreign: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("other shapes", "llama", {"hidden_size": 48}),
        ("more layers", "llama", {"num_hidden_layers": 3}),
        ("other names", "gpt2", {}),
    )
    for name, kind, changes in foreign:
        folder = adapter(tiny.engine(kind, **changes), tmp_path / name)
        (folder / "selfrefine.json").unlink()  # an adapter from elsewhere has no sidecar
        bad[name] = (folder, "")
    bad["other shapes"] = (
        tmp_path / "other shapes",
        r"lora_A\.weight is \d × 48 in the file, \d × \d+ is needed",
    )
    bad["no folder"] = (tmp_path / "nothing", "not an adapter folder")
    for name, file, text in (
        ("broken json", "adapter_config.json", "{"),
        ("broken sidecar", "selfrefine.json", "{"),
        ("broken weights", "adapter_model.safetensors", "GARBAGE" * 9),
    ):
        shutil.copytree(good, tmp_path / name)
        (tmp_path / name / file).write_text(text)
        bad[name] = (tmp_path / name, "")
    before, base = bits(engine.model), logits(engine.model)
    for name, (folder, why) in bad.items():
        with pytest.raises(ConfigError, match=why) as caught:
            engine.use_adapter(folder)
        assert str(folder) in str(caught.value) and len(str(caught.value).splitlines()) <= 2, name
        assert same_bits(engine.model, before) and torch.equal(logits(engine.model), base), name
    engine.use_adapter(good)
    assert not torch.equal(logits(engine.model), base)


@pytest.mark.parametrize("kind", ["dora", "ia3", "bias", "pissa"])
def test_an_adapter_that_is_more_than_a_product_is_never_half_applied(kind: str, tmp_path: Path) -> None:
    """Only B A is merged: what else an adapter may be comes in whole or is refused."""
    configs = {
        "dora": peft.LoraConfig(r=4, target_modules="all-linear", use_dora=True),
        "ia3": peft.IA3Config(target_modules=["q_proj", "v_proj"], feedforward_modules=[]),
        "bias": peft.LoraConfig(r=4, target_modules="all-linear", bias="all"),
        "pissa": peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights="pissa"),
    }
    plain = peft.get_peft_model(tiny.model(attention_bias=True), configs[kind])
    generator = torch.Generator().manual_seed(0)
    for parameter in plain.parameters():
        if parameter.requires_grad:
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    plain.save_pretrained(str(tmp_path / "a"))
    engine = tiny.engine(attention_bias=True)
    before = bits(engine.model)
    try:
        engine.use_adapter(tmp_path / "a")
    except ConfigError:
        assert same_bits(engine.model, before)
    else:
        assert (logits(engine.model) - logits(plain)).abs().max() < 1e-4
        engine.use_adapter(None)
        assert same_bits(engine.model, before)


def embeddings(plain: Any, folder: Path) -> None:
    plain.get_input_embeddings().weight.data += 0.5
    plain.save_pretrained(str(folder), save_embedding_layers=True)


def added(key: str) -> Callable[[Any, Path], None]:
    """The adapter, with one more tensor in its file that its configuration says nothing of."""

    def write(plain: Any, folder: Path) -> None:
        plain.save_pretrained(str(folder))
        tensors = load_file(folder / "adapter_model.safetensors")
        tensors[f"base_model.model.model.{key}"] = torch.ones(32)
        save_file(tensors, folder / "adapter_model.safetensors")

    return write


@pytest.mark.parametrize(
    ("write", "named"),
    [
        (embeddings, r"lm_head.weight and 1 more"),
        (added("layers.0.self_attn.q_proj.lora_magnitude_vector"), "lora_magnitude_vector"),
        (added("layers.0.self_attn.q_proj.lora_B.bias"), "lora_B.bias"),
        (added("embed_tokens.lora_embedding_A"), "lora_embedding_A"),
        (added("embed_tokens.token_adapter.trainable_tokens_delta"), "trainable_tokens_delta"),
        (added("norm.weight"), "norm.weight"),
    ],
)
def test_an_adapter_file_holds_lora_matrices_only(
    write: Callable[[Any, Path], None], named: str, tmp_path: Path
) -> None:
    """peft loads whatever else there is over the base, and taking the adapter off does not undo it."""
    plain = peft.get_peft_model(tiny.model(), peft.LoraConfig(r=4, target_modules=["q_proj"]))
    write(plain, tmp_path / "a")
    engine = tiny.engine()
    before = bits(engine.model)
    with pytest.raises(ConfigError, match=rf"holds .*{named}.*only LoRA matrices") as caught:
        engine.use_adapter(tmp_path / "a")
    assert str(tmp_path / "a") in str(caught.value) and same_bits(engine.model, before)
    with pytest.raises(ConfigError, match=named), engine.trainer().open(tmp_path / "a", LoraConfig(), 0):
        pass


def test_embeddings_take_no_adapter() -> None:
    """What could be trained and saved could not be loaded again."""
    with (
        pytest.raises(ConfigError, match=r"embed_tokens is an embedding"),
        tiny.engine().trainer().open(None, LoraConfig(targets=("embed_tokens",)), 0),
    ):
        pass


def test_empty_settings_of_an_adapter_mean_nothing(tmp_path: Path) -> None:
    """Other programs write null, false, [] and {} for what they do not use."""
    engine = tiny.engine()
    folder = adapter(engine, tmp_path / "a")
    engine.use_adapter(folder)
    said = logits(engine.model)
    neutral = {"loftq_config": None, "megatron_core": None, "megatron_config": {}, "modules_to_save": []}
    more = {"eva_config": {}, "layer_replication": [], "bias": None, "trainable_token_indices": []}
    edit_json(folder / "adapter_config.json", **neutral, **more, use_dora=None, qalora_group_size=None)
    engine.use_adapter(folder)
    assert torch.equal(logits(engine.model), said)
    for key, value in {"modules_to_save": ["lm_head"], "use_dora": True, "bias": "all"}.items():
        shutil.copytree(folder, tmp_path / key)
        edit_json(tmp_path / key / "adapter_config.json", **{key: value})
        with pytest.raises(ConfigError, match=f"adapters with {key} are not supported"):
            engine.use_adapter(tmp_path / key)
    for key, bad in {"r": 0, "lora_alpha": None, "target_modules": 5}.items():
        shutil.copytree(folder, tmp_path / key)
        edit_json(tmp_path / key / "adapter_config.json", **{key: bad})
        with pytest.raises(ConfigError, match=str(tmp_path / key)):
            engine.use_adapter(tmp_path / key)


def test_unknown_targets_are_a_configuration_error_and_leave_nothing_behind() -> None:
    engine = tiny.engine()
    before = bits(engine.model)
    with (
        pytest.raises(ConfigError, match="no_such_layer"),
        engine.trainer().open(None, LoraConfig(targets=("no_such_layer",)), 0),
    ):
        pass
    assert same_bits(engine.model, before) and not hasattr(engine.model, "peft_config")


def test_opening_the_trainer_leaves_the_sampler_at_the_bare_model(tmp_path: Path) -> None:
    """They share the weights: who trains says afterwards which adapter is to be sampled from."""
    engine = tiny.engine()
    bare, folder = engine.policy, adapter(engine, tmp_path / "a")
    before = bits(engine.model)
    engine.use_adapter(folder)
    assert engine.policy != bare
    with engine.trainer().open(folder, LoraConfig(r=4), 0):
        pass
    assert engine.policy == bare and same_bits(engine.model, before)


def test_capabilities_are_what_the_engines_do(tmp_path: Path) -> None:
    engine, script = tiny.engine(), Scripted()
    folder = adapter(engine, tmp_path / "a")
    for one in (engine, script):
        trains, adapts = "train" in one.capabilities, "adapters" in one.capabilities
        with nullcontext() if trains else pytest.raises(EngineError, match="cannot be trained"):
            one.trainer()
        with nullcontext() if adapts else pytest.raises(EngineError, match="does not support adapters"):
            one.use_adapter(folder)
        one.use_adapter(None)  # the bare model is everybody's
        assert (one.facts().model["id"] and one.memory is None) or trains
    assert exact_logprobs(engine.signature) and not exact_logprobs(script.signature)
    with pytest.raises(EngineError, match="no weights"):
        script.save_merged(tmp_path / "m")
