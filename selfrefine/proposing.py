"""Settings of what writes new tasks. config.py has the others."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from selfrefine.fields import Natural, NonNegative, OpenShare, Positive, says


class ProposeConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """New tasks, written by the policy, whose answers a program checks."""

    n: Annotated[
        Natural, says("Tasks that the policy writes per round, before it answers any; 0 is off.")
    ] = 0
    family: Annotated[
        str,
        says(
            "What kind of task is written, and what reads it: `sums`, `concepts`, a plugin's, or "
            "`file.py:function`. It must know the run's own training tasks."
        ),
    ] = "sums"
    settings: Annotated[
        dict[str, int | float | bool | str],
        says("Settings of the family, such as `propose.settings.max_terms=3`."),
    ] = {}
    share: Annotated[
        OpenShare,
        says(
            "Largest share of a round's tasks that are written ones. Given tasks are the rest, also where "
            "too few written ones can be used."
        ),
    ] = 1.0
    examples: Annotated[
        Positive, says("Training tasks that are shown, drawn anew for each task that is written.")
    ] = 4
    learn: Annotated[
        bool,
        says(
            "Learn to write tasks, too. A text whose task was solved by some of its answers and not by all "
            "is learnt under the prompt that asked for it. Right means a reward of at least "
            "`select.min_reward`, or 1 if that is not set."
        ),
    ] = False
    prompt: Annotated[str, says("Template of the request: `propose`, `propose-list`, or a file.")] = "propose"
    temperature: Annotated[NonNegative, says("Sampling temperature of the tasks; 0 is greedy.")] = 1.0
    max_new_tokens: Annotated[Positive, says("Maximum length of a written task, in tokens.")] = 32
    stop: Annotated[
        tuple[Annotated[str, Meta(min_length=1)], ...],
        says("Texts that end a task. They are not part of it."),
    ] = ("\n",)
