"""A run as tables. `sql.py` loads of them what a query names."""

from __future__ import annotations

import re

from selfrefine.query import answer_tables as answers
from selfrefine.query import run_tables as runs
from selfrefine.query.columns import Column, Table
from selfrefine.runfolder.run import Run

MOST_TAGS = 200
"""Tags with a column of their own; the others stand in the column `tags` only."""


def tables(run: Run) -> dict[str, Table]:
    """By name. Reads the tasks, because their tags are columns."""
    tags = tag_columns(run)
    own = tuple(Column(column, "TEXT", f"the tag {name!r}") for column, name in tags.items())
    return {
        one.name: one
        for one in (
            Table(
                name="rounds",
                about="committed rounds and final measurements",
                columns=runs.ROUNDS,
                rows=runs.rounds,
            ),
            Table(
                name="samples",
                about="every answer once, from the file in which it has the most fields",
                columns=(*answers.SAMPLES, *own),
                rows=lambda run, wanted: answers.samples(run, wanted, tags),
            ),
            Table(
                name="rewards",
                about="the scores of those answers",
                columns=answers.REWARDS,
                rows=answers.rewards,
            ),
            Table(
                name="critiques",
                about="their critiques",
                columns=answers.CRITIQUES,
                rows=answers.critiques,
            ),
            Table(
                name="votes",
                about="what each of several critics said",
                columns=answers.VOTES,
                rows=answers.votes,
            ),
            Table(name="steps", about="optimizer steps", columns=runs.STEPS, rows=runs.steps),
            Table(name="events", about="what happened when", columns=runs.EVENTS, rows=runs.events),
            Table(
                name="tasks",
                about="the frozen splits",
                columns=(*runs.TASKS, *own),
                rows=lambda run, wanted: runs.tasks(run, wanted, tags),
            ),
        )
    }


def tag_columns(run: Run) -> dict[str, str]:
    """`tag_op` to the tag `op`: names that a query can write without quotes.

    Of two that are alike then, the second gets _2.
    """
    found: dict[str, str] = {}
    names = sorted({name for task in runs.all_tasks(run) for name in task[1].tags})
    for name in names[:MOST_TAGS]:
        # Letters of all scripts: SQLite takes them without quotes, and as "_" they would all be alike.
        column = plain = "tag_" + re.sub(r"\W", "_", name.casefold())[:56]
        number = 1
        while column in found:
            number += 1
            column = f"{plain}_{number}"
        found[column] = name
    return found
