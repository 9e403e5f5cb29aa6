"""What a teacher sees, which rows have none, and that one training through the step learns what it says."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
import tiny
import torch
from msgspec.structs import replace

from selfrefine import prompts
from selfrefine.config import GenerateConfig, LoraConfig, ObjectiveConfig, TrainConfig
from selfrefine.errors import ConfigError, NothingToLearnError
from selfrefine.records import Critique, Message, Reward, Sample, Task
from selfrefine.rewards.base import RewardOptions
from selfrefine.steps.finetune import FinetuneSummary, finetune
from selfrefine.steps.generate import generate
from selfrefine.steps.reward import build, parse_spec, score
from selfrefine.steps.teacher import teacher_prompt

TASK = Task(id="a", prompt=(Message(role="user", content="17 + 25?"),), references=(" ", "42"))
BARE = replace(TASK, id="b", references=())
TEACHER = prompts.load("plain-teacher", "teacher")


def answered(task: Task, **fields: Any) -> Sample:
    return Sample(id=f"{task.id}.r1.s0", task=task, text="41", **fields)


def test_the_reference_is_shown_under_the_system_message_of_the_row() -> None:
    """The prompt is the row's own: a teacher under the bare task's would teach the difference."""
    system = Message(role="system", content="be brief")
    row = answered(TASK, messages=(system, *TASK.prompt))
    told = teacher_prompt(row, TEACHER)
    assert told[0] == system
    assert told[1].content == "17 + 25?\n\n(The correct answer is 42.)"


def test_without_a_reference_it_sees_what_is_known_of_this_answer() -> None:
    rewards = (
        Reward(name="numeric", value=0.0, detail="too small"),
        Reward(name="x", value=None, error="no"),
    )
    critiques = (Critique(text="early"), Critique(text="Add the digits again.\n"))
    [message] = teacher_prompt(answered(BARE, rewards=rewards, critiques=critiques), TEACHER)
    assert message.content.endswith("(Of an earlier answer: - numeric: too small\nAdd the digits again.)")


def test_where_there_is_nothing_to_show_there_is_no_teacher() -> None:
    unseen = prompts.from_source("{{ task }} {{ feedback }}", "teacher", "mine")
    assert teacher_prompt(answered(BARE), TEACHER) == ()
    assert teacher_prompt(answered(TASK), unseen) == ()  # what it has to show is not in the template


def test_a_template_that_shows_the_task_alone_is_refused() -> None:
    with pytest.raises(ConfigError, match="must show the reference or the feedback"):
        prompts.from_source("{{ task }}", "teacher", "mine")


def run(rows: list[Sample], engine: Any, top_k: int = 300) -> tuple[FinetuneSummary, list[dict[str, Any]]]:
    log: list[dict[str, Any]] = []
    settings = TrainConfig(steps=60, lr=0.02, warmup=0.0, batch_size=8, lora=LoraConfig(r=8))
    done, _ = finetune(
        rows,
        engine.trainer(),
        settings,
        ObjectiveConfig(name="distil", settings={"distil": {"top_k": top_k}}),
        1,
        lambda told, lines, save: log.extend(map(msgspec.json.decode, lines)),
        teacher=TEACHER,
    )
    return done, log


def test_the_policy_comes_to_say_what_its_teacher_says_and_rows_without_one_are_counted() -> None:
    """No reward is needed: right and wrong answers teach alike."""
    engine = tiny.engine()
    rows = generate([TASK, BARE], engine, GenerateConfig(n=4, max_new_tokens=6), 1, round_index=1)
    done, log = run([replace(row, reward=0.0) for row in rows], engine)
    assert (done.rows, done.dropped) == (4, {"nothing_to_show": 4})
    asked = engine.encode_chat(teacher_prompt(rows[0], TEACHER))
    assert len(asked) > len(rows[0].prompt_token_ids)
    # Read once, in spite of 60 steps, and no part of what was sampled or trained on.
    assert done.teacher_tokens == 4 * len(asked) + sum(len(row.token_ids) for row in rows[:4])
    assert done.cost.spent == done.trained_tokens == sum(step["tokens"] for step in log)
    assert math.isfinite(log[0]["loss"]) and 0.0 <= log[-1]["loss"] < 0.1 * log[0]["loss"]
    assert log[-1]["metrics"]["agreement"] > log[0]["metrics"]["agreement"]
    assert 0.0 < log[0]["metrics"]["entropy"] < 6.0


def test_without_references_what_the_rewards_say_of_each_answer_teaches_it() -> None:
    """A task without a reference, scored by its length: 1 word of the 2 to 3 that are wanted, 5, and an
    answer that no reward had anything to say of. What is learnt is the divergence from what the bare model
    says under the prompt that is written out here, of each answer its own."""
    engine = tiny.engine()
    texts = {"short": "42", "long": "the answer is 42 again", "mute": "no"}
    rows = [replace(answered(BARE), id=name, text=text) for name, text in texts.items()]
    [lengths] = build([parse_spec("length")], RewardOptions(settings={"length": {"min": 2, "max": 3}}))
    done, log = run([*score(rows[:2], [lengths]), replace(rows[2], reward=0.5)], engine, top_k=303)
    assert (done.rows, done.dropped) == (2, {"nothing_to_show": 1})
    total, tokens = torch.zeros(()), 0
    for text, words in ((texts["short"], "1 words"), (texts["long"], "5 words")):
        shown = f"17 + 25?\n\n(Of an earlier answer: - length: {words})"
        answer = engine.encode_answer(text)
        s, q = (said(engine, content, answer) for content in ("17 + 25?", shown))
        total, tokens = total + (q.exp() * (q - s)).sum(), tokens + len(answer)
    assert log[0]["tokens"] == tokens
    assert log[0]["loss"] == pytest.approx(total.item() / tokens, rel=1e-4) and log[0]["loss"] > 0.01


def said(engine: Any, content: str, answer: tuple[int, ...]) -> torch.Tensor:
    """Nats of the bare model [tokens, vocabulary] where the answer's tokens stand behind this message."""
    prompt = engine.encode_chat((Message(role="user", content=content),))
    with torch.no_grad():
        logits = engine.model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0]
    return torch.Tensor(logits[len(prompt) - 1 : -1].log_softmax(-1))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_what_does_not_fit_behind_the_teachers_prompt_is_left_out_and_counted(kind: str) -> None:
    """gpt2 has learnt positions and crashed in its table; llama read on where it never learnt to read. The
    limit is prompt and answer together: the row that fills the context to its last token is learnt from."""
    room = tiny.engine(kind)
    [row] = generate([TASK], room, GenerateConfig(n=1, max_new_tokens=6), 1, round_index=1)
    row = replace(row, reward=1.0)
    longer = replace(row, id="longer", task=replace(TASK, references=("42.",)))
    asked = len(room.encode_chat(teacher_prompt(row, TEACHER)))
    assert len(room.encode_chat(teacher_prompt(longer, TEACHER))) == asked + 1
    full = tiny.engine(kind, max_position_embeddings=asked + len(row.token_ids))
    done, _ = run([row, longer], full)
    assert (done.rows, done.dropped) == (1, {"too_long_for_the_teacher": 1})
    with pytest.raises(NothingToLearnError, match="none of 1 rows: 1 too long for the teacher"):
        run([longer], full)


def test_where_no_row_has_a_teacher_it_is_said_what_is_missing() -> None:
    with pytest.raises(NothingToLearnError, match="distil needs something to show its teacher"):
        run([answered(BARE, reward=1.0)], tiny.engine())
