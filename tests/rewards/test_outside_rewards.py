"""Rewards that are not ours: whatever they return, raise, print or change has a defined end.

A false 0 would be a lesson, and a print among the rows breaks the next stage of a pipe.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import msgspec
import pytest
from harness import answer, jsonl, refused, selfrefine
from making import LIMITS, samples, scored

from selfrefine import boundary
from selfrefine.boundary import Failed, behind
from selfrefine.errors import ConfigError
from selfrefine.rewards.base import Limits

ROWS = jsonl(answer("a.r0.s0"), answer("a.r0.s1", "4"))

VALUES = """
import asyncio
import decimal
import fractions
import numpy as np
from selfrefine.records import Reward


def number(value):
    return lambda sample: value


bool_ = number(np.bool_(True))
scalar = number(np.float32(0.25))
point = number(np.array(0.75))
decimal_ = number(decimal.Decimal("0.1"))
fraction = number(fractions.Fraction(1, 4))
true = number(True)
inside = number(Reward(name="x", value=np.float64(0.5), detail=decimal.Decimal(3)))
nan = number(decimal.Decimal("NaN"))
infinite = number(np.float64("inf"))
vector = number(np.array([0.5]))
complex_ = number(0.5 + 0j)
words = number("0.5")
negative = number(-0.1)
odd = number(Reward(name="x", value="high"))


def yields(sample):
    yield 0.5


async def waits(sample):
    await asyncio.sleep(0)
    return 0.5


async def refuses(sample):
    raise LookupError("nobody answers")


def deep(sample):
    return deep(sample)


def cancelled(sample):
    raise asyncio.CancelledError


def leaves(sample):
    exit(3)


def interrupts(sample):
    raise KeyboardInterrupt


class Mute(Exception):
    def __str__(self):
        raise ValueError


def mute(sample):
    raise Mute


def surrogate(sample):
    raise ValueError("cannot parse \\udc80\\nat all")


def detail(sample):
    return Reward(name="\\udc80", value=1, detail="bad \\udcff", signature="v\\udc81")


def reason(sample):
    return Reward(name="x", value=None, error="half \\ud83d a pair")


def long(sample):
    raise ValueError("x" * 100_000)


def meddles(sample):
    sample.task.meta["answer"] = sample.task.meta.pop("kept")
    return 1.0


def pair(samples):
    yield 0.25
    yield np.bool_(False)


async def gathers(samples):
    return [0.5, waits(samples[1])]


def forever(samples):
    while True:
        yield 0.5


def short(samples):
    return [0.5]


def nothing(samples):
    return None


def text(samples):
    return "01"


def mixed(samples):
    return {0.1, 0.9}


for one in (pair, gathers, forever, short, nothing, text, mixed):
    one.group = True
