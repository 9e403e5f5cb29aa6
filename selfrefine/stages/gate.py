"""The ends of a round: the starting policy measured, a candidate decided on, the accepted policy measured.

Each commits: round.json, or final/summary.json, is written last.
"""

from __future__ import annotations

import shutil

from selfrefine.errors import RunFolderError
from selfrefine.lineage import card
from selfrefine.runfolder.failpoints import failpoint
from selfrefine.runfolder.jsonl import atomic_write, fsync_directory
from selfrefine.runfolder.summaries import FinalSummary, RoundSummary
from selfrefine.stages import candidate
from selfrefine.stages.in_run import formatted
from selfrefine.stages.measure import measure
from selfrefine.stages.revisions import compare_revisions
from selfrefine.stages.session import RunSession
from selfrefine.stats import Interval


def baseline(session: RunSession) -> RoundSummary:
    """Round 0: the starting policy on gate and test, committed."""
    run = session.run
    folder = run.round(0)
    if folder.committed:
        return folder.summary()
    splits = [split for split in ("gate", "test") if run.tasks(split)]
    measures = {split: measure(session, folder, split, None) for split in splits}
    watched = candidate.start(session)
    if session.config.evaluate.revise == "both" and "test" in splits:
        compare_revisions(session, folder, None)
    session.use_policy(None)
    summary = folder.commit(
        RoundSummary(
            index=0,
            policy_before=session.engine.policy,
            policy_after=session.engine.policy,
            cost=folder.cost(),
            measures=measures,
            guards=watched.guards,
            probe=watched.probe,
        )
    )
    if line := candidate.opening(session):
        session.reporter.say(line)
    return summary


def gate(session: RunSession, k: int) -> RoundSummary:
    """Measure the candidate on the gate tasks, decide, and commit the round."""
    run = session.run
    folder = run.round(k)
    folder.require("adapter")
    session.use_policy(run.current_adapter)
    policy_before = session.engine.policy
    measures = {"gate": measure(session, folder, "gate", folder.adapter)} if run.tasks("gate") else {}
    watched = candidate.guards_of(session, k)
    decision = candidate.decide(session, k, watched.guards)
    session.use_policy(run.accepted_adapter if decision.outcome == "reject" else folder.adapter)
    if run.final.path.is_dir() and not run.final_file.is_file():
        # A final measurement that was begun and left: after this commit it would mix two policies.
        shutil.rmtree(run.final.path)
    summary = RoundSummary(
        index=k,
        policy_before=policy_before,
        policy_after=session.engine.policy,
        cost=folder.cost(),
        measures=measures,
        gate=decision,
        guards=watched.guards,
        probe=watched.probe,
        accepted_round=k if decision.accepted else run.accepted_round,
        undecided_round=k if decision.outcome == "undecided" else None,
    )
    card.place(run, summary, session.first_adapter)
    summary = folder.commit(summary)
    candidate.tell(session, k, decision, watched.guards)
    return summary


def final(session: RunSession) -> Interval:
    """The accepted policy on the test split, once per end: final/test.jsonl and final/summary.json.

    A run that is extended keeps its earlier final measurement as final-after-NNN.
    """
    run = session.run
    if not run.tasks("test"):
        raise RunFolderError(f"{run.path} has no test tasks (tasks.test 0): there is nothing to measure")
    last = run.next_round() - 1
    earlier = run.final_summary()
    if earlier is not None and earlier.after_round != last:
        run.final.path.rename(run.path / f"final-after-{earlier.after_round:03d}")
        failpoint("final.moved")
        fsync_directory(run.path)
    adapter = run.accepted_adapter
    found = measure(session, run.final, "test", adapter)
    if run.final_file.is_file():
        return found
    if session.config.evaluate.revise != "off":
        compare_revisions(session, run.final, adapter)
    session.use_policy(adapter)
    told = FinalSummary(
        after_round=last,
        accepted_round=run.accepted_round,
        policy=session.engine.policy,
        test=found,
        test_reads=run.test_reads(),
    )
    atomic_write(run.final_file, formatted(told))
    return found
