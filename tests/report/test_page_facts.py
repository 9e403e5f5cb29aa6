"""What the page says in words, by values worked out by hand."""

from __future__ import annotations

import msgspec
import page_runs
import pytest
from msgspec.structs import replace

from selfrefine.reflection.changes import SIGN, Flips, TagGain
from selfrefine.reflection.findings import Outcome, Plan, Target, Weaknesses
from selfrefine.report.page import charts, facts_making, facts_rounds
from selfrefine.report.page.counts import Answers
from selfrefine.report.page.facts_answers import length_words, some
from selfrefine.report.page.facts_compared import compared_in_words
from selfrefine.report.page.facts_reflection import outcomes_in_words
from selfrefine.report.page.facts_result import headline, meaning, model_name, tone, verdict
from selfrefine.report.page.facts_tags import cells_of, flips_in_words, gains_in_words
from selfrefine.report.page.facts_watched import alarms, forgetting_words
from selfrefine.report.page.read import Told, doing, told
from selfrefine.report.words import weaknesses_line
from selfrefine.runfolder.run import Run
from selfrefine.runfolder.summaries import GateDecision, RoundSummary
from selfrefine.stats import Difference, Interval


def gain(mean: float | None, lo: float | None = None, hi: float | None = None, n: int = 100) -> Difference:
    return Difference(mean=mean, lo=lo, hi=hi, n=n)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return page_runs.small(tmp_path_factory.mktemp("runs") / "small")


def rounds(*accepted: tuple[str, int, int | None]) -> list[RoundSummary]:
    """Round 0, and of each later one its outcome, the accepted round, the undecided one."""
    gate_tasks = Interval(mean=0.1, lo=0.0, hi=0.2, n=50)
    found = [RoundSummary(index=0, policy_before="p0", policy_after="p0", measures={"gate": gate_tasks})]
    for k, (outcome, kept, open_) in enumerate(accepted, start=1):
        gate = GateDecision(
            outcome=outcome, accepted=outcome == "accept", before=0.1, after=0.2, n=50, reason="why"
        )  # type: ignore[arg-type]
        own = {"policy_before": "p0", "policy_after": f"p{k}", "gate": gate}
        found.append(RoundSummary(index=k, accepted_round=kept, undecided_round=open_, **own))  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(
    ("found", "kind", "words"),
    [
        (gain(0.3, 0.2, 0.4), "better", "got better"),
        (gain(-0.3, -0.4, -0.2), "worse", "got worse"),
        (gain(0.05, -0.01, 0.1), "open", "cannot be told from no change"),
        (gain(0.05, 0.0, 0.1), "open", "cannot be told from no change"),
        (gain(0.05), "open", "Too few of 100 test tasks changed"),
    ],
)
def test_a_gain_is_called_one_only_where_its_interval_leaves_zero_out(
    found: Difference, kind: str, words: str
) -> None:
    """Trap: an interval that ends at 0 is no gain, and without an interval nothing is certain."""
    assert tone(found) == kind
    assert words in verdict(found)


def test_a_gain_means_so_many_right_answers_only_where_answers_are_right_or_wrong() -> None:
    said = meaning(gain(0.354, 0.3, 0.41), kept=True, whole=True)
    assert said.startswith("Of 100 such tasks, about 35 more are answered right.")
    assert said.endswith("between +30 and +41.")
    assert "about 12 fewer are answered right" in meaning(gain(-0.12), kept=True, whole=True)
    assert "full reward for every task, that is about 12 points more" in meaning(
        gain(0.12), True, whole=False
    )
    assert "No round was kept" in meaning(gain(0.0), kept=False, whole=True)


def test_a_run_without_an_end_has_no_gain_and_says_what_to_type(run: Run) -> None:
    told = Told(run=run, name="x", rounds=rounds(), state="interrupted")
    told.rounds[0] = replace(told.rounds[0], measures={"test": Interval(mean=0.1, lo=0.0, hi=0.2, n=9)})
    found = headline(told)
    assert (found.tone, found.figure) == ("open", "No result yet")
    assert f"selfrefine gate --run {run.called} --final" in found.says
    assert any("was interrupted" in note for note in found.notes)
    assert "goes on" in headline(replace_state(told, "running")).says
    empty = headline(Told(run=run, name="x", state="new"))
    assert empty.says.startswith("No round is committed yet")


def test_a_model_that_judges_itself_is_said_to(run: Run) -> None:
    """`critic` is the policy's own score; a plugin that is gone is no reason to fail."""

    def notes(*measure: str) -> str:
        manifest = replace(run.manifest, config={"evaluate": {"measure": list(measure)}})
        return " ".join(headline(Told(run=Run(run.path, manifest), name="x", state="new")).notes)

    assert "Self-measured" in notes("critic")
    assert "Self-measured" not in notes("exact")
    assert "Self-measured" not in notes("a-plugin-that-is-gone")


