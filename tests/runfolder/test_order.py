"""One table says who makes what in a round; the loop follows it."""

from __future__ import annotations

from selfrefine.runfolder.order import STEPS, first_to_run
from selfrefine.stages.cycle import ROUND


def test_the_loop_runs_the_stages_in_the_order_of_the_table() -> None:
    # The loop is written out for its readers. A verb in one only would not run.
    looped = [stage.__name__.removesuffix("_round") for stage in ROUND]
    assert looped == [step.verb for step in STEPS if step.loops]


def test_what_a_run_leaves_out_is_not_asked_for_first() -> None:
    done = {"generate"}
    assert first_to_run("adapter", done.__contains__, {"reflect", "critique"}) == ["reward", "finetune"]
    assert first_to_run("reward", set[str]().__contains__, set()) == [
        "reflect",
        "generate",
        "critique",
        "reward",
    ]
