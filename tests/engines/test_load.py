"""From a model's name to an engine, and every way in which that can fail on purpose."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import peft
import pytest
import tiny
import torch
from huggingface_hub.errors import LocalEntryNotFoundError

from selfrefine.engines import embedded
from selfrefine.engines.load import identity, load_engine, resolve, weight_files
from selfrefine.errors import EngineError


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SELFREFINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def copy(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def test_a_folder_is_loaded_as_it_was_saved(tiny_model_dir: Path) -> None:
    engine: Any = load_engine(str(tiny_model_dir))
    assert engine.dtype == "float32" and engine.context_tokens == 512 and engine.end_id == 302
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        # Close and not equal: the engine's products go through another library than a plain model's.
        torch.testing.assert_close(engine.model(ids).logits, tiny.model()(ids).logits, rtol=1e-5, atol=1e-5)
    saved = tiny.model().state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in engine.model.state_dict().items())
    assert not any(parameter.is_meta for parameter in engine.model.parameters())


def test_the_scripted_engine_needs_no_model() -> None:
    assert load_engine("scripted").signature.startswith("scripted")


@pytest.mark.parametrize("name", ["./nothing", "/nothing/at/all", "~/nothing", "bare", "a/b/c"])
def test_a_name_that_is_no_model_is_refused_without_asking_the_hub(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: pytest.fail("asked the hub"))
    with pytest.raises(EngineError, match=r"no model there.*smollm2"):
        resolve(name)


def test_a_folder_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"config\.json"):
        resolve(str(tmp_path))


def test_a_hub_id_without_network_names_the_embedded_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: Any, **kwargs: Any) -> str:
        raise LocalEntryNotFoundError("cannot find an appropriate cached snapshot\nlong advice follows")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(EngineError, match=r"--model smollm2") as caught:
        load_engine("some-org/some-model")
    lines = str(caught.value).splitlines()
    assert len(lines) == 2 and "some-org/some-model" in lines[0] and "cached snapshot" in lines[0]


def test_offline_mode_fails_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The real download function, told that there is no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(EngineError, match=r"--model smollm2"):
        load_engine("some-org/some-model-nobody-has")


def test_only_safetensors_and_tokenizer_files_are_asked_of_the_hub(
    monkeypatch: pytest.MonkeyPatch, tiny_model_dir: Path
) -> None:
    asked: dict[str, Any] = {}

    def download(name: str, **how: Any) -> str:
        asked.update(how)
        return str(tiny_model_dir)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    engine: Any = load_engine("org/name")
    assert engine.identity.name == "org/name" and engine.identity.revision == tiny_model_dir.name
    assert not [p for p in asked["allow_patterns"] if p.endswith((".bin", ".pt", ".pkl", "*", ".py"))]


def test_pickled_weights_are_refused_and_never_opened(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy(tiny_model_dir, tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("unpickled"))
    with pytest.raises(EngineError, match=r"pickled weights are not loaded"):
        load_engine(str(folder))


def edit_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_code_that_comes_with_a_model_is_not_run(tiny_model_dir: Path, tmp_path: Path) -> None:
    folder = copy(tiny_model_dir, tmp_path / "remote")
    edit_config(
        folder,
        model_type="own",
        auto_map={"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"},
    )
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(EngineError, match="cannot be loaded"):
        load_engine(str(folder))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_file_is_one_sentence(file: str, tiny_model_dir: Path, tmp_path: Path) -> None:
    folder = copy(tiny_model_dir, tmp_path / "damaged")
    data = (folder / file).read_bytes()
    (folder / file).write_bytes(data[: len(data) // 2])
    with pytest.raises(EngineError) as caught:
        load_engine(str(folder))
    assert str(folder) in str(caught.value) and len(str(caught.value).splitlines()) <= 2


def test_weights_that_are_missing_are_not_made_up(tiny_model_dir: Path, tmp_path: Path) -> None:
    """transformers fills them with random numbers and warns; the warning is turned off here."""
    folder = copy(tiny_model_dir, tmp_path / "deeper")
    edit_config(folder, num_hidden_layers=3)
    with pytest.raises(EngineError, match=r"lack \d+ tensors.*layers\.2"):
        load_engine(str(folder))


def test_other_shapes_than_the_config_says(tiny_model_dir: Path, tmp_path: Path) -> None:
    folder = copy(tiny_model_dir, tmp_path / "wider")
    edit_config(folder, intermediate_size=64)
    with pytest.raises(EngineError, match="cannot be loaded"):
        load_engine(str(folder))


def test_a_tied_head_is_not_missing(tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "tied", "qwen2")
    assert load_engine(str(folder)).context_tokens == 512


def test_recurrent_layers_are_refused(tmp_path: Path) -> None:
    """A state cannot be laid into slots: it would decode, and wrongly."""
    from transformers import MambaConfig, MambaForCausalLM

    small = MambaConfig(vocab_size=303, hidden_size=16, state_size=4, num_hidden_layers=1, eos_token_id=302)
    MambaForCausalLM(small).save_pretrained(tmp_path / "mamba")
    tiny.tokenizer().save_pretrained(tmp_path / "mamba")
    with pytest.raises(EngineError, match="attention layers only"):
        load_engine(str(tmp_path / "mamba"))


def test_identity_is_the_weights_and_its_cache_notices_a_change(
    tiny_model_dir: Path, tmp_path: Path, own_cache: Path
) -> None:
    folder = copy(tiny_model_dir, tmp_path / "model")
    first = identity("m", folder, "")
    assert len(list((own_cache / "hashes").iterdir())) == 1
    assert identity("m", folder, "") == first
    assert identity("m", copy(folder, tmp_path / "elsewhere"), "").weights_sha256 == first.weights_sha256
    tiny.save(folder, seed=1)
    assert identity("m", folder, "").weights_sha256 != first.weights_sha256
    # The note is really used: the hash of a 135M model is not computed at every start.
    tiny.save(folder)
    note_of_now = identity("m", folder, "")
    newest = max((own_cache / "hashes").iterdir(), key=lambda p: p.stat().st_mtime_ns)
    newest.write_text(json.dumps("from the note"))
    assert identity("m", folder, "").weights_sha256 == "from the note" != note_of_now.weights_sha256


def test_only_files_that_are_loaded_count(tiny_model_dir: Path, tmp_path: Path) -> None:
    """A backup or a leftover beside the model made another policy of it."""
    whole = identity("m", tiny_model_dir, "").weights_sha256
    folder = copy(tiny_model_dir, tmp_path / "model")
    shutil.copy(folder / "model.safetensors", folder / "consolidated.safetensors")
    (folder / "backup.safetensors").write_bytes(b"anything")
    assert identity("m", folder, "").weights_sha256 == whole
    # As the hash was made before, so that runs of before go on: sha256 of each file's sha256.
    by_hand = hashlib.sha256(hashlib.sha256((folder / "model.safetensors").read_bytes()).digest())
    assert whole == by_hand.hexdigest()


def test_shards_are_those_of_the_index(tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    tiny.model().save_pretrained(folder, max_shard_size="20KB")
    tiny.tokenizer().save_pretrained(folder)
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    (folder / "other.safetensors").write_bytes(b"anything")
    digest = hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in shards))
    assert identity("m", folder, "").weights_sha256 == digest.hexdigest()
    assert load_engine(str(folder)).context_tokens == 512


def test_weights_that_the_configuration_names(tiny_model_dir: Path, tmp_path: Path) -> None:
    folder = copy(tiny_model_dir, tmp_path / "named")
    tiny.model(seed=1).save_pretrained(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", folder / "mine.safetensors")
    edit_config(folder, transformers_weights="mine.safetensors")
    assert weight_files(folder) == [folder / "mine.safetensors"]
    engine: Any = load_engine(str(folder))
    assert torch.equal(engine.model.lm_head.weight, tiny.model(seed=1).lm_head.weight)
    edit_config(folder, transformers_weights="mine.bin")
    with pytest.raises(EngineError, match="pickled weights are not loaded"):
        load_engine(str(folder))


@pytest.mark.parametrize("way", ["folder", "hub"])
def test_a_model_folder_that_holds_an_adapter_is_refused(
    way: str, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers applies it and says nothing: two policies with one hash, and --adapter replaced it."""
    folder = copy(tiny_model_dir, tmp_path / "both")
    plain = peft.get_peft_model(tiny.model(), peft.LoraConfig(r=4, target_modules=["q_proj"]))
    plain.save_pretrained(str(folder))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: str(folder))
    with pytest.raises(EngineError, match=r"holds an adapter too.*\n.*--adapter") as caught:
        load_engine(str(folder) if way == "folder" else "org/both")
    assert len(str(caught.value).splitlines()) == 2
    # The way out works: the adapter by itself, on the model without it.
    load_engine(str(tiny_model_dir), folder)


def test_an_adapter_given_as_a_model_is_told_from_a_folder_without_one(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(EngineError, match=r"that is an adapter; use it with --adapter"):
        resolve(str(tmp_path))


def test_identity_does_not_trust_a_sidecar_that_is_not_the_embedded_models(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder may have been written over since its sidecar; an adapter's sidecar names another model."""
    folder = copy(tiny_model_dir, tmp_path / "model")
    true = identity("m", folder, "").weights_sha256
    (folder / embedded.SIDECAR).write_text(json.dumps({"name": "x", "weights_sha256": "stale"}))
    assert identity("m", folder, "").weights_sha256 == true
    monkeypatch.setattr(embedded, "converted_dir", lambda: folder)
    assert identity("m", folder, "").weights_sha256 == "stale"


def test_an_unwritable_cache_costs_time_only(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SELFREFINE_CACHE", str(tmp_path / "file"))
    assert len(identity("m", tiny_model_dir, "").weights_sha256) == 64
