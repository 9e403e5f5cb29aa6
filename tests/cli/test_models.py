"""Models and adapters as the command line takes and gives them, for other programs too."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import tiny
import torch
from harness import answer, jsonl, refused, selfrefine, task

from selfrefine.compute import adapter_files
from selfrefine.engines import embedded

TASKS = jsonl(task("a"))
CLOCK = "{{ strftime_now('%d %b %Y') }}|" + tiny.CHATML


@pytest.fixture(scope="module")
def trained(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an adapter `ad`, and `model`, a link to the tiny model."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "model").symlink_to(tiny_model_dir)
    words = ["finetune", "--model", "model", "--select", "all", "-o", "ad", "--set", "train.lora.r=2"]
    rows = jsonl(answer("a.r0.s0", reward=1), answer("a.r0.s1", "4", reward=0))
    assert selfrefine(*words, stdin=rows, cwd=folder).code == 0
    return folder


def test_an_adapter_loads_in_plain_peft_from_anywhere(
    trained: Path, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model was called `model`, in the folder where the command was given."""
    from peft import AutoPeftModelForCausalLM

    monkeypatch.chdir(tmp_path)
    tuned = AutoPeftModelForCausalLM.from_pretrained(str(trained / "ad"))
    assert tuned.peft_config["default"].base_model_name_or_path == str(tiny_model_dir)
    assert json.loads((trained / "ad" / "selfrefine.json").read_text())["base"] == "model"
    # With the weights that a merge writes.
    done = selfrefine("adapter", "merge", "ad", "--model", "model", "-o", tmp_path / "m", cwd=trained)
    assert done.code == 0 and "use it with --model" in done.err
    ids = torch.tensor([[5, 9, 2]])
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "m")(ids).logits
        torch.testing.assert_close(tuned(ids).logits, merged, rtol=1e-4, atol=1e-4)


def test_a_merge_in_half_precision_is_a_model_that_can_be_used(trained: Path, tmp_path: Path) -> None:
    words = ["adapter", "merge", "ad", "--model", "model", "--dtype", "bfloat16", "-o", tmp_path / "half"]
    assert selfrefine(*words, cwd=trained).code == 0
    half, whole = tmp_path / "half" / "model.safetensors", trained / "model" / "model.safetensors"
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    assert {file.stat().st_mode for file in (tmp_path / "half").iterdir()} == {half.stat().st_mode}
    words = ["generate", "--model", tmp_path / "half", "-n", "1", "--max-new-tokens", "2"]
    assert selfrefine(*words, stdin=TASKS, cwd=tmp_path).code == 0


