"""One line per stage where nobody watches, a bar where somebody does, and never a row lost to it."""

import io
import os
import re
import subprocess
import sys

import pytest

from selfrefine.report.console import Progress, is_lively, make_console, say, stage, updates


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def run_a_stage(stream: io.StringIO) -> str:
    clock = Clock()
    with stage(make_console(stream), "generate", total=16, clock=clock) as bar:
        clock.now += 2
        bar.advance(rows=8, tokens=600, reward=(2.0, 4), example="4 + 4 = \x1b[2J9 [/red]")
        clock.now += 2
        bar.advance(rows=8, tokens=600, reward=(4.0, 8))
    return stream.getvalue()


def test_without_a_terminal_a_stage_is_one_line_and_nothing_else() -> None:
    # By hand: 1,200 tokens in 4 s, rewards (2 + 4) of 12 scored rows.
    assert run_a_stage(io.StringIO()) == "generate: 16 rows · 300 tok/s · reward 0.500 · 4.0 s\n"


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_color_and_dumb_terminals_get_the_same_single_line(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert run_a_stage(Terminal()) == run_a_stage(io.StringIO())


def test_force_color_does_not_put_escapes_into_a_log_file(monkeypatch: pytest.MonkeyPatch) -> None:
    # Trap: rich takes FORCE_COLOR as "this is a terminal", and a CI log fills with bars.
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in run_a_stage(io.StringIO())


def test_on_a_terminal_the_bar_is_wiped_and_the_same_line_remains() -> None:
    seen = run_a_stage(Terminal())
    assert "\x1b[2K" in seen  # the live area is erased
    assert seen.endswith("generate: 16 rows · 300 tok/s · reward 0.500 · 4.0 s\n")


def test_the_bar_shows_rate_time_left_reward_and_a_harmless_sample() -> None:
    clock = Clock()
    bar = Progress("generate", 64, 0, clock)
    clock.now += 10
    bar.advance(rows=16, tokens=5_000, reward=(4.0, 16), example="4 + 4 = \x1b[2J9 [/red]\nnext")
    out = io.StringIO()
    make_console(out).print(bar)
    shown = out.getvalue()
    assert all(part in shown for part in ("generate", "16/64", "500 tok/s", "reward 0.250", "30 s left"))
    assert "4 + 4 = ␛[2J9 [/red]␊next" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_an_example_is_replaced_only_now_and_then() -> None:
    clock = Clock()
    bar = Progress("generate", None, 0, clock)
    for second, example in enumerate(["first", "second", "third", "fourth"]):
        clock.now = 100.0 + second
        bar.advance(example=example)
    assert bar.example == "fourth"  # at 3 s; "second" and "third" came too soon to be read
    clock.now += 1
    bar.advance(example="fifth")
    assert bar.example == "fourth"


def test_time_left_after_a_resume_is_paced_by_this_process_alone() -> None:
    # Trap: 90 of 100 rows were there at the start; counting them would promise the rest in no time.
    clock = Clock()
    bar = Progress("generate", 100, 90, clock)
    assert bar.left_s is None
    clock.now += 20
    bar.advance(rows=5)
    assert bar.left_s == pytest.approx(20.0)


def test_a_rate_does_not_fall_and_the_time_left_goes_on_while_a_batch_is_under_way() -> None:
    # Trap: a bar that waits for a slow reader after its last batch showed 500, 250, 125 tok/s.
    clock = Clock()
    bar = Progress("generate", 64, 0, clock)
    clock.now += 10
    bar.advance(rows=32, tokens=5_000)
    clock.now += 4
    assert bar.figures() == ["500 tok/s"] and bar.left_s == pytest.approx(6.0)
    clock.now += 20  # longer than thought: no number is better than a wrong one
    assert bar.figures() == ["500 tok/s"] and bar.left_s is None
    bar.advance(rows=32, tokens=5_000)
    clock.now += 60
    assert bar.figures() == [f"{10_000 / 34:.0f} tok/s"] and bar.left_s is None


class Waits:
    """Stands in for `Event.wait`: time passes, a batch may be done meanwhile, and after the last it ends."""

    def __init__(self, clock: Clock, *batches: dict[str, int]) -> None:
        self.clock, self.batches, self.pauses = clock, list(batches), list[float]()
        self.bar: Progress | None = None

    def __call__(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        if not self.batches:
            return True
        self.clock.now += seconds
        assert self.bar is not None
        if batch := self.batches.pop(0):
            self.bar.advance(**batch)
        return False


def test_a_long_stage_in_a_log_file_says_every_30_seconds_how_far_it_is() -> None:
    # Trap: twenty minutes of fine-tuning without a word under nohup.
    clock, out = Clock(), io.StringIO()
    waits = Waits(clock, {}, {"rows": 4, "tokens": 2_000}, {})
    waits.bar = Progress("finetune", 16, 0, clock)
    waits.bar.noun = "steps"
    updates(make_console(out), waits.bar, waits)
    assert waits.pauses == [10, 30, 30, 30]
    # By hand: 4 steps and 2,000 tokens in 40 s; 12 steps are 120 s, 30 have passed at the third line.
    assert out.getvalue().splitlines() == [
        "finetune: 0 of 16 steps · 10 s so far",
        "finetune: 4 of 16 steps · 50 tok/s · 40 s so far, about 2 min 00 s left",
        "finetune: 4 of 16 steps · 50 tok/s · 1 min 10 s so far, about 1 min 30 s left",
    ]


def test_an_update_without_tokens_counts_rows_and_without_a_total_promises_nothing() -> None:
    clock = Clock()
    bar = Progress("reward", None, 0, clock)
    clock.now += 10
    assert bar.update() == "reward: 10 s so far"
    bar.advance(rows=25, reward=(10.0, 20))
    assert bar.update() == "reward: 25 rows · 2.5 rows/s · reward 0.500 · 10 s so far"


@pytest.mark.parametrize("end", ["stdin", "stdout"])
def test_in_a_pipe_verbs_share_the_terminal_so_none_draws_a_bar(
    end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Trap: four bars on one terminal, each erasing a line of another.
    reads, writes = os.pipe()
    with os.fdopen(reads) as first, os.fdopen(writes, "w") as last:
        monkeypatch.setattr(sys, end, first if end == "stdin" else last)
        seen = run_a_stage(Terminal())
    assert seen == "generate: 16 rows · 300 tok/s · reward 0.500 · 4.0 s\n"


def test_a_stage_may_end_without_a_line() -> None:
    out = io.StringIO()
    with stage(make_console(out), "round 1 probe") as bar:
        bar.finish("")
    assert out.getvalue() == ""


def test_unscored_rows_do_not_count_in_the_running_mean() -> None:
    bar = Progress("reward", 4, 0, Clock())
    assert bar.reward_mean is None
    bar.advance(rows=4, reward=(1.0, 2))
    assert bar.reward_mean == 0.5


def test_the_caller_may_give_the_line_and_it_is_made_harmless() -> None:
    out = io.StringIO()
    with stage(make_console(out), "reward") as bar:
        bar.finish("reward: file \x1b]8;;x\x1b\\name [/red] " + "and a long tail " * 10)
    assert out.getvalue().startswith("reward: file ␛]8;;x␛\\name [/red] and")
    assert out.getvalue().count("\n") == 1  # one line for grep, however long


def test_an_error_quoting_a_file_keeps_its_lines_and_loses_its_teeth() -> None:
    out = Terminal()
    say(make_console(out), "rows.jsonl:3: bad \x1b[31mname [bold]\nmend it: " + "long " * 30, "red")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
    assert plain.startswith("rows.jsonl:3: bad ␛[31mname [bold]\nmend it: long")
    assert plain.count("\n") == 2


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_stage_that_fails_does_not_say_that_it_is_done(stream: type[io.StringIO]) -> None:
    out = stream()
    with pytest.raises(RuntimeError), stage(make_console(out), "generate", total=9) as bar:
        bar.advance(rows=3)
        raise RuntimeError
    assert "3 of 9 rows" not in out.getvalue()


def test_rows_written_to_stdout_reach_stdout_while_a_bar_is_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Trap: rich's Live redirects sys.stdout to its console by default, here stderr: the pipe runs dry.
    terminal = Terminal()
    with stage(make_console(terminal), "generate"):
        sys.stdout.write('{"id":"a"}\n')
    assert capsys.readouterr().out == '{"id":"a"}\n'
    assert '"id"' not in terminal.getvalue()


def test_an_empty_no_color_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "")  # no-color.org: "when present and not an empty string"
    assert is_lively(Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not is_lively(Terminal())
    assert not is_lively(io.StringIO())


def test_importing_the_console_does_not_import_rich() -> None:
    code = (
        "import sys, selfrefine.report.console; print([m for m in sys.modules if re.match('rich|torch', m)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", "import re; " + code], capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"\[\]\n", done.stdout)


NOBODY_READS_STDERR = """
import os
from selfrefine import streams
from selfrefine.report.console import Progress, make_console, updates
with streams.held():
    console = make_console()
    waits = iter([False, False, True])
    updates(console, Progress("x", 10, 0, lambda: 0.0), lambda seconds: next(waits))
    console.print("said to nobody")
    os.write(streams.writing().fileno(), b"a row\\n")
"""


def test_no_row_is_lost_when_nobody_reads_the_messages_any_more() -> None:
    """`selfrefine … 2>&1 >rows.jsonl | head`: rich answers a broken pipe by pointing stdout to /dev/null."""
    reads, writes = os.pipe()
    os.close(reads)
    run = subprocess.run([sys.executable, "-c", NOBODY_READS_STDERR], stdout=subprocess.PIPE, stderr=writes)
    os.close(writes)
    assert run.stdout == b"a row\n"