"""
EXPECTED: dict[str, tuple[float | None, str | None]] = {
    "bool_": (1.0, None),
    "scalar": (0.25, None),
    "point": (0.75, None),
    "decimal_": (0.1, None),
    "fraction": (0.25, None),
    "true": (1.0, None),
    "inside": (0.5, None),
    "nan": (None, "value nan is not a number in [0, 1]"),
    "infinite": (None, "value inf is not a number in [0, 1]"),
    "vector": (None, "the function returned ndarray of shape (1,), not a number"),
    "complex_": (None, "the function returned complex, not a number"),
    "words": (None, "the function returned str, not a number"),
    "negative": (None, "value -0.1 is not a number in [0, 1]"),
    "odd": (None, "its value is str, not a number"),
    "yields": (None, "the function returned a generator, not a number"),
    "waits": (0.5, None),
    "refuses": (None, "LookupError: nobody answers"),
    "deep": (None, "RecursionError: maximum recursion depth exceeded"),
    "cancelled": (None, "CancelledError"),
    "leaves": (None, "SystemExit: 3"),
    "interrupts": (None, "KeyboardInterrupt"),
    "mute": (None, "Mute: (its message cannot be shown)"),
    "surrogate": (None, "ValueError: cannot parse \\udc80 at all"),
    "detail": (1.0, None),
    "reason": (None, "half \\ud83d a pair"),
    "long": (None, "ValueError: " + "x" * 1000),
    "meddles": (1.0, None),
    "pair": (0.25, None),
    "gathers": (0.5, None),
    "forever": (None, "it returned more than 2 values for 2 samples"),
    "short": (None, "it returned 1 value for 2 samples"),
    "nothing": (None, "it returned NoneType, not a list of 2 values"),
    "text": (None, "it returned str, not a list of 2 values"),
    "mixed": (None, "it returned set, not a list of 2 values"),
}


@pytest.mark.parametrize("isolate", [None, LIMITS])
def test_whatever_a_reward_returns_or_raises_has_a_defined_end(
    isolate: Limits | None, tmp_path: Path
) -> None:
    """In a process of its own it comes to the same rewards, signatures included."""
    path = tmp_path / "mine.py"
    path.write_text(VALUES)
    rows = samples()
    found = {name: scored(f"{path}:{name}", rows, isolate=isolate) for name in EXPECTED}
    told = {name: (one.value, one.error) for name, (one, _) in found.items()}
    assert told == {name: (value, told[name][1] and why) for name, (value, why) in EXPECTED.items()}
    for name, (_, why) in EXPECTED.items():
        assert why is None or str(told[name][1]).startswith(why), name
    assert found["pair"][1].value == 0.0 and found["gathers"][1].value == 0.5
    detail = found["detail"][0]
    assert (detail.name, detail.detail) == (f"{path}:detail", "bad \\udcff")
    assert detail.signature.endswith("|fn:detail|v\\udc81")
    msgspec.json.encode(found)  # it was "bug: UnicodeEncodeError" when the rows were written
    assert all(row.task.meta == {"kept": [1]} for row in rows)  # "meddles" changed a copy


def test_what_a_reward_changes_in_the_process_is_changed_back(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "import os, signal, sys, io\n"
        "def f(sample):\n"
        "    signal.set_wakeup_fd(-1)\n"  # as asyncio does: a Ctrl-C was answered after the batch
        "    os.chdir('/')\n"
        "    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):\n"
        "        signal.signal(number, signal.SIG_IGN)\n"
        "    signal.alarm(100), signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})\n"
        "    sys.stdout.close(), sys.stderr.close()\n"
        "    sys.stdin, sys.stdout, sys.stderr = None, io.StringIO(), io.StringIO()\n"
        "    return 1.0\n"
    )
    before = Path.cwd(), signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), sys.stdout
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    signal.set_wakeup_fd(writes)
    assert [one.value for one in scored(f"{path}:f")] == [1.0, 1.0]
    assert signal.set_wakeup_fd(-1) == writes
    os.close(reads), os.close(writes)
    after = Path.cwd(), signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), sys.stdout
    assert before == after and not sys.stderr.closed
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_warning_is_told_once_with_the_rewards_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "import warnings\ndef f(sample):\n    warnings.warn(f'odd row {sample.id}')\n    return 1.0\n"
    )
    scored(f"{path}:f", samples(5))
    assert capsys.readouterr().err == f"reward {path}:f: UserWarning: odd row t.r0.s0 (mine.py:3)\n"


def test_the_users_ctrl_c_interrupts_and_a_rewards_own_does_not() -> None:
    """Inside a Python program: on the command line a Ctrl-C lets the batch finish first."""
    with pytest.raises(Failed, match="KeyboardInterrupt"), behind("x"):
        raise KeyboardInterrupt
    for swallowed in (False, True):
        with pytest.raises(KeyboardInterrupt), behind("x"):
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(1)
            except KeyboardInterrupt:
                if not swallowed:
                    raise
    with pytest.raises(KeyboardInterrupt), behind("x"), behind("a reward that it calls"):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)


HANGS = """
import time

def sleeps(sample):
    if sample.index == 0:
        time.sleep(60)
    return 1.0

def spins(sample):
    while sample.index == 0:
        try:
            sum(range(1000))
        except Exception:
            pass
    return 1.0

def swallows(sample):
    while sample.index == 0:
        try:
            time.sleep(60)
        except BaseException:
            return 0.0
    return 1.0
"""


@pytest.mark.parametrize("name", ["sleeps", "spins", "swallows"])
def test_a_call_that_hangs_costs_its_row(name: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(HANGS)
    late, well = scored(f"{path}:{name}", timeout_s=0.1)
    assert (late.value, late.error) == (None, "no answer within 0.1 s")
    assert well.value == 1.0
    with pytest.raises(Failed, match="no answer within"), behind("x", 0.1), behind("a reward that it calls"):
        time.sleep(5)


def test_names_are_checked_before_a_row_is_read_or_a_model_loaded(tmp_path: Path) -> None:
    """ "row 1 is broken" was the answer to a misspelt reward."""
    for words in (["reward", "-r"], ["critique", "-r"], ["evaluate", "-m"]):
        done = selfrefine(*words, "exakt", "--model", "/nowhere", stdin=b"no row\n", cwd=tmp_path)
        refused(done, 3, "no reward 'exakt'; did you mean 'exact'?")
    refused(selfrefine("reward", stdin=b"no row\n", cwd=tmp_path), 3, "no reward given: use -r NAME")
    gate = ["reward", "-r", "exact", "--gate-on", "exakt"]
    refused(selfrefine(*gate, stdin=b"no row\n", cwd=tmp_path), 3, "--gate-on exakt", "did you mean 'exact'")
    settings = ["reward", "-r", "numeric", "--set", "reward.numeric.tolerence=1"]
    refused(selfrefine(*settings, stdin=b"no row\n", cwd=tmp_path), 3, "reward.numeric.tolerence")
    refused(
        selfrefine("reward", "-r", "\udc80.py:f", stdin=ROWS, cwd=tmp_path), 3, "\\udc80.py:f", "not UTF-8"
    )


def test_a_time_limit_needs_the_main_thread() -> None:
    from concurrent.futures import ThreadPoolExecutor

    def late() -> None:
        with behind("x", 1.0):
            pass

    before = len(list(Path("/proc/self/fd").iterdir()))
    with ThreadPoolExecutor(1) as pool, pytest.raises(ConfigError, match="main thread only"):
        pool.submit(late).result()
    assert len(list(Path("/proc/self/fd").iterdir())) == before  # the folder to come back to stayed open
    assert boundary.why(ValueError()) == "ValueError"
