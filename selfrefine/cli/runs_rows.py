"""`selfrefine runs rows`: rows of a run that meet a condition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from selfrefine.cli import common, complete
from selfrefine.cli.common import JsonOption

if TYPE_CHECKING:
    from selfrefine.query.rows import RowFile, Seen

RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's name or folder.", autocompletion=complete.runs)
]
RoundOption = Annotated[
    str | None, typer.Option("--round", metavar="K", help="Only of this round: a number, or final.")
]
StageOption = Annotated[
    list[str] | None,
    typer.Option(
        "--stage",
        metavar="NAME",
        help="Only of this stage: generate, critique, reward, selected, gate, test … May be repeated.",
        autocompletion=complete.stages,
    ),
]
_FLUSH_BYTES = 1 << 16


def rows(
    name: RunArgument,
    round_: RoundOption = None,
    stage: StageOption = None,
    where: Annotated[
        str | None, typer.Option("--where", metavar="CONDITION", help="Only rows for which this is true.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Print the rows of a run, also of a round in progress; unchanged, as JSON Lines that other verbs read.

    Without --stage every answer once: from reward.jsonl, or from critique.jsonl or generate.jsonl where the
    round has not come so far, and the measured answers. On a terminal, a line per row.

    \b
      selfrefine runs rows demo --where 'reward < 0.2 and tag.op == "sub"'
      selfrefine runs rows demo --round 2 | selfrefine reward -r exact
      selfrefine runs rows demo --stage test --where 'len(text) >= 400'

    Fields of a condition: id, round, stage, index, text, reward, finish_reason, error, prompt, reference,
    tokens, parent_id, policy, task.id, tag.NAME, reward.NAME, critique.verdict, critique.score,
    critique.text, critiques (how many), len(text). Other names than letters and digits: tag["my tag"].
    With ==, !=, <, <=, >, >=, and, or, not, in [...], "x" in text, contains, startswith, endswith and
    matches(text, "regular expression"). The critique is the last one. A comparison with null is false; ask
    for it with reward == null.
    """
    from selfrefine.query.rows import files, seen
    from selfrefine.query.where import parse
    from selfrefine.runfolder.jsonl import write_stdout
    from selfrefine.runfolder.run import Run, locate

    condition = parse(where) if where is not None else None
    run = Run.open(locate(common.RUNS_DIR, name))
    found = files(run, round_, stage or ())
    terminal = common.on_terminal()
    held = bytearray()
    for file in found:
        for at, line in file.lines():
            row = seen(line, at) if condition or (terminal and not json_) else None
            if condition and row and not condition(row, file):
                continue
            held += _shown(row, file, line, terminal, json_)
            if terminal or len(held) >= _FLUSH_BYTES:  # a reader that goes away is noticed soon enough
                write_stdout(bytes(held))
                held.clear()
    if held:
        write_stdout(bytes(held))


def _shown(row: Seen | None, file: RowFile, line: bytes, terminal: bool, json_: bool) -> bytes:
    from selfrefine.report.safe_text import safe_json

    if not terminal:
        return line + b"\n"
    if json_ or row is None:
        return safe_json(line.decode() + "\n").encode()
    return (_line(row, file) + "\n").encode(errors="replace")


def _line(row: Seen, file: RowFile) -> str:
    """One row in one line: where, reward, what ended it, the question and the answer."""
    import shutil

    from selfrefine.report.safe_text import safe_text

    reward = "  –  " if row.reward is None else f"{row.reward:.3f}"
    end = {"stop": "", "length": " truncated", "error": " failed"}.get(row.finish_reason, "")
    head = f"{file.place}/{file.stage} {reward}{end}  "
    room = max(40, shutil.get_terminal_size().columns) - len(head)
    answer = row.text if row.error is None else f"error: {row.error}"
    tail = f"  {safe_text(row.id, 40)}"
    left = max(16, room - len(tail))
    prompt = safe_text(row.prompt, max(8, left // 2))
    return f"{safe_text(head)}{prompt} → {safe_text(answer, max(8, left - len(prompt) - 3))}{tail}"
