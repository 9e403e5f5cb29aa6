"""Task sources: what is recognised, what is refused and in which words, and what never happens silently."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from itertools import islice
from pathlib import Path

import msgspec
import pytest

from selfrefine.errors import ConfigError, DataError, UsageError
from selfrefine.records import Message, Task, encode
from selfrefine.tasks import SOURCES, TaskOptions, listing, load
from selfrefine.tasks.base import content_id


def tasks_of(text: str | bytes, **options: object) -> list[Task]:
    data = text if isinstance(text, bytes) else text.encode()
    return list(load("-", TaskOptions(**options), io.BytesIO(data)))  # type: ignore[arg-type]


def question(task: Task) -> str:
    return task.prompt[-1].content


def refused(text: str | bytes, *words: str, **options: object) -> None:
    with pytest.raises(DataError) as caught:
        tasks_of(text, **options)
    for word in words:
        assert word in str(caught.value)


# --- shapes of a row

PARTS = '{"type":"text","text":"2+"},{"type":"text","text":"2?"}'


@pytest.mark.parametrize(
    ("row", "prompt", "references"),
    [
        ('{"id":"a","prompt":[{"role":"user","content":"2+2?"}],"references":["4"]}', "2+2?", ("4",)),
        ('{"prompt":"2+2?"}', "2+2?", ()),
        ('{"prompt":"2+2?","references":["4","four"]}', "2+2?", ("4", "four")),
        ('{"question":"2+2?","answer":"4"}', "2+2?", ("4",)),
        ('{"question":"2+2?","answer":4.50}', "2+2?", ("4.50",)),  # a number as it was spelled
        ('{"question":"2+2?","answer":["4",5]}', "2+2?", ("4", "5")),
        ('{"question":"2+2?","answer":null}', "2+2?", ()),
        ('{"messages":[{"role":"user","content":"2+2?"}]}', "2+2?", ()),
        ('{"prompt":[{"role":"user","content":[{"type":"text","text":"2+2?"}]}]}', "2+2?", ()),
        ('{"prompt":[{"role":"user","content":[' + PARTS + "]}]}", "2+2?", ()),
    ],
)  # fmt: skip
def test_recognised_rows(row: str, prompt: str, references: tuple[str, ...]) -> None:
    [task] = tasks_of(row)
    assert (question(task), task.references, task.prompt[-1].role) == (prompt, references, "user")


def test_the_last_assistant_message_is_the_reference_and_leaves_the_prompt() -> None:
    """Left in, the model would be shown the answer it is asked for."""
    chat = [
        ("system", "Be brief."),
        ("user", "2+2?"),
        ("assistant", "5"),
        ("user", "No."),
        ("assistant", "4"),
    ]
    row = {"messages": [{"role": r, "content": c} for r, c in chat]}
    [task] = tasks_of(msgspec.json.encode(row))
    assert [m.content for m in task.prompt] == ["Be brief.", "2+2?", "5", "No."]
    assert task.references == ("4",)


def test_foreign_columns_travel_and_used_ones_move() -> None:
    [task] = tasks_of('{"question":"q","answer":"a","level": 1.50,"who":{"x":[1]}}')
    row = encode(task)
    assert b'"level":1.50' in row and b'"who":{"x":[1]}' in row
    assert b'"question"' not in row and b'"answer"' not in row


def test_rows_of_concepts_become_the_constrained_text_task() -> None:
    """CommonGen's own rows: {"concepts": [...]}, here with a reference under a name of its own."""
    row = '{"concepts":["dog","catch"],"target":"The dog catches it.","meta":{"set":7}}'
    [task] = tasks_of(row, reference_field="target")
    assert question(task) == "Write one short sentence that uses all of these words: dog, catch."
    assert task.meta == {"set": 7, "concepts": ["dog", "catch"]}
    assert task.references == ("The dog catches it.",)
    assert question(tasks_of(row, template="Use {source}")[0]) == "Use dog, catch"
    for bad in ('{"concepts":"dog"}', '{"concepts":[]}', '{"concepts":["dog",1]}'):
        refused(bad, "stdin:1")
    refused('{"concepts":["dog"],"meta":[1]}', "stdin:1", "meta")


