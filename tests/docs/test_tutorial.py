"""Every command of the tutorial is run: with a tiny model here, with the embedded one in `make test-long`.

The cookbook needs files and models of the reader's own, so here a scripted model stands in and what trains is
left out; in `make test-long` the tiny one does all of it. `test_reference` parses every call of every page.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
import warm
from blocks import ROOT, fences, run, substituted

TUTORIAL = fences(ROOT / "docs" / "tutorial.md", "sh")
COOKBOOK = fences(ROOT / "docs" / "cookbook.md", "sh")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """`selfrefine` without its start: of the tutorial with a tiny model that would be nine tenths."""
    with warm.served(tmp_path_factory.mktemp("bin")) as program:
        yield program


needs_jq = pytest.mark.skipif(shutil.which("jq") is None, reason="the docs use jq, and it is not installed")


def for_a_tiny_model(model: str) -> list[tuple[str, str]]:
    """A random model never adds nor classifies: a random reward stands in, and every round is kept."""
    return [
        (
            r"selfrefine (generate|critique|finetune|evaluate|cycle|runs new|adapter merge)\b",
            rf"\g<0> --model {model}",
        ),
        (r"--model \S+ (?=.*--model \./)", ""),
        (r"--critic-model \S+", f"--critic-model {model}"),
        (r"--system \S[^>]*\"", ""),
        (r"-r gym\b", "-r random"),
        (r"--config mails.toml", r"\g<0> -r random --set gate.mode=off --set select.max_per_prompt=4"),
        (r"--config demo-text", "--config tiny.toml"),
    ]


@needs_jq
def test_the_tutorial_with_a_tiny_model(tmp_path: Path, tiny_model_dir: Path, program: Path) -> None:
    for block in TUTORIAL:
        run(substituted(block, for_a_tiny_model(str(tiny_model_dir))), tmp_path, program)
    assert (tmp_path / "runs/mails/round-005/round.json").is_file()
    assert (tmp_path / "adapter/adapter_model.safetensors").is_file()


@needs_jq
@pytest.mark.long
@pytest.mark.real
def test_the_tutorial_as_it_stands(tmp_path: Path) -> None:
    said = [run(block, tmp_path) for block in TUTORIAL]
    by_hand = [float(mean) for mean in re.findall(r"^evaluate: (\S+) \[", "".join(said), re.MULTILINE)]
    assert by_hand[1] > by_hand[0] + 0.1, "the adapter made by hand is to be visibly better"
    ends = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("runs/mails/final*/summary.json"))]
    after_5, after_3 = sorted(ends, key=lambda end: -end["after_round"])
    assert after_5["test"]["mean"] > after_3["test"]["mean"] > 0.2, "the story of sections 4 and 5"


def the_readers_files(folder: Path) -> None:
    """What the cookbook takes for granted: parallel texts, preferences, chats."""
    numbers = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    nombres = ["un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf", "dix"]
    pairs = [(f"{a} and {b}", f"{x} et {y}") for a, x in zip(numbers, nombres, strict=True)
             for b, y in zip(numbers, nombres, strict=True)]  # fmt: skip
    for name, column in (("val.en", 0), ("val.fr", 1)):
        (folder / name).write_text("".join(f"{pair[column]}\n" for pair in pairs))
    prefs = [{"prompt": f"Say {en}.", "chosen": fr, "rejected": en} for en, fr in pairs[:20]]
    (folder / "prefs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prefs))
    chats = [[{"from": "human", "value": en}, {"from": "gpt", "value": fr}] for en, fr in pairs[:20]]
    lines = "".join(json.dumps({"conversations": chat}) + "\n" for chat in chats)
    (folder / "chats.jsonl.gz").write_bytes(gzip.compress(lines.encode()))


TRAINS = r"^selfrefine (cycle|finetune|runs new|gate|adapter|evaluate|\w+ --run|reward runs/)(.*\\\n)*.*$"


@needs_jq
def test_the_cookbook_but_for_what_trains(tmp_path: Path, program: Path) -> None:
    the_readers_files(tmp_path)
    table = [
        (TRAINS, ":"),
        (r"^selfrefine select covered.*", ":"),  # scripted answers are all alike, and alike they make no pair
        (r"^jq .corpus .*", ":"),
        (r"--critic-model \S+", "--critic-model scripted"),
        (r"^selfrefine (generate|critique)\b", r"\g<0> --model scripted"),
    ]
    for block in COOKBOOK:
        run(substituted(block, table), tmp_path, program)
    comparison = json.loads((tmp_path / "critique.json").read_text())["comparison"]
    assert {"draft", "revision", "fresh"} == set(comparison["right"])
    polite = [json.loads(line) for line in (tmp_path / "polite.jsonl").read_text().splitlines()]
    assert {reward["name"] for reward in polite[0]["rewards"]} == {"polite.py:polite", "polite.py:rare"}
    by_hand = [json.loads(line) for line in (tmp_path / "chosen.jsonl").read_text().splitlines()]
    assert sorted(row["text"] for row in by_hand) == ["It is 3.", "It is 36."]


@needs_jq
@pytest.mark.long
def test_the_whole_cookbook_with_a_tiny_model(tmp_path: Path, program: Path) -> None:
    the_readers_files(tmp_path)
    # A byte is a token here, and 512 are too few for the prompt of a critique with a principle in it.
    tiny_model = tiny.save(tmp_path / "tiny-llama", max_position_embeddings=4096)
    # Whatever is readable ends an answer, so that noise is not all cut off: those rows are never learnt from.
    stop = [*"abcdefghijklmnopqrstuvwxyz0123456789 "]
    (tmp_path / "tiny.toml").write_text(
        "recipe = 'best-of-n'\n[tasks]\nsource = 'concepts:4'\ngate = 100\ntest = 100\n"
        "[evaluate]\nmeasure = ['random']\n[gate]\nmode = 'off'\n"
        f"[generate]\nmax_new_tokens = 40\nstop = {json.dumps(stop)}\n"
    )
    # Nor does noise hold a verdict: the half that prefers what its critic does has a scripted one.
    verdicts = ["Short.\nScore: 5\nVerdict: ok", "Long.\nScore: 1\nVerdict: revise"]
    (tmp_path / "critic.jsonl").write_text(json.dumps({"match": "", "answers": verdicts}))
    table = [
        *for_a_tiny_model(str(tiny_model)),
        (r"tasks\.(gate|test)=100", r"tasks.\1=20"),
        (
            r"^selfrefine generate (concepts|sums).*-n 8",
            r"\g<0> " + " ".join(f"--stop '{letter}'" for letter in stop),
        ),
        # Who learns to judge needs right answers and wrong ones.
        (r"-r numeric > judged", "-r random > judged"),
        (r"--learn verdicts", r"\g<0> --min-reward 0.5"),
        (r"-r coverage -r sentence --gate-on sentence", "-r random"),
        (
            r"--recipe constitutional-dpo",
            r"\g<0> --set critique.critic_model=scripted:critic.jsonl --set critique.verdict=written",
        ),
    ]
    for block in COOKBOOK:
        run(substituted(block, table), tmp_path, program)
    assert (tmp_path / "runs/slow/final/summary.json").is_file()
