"""Data of other programs: ShareGPT, alpaca, preferences. As tasks, and as what a fine-tune learns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET
from test_task_sources import question, refused, tasks_of

from selfrefine.cli.stream import read_lessons
from selfrefine.errors import DataError
from selfrefine.records import encode
from selfrefine.tasks import TaskOptions, load

Turns = list[dict[str, str]]


def turns(*texts: str, names: tuple[str, str] = ("human", "gpt"), keys: str = "from value") -> Turns:
    who, what = keys.split()
    return [{who: names[i % 2], what: text} for i, text in enumerate(texts)]


def chat(*texts: str) -> Turns:
    return turns(*texts, names=("user", "assistant"), keys="role content")


ME = ("Me.",)
TALK = ["q1", "a1", "q2"]
KIND = {"role": "system", "content": "Be kind."}
SHARED: dict[str, tuple[dict[str, Any], list[str], tuple[str, ...]]] = {
    # It said: role None cannot be used.
    "ShareGPT": ({"conversations": turns("Who?", "Me.")}, ["Who?"], ME),
    "a longer talk": ({"conversations": turns("Hi", "Yes?", "Who?", "Me.")}, ["Hi", "Yes?", "Who?"], ME),
    "no answer yet": ({"conversations": turns("Who?")}, ["Who?"], ()),
    "a system column": (
        {"system": "Be kind.", "conversations": turns("Who?", "Me.")}, ["Be kind.", "Who?"], ME
    ),
    "under another name": ({"messages": turns("Who?", "Me.", names=("user", "chatgpt"))}, ["Who?"], ME),
    "alpaca": ({"instruction": "Sort.", "input": "b a", "output": "a b"}, ["Sort.\n\nb a"], ("a b",)),
    "alpaca without input": ({"instruction": "Say hi.", "input": "", "output": "Hi."}, ["Say hi."], ("Hi.",)),
    "Dolly": ({"instruction": "Who?", "context": "I am.", "response": "Me."}, ["Who?\n\nI am."], ME),
    "a completion": ({"prompt": "2+2?", "completion": "4"}, ["2+2?"], ("4",)),
    "a completion as a chat": ({"prompt": chat("2+2?"), "completion": [chat("", "4")[1]]}, ["2+2?"], ("4",)),
    "a preference": ({"prompt": "2+2?", "chosen": "4", "rejected": "5"}, ["2+2?"], ("4",)),
    "a preference of whole chats": (
        {"prompt": "2+2?", "chosen": chat("2+2?", "4"), "rejected": chat("2+2?", "5")}, ["2+2?"], ("4",)
    ),
    "a preference with its prompt inside": (
        {"chosen": chat("2+2?", "4"), "rejected": chat("2+2?", "5")}, ["2+2?"], ("4",)
    ),
    # The rest: what columns hold of the chat besides the prompt was dropped, and q2's answer learnt as q1's.
    "a preference that goes on": (
        {"prompt": "q1", "chosen": chat(*TALK, "4"), "rejected": chat(*TALK, "5")}, TALK, ("4",)
    ),
    "a preference that goes on after a list": (
        {"prompt": chat("q1"), "chosen": chat(*TALK, "4"), "rejected": chat(*TALK, "5")}, TALK, ("4",)
    ),
    "a preference that goes on after the prompt": (
        {"prompt": "q1", "chosen": chat(*TALK, "4")[1:], "rejected": chat(*TALK, "5")[1:]}, TALK, ("4",)
    ),
    "a preference with its last question as the prompt": (  # Capybara
        {"prompt": "q2", "chosen": chat(*TALK, "4"), "rejected": chat(*TALK, "5")}, TALK, ("4",)
    ),
    "a preference with a system message inside": (
        {"prompt": "q", "chosen": [KIND, *chat("q", "4")], "rejected": [KIND, *chat("q", "5")]},
        ["Be kind.", "q"], ("4",),
    ),
    "a preference with a system message before": (
        {"prompt": [KIND, *chat("q")], "chosen": chat("q", "4"), "rejected": chat("q", "5")},
        ["Be kind.", "q"], ("4",),
    ),
    "a preference of TRL's explicit form": (
        {"prompt": [KIND, *chat(*TALK)], "chosen": chat("", "4")[1:], "rejected": chat("", "5")[1:]},
        ["Be kind.", *TALK], ("4",),
    ),
    "a preference of UltraFeedback": (
        {"prompt": "q ", "chosen": chat("q", "4"), "rejected": chat("q", "5"), "messages": chat("q", "4"),
         "score_chosen": 8.0}, ["q"], ("4",),
    ),
    "a preference beside a chat": (
        {"messages": [KIND, *chat("q", "4")], "chosen": "4", "rejected": "5"}, ["Be kind.", "q"], ("4",)
    ),
    "a preference of Orca": (  # the system column was dropped, and the pair not seen
        {"system": "Be kind.", "question": "q", "chosen": "4", "rejected": "5"}, ["Be kind.", "q"], ("4",)
    ),
    "a preference after a ShareGPT talk": (
        {"conversations": turns(*TALK), "chosen": turns("", "4")[1], "rejected": turns("", "5")[1]},
        TALK, ("4",),
    ),
    "a preference beside an answer": (  # it was the answer that was preferred
        {"question": "q", "answer": "four", "chosen": "4", "rejected": "5"}, ["q"], ("four",)
    ),
    "a completion of more turns": (
        {"prompt": chat("q1"), "completion": chat(*TALK, "4")[1:]}, TALK, ("4",)
    ),
    "a completion that repeats its prompt": (
        {"prompt": "q", "completion": [KIND, *chat("q", "4")]}, ["Be kind.", "q"], ("4",)
    ),
    "UltraChat": ({"prompt": "q1", "messages": chat(*TALK, "4")}, TALK, ("4",)),
    "UltraChat without an answer": ({"prompt": "q1", "messages": chat(*TALK)}, TALK, ()),
    "a prompt with ShareGPT": ({"prompt": "q1", "conversations": turns(*TALK, "4")}, TALK, ("4",)),
    "a prompt with a system column": (
        {"system": "Be kind.", "prompt": "q", "completion": "4"}, ["Be kind.", "q"], ("4",)
    ),
    "a system column that repeats the chat's": (
        {"system": "Be kind.", "messages": [KIND, *chat("q", "4")]}, ["Be kind.", "q"], ("4",)
    ),
    "alpaca with a history": (
        {"instruction": "q2", "input": "", "output": "4", "history": [["q1", "a1"]]}, TALK, ("4",)
    ),
    "no history": ({"instruction": "q", "input": "", "output": "4", "history": None}, ["q"], ("4",)),
    # Foreign columns of these names.
    "messages that are no chat": ({"prompt": "q", "messages": 3, "completion": "4"}, ["q"], ("4",)),
    "a number of messages": ({"prompt": "q", "messages": [3]}, ["q"], ()),
    "a system of another kind": ({"prompt": "q", "system": {"os": "x"}, "completion": "4"}, ["q"], ("4",)),
    "references of its own": ({"prompt": "2+2?", "chosen": "4", "references": ["four"]}, ["2+2?"], ("four",)),
}  # fmt: skip


@pytest.mark.parametrize("what", SHARED)
def test_rows_of_other_programs_are_tasks(what: str) -> None:
    row, prompt, references = SHARED[what]
    [task] = tasks_of(json.dumps(row))
    assert ([m.content for m in task.prompt], task.references) == (prompt, references)
    assert task.prompt[-1].role == "user"


def test_what_a_row_was_taken_for_is_said_once(tmp_path: Path) -> None:
    path, said = tmp_path / "mine.jsonl", list[str]()
    path.write_text("\n".join(json.dumps(SHARED[what][0]) for what in ("alpaca", "alpaca without input")))
    list(load(str(path), TaskOptions(say=said.append)))
    assert said == [f"{path}: alpaca rows (instruction, input); the reference is `output`"]
    path.write_text('{"prompt": "x"}\n{"question": "y", "answer": "z"}')
    list(load(str(path), TaskOptions(say=said.append)))
    assert len(said) == 1  # what the documentation calls a task needs no word


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"conversations": [{"from": "function", "value": "x"}]}, ["message 1", "'function'"]),
        ({"conversations": "x"}, []),
        ({"instruction": "x", "input": 5}, ["instruction and input"]),
        ({"chosen": "x", "rejected": "y"}, ["no prompt column"]),
        ({"chosen": chat("a", "b"), "rejected": chat("c", "d")}, ["same prompt"]),
        ({"prompt": "x", "chosen": chat("a")}, ["chosen", "not the assistant's"]),
        # What was trained was the answer to another question, or the answers to two.
        (
            {"prompt": "q", "chosen": chat("OTHER", "4"), "rejected": chat("OTHER", "5")},
            ["prompt and chosen disagree", "correct one of them"],
        ),
        ({"prompt": "q", "chosen": "4", "rejected": chat("OTHER", "5")}, ["prompt and rejected disagree"]),
        (
            {
                "prompt": "q1",
                "chosen": chat("", "a1", "q2", "4")[1:],
                "rejected": chat("", "z1", "q2", "5")[1:],
            },
            ["chosen and rejected do not begin with the same prompt"],
        ),
        ({"prompt": "q1", "chosen": "4", "rejected": chat(*TALK, "5")}, ["chosen and rejected do not begin"]),
        (
            {"prompt": "q", "chosen": chat("q", "4"), "rejected": [KIND, *chat("q", "5")]},
            ["chosen and rejected do not begin"],
        ),
        (
            {"prompt": [KIND, *chat("q")], "chosen": [KIND | {"content": "Be rude."}, *chat("q", "4")]},
            ["prompt and chosen have different system messages"],
        ),
        ({"prompt": "q", "completion": chat("OTHER", "4")}, ["prompt and completion disagree"]),
        ({"prompt": "q", "messages": chat("OTHER", "4")}, ["prompt and messages disagree"]),
        (
            {"messages": chat("q", "x"), "chosen": "4", "rejected": "5"},
            ["messages ends with another answer than chosen"],
        ),
        (
            {"system": "Be rude.", "messages": [KIND, *chat("q", "4")]},
            ["the column system and messages have different system messages"],
        ),
        (
            {"instruction": "q", "output": "4", "history": "q1"},
            ["history is not a list of [question, answer]"],
        ),
        ({"instruction": "q", "output": "4", "history": [["q1", None]]}, ["history is not text"]),
    ],
)
def test_what_cannot_be_taken_says_why(row: dict[str, Any], words: list[str]) -> None:
    if words:
        refused(json.dumps(row), "stdin:1", *words)
    else:
        assert question(tasks_of(json.dumps(row))[0]) == "x"


def lessons(tmp_path: Path, *rows: dict[str, Any], said: list[str] | None = None) -> list[Any]:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n" + "\n".join(map(json.dumps, rows)))
    return list(read_lessons(str(path), ([] if said is None else said).append))


@pytest.mark.parametrize("what", [name for name in SHARED if name.startswith("a preference")])
def test_a_preference_is_a_pair_to_learn(what: str, tmp_path: Path) -> None:
    """`finetune prefs.jsonl --objective dpo`, as with any other trainer."""
    said: list[str] = []
    found = lessons(tmp_path, SHARED[what][0], SHARED[what][0], said=said)
    assert [row.text for row in found] == ["4", "5"] * 2
    assert [row.lesson.role for row in found] == ["chosen", "rejected"] * 2
    pairs = [row.lesson.pair for row in found]
    assert pairs[0] == pairs[1] != pairs[2] == pairs[3]  # the same pair twice is two pairs
    assert len({row.id for row in found}) == 4
    assert found[0].context == found[1].context and b"rejected" not in encode(found[0].task)
    assert [message.content for message in found[0].context] == SHARED[what][1]
    assert said[-1].endswith("2 chosen · 2 rejected")


def test_what_the_user_names_is_not_held_against_other_columns() -> None:
    """The way out where columns disagree, or where one of them is not meant."""
    row = {"prompt": "q", "messages": [KIND, *chat("OTHER", "4")], "system": "Be rude."}
    [task] = tasks_of(json.dumps(row), prompt_field="prompt")
    assert [message.content for message in task.prompt] == ["Be rude.", "q"]
    [task] = tasks_of(json.dumps(row), prompt_field="messages", system="Be brief.")
    assert [message.content for message in task.prompt] == ["Be brief.", "OTHER"]
    assert task.references == ("4",)
    pair = {"prompt": "q", "gold": "4", "chosen": chat("OTHER", "5"), "rejected": chat("OTHER", "6")}
    [task] = tasks_of(json.dumps(pair), reference_field="gold")
    assert (question(task), task.references) == ("q", ("4",))


def test_a_task_that_was_made_from_a_preference_is_read_again() -> None:
    """A template changes its question, which `rejected` then no longer begins with: no contradiction."""
    row = {"prompt": "q1", "chosen": chat(*TALK, "4"), "rejected": chat(*TALK, "5")}
    [task] = tasks_of(json.dumps(row), suffix=" Be brief.")
    assert question(task) == "q2 Be brief."
    assert tasks_of(encode(task)) == [task]


def test_labels_and_plain_answers_are_learnt_as_such(tmp_path: Path) -> None:
    good, bad = ({"prompt": f"{n}?", "completion": "x", "label": n > 0} for n in (1, 0))
    assert [row.lesson.role for row in lessons(tmp_path, good, bad)] == ["chosen", "rejected"]
    one, zero = good | {"label": 1}, bad | {"label": 0}  # a bad answer must not be learnt as a plain one
    assert [row.lesson.role for row in lessons(tmp_path, one, zero)] == ["chosen", "rejected"]
    found = lessons(tmp_path, SHARED["ShareGPT"][0], SHARED["a longer talk"][0])
    assert [(row.text, row.lesson.role, row.lesson.pair) for row in found] == [("Me.", "learn", None)] * 2


def test_a_task_of_ours_is_not_learnt_by_mistake(tmp_path: Path) -> None:
    """`selfrefine tasks … | selfrefine finetune` forgot `generate`: its references are not to be learnt."""
    with pytest.raises(DataError, match=r"rows.jsonl:2: this is a task.*selfrefine generate"):
        lessons(tmp_path, {"id": "a", "prompt": chat("2+2?"), "references": ["4"]})
    with pytest.raises(DataError, match="no answer to learn"):
        lessons(tmp_path, SHARED["no answer yet"][0])


@pytest.mark.parametrize("levels", [10, 500])
def test_what_a_foreign_column_holds_is_passed_on_unread(levels: int) -> None:
    deep = "[" * levels + "1.50" + "]" * levels
    [task] = tasks_of('{"prompt": "x", "deep": ' + deep + "}")
    assert task.extra is not UNSET and f'"deep":{deep}'.encode() in encode(task)