def test_a_merge_checks_its_folders_before_a_model_is_loaded(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfrefine.cli.common.load", lambda *a, **k: pytest.fail("loaded a model"))
    done = selfrefine("adapter", "merge", tmp_path, "-o", "m", cwd=tmp_path)
    refused(done, 3, "not an adapter folder", "adapter_config.json")
    refused(selfrefine("adapter", "merge", "ad", "-o", "ad", cwd=trained), 5, "ad already exists")
    good = json.loads((trained / "ad" / "adapter_config.json").read_text())
    saved = (trained / "ad" / "adapter_model.safetensors").read_bytes()
    length = int.from_bytes(saved[:8], "little")
    header = json.loads(saved[8 : 8 + length])
    names = [name for name in header if name != "__metadata__"]
    header["base_model.model.model.embed_tokens.weight"] = header.pop(names[0])
    longer = json.dumps(header).encode()
    embedded = len(longer).to_bytes(8, "little") + longer + saved[8 + length :]
    for told, weights, said in (
        (good | {"use_dora": True}, saved, "use_dora"),
        (good | {"bias": "all"}, saved, "bias"),
        (good | {"modules_to_save": ["lm_head"]}, saved, "modules_to_save"),
        (good | {"peft_type": "IA3"}, saved, "only LoRA"),
        (good, embedded, "embed_tokens.weight, which would change the base"),
        (good, saved[:99], "cut short"),
        (good, None, "it has no adapter_model.safetensors"),
        (None, saved, "adapter_config.json"),
    ):
        odd = tmp_path / f"odd-{len(list(tmp_path.iterdir()))}"
        odd.mkdir()
        (odd / "adapter_config.json").write_text("{" if told is None else json.dumps(told))
        if weights is not None:
            (odd / "adapter_model.safetensors").write_bytes(weights)
        refused(selfrefine("adapter", "merge", odd, "-o", "m", cwd=tmp_path), 3, said)
    known = {field.name for field in dataclasses.fields(peft.LoraConfig)} - {"runtime_config"}
    assert known == adapter_files.PLAIN | set(adapter_files.DEFAULTS), "peft has learnt another setting"


@pytest.mark.parametrize(
    ("objective", "lesson", "code", "said"),
    [
        ("grpo", {}, 8, "grpo learns from rewards, and no row has one: run `selfrefine reward` first"),
        ("dpo", {}, 4, "dpo needs pairs, and no row belongs to one"),
        ("dpo", {"pair": "p", "role": "chosen"}, 8, "dpo can learn from none of 2 rows: 2 unpaired"),
        ("kto", {}, 4, "kto needs rows marked chosen or rejected"),
        ("sft", {"role": "rejected"}, 8, "sft can learn from none of 2 rows: 2 rejected"),
    ],
)
def test_rows_that_an_objective_cannot_use_are_refused_before_a_model_is_loaded(
    objective: str,
    lesson: dict[str, str],
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows of an earlier `select`: twenty seconds of loading, and then no word of the true cause."""
    monkeypatch.setattr("selfrefine.cli.common.load", lambda *a, **k: pytest.fail("loaded a model"))
    rows = jsonl(*(answer(f"a.r0.s{i}", lesson={"teaches": "answer", **lesson}) for i in range(2)))
    done = selfrefine("finetune", "--objective", objective, stdin=rows, cwd=tmp_path)
    assert done.code == code and said in done.err.splitlines()[-1]


def test_an_adapter_without_its_sidecar_is_used_and_said_to_be_unchecked(
    trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained / "ad", tmp_path / "ad")
    words: list[Any] = ["generate", "--model", trained / "model", "-n", "1", "--max-new-tokens", "2"]
    words += ["--adapter", "ad"]
    checked = selfrefine(*words, stdin=TASKS, cwd=tmp_path)
    (tmp_path / "ad" / "selfrefine.json").unlink()
    done = selfrefine(*words, stdin=TASKS, cwd=tmp_path)
    assert done.code == 0 and done.err.count("cannot check that it was trained on this model") == 1
    assert "cannot check" not in checked.err and checked.code == 0


def test_where_a_model_lies(tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(tiny_model_dir)
    done = selfrefine("model", "path", "./link", cwd=tmp_path)
    assert (done.code, done.out.decode()) == (0, f"{tiny_model_dir.resolve()}\n")
    monkeypatch.setattr(embedded, "ensure", lambda say: say("converting") or tmp_path)
    done = selfrefine("model", "path", cwd=tmp_path)  # without a name the embedded one
    assert (done.out.decode(), done.err) == (f"{tmp_path.resolve()}\n", "converting\n")
    refused(selfrefine("model", "path", "./nowhere", cwd=tmp_path), 6, "no model there")
    script = selfrefine("model", "path", "scripted", cwd=tmp_path)
    refused(script, 6, "use one of: smollm2 (embedded), a folder, a hub id")
    assert "scripted[" not in script.err  # it advised what it had refused


def test_a_run_keeps_the_date_of_its_templates_clock(tmp_path: Path) -> None:
    """Resumed on another day, its later rows would answer other prompts than its first."""
    tiny.save(tmp_path / "model", template=CLOCK)
    rows = jsonl(*(task(f"t{i}", f"What is {i} + 2?", str(i + 2)) for i in range(20)))
    (tmp_path / "t.jsonl").write_bytes(rows)
    (tmp_path / "c.toml").write_text(
        'model = "model"\n[tasks]\nsource = "t.jsonl"\n[reward]\nuse = ["numeric"]\n'
        "[generate]\nn = 1\nmax_new_tokens = 2\n[cycle]\nprompts_per_round = 2\n"
    )
    made = selfrefine("runs", "new", "x", "--config", "c.toml", cwd=tmp_path)
    assert made.code == 0 and made.err.count("the chat template writes the date into prompts") == 1
    file = tmp_path / "runs/x/manifest.json"
    manifest = json.loads(file.read_text())
    assert len(manifest["model"]["template_date"]) == len("2024-02-29")
    manifest["model"]["template_date"] = "2024-02-29"  # as if it had been made then
    file.write_text(json.dumps(manifest))
    done = selfrefine("generate", "--run", "x", cwd=tmp_path)
    assert done.code == 0, done.err
    tokenizer = tiny.tokenizer()
    for stage in ("round-000/gate.jsonl", "round-001/generate.jsonl"):
        for line in (tmp_path / "runs/x" / stage).read_text().splitlines():
            assert tokenizer.decode(json.loads(line)["prompt_token_ids"]).startswith("29 Feb 2024|")


def test_a_template_without_a_clock_has_no_date(tiny_model_dir: Path, tmp_path: Path) -> None:
    words = ["generate", "--model", tiny_model_dir, "-n", "1", "--max-new-tokens", "2"]
    assert "date" not in selfrefine(*words, stdin=TASKS, cwd=tmp_path).err
    tiny.save(tmp_path / "model", template=CLOCK)
    words[2] = tmp_path / "model"
    assert selfrefine(*words, stdin=TASKS, cwd=tmp_path).err.count("a run keeps the date") == 1


def test_a_system_message_that_is_left_out_is_said_once(tmp_path: Path) -> None:
    template = tiny.CHATML.replace("messages %}", "messages if m.role != 'system' %}")
    tiny.save(tmp_path / "model", template=template)
    words = ["generate", "--model", "model", "-n", "1", "--max-new-tokens", "2"]
    told = jsonl(task("a"), task("b"))
    rows = [json.loads(line) for line in told.splitlines()]
    for row in rows:
        row["prompt"].insert(0, {"role": "system", "content": "Be short."})
    done = selfrefine(*words, stdin=jsonl(*rows), cwd=tmp_path)
    assert done.code == 0 and done.err.count("leaves out the system message") == 1
    assert "system message" not in selfrefine(*words, stdin=told, cwd=tmp_path).err
