"""The local engine: what is recorded of an answer, where answers end, and policies that leave no trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import tiny

from selfrefine.config import Sampling
from selfrefine.engines.answers import at_stop_text, completion
from selfrefine.engines.base import Completion, Engine, Request
from selfrefine.engines.local import LocalEngine
from selfrefine.errors import EngineError
from selfrefine.records import Message
from selfrefine.sampling.decode import Live

END = 302


def requests(engine: Engine, *texts: str, n: int = 1) -> list[Request]:
    return [
        Request(
            prompt_token_ids=engine.encode_chat([Message(role="user", content=text)]),
            seeds=tuple(100 * i + k for k in range(n)),
        )
        for i, text in enumerate(texts)
    ]


def answers(engine: Engine, asked: Sequence[Request], **how: Any) -> list[Completion]:
    found = [c for batch in engine.generate(asked, Sampling(**how)) for c in batch]
    found.sort(key=lambda c: (c.request, c.index))
    assert [(c.request, c.index) for c in found] == [
        (i, k) for i, request in enumerate(asked) for k in range(len(request.seeds))
    ]
    return found


TEXTS = ("what is 17 + 25?", "the sum of the two", "a", "so the question was what the answer is again")


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2", "gemma3"])
def test_recorded_logprobs_are_those_of_a_teacher_forced_forward(kind: str) -> None:
    """A ratio of new to old policy is 1 at the start only if the two ways of computing agree."""
    engine = tiny.engine(kind)
    asked = requests(engine, *TEXTS, n=3)
    how = {"temperature": 0.8, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.2}
    rows = answers(engine, asked, max_new_tokens=12, **how)
    scored = engine.score([asked[c.request].prompt_token_ids for c in rows], [c.token_ids for c in rows])
    for row, logprobs in zip(rows, scored, strict=True):
        assert row.logprobs == pytest.approx(logprobs, abs=1e-4)
        assert len(row.logprobs) == len(row.token_ids)


def test_token_ids_keep_the_stop_token_and_text_does_not() -> None:
    """Every eos id of the generation config ends an answer, and the template's end-of-turn as well."""
    model = tiny.model()
    model.generation_config.eos_token_id = [5, *range(20, 200, 10)]
    engine = LocalEngine(model, tiny.tokenizer(), tiny.engine().identity)
    assert engine.stop_ids == {END, 5, *range(20, 200, 10)}
    rows = answers(engine, requests(engine, *TEXTS, n=8), max_new_tokens=30)
    stopped = [row for row in rows if row.finish_reason == "stop"]
    assert len({row.token_ids[-1] for row in stopped}) > 2
    for row in stopped:
        assert row.token_ids[-1] in engine.stop_ids
        assert not set(row.token_ids[:-1]) & engine.stop_ids
        assert row.text == engine.tokenizer.decode(row.token_ids[:-1], skip_special_tokens=True)
    for row in rows:
        if row.finish_reason == "length":
            assert len(row.token_ids) == 30 and not set(row.token_ids) & engine.stop_ids
            assert row.text == engine.decode(row.token_ids)


def test_an_answer_that_stops_with_its_last_token_is_not_cut_off() -> None:
    engine = tiny.engine()
    [row] = answers(engine, requests(engine, "a"), temperature=0.0, max_new_tokens=1)
    assert row.finish_reason == "length"
    engine.stop_ids = frozenset({row.token_ids[0]})
    [row] = answers(engine, requests(engine, "a"), temperature=0.0, max_new_tokens=1)
    assert row.finish_reason == "stop" and row.text == ""


def test_the_end_of_turn_counts_though_the_tokenizer_does_not_list_it() -> None:
    """Gemma's <end_of_turn> is an added special token, but no named one; its eos is another token."""
    tokenizer = tiny.tokenizer()
    tokenizer.eos_token = "<|endoftext|>"
    tokenizer.pad_token = "<|endoftext|>"
    assert END not in tokenizer.all_special_ids
    model = tiny.model(eos_token_id=300)
    model.generation_config.eos_token_id = 300
    engine = LocalEngine(model, tokenizer, tiny.engine().identity)
    assert engine.end_id == END and engine.stop_ids == {300, END}
    assert engine.encode_answer("42")[-1] == END