def test_answers_without_scores_yet_are_missed_aloud(run: Run) -> None:
    found = headline(Told(run=run, name="x", state="by hand", unscored=[2]))
    assert any("(round 2): `selfrefine reward --run" in note for note in found.notes)


def replace_state(told: Told, state: str) -> Told:
    return Told(run=told.run, name=told.name, rounds=told.rounds, state=state)


def test_the_lineage_goes_through_an_undecided_round_and_not_through_a_rejected_one(run: Run) -> None:
    """Round 2 was rejected; round 3 learnt from answers of round 1's undecided candidate."""
    told = Told(run=run, name="x", rounds=rounds(("undecided", 0, 1), ("reject", 0, 1), ("accept", 3, None)))
    assert "round 3: tiny → round 1 → round 3; each was trained from the base" in facts_making.lineage_chain(
        told
    )
    none = Told(run=run, name="x", rounds=rounds(("reject", 0, None)))
    assert "no round was kept" in facts_making.lineage_chain(none)


def test_settings_that_somebody_chose_have_their_origin_and_the_rest_is_default(run: Run) -> None:
    manifest = replace(
        run.manifest,
        config={"train": {"lr": 0.1, "epochs": 1.0}, "reward": {"settings": {"f": {"a.b": 2}}}},
        origins={"train.lr": "flag"},
    )
    found = set(facts_making.settings(manifest))
    assert ("train.lr", "0.1", "flag") in found
    assert ("train.epochs", "1.0", "default") in found
    assert len(found) == 3


def test_a_model_in_a_folder_is_named_without_its_place(run: Run) -> None:
    told = Told(run=run, name="x")
    assert model_name(told) == "tiny"
    run_at = Run(run.path, replace(run.manifest, model={"id": "/somebody/at/home/model/"}))
    assert model_name(Told(run=run_at, name="x")) == "model"


def test_the_heat_map_leaves_out_a_tag_of_one_value_and_one_with_an_id_in_it() -> None:
    """A task without a score under a candidate counts in no mean of its round."""
    cuts = {f"t{i:02}": {"op": "+-"[i % 2], "all": "same", "id": str(i)} for i in range(13)}
    means = {key: float(i % 2) for i, key in enumerate(cuts)}
    found = cells_of({0: means, 1: means | {"t00": 1.0, "t01": None}}, cuts)
    assert found == {
        ("op", "+"): {0: (0.0, 7), 1: (pytest.approx(1 / 7), 7)},
        ("op", "-"): {0: (1.0, 6), 1: (1.0, 5)},
    }


def test_the_heat_map_cuts_sums_by_their_signs_as_the_screen_does(run: Run) -> None:
    """Trap: tasks whose tags tell only their size, and a mean that hides the subtractions."""
    assert {own[SIGN] for own in told(run, "x").cuts.values() if SIGN in own} == {"+", "-"}


def test_the_largest_gain_is_named_of_tags_that_can_tell() -> None:
    """Trap: three tasks of a rare tag, all gained, would be the headline; they have no interval."""

    def one(value: str, before: float, after: float, lo: float | None) -> TagGain:
        change = gain(after - before, lo, None if lo is None else 1.0)
        return TagGain(tag="op", value=value, tasks=3, before=before, after=after, gain=change)

    said = gains_in_words([one("rare", 0.0, 1.0, None), one("+", 0.1, 0.7, 0.4), one("-", 0.0, 0.1, 0.0)])
    assert said == "The gain is largest where op = + (0.100 → 0.700), smallest where op = - (0.000 → 0.100)."


def test_flips_are_said_with_what_they_cost() -> None:
    said = flips_in_words(Flips(stayed_right=8, became_right=30, became_wrong=2, stayed_wrong=60))
    assert said.startswith("30 test tasks became right; 2 of the 10 right at the start became wrong.")


def test_forgetting_compares_the_first_round_with_the_last() -> None:
    def probe(accuracy: float) -> dict[str, dict[str, float | None]]:
        return {"general": {"accuracy": accuracy}}

    assert "knows less than at the start" in forgetting_words([(0, probe(0.9)), (2, probe(0.7))])
    assert "knows the same as at the start" in forgetting_words([(0, probe(0.9)), (2, probe(0.9))])
    assert forgetting_words([]) == "General knowledge was not measured."


