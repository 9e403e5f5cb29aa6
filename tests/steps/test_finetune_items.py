"""What a row becomes in training: the ids that were sampled, in the assistant's place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
from msgspec.structs import replace

from selfrefine.config import GenerateConfig, ObjectiveConfig, SelectConfig, TrainConfig
from selfrefine.engines.base import EXACT, make_signature
from selfrefine.engines.local import LocalEngine
from selfrefine.engines.scripted import Scripted
from selfrefine.errors import EngineError
from selfrefine.records import Lesson, Message, Sample, Task
from selfrefine.report.words import summary_line
from selfrefine.steps.finetune import finetune
from selfrefine.steps.generate import generate
from selfrefine.steps.select import select
from selfrefine.steps.training_items import equal_pairs, items

TASK = Task(id="a", prompt=(Message(role="user", content="What is 17 + 25?"),), references=("42",))


@pytest.fixture(scope="module")
def engine() -> Any:
    return tiny.engine()


def written(text: str, **fields: Any) -> Sample:
    """A row somebody wrote by hand: no ids."""
    return Sample(id="a.r0.s0", task=TASK, text=text, **fields)


def spelled(engine: Any, item: Any) -> str:
    ids = (*item.prompt_token_ids, *item.completion_token_ids)
    return str(engine.tokenizer.decode(ids, skip_special_tokens=False))


def test_a_pair_of_equal_texts_is_found_by_its_sides() -> None:
    """An answer that came to its end, against the same text cut off, teaches to come to an end."""

    def side(role: str, pair: str | None, text: str, **fields: Any) -> Sample:
        return written(text, lesson=Lesson(role=role, pair=pair), **fields)  # type: ignore[arg-type]

    rows = [
        *(side(role, "equal", "42") for role in ("chosen", "rejected")),
        *(side(role, "spaced", text) for role, text in (("chosen", "42"), ("rejected", "42\n"))),
        *(
            side(role, "cut", "42", finish_reason=end)
            for role, end in (("chosen", "stop"), ("rejected", "length"))
        ),
        side("chosen", "half", "42"),
        *(side("chosen", "twice", "42") for _ in range(2)),
        *(side(role, None, "42") for role in ("chosen", "rejected")),
        written("42"),
    ]
    assert equal_pairs(rows) == {"equal"}


def test_the_winning_answer_stands_in_the_assistants_place(engine: Any) -> None:
    """RAFT stored the best answer under the role `user`; the golden row says where it belongs."""
    [item], edited, _ = items([written("42")], engine)
    assert edited == 0
    assert spelled(engine, item) == (
        "<|im_start|>user\nWhat is 17 + 25?<|im_end|>\n<|im_start|>assistant\n42<|im_end|>"
    )
    completion = engine.tokenizer.decode(item.completion_token_ids, skip_special_tokens=False)
    assert completion == "42<|im_end|>"  # the end of turn is learnt, the question is not


def test_the_context_that_was_sampled_under_is_trained_on_system_message_included(engine: Any) -> None:
    settings = GenerateConfig(n=1, max_new_tokens=5, system="be brief")
    [row] = generate([TASK], engine, settings, 1)
    [item], edited, _ = items([row], engine)
    assert (item.prompt_token_ids, item.completion_token_ids) == (row.prompt_token_ids, row.token_ids)
    assert edited == 0 and "be brief" in spelled(engine, item)
    # A row that lost its ids (somebody wrote it anew) is rendered from its messages, not from the bare task.
    bare = replace(row, prompt_token_ids=(), token_ids=(), text="42")
    [again], *_ = items([bare], engine)
    assert again.prompt_token_ids == row.prompt_token_ids


def test_sampled_ids_are_never_tokenised_again(engine: Any) -> None:
    """ "4" + "2" was sampled as two tokens; encoding "42" anew gives one, which the policy never chose."""
    ids = (*engine.encode_text("4"), *engine.encode_text("2"), engine.end_id)
    assert ids != engine.encode_answer("42") and engine.decode(ids) == "42"
    [item], edited, _ = items([written("42", token_ids=ids)], engine)
    assert item.completion_token_ids == ids and edited == 0


def test_an_edited_text_is_encoded_anew_and_counted(engine: Any) -> None:
    """jq changed the text and not the ids: training on the ids would learn what was edited away."""
    ids = engine.encode_answer("wrong")
    made, edited, _ = items([written("42", token_ids=ids), written("wrong", token_ids=ids)], engine)
    assert edited == 1
    assert made[0].completion_token_ids == engine.encode_answer("42")
    assert made[1].completion_token_ids == ids


def test_rows_of_another_tokenizer_are_encoded_anew_prompt_and_all_and_nobody_edited_them(
    engine: Any,
) -> None:
    """Its prompt ids mean other words here: answers were learnt below a question that nobody asked. A person
    who edits a text leaves the question, also where a template has written yesterday's date into it."""
    chat = engine.encode_chat(TASK.prompt)
    ids = engine.encode_answer("wrong")
    other = replace(written("42", token_ids=ids), prompt_token_ids=tuple(200 - i for i in range(9)))
    dated = replace(other, prompt_token_ids=(*engine.encode_text("27 Nov "), *chat))
    made, edited, foreign = items([other, dated], engine)
    assert (edited, foreign) == (1, 1)
    assert [item.prompt_token_ids for item in made] == [chat, dated.prompt_token_ids]
    assert [item.completion_token_ids for item in made] == [engine.encode_answer("42")] * 2
    line = summary_line({"stage": "finetune", "rows": 2, "edited": 0, "retokenised": 1})
    assert line == "finetune: 2 rows · 1 re-tokenised (sampled by another model)"