def test_without_a_template_the_answer_ends_with_eos() -> None:
    engine = tiny.engine(template=None)
    assert engine.stop_ids == {END} and engine.encode_answer("a") == (*engine.encode_text("a"), END)
    model = tiny.model(eos_token_id=None)
    tokenizer = tiny.tokenizer(None)
    tokenizer.eos_token = None
    with pytest.raises(EngineError, match="no end-of-sequence"):
        LocalEngine(model, tokenizer, engine.identity)


def live(engine: LocalEngine, *pieces: str) -> Live:
    """A row whose tokens are those of each piece, sampled with logprobs -0.1, -0.2, ..."""
    ids = [i for piece in pieces for i in engine.encode_text(piece)]
    logprobs = [-0.1 * (k + 1) for k in range(len(ids))]
    return Live(0, 0, None, ids, logprobs)  # type: ignore[arg-type]


def test_a_stop_string_at_a_token_boundary_by_hand() -> None:
    engine = tiny.engine()
    done = completion(live(engine, "42", "\n", "Q:"), engine.tokeniser, ("\nQ", "zzz"), engine.stop_ids)
    kept = engine.encode_text("42")
    assert (done.text, done.finish_reason) == ("42", "stop")
    # The end-of-turn was not sampled: it has no logprob.
    assert done.token_ids == (*kept, END) and done.logprobs == pytest.approx((-0.1, -0.2)[: len(kept)])


def test_a_token_that_straddles_the_stop_string_is_encoded_anew() -> None:
    engine = tiny.engine()
    [word] = engine.encode_text(" answer")  # one token of the tiny vocabulary
    row = live(engine, "the", " answer", " is")
    done = completion(row, engine.tokeniser, ("swer",), engine.stop_ids)
    head = engine.encode_text("the")
    assert done.text == "the an" and word not in done.token_ids
    assert done.token_ids == (*head, *engine.encode_text(" an"), END)
    assert len(done.logprobs) == len(head)
    assert engine.decode(done.token_ids) == done.text  # else the row would count as edited by hand


def test_the_earliest_of_several_stop_strings_cuts() -> None:
    engine = tiny.engine()
    done = completion(live(engine, "a b c"), engine.tokeniser, ("c", " b"), engine.stop_ids)
    assert done.text == "a"


def test_a_stop_string_is_seen_whatever_its_characters_cost_in_tokens() -> None:
    """A byte-level vocabulary spends four tokens on an emoji; characters are too few."""
    engine = tiny.engine()
    stop = "🧮" * 6
    assert len(engine.encode_text(stop)) == 24
    met = at_stop_text(engine.tokeniser, (stop,))
    assert met(live(engine, "so ", stop))
    assert not met(live(engine, "so ", stop[:-1]))


def test_sampling_with_a_stop_string_is_sampling_without_cut_short() -> None:
    engine = tiny.engine()
    asked = requests(engine, *TEXTS, n=4)
    free = answers(engine, asked, max_new_tokens=24)
    straddled = 0
    for stop in ("a", "e", "in", "s "):
        cut = answers(engine, asked, max_new_tokens=24, stop=(stop,))
        for whole, row in zip(free, cut, strict=True):
            if stop not in whole.text:
                assert (row.token_ids, row.text) == (whole.token_ids, whole.text)
                continue
            assert row.text == whole.text[: whole.text.find(stop)] and row.finish_reason == "stop"
            assert row.token_ids[-1] == END and engine.decode(row.token_ids) == row.text
            kept = len(row.logprobs)
            assert row.token_ids[:kept] == whole.token_ids[:kept]
            assert row.logprobs == pytest.approx(whole.logprobs[:kept], abs=1e-5)
            straddled += len(row.token_ids) > kept + 1
    assert straddled > 0


def test_a_prompt_too_long_is_an_error_row_and_the_others_go_on() -> None:
    engine = tiny.engine(max_position_embeddings=64)
    long = Request(prompt_token_ids=(7,) * 50, seeds=(1, 2))
    empty = Request(prompt_token_ids=(), seeds=(1,))
    fits = Request(prompt_token_ids=(7,) * 44, seeds=(1,))
    rows = answers(engine, [long, *requests(engine, "a"), empty, fits], max_new_tokens=20)
    assert [row.finish_reason == "error" for row in rows] == [True, True, False, True, False]
    assert rows[0].error is not None and "50 tokens" in rows[0].error and "64" in rows[0].error
    assert rows[3].error is not None and "empty" in rows[3].error
    assert rows[0].token_ids == () and rows[4].error is None