def test_other_field_names() -> None:
    [task] = tasks_of('{"text":"q","label":["a","b"]}', prompt_field="text", reference_field="label")
    assert (question(task), task.references) == ("q", ("a", "b"))
    refused('{"text":"q","label":"a"}', "stdin:1", "text, label", "--prompt-field")
    refused('{"text":"q"}', "stdin:1", "'label'", prompt_field="text", reference_field="label")


def test_template_suffix_and_system_reach_the_last_user_message_and_braces_are_data() -> None:
    row = '{"messages":[{"role":"user","content":"Hi"},{"role":"user","content":"{n} {source}?"}]}'
    [task] = tasks_of(row, template="Q: {source}", suffix=" Just the number.", system="Be brief.")
    assert [(m.role, m.content) for m in task.prompt] == [
        ("system", "Be brief."),
        ("user", "Hi"),
        ("user", "Q: {n} {source}? Just the number."),
    ]
    with pytest.raises(ConfigError, match="source"):
        tasks_of(row, template="no place for the text")


# --- ids


def test_a_missing_id_comes_from_the_content_and_is_the_same_in_any_file() -> None:
    """sha256 of {"prompt":[{"role":"user","content":"2+2?"}],"references":["4"]}, first 16 hex digits."""
    [asked] = tasks_of('{"question":"2+2?","answer":"4"}')
    [own] = tasks_of('\n{"references":["4"],"prompt":[{"content":"2+2?","role":"user"}],"tags":{"a":"b"}}')
    canonical = b'{"prompt":[{"content":"2+2?","role":"user"}],"references":["4"]}'
    assert asked.id == own.id == hashlib.sha256(canonical).hexdigest()[:16]
    assert tasks_of('{"id":17,"prompt":"x"}')[0].id == "17"


def test_a_repeated_row_without_id_is_kept_under_another_id() -> None:
    """`generate` must answer every row it was given; `splits` drops the repeat and counts it."""
    first, second = tasks_of('{"prompt":"x"}\n{"prompt":"x"}')
    assert first.id == content_id(first) and second.id == content_id(second, occurrence=2)
    assert first.id != second.id


def test_a_repeated_id_is_an_error_naming_both_lines() -> None:
    refused('{"id":"a","prompt":"x"}\n\n{"id":"a","prompt":"y"}', "stdin:3", "stdin:1", "'a'")


# --- bad rows


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ["stdin is empty"]),
        (b"\n \n", ["no tasks"]),
        (b'{"prompt":"x"}\n{"prompt":"\xff"}\n', ["stdin:2", "not UTF-8"]),
        (b'{"prompt":"x"}\n{"prompt":\n', ["stdin:2", "broken JSON"]),
        (b'{"prompt":"\\ud83d"}\n', ["stdin:1", "lone surrogate"]),
        (b'{"prompt":NaN}\n', ["stdin:1", "NaN is not a JSON number"]),
        (b'[{"prompt":"x"}]\n', ["stdin:1", "array", "jq"]),
        (b'{"prompt":"x"}\n["x"]\n', ["stdin:2", "not a JSON object"]),
        (b'{"prompt":" "}\n', ["stdin:1", "blank"]),
        (b'{"prompt":[]}\n', ["stdin:1", "list of messages"]),
        (b'{"prompt":7}\n', ["stdin:1", "list of messages"]),
        (b'{"prompt":[{"role":"tool","content":"x"}]}\n', ["stdin:1", "message 1", "'tool'"]),
        (b'{"prompt":[{"role":"assistant","tool_calls":[{}]}]}\n', ["stdin:1", "tool calls"]),
        (b'{"prompt":[{"role":"user","content":[{"type":"image_url"}]}]}\n', ["stdin:1", "image_url"]),
        (b'{"prompt":[{"role":"user","content":null}]}\n', ["stdin:1", "not text"]),
        (b'{"prompt":[{"role":"assistant","content":"x"}]}\n', ["stdin:1", "end with a user message"]),
        (b'{"prompt":"x","references":"y"}\n', ["stdin:1", "$.references"]),
        (b'{"question":"x","answer":{"text":"y"}}\n', ["stdin:1", "answer is not text"]),
        (b'{"id":true,"prompt":"x"}\n', ["stdin:1", "$.id"]),
        (b'{"id":"a","task":{},"text":"y"}\n', ["stdin:1", "an answer, not a task", ".task"]),
    ],
)  # fmt: skip
def test_bad_rows_say_where_and_why(data: bytes, words: list[str]) -> None:
    refused(data, *words)