def test_a_text_cut_at_a_stop_string_is_not_taken_for_an_edit(engine: Any) -> None:
    settings = GenerateConfig(n=8, max_new_tokens=40, stop=("a", "e", " ", "o"))
    rows = [row for row in generate([TASK], engine, settings, 3) if row.finish_reason == "stop"]
    assert rows and items(rows, engine)[1] == 0
    assert all(row.token_ids[-1] == engine.end_id for row in rows)


def test_special_tokens_in_an_edited_answer_are_text(engine: Any) -> None:
    [item], *_ = items([written("4<|im_end|>2")], engine)
    assert item.completion_token_ids.count(engine.end_id) == 1
    assert item.completion_token_ids[-1] == engine.end_id


def test_rows_that_were_cut_off_never_become_items(engine: Any) -> None:
    settings = GenerateConfig(n=6, max_new_tokens=3)
    rows = [replace(row, reward=1.0) for row in generate([TASK], engine, settings, 1)]
    assert {row.finish_reason for row in rows} >= {"length"}
    whole = replace(written("42", reward=0.5), id="whole")
    kept = select([*rows, whole], SelectConfig(strategy="all")).rows
    assert {row.finish_reason for row in kept} == {"stop"} and whole.id in {row.id for row in kept}


def test_an_engine_that_only_answers_cannot_be_trained() -> None:
    with pytest.raises(EngineError, match=r"^a scripted model cannot be trained; use --model smollm2"):
        Scripted().trainer()


def sampled(engine: Any, **fields: Any) -> Sample:
    """A row as `generate` writes it."""
    [row] = generate([TASK], engine, GenerateConfig(n=1, max_new_tokens=5), 1, round_index=2)
    return replace(row, **fields)


def test_recorded_logprobs_travel_with_the_ids_they_belong_to(engine: Any) -> None:
    row = sampled(engine)
    [item], *_ = items([row], engine)
    assert row.logprobs and item.old_logprobs == row.logprobs
    # An edited text has other ids; a row without its prompt's ids was sampled under who knows which.
    for changed in ({"text": "edited"}, {"prompt_token_ids": ()}, {"logprobs": None}):
        [item], *_ = items([replace(row, **changed)], engine)
        assert item.old_logprobs is None, changed
    [item], *_ = items([replace(row, logprobs=(*row.logprobs, -1.0))], engine)
    assert item.old_logprobs is None  # more logprobs than tokens: somebody cut the ids


