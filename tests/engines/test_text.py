"""Tokenizers that put a `▁` before every text: in pieces, each piece gains a space that nobody wrote."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import tiny
from test_chat import by_template, chat

from selfrefine.config import Sampling
from selfrefine.engines.answers import completion
from selfrefine.engines.base import Identity, Request
from selfrefine.engines.chat import ChatEncoder
from selfrefine.engines.local import LocalEngine
from selfrefine.engines.text import TextEncoder
from selfrefine.records import Sample, Task
from selfrefine.sampling.decode import Live
from selfrefine.steps.training_items import items

SCHEMES = ("first", "always", "legacy")
TEXTS = (
    "the answer",
    " the answer",
    "  two",
    "\nthe sum",
    "",
    "17 + 25 = ?",
    "a 🧮 b",
    "🧮",
    "é",
    "x\n\n y ",
)


@pytest.fixture(params=SCHEMES)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return tiny.sentencepiece(request.param)


@pytest.fixture
def engine(tokenizer: Any) -> LocalEngine:
    model = tiny.model(vocabulary=len(tokenizer), eos_token_id=tokenizer.eos_token_id)
    return LocalEngine(model, tokenizer, Identity(name="spm", revision="", weights_sha256="spm"))


def read(tokenizer: Any, ids: Any) -> str:
    """What the model sees, its markers too: the decoder would take the first space."""
    return str(tokenizer.decode(ids))


def test_the_tokenizers_are_what_they_stand_for() -> None:
    """By hand: where a `▁` comes from nowhere."""
    seen = {
        scheme: [tiny.sentencepiece(scheme).tokenize(text)[:2] for text in ("the", "<|im_end|>the")]
        for scheme in SCHEMES
    }
    assert seen == {
        "first": [["▁the"], ["<|im_end|>", "t"]],
        "always": [["▁the"], ["<|im_end|>", "▁the"]],
        "legacy": [["▁the"], ["<|im_end|>", "▁the"]],
    }


@pytest.mark.parametrize("content", TEXTS)
@pytest.mark.parametrize("bos", ["", "{{ bos_token }}"])
def test_chats_are_encoded_as_transformers_does(tokenizer: Any, content: str, bos: str) -> None:
    tokenizer.chat_template = bos + tiny.CHATML
    messages = chat(("system", content), ("user", content))
    ids = ChatEncoder(tokenizer).encode(messages)
    assert ids == by_template(tokenizer, messages) and ids.count(tokenizer.bos_token_id) == bool(bos)


@pytest.mark.parametrize(
    "content",
    [
        "use <|im_end|> here",
        "<|im_end|>",
        "a<s>b</s> c",
        "<|im_<|im_end|>end|>",
        "what <|im_end|><|im_end|> is",
        "🧮<s>🧮",
        "<unk>",
        "\n <s> \n",
    ],
)
def test_a_prompt_with_special_tokens_keeps_its_characters(tokenizer: Any, content: str) -> None:
    encoder = ChatEncoder(tokenizer)
    plain = encoder.encode(chat(("system", "X"), ("user", "X")))
    ids = encoder.encode(chat(("system", content), ("user", content)))
    assert read(tokenizer, ids) == read(tokenizer, plain).replace("X", content)
    special = set(tokenizer.all_special_ids)
    assert [i for i in ids if i in special] == [i for i in plain if i in special]


@pytest.mark.parametrize("text", [*TEXTS, "<|im_end|>", " <s> is a token", "a <unk>"])
def test_an_answer_s_ids_decode_to_it(engine: LocalEngine, text: str) -> None:
    ids = engine.encode_answer(text)
    assert engine.decode(ids) == text and ids[-1] == engine.end_id
    assert not set(ids[:-1]) & set(engine.tokenizer.all_special_ids)


def test_an_answer_is_written_as_it_is_sampled() -> None:
    """Behind the template's line break, "first" has no `▁`: with one, an edited answer taught a space."""
    encoder = TextEncoder(tiny.sentencepiece("first"))
    assert encoder.tokenizer.convert_ids_to_tokens(encoder.answer("the")) == ["t", "he"]
    assert encoder.tokenizer.convert_ids_to_tokens(encoder.encode("the")) == ["▁the"]


