"""How much memory a cycle takes at most, part by part, from a model's sizes. Arithmetic only.

Per token and layer a training step keeps, in elements (h hidden, a = heads x head dimension, m MLP): two
residual streams and their norms (4 h), the queries, the attention's output twice (3 a), keys and values for
each head (2 a, times the copies of a prompt that its completions read), four tensors of the MLP (4 m).
Counted with `torch.autograd.graph.saved_tensors_hooks` on a Llama: 12,484 where this says 12,454.
"""

from __future__ import annotations

import json
from pathlib import Path

from msgspec import Struct

from selfrefine.words import count

BASELINE_BYTES = 400_000_000
"""Python with torch 2.13 (a CPU build), transformers and peft imported: measured, 386 MiB resident."""
HEAP = 1.5
"""What the allocator holds over what is alive in a training step: measured, 3.3 GB for 2.2 GB."""
SAMPLING_HEAP = 1.1
"""The same while sampling: measured, 1,375 MiB for 1,363."""
AFTER_HEAD = ("final_logit_softcapping", "logit_scale", "logits_scaling")
"""Names under which configurations say that something follows the head."""
JOINT_TOKENS = 256
"""`training.packing.JOINT_TOKENS`, which is not imported: it would bring torch."""
HEAD_ROWS, HEAD_COPIES = 128, 3
"""Rows of logits at once in training (`training.head.ROWS`): they, and what their gradient takes."""
DRAW_COPIES = 5
"""Logits, probabilities, and what the draw makes of them, one row of the vocabulary each."""


class Shape(Struct, frozen=True, kw_only=True):
    """Of a decoder-only model. `parameters` and `embeddings` are counts; the head is among the latter."""

    parameters: int
    embeddings: int
    vocabulary: int
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head: int
    element_bytes: int = 4
    capped: bool = False
    """Something follows the head (a soft cap, a scale), so that training keeps all its tokens' logits."""

    @property
    def slot_bytes(self) -> int:
        """One token's keys and values in all layers."""
        return 2 * self.layers * self.kv_heads * self.head * self.element_bytes

    def adapter_parameters(self, r: int) -> int:
        """A LoRA of rank r on the seven linear layers of a block."""
        inner, keys = self.heads * self.head, self.kv_heads * self.head
        attention = 2 * (self.hidden + inner) + 2 * (self.hidden + keys)
        return r * self.layers * (attention + 3 * (self.hidden + self.intermediate))


class Room(Struct, frozen=True, kw_only=True):
    """The budgets of a device class (`engines.local`)."""

    rows: int
    slots: int
    slack: int
    prefill_tokens: int


class Load(Struct, frozen=True, kw_only=True):
    """What is asked of the model: lengths in tokens, answers in all, (fewest) samples and completions a
    prompt."""

    longest_prompt: int
    trained_prompt: int
    """The longest prompt in training, where critics have longer ones."""
    answers: int
    samples: int
    new_tokens: int
    trained_tokens: int
    completions: int
    lora_rank: int


def shape(folder: Path, element_bytes: int = 4) -> Shape | None:
    """From config.json and the headers of the safetensors files; None where the model is not at hand."""
    file = folder / "config.json"
    if not file.is_file():
        return None
    told = json.loads(file.read_text())
    told = told.get("text_config", told)
    heads, hidden = told["num_attention_heads"], told["hidden_size"]
    tied = told.get("tie_word_embeddings", True)
    return Shape(
        parameters=sum(map(_elements, folder.glob("*.safetensors"))),
        embeddings=told["vocab_size"] * hidden * (1 if tied else 2),
        vocabulary=told["vocab_size"],
        layers=told["num_hidden_layers"],
        hidden=hidden,
        intermediate=told.get("intermediate_size") or 4 * hidden,
        heads=heads,
        kv_heads=told.get("num_key_value_heads") or heads,
        head=told.get("head_dim") or hidden // heads,
        element_bytes=element_bytes,
        capped=any(told.get(key) for key in AFTER_HEAD),
    )


def _elements(file: Path) -> int:
    """Numbers in a safetensors file: its header names the shape of every tensor."""
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    counts = 0
    for name, tensor in header.items():
        if name != "__metadata__":
            size = 1
            for length in tensor["shape"]:
                size *= length
            counts += size
    return counts


def resident(model: Shape) -> dict[str, int]:
    """What is there all the time, in bytes by what it is."""
    return {
        "python and its libraries": BASELINE_BYTES,
        "embeddings": model.embeddings * model.element_bytes,
        "other weights": (model.parameters - model.embeddings) * model.element_bytes,
    }


def sampling(model: Shape, load: Load, room: Room) -> dict[str, int]:
    """The most that one unit of answers takes, in bytes by what it is."""
    columns = load.longest_prompt + load.new_tokens + room.slack
    rows = max(1, min(room.rows, room.slots // columns, load.answers))
    prompts = max(1, min(rows // load.samples, room.prefill_tokens // load.longest_prompt))
    prefilled = prompts * load.longest_prompt
    inner = model.heads * model.head
    # An attention layer at work holds keys and values for every head, not only for those that have their own.
    repeated = 2 * rows * columns * inner if model.heads != model.kv_heads else 0
    block = model.element_bytes * (3 * model.intermediate + 4 * model.hidden)
    parts = {
        f"key/value cache of {count(rows, 'row')} × {columns:,}": rows * columns * model.slot_bytes,
        f"{count(prefilled, 'prompt token')}": prefilled * (model.slot_bytes + block),
        "logits": (prompts + DRAW_COPIES * rows) * model.vocabulary * 4,
        "attention buffers": repeated * model.element_bytes,
    }
    return {name: int(SAMPLING_HEAP * space) for name, space in parts.items()}


def merged_copy(model: Shape) -> dict[str, int]:
    """An accepted adapter is merged into copies, while the policy samples with it."""
    return {"copy for a merged adapter": (model.parameters - model.embeddings) * model.element_bytes}


def training(model: Shape, load: Load) -> dict[str, int]:
    """One micro-batch forward and backward, and what the optimizer keeps, in bytes by what it is."""
    prompt, answer, n = load.trained_prompt, load.new_tokens, load.completions
    whole = prompt + n * answer
    tokens = max(load.trained_tokens, prompt + answer)
    inner = model.heads * model.head
    # Keys and values: siblings in one row of attention share the prompt's, in a row each they have a copy of
    # it for each head.
    if n * answer <= JOINT_TOKENS:
        keys = 2 * model.kv_heads * model.head * (1 + prompt / (n * answer))
    else:
        keys = 2 * inner * (1 + n * prompt / (prompt + n))
    per_layer = 4 * model.hidden + 3 * inner + keys + 4 * model.intermediate
    per_layer += 7 * load.lora_rank
    trained = tokens * n * answer / whole
    # A plain head makes the logits of a few rows at a time and keeps a hidden state a token.
    logits = 3 * trained if model.capped else HEAD_COPIES * min(trained, HEAD_ROWS)
    adapter = model.adapter_parameters(load.lora_rank)
    return {
        f"activations of {count(tokens, 'token')}": int(
            HEAP * tokens * model.layers * per_layer * model.element_bytes
        ),
        # The logits, their softmax, and its gradient.
        "logits of the trained tokens": int(HEAP * logits * model.vocabulary * 4),
        # The weights, their gradient, two moments, and the copies that are gone back to when a loss is bad.
        "adapter and optimizer": 6 * adapter * 4,
    }


def peak(*groups: dict[str, int]) -> int:
    """Bytes of all parts together."""
    return sum(sum(parts.values()) for parts in groups)
