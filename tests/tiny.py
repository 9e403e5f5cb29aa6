"""Random models of a few thousand weights with a real byte-level tokenizer: built in code, in milliseconds.

The end-of-turn is eos and pad at once, as in many chat models: a trainer that masks pads by id would mask it.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CORPUS = "the answer is 42 and the question was what is 17 + 25 so the sum of the two is the answer again "
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {}),
    "qwen2": ("Qwen2Config", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", {}),
    "mistral": ("MistralConfig", {"sliding_window": 8}),
    "gemma2": ("Gemma2Config", {"sliding_window": 8, "query_pre_attn_scalar": 16}),
    "gemma3": (
        "Gemma3TextConfig",
        {
            "sliding_window": 8,
            "query_pre_attn_scalar": 16,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "gemma3n": (  # the last two layers reuse the keys and values of the first two
        "Gemma3nTextConfig",
        {
            "num_hidden_layers": 4,
            "num_kv_shared_layers": 2,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "sliding_window": 8,
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": 303,
            "laurel_rank": 4,
            "activation_sparsity_pattern": [0.0] * 4,
        },
    ),
    "gpt2": ("GPT2Config", {}),
}


@functools.cache
def _byte_level(bos: bool) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator([CORPUS], trainer)
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    backend.add_special_tokens([AddedToken(name, normalized=False) for name in names])
    if bos:
        backend.post_processor = processors.TemplateProcessing(
            single="<|endoftext|> $A",
            special_tokens=[("<|endoftext|>", backend.token_to_id("<|endoftext|>"))],
        )
    return backend


def tokenizer(template: str | None = CHATML, *, bos: bool = False) -> Any:
    """`bos`: plain text gets <|endoftext|> put before it, as Llama and Gemma tokenizers do with theirs."""
    from transformers import PreTrainedTokenizerFast

    made = PreTrainedTokenizerFast(
        tokenizer_object=_byte_level(bos),
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        bos_token="<|endoftext|>" if bos else None,
    )
    made.chat_template = template
    return made


def sentencepiece(scheme: str, template: str | None = CHATML) -> Any:
    """As Llama's and Gemma's: BPE with byte fallback and `▁` for spaces.

    `scheme`: who puts a `▁` before a text: "first" (the pre-tokenizer, at the very beginning), "always" (the
    same, behind every special token too) or "legacy" (the normalizer). Decoding takes one space away again.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if scheme == "legacy":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    names = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    every_byte = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=[*names, *every_byte],
        initial_alphabet=["▁", *"abcdefghijklmnopqrstuvwxyz<>|_.?+="],
        max_token_length=8,
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS.split("so"), trainer)
    said = json.loads(backend.to_str())
    said["added_tokens"] = [token for token in said["added_tokens"] if token["content"] in names]
    backend = Tokenizer.from_str(json.dumps(said))
    backend.add_special_tokens([AddedToken(name, normalized=False) for name in names])
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", bos_token="<s>", unk_token="<unk>"
    )
    made.chat_template = template
    return made


def model(kind: str = "llama", *, seed: int = 0, vocabulary: int = 0, **changes: Any) -> Any:
    """Two layers, hidden 32, weights wide enough that next-token distributions are far from uniform."""
    import torch
    import transformers

    name, own = KINDS[kind]
    settings: dict[str, Any] = {
        "vocab_size": vocabulary or len(tokenizer()),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,
        "eos_token_id": tokenizer().eos_token_id,
        "bos_token_id": None,
        "pad_token_id": None,
    }
    if kind == "gpt2":
        del settings["head_dim"], settings["num_key_value_heads"], settings["intermediate_size"]
    config = getattr(transformers, name)(**settings | own | changes)
    torch.manual_seed(seed)
    return transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


def engine(kind: str = "llama", *, template: str | None = CHATML, bos: bool = False, **changes: Any) -> Any:
    """A LocalEngine on a tiny model. Its weights hash is the name of what made it."""
    from selfrefine.engines.base import Identity
    from selfrefine.engines.local import LocalEngine

    identity = Identity(name=f"tiny-{kind}", revision="", weights_sha256=f"hash-of-{kind}-{changes}")
    return LocalEngine(model(kind, **changes), tokenizer(template, bos=bos), identity)


def save(folder: Path, kind: str = "llama", *, template: str | None = CHATML, **changes: Any) -> Path:
    """The model and its tokenizer as a folder that `--model` takes."""
    model(kind, **changes).save_pretrained(folder)
    tokenizer(template).save_pretrained(folder)
    return folder
