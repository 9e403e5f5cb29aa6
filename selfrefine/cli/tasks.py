"""`selfrefine tasks`: list the sources, or print a source's tasks as JSON Lines."""

from __future__ import annotations

from typing import Annotated

import typer

from selfrefine.cli import complete
from selfrefine.cli.common import JsonOption, Output, SeedOption, on_terminal, show
from selfrefine.cli.guard import say

Source = Annotated[
    str,
    typer.Argument(
        help="A file, or KIND:NAME. Without one, the kinds are listed.", autocompletion=complete.sources
    ),
]
Own = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Set a setting of the source, such as max_terms=2. Repeatable."
    ),
]


def command(
    source: Source = "",
    output: Output = "-",
    n: Annotated[int | None, typer.Option("-n", help="Maximum number of tasks.")] = None,
    seed: SeedOption = None,
    template: Annotated[
        str | None,
        typer.Option("--template", help="Template of each prompt; {source} is replaced by the task's text."),
    ] = None,
    suffix: Annotated[str, typer.Option("--suffix", help="Text appended to each prompt.")] = "",
    prompt_field: Annotated[
        str | None, typer.Option("--prompt-field", help="Column that holds the prompt.")
    ] = None,
    reference_field: Annotated[
        str | None, typer.Option("--reference-field", help="Column that holds the reference.")
    ] = None,
    set_: Own = None,
    json_: JsonOption = False,
) -> None:
    """Print tasks from a source as JSON Lines, the start of a pipe.

    \b
      selfrefine tasks gym:chain_sum --set max_terms=2 --set max_digits=2 -n 64
      selfrefine tasks parallel:val.en,val.fr -n 100
      selfrefine tasks questions.jsonl --prompt-field q --reference-field a
    """
    from selfrefine.cli.stream import read_tasks, write_tasks
    from selfrefine.layers import parse_set
    from selfrefine.runfolder.formats import check_output
    from selfrefine.runfolder.jsonl import write_stdout
    from selfrefine.tasks import listing
    from selfrefine.tasks.base import TaskOptions
    from selfrefine.words import count

    if not source:
        for kind in listing():
            write_stdout(f"{kind.spelling:<24}{kind.about}\n{'':<24}{kind.example}\n".encode())
        return
    options = TaskOptions(
        n=n,
        seed=seed or 0,
        template=template,
        suffix=suffix,
        prompt_field=prompt_field,
        reference_field=reference_field,
        settings=dict(parse_set(text) for text in set_ or []),
    )
    check_output(output)
    found = read_tasks(source, options)
    if output == "-" and not json_ and on_terminal():
        from selfrefine.report.tables import task_view

        for task in found:
            show(task_view(task))
        return
    written = write_tasks(found, output)
    say(f"tasks: {count(written, 'task')} from {source}")
