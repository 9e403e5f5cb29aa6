"""A run of 100,000 sampled rows, made in minutes: what reading a run is timed on.

    python -m benchmarks.big_run             makes runs/big in the working directory, then times its readers
    python -m benchmarks.big_run --small     the same with 160 rows, to see that it works

Everything is real but the answers. They come from a script that gets better with each adapter, and the
adapter is trained on a random model of two layers, so that it takes seconds. There are tags, answers that are
wrong, cut off or hostile to a terminal, and a critique of each; subtractions are learnt late, and the third
round is rejected.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfrefine.engines import EngineKind, LoadOptions
from selfrefine.engines.base import Capability, Identity
from selfrefine.engines.scripted import Scripted

if TYPE_CHECKING:
    from selfrefine.engines.local import LocalEngine
    from selfrefine.engines.weights import LocalTrainer

SKILL = "skill.json"
"""Beside an adapter's weights: how many rounds of learning are in it."""
HOSTILE = (
    "\x1b[2J\x1b[31mdone\x1b]8;;http://x\x07",
    "<script>alert(1)</script> 7",
    "=1+1",
    "\u202e12",
    "[/red] 3",
)
DRAWS = 20
"""An answer is drawn evenly from so many."""
LIMITS_S = {"show": 1.0, "sql": 3.0, "report": 20.0}


class Learner(Scripted):
    """Sums from a script; the share of right answers follows the adapter, and each operation's difficulty."""

    capabilities = frozenset[Capability]({"sample", "logprobs", "score", "adapters", "train"})

    def __init__(self) -> None:
        super().__init__([{"match": "^$", "answers": ["never asked"]}], name="learner")
        self._skill, self._bare = 0, self._policy
        self._model: LocalEngine | None = None

    @property
    def policy(self) -> str:
        return f"{self._bare[:12]}{self._skill:04d}"

    def use_adapter(self, folder: Path | None) -> None:
        self._skill = skill_of(folder)

    def trainer(self) -> Any:
        if self._model is None:
            self._model = tiny_model()
        return Training(self._model.trainer(), self)

    def _answers(self, prompt: Sequence[int]) -> list[tuple[int, ...]]:
        text = self.decode(prompt)
        return [self.encode_answer(answer) for answer in _said(text, self._skill)]


class Training:
    """The tiny model's trainer on the script's token ids, which are bytes; a saved adapter mostly knows
    a round more than the one it began with."""

    def __init__(self, inner: LocalTrainer, tokeniser: Learner) -> None:
        self._inner, self.tokeniser = inner, tokeniser
        self.memory, self.context_tokens, self.exact_logprobs = inner.memory, inner.context_tokens, False
        self._learnt = 0

    def open(self, start: Path | None, settings: Any, seed: int) -> AbstractContextManager[Any]:
        # One training in three goes wrong, so that the gate has something to reject.
        self._learnt = max(0, skill_of(start) + (1 if seed % 3 else -2))
        return self._inner.open(start, settings, seed)

    def as_policy(self, opened: Any, folder: Path | None) -> AbstractContextManager[None]:
        return self._inner.as_policy(opened, folder)

    def save(self, opened: Any, folder: Path) -> None:
        self._inner.save(opened, folder)
        (folder / SKILL).write_text(json.dumps(self._learnt))


def skill_of(folder: Path | None) -> int:
    return 0 if folder is None else int(json.loads((folder / SKILL).read_text()))


def _said(text: str, skill: int) -> list[str]:
    a, op, b = text.partition("What is ")[2].partition("?")[0].split()
    total = int(a) + int(b) if op == "+" else int(a) - int(b)
    if "<note>" in text:
        return [str(total), str(total), str(total + 1)]
    if "Verdict:" in text:
        draft = text.partition("<draft>")[2].partition("</draft>")[0].strip()
        ok = "Looks right.\nScore: 5\nVerdict: ok"
        no = f"Check the last digit of {a} {op} {b}.\nScore: 1\nVerdict: revise"
        return [ok] * 3 + [no] if draft == str(total) else [ok] * 4 + [no]
    hard = len(str(abs(int(a)))) + len(str(abs(int(b)))) - 2
    start = (11 if op == "+" else 3) - 2 * hard
    right = max(0, min(DRAWS - 3, start + (3 if op == "+" else 1) * skill))
    wrong = [str(total + off) for off in (1, -1, 10, -10, 9)]
    long = f"First I look at {a}, then I look at {b}, and then"
    rest = [long, HOSTILE[total % len(HOSTILE)], *(wrong[n % len(wrong)] for n in range(DRAWS - 2 - right))]
    return [str(total)] * right + rest


