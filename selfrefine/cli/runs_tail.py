"""`selfrefine runs tail`: follow a run that another process works on."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from selfrefine.cli import common
from selfrefine.cli.runs_rows import RunArgument


def tail(
    name: RunArgument,
    n: Annotated[int, typer.Option("-n", min=0, help="Show this many earlier events first.")] = 10,
    json_: Annotated[bool, typer.Option("--json", help="Print the events as JSON Lines.")] = False,
) -> None:
    """Follow a run as plain lines, until no process works on it any more. Good over ssh and in a log.

    Times are UTC. The exit code is that of the run: 0 where it ended, or the code that its command failed
    with; 137 where its process was killed. Ctrl-C stops the watching only.

    \b
      selfrefine runs tail demo
      ssh box selfrefine runs tail demo -n 0
    """
    from selfrefine.cli.guard import say
    from selfrefine.query.follow import POLL_S, Follower, sentence
    from selfrefine.runfolder.run import Run, locate

    run = Run.open(locate(common.RUNS_DIR, name))
    follower = Follower(run)
    for event in follower.earlier(n):
        _print(event if json_ else sentence(event))
    while True:
        ended = follower.ended()
        for line in follower.look(as_json=json_):
            _print(line)
        if ended:
            break
        time.sleep(POLL_S)
    code, how = follower.exit()
    say(how)
    raise typer.Exit(code)


def _print(line: object) -> None:
    """To stdout at once. A reader that went away ends the command. Raises: StdoutClosed."""
    from selfrefine.report.safe_text import safe_text
    from selfrefine.runfolder.jsonl import write_stdout

    if isinstance(line, str):
        write_stdout(f"{safe_text(line)}\n".encode(errors="replace"))
    else:
        common.print_json(line)
