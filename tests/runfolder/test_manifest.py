"""The manifest is copied, shared and compared: no secret in it, and everything that decides the outcome."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfrefine.layers import resolve
from selfrefine.runfolder import manifest
from selfrefine.runfolder.manifest import EngineFacts, redacted

SECRET = "hf_" + "Ab1" * 10


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["--hf-token", "abc", "--rounds", "3"], ["--hf-token", "***", "--rounds", "3"]),
        (["--api-key=abc"], ["--api-key=***"]),
        (["--password", "x y"], ["--password", "***"]),
        (["--set", f"generate.system={SECRET}"], ["--set", "generate.system=***"]),
        ([f"https://host/{SECRET}/x"], ["https://host/***/x"]),
        (["sk-" + "a" * 20], ["***"]),
        (["ghp_" + "a" * 36], ["***"]),
        # Tokens of another kind, which a reader of the manifest wants to know.
        (["--max-new-tokens", "24", "--token-budget=9"], ["--max-new-tokens", "24", "--token-budget=9"]),
        (["--tasks", "monkeys.jsonl", "-r", "numeric"], ["--tasks", "monkeys.jsonl", "-r", "numeric"]),
    ],
)
def test_what_looks_like_a_secret_is_not_copied_into_a_file_that_gets_shared(
    given: list[str], kept: list[str]
) -> None:
    assert redacted(["selfrefine", "cycle", *given]) == ("selfrefine", "cycle", *kept)


def test_a_manifest_says_what_was_asked_and_who_decided() -> None:
    settings = resolve([("file", {"train": {"lr": 0.5}}), ("flag", {"seed": 9})])
    facts = EngineFacts(model={"id": "m", "weights_sha256": "w"}, device="cpu", dtype="float32", threads=2)
    made = manifest.build("x", ["selfrefine", "--api-key", "k"], settings, facts)
    assert made.argv == ("selfrefine", "--api-key", "***")
    assert made.config["train"]["lr"] == 0.5 and made.origins["train.lr"] == "file"
    assert made.seeds == {"run": 9} and made.origins["seed"] == "flag"
    assert made.model["weights_sha256"] == "w"
    assert (made.device, made.dtype, made.threads) == ("cpu", "float32", 2)
    assert {"python", "torch", "transformers", "peft", "selfrefine"} <= made.packages.keys()


def test_outside_a_checkout_there_is_no_git_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert manifest.git_state() == {}
    monkeypatch.setenv("PATH", "")  # nor where there is no git at all
    assert manifest.git_state() == {}