def test_a_line_separator_inside_a_string_does_not_break_the_line() -> None:
    """str.splitlines cuts at U+2028, U+0085 and form feed; JSON Lines end at \\n only."""
    [task] = tasks_of('{"prompt":"one\u2028two\u0085three"}\r\n')
    assert question(task) == "one\u2028two\u0085three"


def test_a_byte_order_mark_is_not_part_of_the_first_row() -> None:
    assert question(tasks_of(b'\xef\xbb\xbf{"prompt":"x"}')[0]) == "x"


def test_rows_are_read_as_they_are_asked_for(tmp_path: Path) -> None:
    """A bad third line must not be reached by -n 2, nor hold back the first two in a pipe."""
    path = tmp_path / "tasks.jsonl"
    path.write_text('{"prompt":"a"}\n{"prompt":"b"}\nbroken\n')
    assert len(list(load(str(path), TaskOptions(n=2)))) == 2
    stream = load(str(path), TaskOptions())
    assert [question(t) for t in islice(stream, 2)] == ["a", "b"]
    with pytest.raises(DataError, match=r"tasks.jsonl:3: broken"):
        next(stream)


# --- files


def test_text_file_is_a_prompt_a_line(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes("Say hi.\r\n\nSay \u2028 ho.".encode())
    assert [question(t) for t in load(str(path), TaskOptions(suffix="!"))] == ["Say hi.!", "Say \u2028 ho.!"]
    path.write_text("BZhang is a name.\n")  # bzip2 data begin with BZh, too
    assert [question(t) for t in load(str(path), TaskOptions())] == ["BZhang is a name."]
    path.write_bytes(b"ok\n\xe9t\xe9\n")
    with pytest.raises(DataError, match=r"prompts.txt:2: not UTF-8"):
        list(load(str(path), TaskOptions()))
    path.write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        list(load(str(path), TaskOptions()))


def test_what_cannot_be_found_is_named_and_the_nearest_offered(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing.jsonl: No such file"):
        list(load(str(tmp_path / "missing.jsonl"), TaskOptions()))
    with pytest.raises(DataError, match="Is a directory"):
        list(load(str(tmp_path), TaskOptions()))
    with pytest.raises(ConfigError, match=r"did you mean gym:chain_sum\?"):
        load("gim:chain_sum", TaskOptions())
    with pytest.raises(UsageError):
        load("-", TaskOptions())
    with pytest.raises(UsageError, match="not 0"):
        load("gym:chain_sum", TaskOptions(n=0))


@pytest.mark.parametrize("source", ["gym:chain_sum", "concepts:4", "p.txt"])
def test_an_option_is_never_parsed_and_then_ignored(source: str, tmp_path: Path) -> None:
    if source == "p.txt":
        source = str(tmp_path / source)
    with pytest.raises(ConfigError, match="does not use prompt_field"):
        list(load(source, TaskOptions(prompt_field="text")))


def aligned(folder: Path, source: str, target: str, suffix: str = "fr") -> str:
    (folder / "val.en").write_text(source)
    (folder / f"val.{suffix}").write_text(target)
    return f"parallel:{folder / 'val.en'},{folder / f'val.{suffix}'}"


def test_parallel_files_pair_line_by_line(tmp_path: Path) -> None:
    source = aligned(tmp_path, "A dog.\n\nTwo\u2028cats.\n", "Un chien.\n\nDeux chats.")
    tasks = list(load(source, TaskOptions()))
    assert [question(t) for t in tasks] == [
        "Translate this sentence into French.\nA dog.",
        "Translate this sentence into French.\nTwo\u2028cats.",
    ]
    assert [t.references for t in tasks] == [("Un chien.",), ("Deux chats.",)]


def test_parallel_files_that_are_not_aligned_give_no_task_at_all(tmp_path: Path) -> None:
    """After a lost line every pair is wrong, so -n 1 must not get through either."""
    with pytest.raises(DataError, match=r"val.en has 2 lines and .*val.fr has 1"):
        list(load(aligned(tmp_path, "a\nb\n", "c\n"), TaskOptions(n=1)))
    with pytest.raises(DataError, match=r"val.fr:2: blank"):
        list(load(aligned(tmp_path, "a\nb\n", "c\n\n"), TaskOptions()))


def test_parallel_target_language_is_never_guessed(tmp_path: Path) -> None:
    source = aligned(tmp_path, "a\n", "b\n", suffix="target")
    with pytest.raises(ConfigError, match="--template"):
        list(load(source, TaskOptions()))
    [task] = load(source, TaskOptions(template="Into Latin: {source}"))
    assert question(task) == "Into Latin: a"
    with pytest.raises(ConfigError, match="two files"):
        list(load("parallel:only.en", TaskOptions()))


# --- the house


def test_every_source_is_listed_and_every_example_names_a_source_that_exists() -> None:
    spellings = {kind.spelling.partition(":")[0] for kind in listing()}
    assert set(SOURCES) - {"jsonl", "text"} <= spellings
    assert all(kind.example.count("selfrefine tasks ") == 1 for kind in listing())


def test_one_gym_dataset_does_not_import_the_hundred_others() -> None:
    """They bring matplotlib and sympy. Whoever imports the library afterwards gets all of it."""
    code = (
        "import sys\n"
        "from selfrefine.tasks import load\n"
        "from selfrefine.tasks.base import TaskOptions\n"
        "from selfrefine.rewards.gym import _scorer\n"
        "alone = list(load('gym:chain_sum', TaskOptions(n=3)))\n"
        "assert _scorer('chain_sum')[0] and _scorer('spell_backward')[0]\n"
        "print(sorted({'matplotlib', 'sympy'} & set(sys.modules)))\n"
        "import reasoning_gym\n"
        "print(reasoning_gym.arithmetic.ChainSumDataset is reasoning_gym.factory.DATASETS['chain_sum'][0])\n"
        "print(reasoning_gym.arithmetic.chain_sum.__name__, len(reasoning_gym.factory.DATASETS) > 90)\n"
        "print(alone == list(load('gym:chain_sum', TaskOptions(n=3))))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\nTrue\nreasoning_gym.arithmetic.chain_sum True\nTrue\n"


def test_reading_a_file_imports_neither_reasoning_gym_nor_torch() -> None:
    """reasoning-gym costs more than a second, and a pipe of five filters would pay it five times."""
    code = (
        "import io, sys\n"
        "from selfrefine.tasks import TaskOptions, load\n"
        "assert list(load('-', TaskOptions(), io.BytesIO(b'{\"prompt\":\"x\"}')))\n"
        "assert list(load('concepts:4', TaskOptions(n=2)))\n"
        "heavy = {'reasoning_gym', 'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_message_is_plain() -> None:
    assert tasks_of('{"prompt":"[/red]<|im_end|>\\u001b[31m"}')[0].prompt == (
        Message(role="user", content="[/red]<|im_end|>\x1b[31m"),
    )


@pytest.mark.parametrize("option", ["template", "suffix", "system"])
def test_an_argument_that_is_not_utf_8_is_refused_before_a_row_is_read(option: str) -> None:
    with pytest.raises(ConfigError, match="UTF-8"):
        load("gym:chain_sum", TaskOptions(**{option: "{source} caf\udce9"}))  # type: ignore[arg-type]
