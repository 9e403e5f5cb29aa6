"""A file of any length goes through a verb in the memory of a few windows; ids may cost 32 bytes a row."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import answer, environment, jsonl, task

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")

WARM = 3_000
"""Rows that fill every window and cache once: what comes after may only add to the id index."""
SLACK_MIB = 16
BYTES_A_ROW = 32
VERBS = {
    "tasks": ["tasks", "{tasks}"],
    "generate": ["generate", "{tasks}", "--model", "scripted", "-n", "1"],
    "critique": ["critique", "{samples}", "--model", "scripted:{rules}", "--max-new-tokens", "24"],
    "reward": ["reward", "{samples}", "-r", "numeric"],
}
# The peak never falls, so its growth from the first to the second command is what the rows cost at most. Not
# ru_maxrss: on Linux a child inherits its parent's, which hides everything below a pytest with torch in it.
CHILD = """
import sys
from selfrefine.cli import app
from selfrefine.cli.guard import guarded

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

few, many = (part.split("\\n") for part in sys.argv[1:3])
assert guarded(lambda: app(few)) == 0
before = peak()
assert guarded(lambda: app(many)) == 0
print(peak() - before)
"""


def write(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    with path.open("wb") as file:
        for row in rows:
            file.write(json.dumps(row).encode() + b"\n")


def growth(verb: list[str], count: int, folder: Path) -> int:
    """Peak memory in bytes that `count` rows need above WARM rows."""
    rules = [{"match": "What is [0-9]*00 ", "answers": ["No.\nVerdict: revise"]}]
    (folder / "rules").write_bytes(jsonl(*rules, {"match": "", "answers": ["Yes.\nVerdict: ok"]}))
    commands = []
    for rows in (WARM, count):
        tasks, samples = folder / f"tasks-{rows}.jsonl", folder / f"samples-{rows}.jsonl"
        if "{tasks}" in verb:
            write(tasks, (task(f"t{i}", f"What is {i} + 2?", str(i + 2)) for i in range(rows)))
        else:
            write(samples, (answer(f"t{i}.r0.s0", str(i), reward=0.5) for i in range(rows)))
        words = [word.format(tasks=tasks, samples=samples, rules=folder / "rules") for word in verb]
        commands.append("\n".join([*words, "-o", os.devnull]))
    child = [sys.executable, "-c", CHILD, *commands]
    done = subprocess.run(child, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("verb", VERBS)
def test_memory_does_not_grow_with_the_rows(verb: str, tmp_path: Path) -> None:
    """The trap: a list() somewhere in the pipe. Held rows would cost about 2 KB each, 32 MiB here."""
    rows = 20_000
    assert growth(VERBS[verb], rows, tmp_path) < rows * BYTES_A_ROW + SLACK_MIB * 2**20


def test_the_measurement_would_notice_rows_that_are_held(tmp_path: Path) -> None:
    """`select` needs all rows at once, by design: the same measurement must see them."""
    verb = ["select", "{samples}", "--select", "all", "--min-reward", "0", "--set", "select.dedupe=false"]
    rows = 15_000
    assert growth(verb, rows, tmp_path) > (rows - WARM) * 1_000


@pytest.mark.long
@pytest.mark.parametrize("verb", VERBS)
def test_a_million_rows(verb: str, tmp_path: Path) -> None:
    rows = 1_000_000
    assert growth(VERBS[verb], rows, tmp_path) < rows * BYTES_A_ROW + SLACK_MIB * 2**20
