"""A fresh adapter: seeded, silent at first, and written the same way every time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch

from selfrefine.compute import adapter_files, lora
from selfrefine.config import LoraConfig
from selfrefine.errors import ConfigError

IDS = torch.tensor([[5, 9, 2, 77, 31]])


def fresh(seed: int, folder: Path, **settings: object) -> dict[str, bytes]:
    engine = tiny.engine()
    with engine.trainer().open(None, LoraConfig(**settings), seed) as wrapped:  # type: ignore[arg-type]
        engine.trainer().save(wrapped, folder)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_fresh_adapter_says_what_the_base_says() -> None:
    engine = tiny.engine()
    with torch.no_grad():
        base = engine.model(IDS).logits
        with engine.trainer().open(None, LoraConfig(), 0) as wrapped:
            assert torch.equal(wrapped(IDS).logits, base)


def test_initialisation_depends_on_the_seed_alone(tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = fresh(7, tmp_path / "a")
    torch.manual_seed(2)
    assert fresh(7, tmp_path / "b") == first
    assert fresh(8, tmp_path / "c") != first


def test_only_the_adapter_is_trained_on_all_linear_layers_but_the_head() -> None:
    engine = tiny.engine()
    with engine.trainer().open(None, LoraConfig(r=2), 0) as wrapped:
        trained = [name for name, p in wrapped.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * 7 * 2  # A and B of q, k, v, o, gate, up, down in two layers
    assert all("lora_" in name for name in trained) and not any("lm_head" in name for name in trained)
    assert not any(p.requires_grad for p in engine.model.parameters())


def test_the_files_are_peft_s_and_travel(tmp_path: Path) -> None:
    """peft writes a set of targets in whatever order, and the cache path of the machine it ran on."""
    files = fresh(0, tmp_path / "a", r=4, alpha=8)
    assert sorted(files) == ["adapter_config.json", "adapter_model.safetensors", "selfrefine.json"]
    config = json.loads(files["adapter_config.json"])
    assert config["target_modules"] == sorted(config["target_modules"])
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (4, 8, "LORA")
    assert config["base_model_name_or_path"] == "tiny-llama" and config["inference_mode"] is True
    assert str(tmp_path).encode() not in b"".join(files.values())


def test_the_hash_of_an_adapter_is_its_weights_and_configuration(tmp_path: Path) -> None:
    fresh(0, tmp_path / "a")
    before = adapter_files.adapter_sha256(tmp_path / "a")
    (tmp_path / "a" / "selfrefine.json").write_text('{"base": "tiny-llama"}')
    assert adapter_files.adapter_sha256(tmp_path / "a") == before
    config = tmp_path / "a" / "adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 32', '"lora_alpha": 64'))
    assert adapter_files.adapter_sha256(tmp_path / "a") != before


def test_deltas_are_alpha_over_r_times_b_a() -> None:
    """Eq. 3 of the paper, by hand: r 2, alpha 8, so four times B A."""
    engine = tiny.engine()
    with engine.trainer().open(None, LoraConfig(r=2, alpha=8), 0) as wrapped:
        name = "model.layers.1.mlp.down_proj"
        layer = wrapped.get_base_model().get_submodule(name)
        layer.lora_B["default"].weight.data.fill_(0.5)
        found = dict(lora.deltas(wrapped))
        expected = 4 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        torch.testing.assert_close(found[name], expected)
        others = [delta for key, delta in found.items() if key != name]
        assert len(others) == 13 and not any(delta.any() for delta in others)


def test_a_layer_that_shares_its_weight_takes_no_adapter() -> None:
    """A head tied to the embeddings: trained, the head alone changes; merged, the embeddings too."""
    engine = tiny.engine("qwen2")  # tied
    before = {name: tensor.clone() for name, tensor in engine.model.state_dict().items()}
    with (
        pytest.raises(ConfigError, match=r"lm_head shares its weight with another layer"),
        engine.trainer().open(None, LoraConfig(targets=("q_proj", "lm_head")), 0),
    ):
        pass
    after = engine.model.state_dict()
    assert before.keys() == after.keys()  # no LoRA layer is left in the model
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())
    with tiny.engine("llama").trainer().open(None, LoraConfig(targets=("q_proj", "lm_head")), 0):
        pass  # a head of its own may have one
