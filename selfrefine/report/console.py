"""The diagnostics side of a command: one console on stderr, one line per stage.

On a terminal a stage shows a bar with rate, time left, running reward mean and a sample now and then, and
the bar is gone when the line is printed. Elsewhere (a log file, NO_COLOR, TERM=dumb) a plain line every 30
seconds says how far it is. So do the verbs of a pipe: their bars would overwrite each other.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from selfrefine.report.safe_text import text
from selfrefine.report.words import duration, number

if TYPE_CHECKING:  # rich is loaded by the first console, not by `selfrefine --help`
    from rich.console import Console, RenderableType

EXAMPLE_EVERY_S = 3.0
FIRST_UPDATE_S, UPDATE_EVERY_S = 10.0, 30.0
_EXAMPLE_CHARACTERS = 200


def is_lively(stream: TextIO) -> bool:
    """Whether colour and animation are welcome on `stream`. See https://no-color.org."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def in_a_pipe() -> bool:
    """Whether another program reads our rows or writes those we read: it may draw on the same terminal."""
    for stream in (sys.stdin, sys.stdout):
        with suppress(AttributeError, OSError, ValueError):  # closed, or no file at all
            if stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode):
                return True
    return False


def make_console(stream: TextIO | None = None) -> Console:
    """A console on `stream` (stderr by default) that parses no markup, no emoji codes and no numbers."""
    from rich.console import Console

    class Unread(Console):
        def on_broken_pipe(self) -> None:
            """rich would point stdout to /dev/null, where rows would go unseen, and exit."""
            self.quiet = True

    stream = sys.stderr if stream is None else stream
    lively = is_lively(stream)
    return Unread(
        file=stream, force_terminal=lively, no_color=not lively, markup=False, emoji=False, highlight=False
    )


def say(console: Console, message: str, style: str = "") -> None:
    """An error, a warning or what to type next. Never wrapped, so that it can be copied."""
    console.print(text(message, style, newlines=True), soft_wrap=True)


class Progress:  # not rich.progress: the line at the end needs these counts where no bar is shown, too
    """What a stage has done so far. `advance` it after each batch; `finish` it with the line to print."""

    def __init__(self, name: str, total: int | None, done: int, clock: Callable[[], float]) -> None:
        self.name, self.total, self.done = name, total, done
        self.noun, self.reward = "rows", "reward"
        self.tokens = 0
        self.example: str | None = None
        self._resumed = done
        self._reward_sum, self._reward_count = 0.0, 0
        self._line: str | None = None
        self._clock = clock
        self._began = self._advanced = clock()
        self._example_at = -EXAMPLE_EVERY_S

    def advance(
        self,
        rows: int = 0,
        tokens: int = 0,
        reward: tuple[float, int] | None = None,
        example: str | None = None,
    ) -> None:
        """Rows and tokens of a batch; reward as (sum, count) of its scored rows; a text worth showing."""
        self.done += rows
        self.tokens += tokens
        self._advanced = self._clock()
        if reward is not None:
            self._reward_sum += reward[0]
            self._reward_count += reward[1]
        if example is not None and self.elapsed_s - self._example_at >= EXAMPLE_EVERY_S:
            self.example, self._example_at = example, self.elapsed_s

    def finish(self, line: str) -> None:
        """The line printed when the stage ends, instead of the one made from the counts; "" prints none."""
        self._line = line

    @property
    def elapsed_s(self) -> float:
        return self._clock() - self._began

    @property
    def _worked_s(self) -> float:
        """Up to the last batch: a rate does not fall while the next one is under way, or after the last."""
        return self._advanced - self._began

    @property
    def left_s(self) -> float | None:
        """Seconds to go at this process's own pace: rows found done at a resume cost it nothing."""
        made = self.done - self._resumed
        if self.total is None or made <= 0:
            return None
        left = self._worked_s * (self.total - self.done) / made - (self._clock() - self._advanced)
        return left if left > 0 else None

    @property
    def reward_mean(self) -> float | None:
        return self._reward_sum / self._reward_count if self._reward_count else None

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self._worked_s if self._worked_s > 0 else 0.0

    def figures(self) -> list[str]:
        """Rate and reward, as far as there is something to say."""
        parts: list[str] = []
        if self.tokens_per_s:
            parts.append(f"{number(self.tokens_per_s)} tok/s")
        if self.reward_mean is not None:
            parts.append(f"{self.reward} {self.reward_mean:.3f}")
        return parts

    def update(self) -> str:
        """How far the stage is, in one line, for where no bar is shown."""
        made, parts = self.done - self._resumed, []
        if self.done or self.total:
            of = "" if self.total is None else f" of {number(self.total)}"
            parts.append(f"{number(self.done)}{of} {self.noun}")
        if not self.tokens and made > 0 and self._worked_s > 0:
            parts.append(f"{number(float(made / self._worked_s))} {self.noun}/s")
        left = "" if self.left_s is None else f", about {duration(self.left_s)} left"
        return f"{self.name}: " + " · ".join(
            [*parts, *self.figures(), f"{duration(self.elapsed_s)} so far{left}"]
        )

    def line(self) -> str:
        """The stage in one line."""
        if self._line is not None:
            return self._line
        of = "" if self.total in (None, self.done) else f" of {number(self.total or 0)}"
        return f"{self.name}: " + " · ".join(
            [f"{number(self.done)}{of} {self.noun}", *self.figures(), duration(self.elapsed_s)]
        )

    def __rich__(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        of = "" if self.total is None else f"/{number(self.total)}"
        figures = self.figures()
        if self.left_s is not None:
            figures.append(f"{duration(self.left_s)} left")
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            text(self.name, "bold"),
            ProgressBar(total=self.total, completed=self.done, width=20, pulse=self.total is None),
            text(f"{number(self.done)}{of}"),
            text(" · ".join(figures)),
        )
        if self.example is None:
            return bar
        example = text(self.example, "dim", limit=_EXAMPLE_CHARACTERS)
        example.truncate(78, overflow="ellipsis")
        return Group(bar, example)


@contextmanager
def stage(
    console: Console,
    name: str,
    total: int | None = None,
    *,
    done: int = 0,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Progress]:
    """Show a stage of `total` rows (None: unknown), `done` of which an earlier process had made.

    Its line is printed when the block ends well; after an exception the error is the only word.
    """
    progress = Progress(name, total, done, clock)
    with (_bar if console.is_terminal and not in_a_pipe() else _lines)(console, progress):
        yield progress
    if line := progress.line():
        console.print(text(line), soft_wrap=True)


@contextmanager
def _bar(console: Console, progress: Progress) -> Iterator[None]:
    from rich.live import Live

    # Redirection would send rows written to sys.stdout to this console, which is stderr: data lost
    # from the pipe exactly when somebody watches.
    with Live(
        progress,
        console=console,
        transient=True,
        refresh_per_second=4,
        redirect_stdout=False,
        redirect_stderr=False,
    ):
        yield


@contextmanager
def _lines(console: Console, progress: Progress) -> Iterator[None]:
    """In a thread: a batch that takes minutes calls nothing of ours in between."""
    ended = threading.Event()
    teller = threading.Thread(target=updates, args=(console, progress, ended.wait), daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()


def updates(console: Console, progress: Progress, wait: Callable[[float], bool]) -> None:
    """A line after 10 seconds, then every 30, until `wait(seconds)` is true."""
    pause = FIRST_UPDATE_S
    while not wait(pause):
        with suppress(OSError):  # a full disk under a log: the work goes on
            console.print(text(progress.update()), soft_wrap=True)
        pause = UPDATE_EVERY_S