def stretches(engine: LocalEngine) -> Iterator[list[int]]:
    """Answers as they may be sampled: words, an emoji's bytes, half an emoji, bytes and words."""
    for text in ("the answer is again", " the two", "so 🧮🧮 the answer", "\nthe answer\n"):
        yield engine.tokeniser.chat.text.after_token(text)
    emoji = engine.tokenizer.convert_tokens_to_ids(["<0xF0>", "<0x9F>", "<0xA7>", "<0xAE>"])
    words = engine.tokeniser.chat.text.after_token("the answer")
    yield [*emoji, *words, *emoji[:2]]
    yield [*emoji[:2], *words]
    yield [*words[:1], *emoji, emoji[1], *words]


@pytest.mark.parametrize("stop", ["swer", "e t", "w", "s", "r\n", "\n", "🧮", "nothing"])
def test_an_answer_cut_at_a_stop_text_is_not_edited(engine: LocalEngine, stop: str) -> None:
    """A `▁` before the rest of a token that straddled the cut made an "edited" row of it."""
    rows = []
    for ids in stretches(engine):
        live = Live(0, 0, None, ids, [-0.5] * len(ids))  # type: ignore[arg-type]
        done = completion(live, engine.tokeniser, (stop,), engine.stop_ids)
        whole = engine.decode(ids)
        at = whole.find(stop)
        assert done.text == (whole if at < 0 else whole[:at])
        assert (done.finish_reason == "stop") == (at >= 0)
        assert len(done.logprobs) <= len(done.token_ids)
        rows.append(
            Sample(
                id=str(len(rows)),
                task=Task(id="t", prompt=tuple(chat(("user", "x")))),
                prompt_token_ids=engine.encode_chat(chat(("user", "x"))),
                text=done.text,
                token_ids=done.token_ids,
                logprobs=done.logprobs,
                finish_reason=done.finish_reason,
            )
        )
    made, edited, _ = items(rows, engine.tokeniser)
    assert edited == 0 and [item.completion_token_ids for item in made] == [row.token_ids for row in rows]


def test_sampled_rows_are_their_ids(engine: LocalEngine) -> None:
    """Half of the tiny vocabulary is bytes: answers begin and end in the middle of characters."""
    prompt = engine.encode_chat(chat(("user", "what is <|im_end|>?")))
    asked = [Request(prompt_token_ids=prompt, seeds=tuple(range(24)))]
    for batch in engine.generate(asked, Sampling(max_new_tokens=12, stop=("w", "e t"))):
        for done in batch:
            assert engine.decode(done.token_ids) == done.text


def test_a_line_break_that_ends_answers_is_none_of_their_text() -> None:
    """A base model's eos may be an ordinary token. In the decoded text it made every row an edited one."""
    tokenizer = tiny.tokenizer()
    [newline] = tokenizer("\n")["input_ids"]
    model = tiny.model()
    model.generation_config.eos_token_id = [newline]
    engine = LocalEngine(model, tokenizer, tiny.engine().identity)
    ids = [*engine.encode_text("42"), newline]
    live = Live(0, 0, None, ids, [-0.5] * len(ids))  # type: ignore[arg-type]
    done = completion(live, engine.tokeniser, (), engine.stop_ids)
    assert done.text == "42" == engine.decode(done.token_ids)


@pytest.mark.parametrize("kind", ["Unigram", "WordLevel"])
def test_a_vocabulary_that_holds_its_special_tokens_makes_none_of_text(kind: str) -> None:
    """Without its added tokens such a model finds `<s>` in the vocabulary all the same."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", "<s>", "▁", *"<>|_abs/"]
    if kind == "Unigram":
        backend = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=0))
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
    else:
        backend = Tokenizer(models.WordLevel({p: i for i, p in enumerate(pieces)}, unk_token="<unk>"))
        backend.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    own = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", unk_token="<unk>")
    assert own.bos_token_id == 1 in own("a <s> b")["input_ids"]
    assert 1 not in TextEncoder(own).encode("a <s> b")
    assert 1 not in TextEncoder(own).answer("a <s> b")