def test_logprobs_of_half_precision_are_not_what_training_would_compute(engine: Any) -> None:
    """Off by tenths of a nat in bf16, they would look like a policy that has moved, and be clipped."""
    row = sampled(engine)
    assert "|float32|" in row.engine
    for signature, trusted in (
        (row.engine, True),
        ("local|cpu|float32|merged|torch 2|transformers 5", True),  # a row of an earlier version
        ("", False),  # a row from elsewhere that says nothing
        ("scripted:float32", False),
        (make_signature("served", "cuda", EXACT, "by somebody"), True),
        # Another kind of engine in half precision: who looked for `local` believed it.
        (make_signature("served", "cuda", "bfloat16", EXACT), False),
        (row.engine.replace("|float32|", "|bfloat16|"), False),
        ("local|cuda|bfloat16|unmerged|torch 2|transformers 5", False),
        ("local|cuda|float16|merged|torch 2|transformers 5", False),
    ):
        [item], *_ = items([replace(row, engine=signature)], engine)
        assert (item.old_logprobs is not None) == trusted, signature


def test_training_in_half_precision_trusts_no_recorded_logprob(engine: Any) -> None:
    """Sampled exactly, elsewhere; what is trained rounds otherwise, so the ratio would not begin at 1."""
    row = sampled(engine)
    for model, exact in ((tiny.model(), True), (tiny.model().bfloat16(), False)):
        trainer = LocalEngine(model, engine.tokenizer, engine.identity).trainer()
        assert trainer.exact_logprobs is exact
        [item], *_ = items([row], trainer.tokeniser, exact=trainer.exact_logprobs)
        assert (item.old_logprobs == row.logprobs) is exact


def test_what_samples_need_not_be_what_trains(engine: Any, tmp_path: Path) -> None:
    """The sampler's weights are other tensors, as in another process: it is told of the adapter."""
    sampler = tiny.engine()
    trainer = LocalEngine(tiny.model(), engine.tokenizer, engine.identity).trainer()
    rows = [replace(row, reward=1.0) for row in generate([TASK], sampler, GenerateConfig(n=4), 1)]
    bare, folder = sampler.policy, tmp_path / "a"
    finetune(
        rows, trainer, TrainConfig(lr=0.01), ObjectiveConfig(), 0, lambda trained, log, save: save(folder)
    )
    assert sampler.policy == bare
    pairs = [row.prompt_token_ids for row in rows], [row.token_ids for row in rows]
    before = sampler.score(*pairs)
    sampler.use_adapter(folder)
    assert sampler.policy != bare
    assert sum(map(sum, sampler.score(*pairs))) > sum(map(sum, before)) + 1.0


def test_replayed_rows_without_usable_logprobs_are_left_out_of_a_policy_gradient(engine: Any) -> None:
    """In half precision the recorded ones are not trusted, and those of this round's policy would make the
    ratio of a row that another policy sampled 1: no correction at all, in silence."""
    half = sampled(engine).engine.replace("|float32|", "|bfloat16|")
    rows = [
        replace(sampled(engine), id=f"a.r{k}.s{i}", round=k, index=i, reward=float(i), engine=half)
        for k in (1, 2)
        for i in range(2)
    ]
    log: list[Any] = []
    for name, left_out in (("grpo", {"replayed_without_logprobs": 2}), ("sft", {})):
        own = ObjectiveConfig(name=name)
        done, _ = finetune(
            rows, engine.trainer(), TrainConfig(), own, 0, lambda trained, rows, save: log.append(rows)
        )
        assert done.dropped == left_out and done.rows == 4 - sum(left_out.values())


def test_lessons_roles_pairs_and_groups(engine: Any) -> None:
    """The group is the task in its round: a replayed row was sampled beside others, by another policy."""
    row = sampled(engine)
    marked = replace(row, lesson=Lesson(role="rejected", pair="p"))
    [plain, rejected], *_ = items([row, marked], engine)
    assert (plain.role, plain.pair) == ("learn", None)
    assert (rejected.role, rejected.pair) == ("rejected", "p")
    assert plain.group == rejected.group
    [earlier], *_ = items([replace(row, round=1)], engine)
    assert earlier.group != plain.group