def tiny_model() -> LocalEngine:
    """A random llama whose vocabulary holds the script's ids."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from selfrefine.engines.local import LocalEngine

    config = LlamaConfig(
        vocab_size=288,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=256,
    )
    torch.manual_seed(0)
    words = {"<|end|>": 0} | {chr(33 + n): n + 1 for n in range(90)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<|end|>")), eos_token="<|end|>"
    )
    identity = Identity(name="learner", revision="", weights_sha256="random weights, seed 0")
    return LocalEngine(LlamaForCausalLM(config).eval().requires_grad_(False), tokenizer, identity)


ENGINE = EngineKind(
    name="learner",
    spelling="benchmarks/big_run.py:ENGINE",
    about="sums from a script that gets better with each adapter",
    load=lambda _rest, adapter, _options: _loaded(adapter, _options),
)


def _loaded(adapter: Path | None, _options: LoadOptions) -> Learner:
    engine = Learner()
    engine.use_adapter(adapter)
    return engine


# --- making the run --------------------------------------------------------------------------------


def tasks(n: int) -> Iterator[dict[str, Any]]:
    """Sums with their tags; one tag is hostile, as somebody's file may be."""
    drawn = random.Random(7)
    seen = set[str]()
    while len(seen) < n:
        op = drawn.choice("+-")
        digits = drawn.choice((1, 2, 2, 3, 3))
        a, b = (drawn.randrange(10**digits) for _ in range(2))
        question = f"What is {a} {op} {b}?"
        if question in seen:
            continue
        seen.add(question)
        total = a + b if op == "+" else a - b
        tags = {
            "op": "add" if op == "+" else "sub",
            "digits": str(digits),
            "difficulty": "hard" if digits == 3 else "easy",
        }
        if len(seen) % 50 == 0:
            tags["note"] = HOSTILE[len(seen) // 50 % len(HOSTILE)]
        yield {
            "id": f"sum-{len(seen):05d}",
            "prompt": [{"role": "user", "content": question}],
            "references": [str(total)],
            "tags": tags,
        }


def make(folder: Path, small: bool) -> Path:
    """runs/big in `folder`; goes on with what is there."""
    place = folder / "big-run-input"
    place.mkdir(parents=True, exist_ok=True)
    held, prompts, rounds = (8, 10, 2) if small else (400, 2_500, 5)
    wanted = 2 * held + (20 if small else 5_000)
    (place / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in tasks(wanted)))
    (place / "critique.md").write_text(
        "{{ task }} <draft>{{ answer }}</draft> Score: N, Verdict: ok or revise"
    )
    (place / "revise.md").write_text("{{ task }} <draft>{{ answer }}</draft> <note>{{ critique }}</note>")
    settings = {
        "model": f"{Path(__file__).resolve()}:ENGINE",
        "tasks.source": str(place / "tasks.jsonl"),
        "tasks.gate": held,
        "tasks.test": held,
        "generate.max_new_tokens": 24,
        "critique.passes": 1,
        "critique.max_new_tokens": 80,
        "critique.critique_prompt": str(place / "critique.md"),
        "critique.revise_prompt": str(place / "revise.md"),
        "reward.use": ["numeric:0.9", "length:0.1"],
        "reward.length.target": 4,
        "reward.length.unit": "chars",
        "evaluate.measure": ["numeric"],
        "seed": 10,  # of the five trainings the third goes wrong
        "evaluate.n": 2,
        "evaluate.temperature": 1.0,
        "train.steps": 2 if small else 20,
        "train.lora.r": 2,
        "train.start": "adapter",
        "cycle.rounds": rounds,
        "cycle.prompts_per_round": prompts,
        "cycle.patience": 9,
        "guards.probe": False,
    }
    flags = [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    done = subprocess.run([*SELFREFINE, "cycle", "--run", "big", *flags], cwd=folder, check=False, env=_env())
    if done.returncode:
        sys.exit(done.returncode)
    return folder / "runs" / "big"


SELFREFINE = [sys.executable, "-m", "selfrefine"]


def _env() -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


# --- timing its readers ----------------------------------------------------------------------------


def readers(folder: Path) -> dict[str, list[str]]:
    report = str(folder / "big-run-input" / "report.html")
    return {
        "show": ["runs", "show", "big"],
        "sql": ["runs", "sql", "big", "select count(*) from samples"],
        "report": ["report", "big", "-o", report],
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.big_run", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--small", action="store_true", help="160 rows instead of 100,000")
    parser.add_argument("--make", action="store_true", help="only make the run")
    asked = parser.parse_args(argv)
    folder = Path.cwd()
    began = time.perf_counter()
    run = make(folder, asked.small)
    print(f"{run}: made in {time.perf_counter() - began:.0f} s")
    if asked.make:
        return 0
    late = 0
    for name, words in readers(folder).items():
        began = time.perf_counter()
        done = subprocess.run(
            [*SELFREFINE, *words], cwd=folder, stdout=subprocess.DEVNULL, check=False, env=_env()
        )
        took = time.perf_counter() - began
        late += took > LIMITS_S[name] or done.returncode != 0
        print(f"{name}: {took:.2f} s (at most {LIMITS_S[name]:g}), exit {done.returncode}")
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
