"""What a policy wrote becomes a task only where a program knows the answer; the answer is the program's."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfrefine.errors import ConfigError
from selfrefine.records import Message, Task
from selfrefine.tasks.families import Family


def given(text: str, **more: object) -> Task:
    return Task(id=text, prompt=(Message(role="user", content=text),), **more)  # type: ignore[arg-type]


SUM = given(
    "Work out 82 + 87 - 5 = Just the number.",
    references=("164",),
    tags={"difficulty": "old"},
    meta={"gym": {"dataset": "chain_sum", "entry": {"answer": "164"}}},
)


@pytest.mark.parametrize(
    ("text", "asked", "answer"),
    [
        ("17 + 25 - 4", "17 + 25 - 4", "38"),
        ("What is 17+25-4?", "17 + 25 - 4", "38"),
        ("1. 17 + 25 + 0 = 43", "17 + 25 + 0", "42"),  # what it takes for the answer is not believed
        ("\n\n3 – 9 - 1.", "3 - 9 - 1", "-7"),
        ("007 + 1 + 1", "7 + 1 + 1", "9"),
    ],
)
def test_a_sum_is_asked_in_the_words_of_a_given_one_and_answered_by_the_program(
    text: str, asked: str, answer: str
) -> None:
    task = Family("sums", {}, [SUM]).read(text, SUM)
    assert isinstance(task, Task)
    assert task.prompt[-1].content == f"Work out {asked} = Just the number."
    assert task.references == (answer,)
    assert task.meta == {"gym": {"dataset": "chain_sum"}}  # its entry has the answer to another sum
    assert set(task.tags) == {"difficulty"} and task.tags["difficulty"].endswith("num_terms=3")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not a sum"),
        ("two plus two", "not a sum"),
        ("2 * 3 + 4 - 1", "not a sum"),  # not its tail
        ("1.5 + 2 + 3", "not a sum"),
        ("-5 + 3 + 1", "not a sum"),
        ("1 + 2 + 3.5", "not a sum"),
        ("In 3 steps: 1 + 2 + 3", "not a sum"),
        ("1 + 2", "too few or too many"),
        ("1 + 2 + 100", "a number too long"),
        ("1 + " * 200 + "1", "not a sum"),
    ],
)
def test_what_is_no_sum_of_the_given_kind_is_none(text: str, why: str) -> None:
    found = Family("sums", {}, [SUM]).read(text, SUM)
    assert isinstance(found, str) and found.startswith(why)


def test_bounds_can_be_set() -> None:
    family = Family("sums", {"min_terms": 2, "max_terms": 2, "max_digits": 3}, [SUM])
    assert isinstance(family.read("1 + 100", SUM), Task)
    assert isinstance(family.read("1 + 100 + 1", SUM), str)


def test_words_are_a_set() -> None:
    like = given("Use: ball, dog, run.", meta={"concepts": ["ball", "dog", "run"]})
    family = Family("concepts", {}, [like])
    task = family.read("Tree, cat, jump", like)
    assert isinstance(task, Task) and task.prompt[-1].content == "Use: cat, jump, tree."
    assert task.meta == {"concepts": ["cat", "jump", "tree"]}
    for text in ("tree, cat", "tree, cat, cat", "a tall tree, cat, dog", "<|im_end|>, cat, dog", ""):
        assert isinstance(family.read(text, like), str), text


def test_a_family_must_know_the_runs_tasks() -> None:
    with pytest.raises(ConfigError, match="none of the training tasks is of this kind"):
        Family("sums", {}, [given("Name a colour.")])
    with pytest.raises(ConfigError, match="max_terms"):
        Family("sums", {"max_term": 3}, [SUM])


def test_a_function_in_a_file_is_a_family(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from msgspec.structs import replace\n"
        "def doubles(text, like):\n"
        '    """a word to double"""\n'
        "    if not text.isalpha(): return 'no word'\n"
        "    message = replace(like.prompt[-1], content=f'Double {text}.')\n"
        "    return replace(like, prompt=(message,), references=(text * 2,))\n"
        "def broken(text, like): return 1 / 0\n"
    )
    like = given("Double ab.", references=("abab",))
    family = Family(f"{tmp_path}/mine.py:doubles", {}, [like])
    task = family.read("cd", like)
    assert isinstance(task, Task) and task.references == ("cdcd",)
    assert family.read("3", like) == "no word" and family.kind.about == "a word to double"
    with pytest.raises(ConfigError, match="its file failed"):
        Family(f"{tmp_path}/mine.py:broken", {}, [like]).read("x", like)


def test_what_a_file_gives_that_cannot_be_asked_is_refused_with_the_text_it_came_from(tmp_path: Path) -> None:
    """Of 256 texts the one that broke the function must be known; half a surrogate pair was "row : not...".

    Without a docstring the policy was asked to "Write a function in a file".
    """
    like = given("Work out 1 + 1")
    (tmp_path / "mine.py").write_text(
        "from selfrefine.records import Message, Task\n"
        "def task(role, text): return Task(id='', prompt=(Message(role=role, content=text),))\n"
        "def half(text, like): return task('user', '\\ud83d')\n"
        "def turned(text, like): return task('assistant', text)\n"
        "def silent(text, like): return ''\n"
        "def sums(text, like):\n    'Sums of two numbers.'\n    return text\n"
    )
    for name, why in (
        ("half", "not UTF-8"),
        ("turned", "the last message of a task is the user's, not the assistant's"),
        ("silent", "not an empty str"),
    ):
        with pytest.raises(ConfigError, match=rf"{why}; the text was 'one two'"):
            Family(f"{tmp_path}/mine.py:{name}", {}, [like]).read("one two", like)
    abouts = [Family(f"{tmp_path}/mine.py:{name}", {}, [like]).kind.about for name in ("half", "sums")]
    assert abouts == ["a task", "Sums of two numbers"]