def test_lengths_that_few_answers_have_are_not_called_the_best() -> None:
    """1 right answer of 64 tokens beside 99 of 4, of which 50 are right."""
    counts = Answers()
    counts.lengths = {3: [99, 50.0], 7: [1, 1.0]}
    assert (
        length_words(counts, 2)
        == "In round 2, answers of 3–4 tokens do best: mean reward 0.505 over 99 answers."
    )


def test_an_action_whose_number_is_not_known_counts_neither_way() -> None:
    target = Target(figure="gate.mean", split="gate", direction="up", before=0.1)
    outcomes = [
        Outcome(round=1, kind="hint", target=target, after=0.2, moved=moved) for moved in (True, False, None)
    ]
    assert (
        outcomes_in_words(outcomes)
        == "1 of 2 actions moved the number that it was meant to move; of 1 it is not known."
    )
    assert Plan(round=2, mode="auto", outcomes=tuple(outcomes)).outcomes[2].moved is None


def test_what_became_of_the_last_plan_is_read_from_the_end_of_the_run_and_counted_once(run: Run) -> None:
    """Trap: no plan follows the last round, so its outcomes stand in the events only."""
    target = Target(figure="gate.mean", split="gate", direction="up", before=0.1)
    early, late = (Outcome(round=k, kind="hint", target=target, after=0.2, moved=True) for k in (1, 2))
    plan = Plan(round=2, mode="auto", outcomes=(early,))
    events = [{"kind": "outcome", "outcome": msgspec.to_builtins(one)} for one in (early, late, late)]
    events.append({"kind": "outcome", "outcome": {"round": "of a newer version"}})
    assert Told(run=run, name="x", plan=plan, events=events).outcomes == [early, late]


def test_weaknesses_are_said_with_how_many_slices_were_looked_at() -> None:
    assert "No slice of the tasks is significantly weaker" in weaknesses_line(
        Weaknesses(after_round=1, looked_at=40)
    )
    said = weaknesses_line(Weaknesses(after_round=1, looked_at=40, heaviest=("op = -",)))
    assert "op = -; 40 slices tested" in said


def test_alarms_are_read_from_the_events(run: Run) -> None:
    event = {
        "kind": "alarm",
        "round": 2,
        "stage": "generate",
        "alarm": "truncated",
        "value": 0.48,
        "limit": 0.2,
    }
    found = alarms(Told(run=run, name="x", events=[event, {"kind": "cycle"}]), "run1")
    assert found is not None and found.table is not None
    assert found.table.rows == (("2", "generate", "truncated 0.48, threshold 0.2"),)


def test_the_stage_that_runs_is_the_one_begun_and_not_ended() -> None:
    begun, ended = ({"kind": f"stage-{what}", "round": 3, "stage": "gate"} for what in ("begin", "end"))
    assert doing([begun]) == "round 3, gate"
    assert doing([begun, ended]) == ""
    assert doing([{"kind": "stage-begin", "round": "final", "stage": "test"}]) == "final, test"


def test_names_that_differ_behind_the_cut_stay_apart_in_a_chart() -> None:
    """Trap: two tags cut to one label are drawn as one row."""
    found = charts.labels(["x" * 50 + "1", "x" * 50 + "2"], 20)
    assert len(set(found.values())) == 2
    assert all(len(one) <= 20 for one in found.values())


def test_of_many_rounds_the_first_and_the_last_are_drawn() -> None:
    assert some(list(range(1, 18)), 5) == [1, 5, 9, 13, 17]
    assert some([3, 4], 5) == [3, 4]


def test_the_curve_has_each_candidate_and_the_tables_have_its_interval(run: Run) -> None:
    found = facts_rounds.learning_curve(Told(run=run, name="x", rounds=rounds(("reject", 0, None))), "run1")
    assert found is not None and found.table is not None
    assert found.table.rows == (("0", "gate", "0.100", "0.000", "0.200", "50"),)


def test_runs_without_an_interval_cannot_be_told_apart() -> None:
    from selfrefine.gating.versus import Versus
    from selfrefine.stats import nothing_compared

    none = Versus(run="a", against="b", found=nothing_compared(0))
    up = Versus(run="c", against="b", found=replace(nothing_compared(0), lo=0.1, hi=0.2))
    assert compared_in_words([none, up]) == "Better: c. Cannot be told from no difference: a."


def test_a_decision_is_explained_as_this_run_made_it(run: Run) -> None:
    """Trap: with the gate off nothing is rolled back, and an undecided round is neither."""
    assert "undecided: training goes on" in facts_rounds.lead(Told(run=run, name="x"))
    off = replace(run.manifest, config=run.manifest.config | {"gate": {"mode": "off"}})
    assert facts_rounds.lead(Told(run=Run(run.path, off), name="x")).startswith(
        "The gate is off: every round"
    )
