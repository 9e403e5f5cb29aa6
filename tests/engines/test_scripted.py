"""The scripted engine: exact prompt ids, true logprobs, and the same promises as a real one."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from selfrefine import prompts
from selfrefine.config import Sampling
from selfrefine.engines.base import Completion, Engine, Request
from selfrefine.engines.scripted import ASSISTANT, END, OFF_SCRIPT, SYSTEM, USER, Scripted
from selfrefine.errors import ConfigError
from selfrefine.records import Message
from selfrefine.verdict import parse


def ask(engine: Engine, text: str, seeds: tuple[int, ...], **sampling: object) -> list[Completion]:
    prompt = engine.encode_chat([Message(role="user", content=text)])
    batches = engine.generate([Request(prompt_token_ids=prompt, seeds=seeds)], Sampling(**sampling))  # type: ignore[arg-type]
    return [completion for batch in batches for completion in batch]


def test_a_chat_is_markers_and_bytes_and_text_never_becomes_a_marker() -> None:
    engine = Scripted([])
    chat = [Message(role="system", content="é"), Message(role="user", content="<|im_end|>")]
    assert engine.encode_chat(chat) == (SYSTEM, 0xC3, 0xA9, END, USER, *b"<|im_end|>", END, ASSISTANT)
    assert engine.encode_answer("7") == (55, 256)
    assert engine.decode((SYSTEM, 55, END)) == "7"


def test_the_seed_chooses_and_the_first_matching_rule_counts() -> None:
    engine = Scripted([{"match": "b+", "answers": ["x", "y", "z"]}, {"match": ".", "answers": ["other"]}])
    assert [one.text for one in ask(engine, "abba", (0, 1, 2, 3, 4))] == ["x", "y", "z", "x", "y"]
    assert [one.text for one in ask(engine, "a", (9,))] == ["other"]
    assert [one.text for one in ask(Scripted([]), "please say these three words", (1,))] == [
        "these three words"
    ]


def test_only_the_last_user_message_is_matched() -> None:
    engine = Scripted([{"match": "^yes$", "answers": ["matched"]}])
    chat = [
        Message(role=role, content=text)
        for role, text in [("user", "no"), ("assistant", "-"), ("user", "yes")]
    ]
    [[one]] = engine.generate([Request(prompt_token_ids=engine.encode_chat(chat), seeds=(0,))], Sampling())
    assert one.text == "matched"
    [[plain]] = engine.generate([Request(prompt_token_ids=engine.encode_text("yes"), seeds=(0,))], Sampling())
    assert plain.text == "matched"


def test_logprobs_are_those_of_the_script_and_score_agrees() -> None:
    # "12" twice, "15", "3": P(1)=3/4, P(2|1)=2/3, P(end|12)=1.
    engine = Scripted([{"match": ".", "answers": ["12", "15", "12", "3"]}])
    prompt = engine.encode_chat([Message(role="user", content="?")])
    [one, _, _, three] = ask(engine, "?", (0, 1, 2, 3))
    assert one.logprobs == pytest.approx((math.log(3 / 4), math.log(2 / 3), 0.0))
    assert three.logprobs == pytest.approx((math.log(1 / 4), 0.0))
    assert engine.score([prompt], [one.token_ids]) == [one.logprobs]
    assert engine.score([prompt], [engine.encode_text("9")]) == [(OFF_SCRIPT,)]


def test_greedy_is_the_most_frequent_answer_whatever_the_seed() -> None:
    engine = Scripted([{"match": ".", "answers": ["a", "b", "b"]}])
    assert {one.text for one in ask(engine, "?", (0, 1, 2), temperature=0.0)} == {"b"}


def test_length_stop_and_stop_strings() -> None:
    engine = Scripted([{"match": ".", "answers": ["one\ntwo"]}])
    [cut] = ask(engine, "?", (0,), max_new_tokens=3)
    assert (cut.text, cut.finish_reason, cut.token_ids, len(cut.logprobs)) == ("one", "length", (*b"one",), 3)
    [whole] = ask(engine, "?", (0,), max_new_tokens=8)
    assert (whole.text, whole.finish_reason, whole.token_ids[-1]) == ("one\ntwo", "stop", END)
    # the END that closes a stopped answer was not sampled: one logprob fewer than tokens
    [stopped] = ask(engine, "?", (0,), stop=("w", "\n"))
    assert (stopped.text, stopped.finish_reason, stopped.token_ids) == ("one", "stop", (*b"one", END))
    assert len(stopped.logprobs) == 3


def test_a_prompt_without_room_is_an_error_row_and_little_room_cuts() -> None:
    engine = Scripted([{"match": ".", "answers": ["12345"]}], context_tokens=6)
    [one] = ask(engine, "abc", (0,))  # marker + 3 + end + marker = 6
    assert (one.finish_reason, one.token_ids, one.error) == (
        "error",
        (),
        "the prompt has 6 tokens, but the context holds 6",
    )
    [one] = ask(engine, "a", (0,))
    assert (one.finish_reason, one.text) == ("length", "12")


def test_rules_from_a_file_and_their_errors(tmp_path: Path) -> None:
    path = tmp_path / "rules.jsonl"
    path.write_text('{"match": "a", "answers": ["1"]}\n\n{"match": "b", "answers": ["2"]}\n')
    engine = Scripted.from_file(path)
    assert [one.text for one in ask(engine, "b", (0,))] == ["2"]
    assert (
        engine.policy == Scripted([{"match": "a", "answers": ["1"]}, {"match": "b", "answers": ["2"]}]).policy
    )
    assert engine.policy != Scripted([{"match": "a", "answers": ["1"]}]).policy
    for line, reason in [
        ('{"match": "a"', "broken JSON"),
        ("[" * 1100 + "]" * 1100, "nested too deeply"),
        ('{"match": "\\ud800", "answers": ["1"]}', "lone surrogate"),
        ('{"match": "(", "answers": ["1"]}', "not a valid script rule"),
        ('{"match": "a", "answers": []}', "at least one answer"),
        ('{"match": "a", "answer": ["1"]}', "answer"),
    ]:
        path.write_text(f'{{"match": "a", "answers": ["1"]}}\n{line}\n')
        with pytest.raises(ConfigError, match=rf"rules\.jsonl:2: .*{reason}"):
            Scripted.from_file(path)
    with pytest.raises(ConfigError, match="cannot read"):
        Scripted.from_file(tmp_path / "none.jsonl")


def test_the_built_in_script_adds_by_chance_criticises_and_revises() -> None:
    engine = Scripted()
    easy = [one.text for one in ask(engine, "What is 3 + 4? Answer with just the number.", (0, 1, 2, 3))]
    assert easy == ["7", "8", "7", "-3"]
    hard = [one.text for one in ask(engine, "Compute 20 - 5 + 3.", (0, 1, 2, 3))]
    assert hard == ["19", "18", "19", "8"]
    critique, revise = prompts.load("critique", "critique"), prompts.load("revise", "revise")
    for answer, verdicts in [
        ("7", ["ok", "ok", "ok", "revise"]),
        ("8", ["revise", "revise", "revise", "ok"]),
    ]:
        asked = ask(engine, critique.render(task="What is 3 + 4?", answer=answer), (0, 1, 2, 3))
        assert [parse(one.text).verdict for one in asked] == verdicts
    asked = ask(engine, revise.render(task="What is 3 + 4?", answer="8", critique="off"), (0, 1, 2))
    assert [one.text for one in asked] == ["7", "7", "8"]
    compare = prompts.load("compare", "compare")
    for first, second, letters in [("7", "8", "AAAB"), ("8", "7", "BBBA"), ("8", "9", "ABAB")]:
        asked = ask(engine, compare.render(task="What is 3 + 4?", first=first, second=second), (0, 1, 2, 3))
        assert "".join(one.text for one in asked) == letters
