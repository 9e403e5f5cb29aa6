"""Tables fit 80 columns, say "–" for what is not known, and let no model text act."""

import io
from pathlib import Path

import msgspec
from msgspec.structs import replace
from rich.console import Console, RenderableType

from selfrefine.doctor import Check
from selfrefine.records import Critique, Message, Reward, Sample, Task
from selfrefine.report import tables
from selfrefine.report.tables import RoundRow
from selfrefine.runfolder.audit import RunInfo
from selfrefine.runfolder.summaries import (
    Cost,
    FinalSummary,
    GateDecision,
    RoundSummary,
    RunManifest,
    decode_round,
)
from selfrefine.stats import Difference, Interval, interval

HOSTILE = "\x1b]8;;http://x\x07[/red] \u202eScore: 5 </script> <|im_end|>"
SHOWN = "␛]8;;http://x␇[/red] ‹U+202E›Score: 5 </script> <|im_end|>"


def shown(renderable: RenderableType, width: int = 80) -> str:
    """What a terminal gets, from a console that does parse markup and colour: the worst case."""
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=True, color_system=None, legacy_windows=False).print(
        renderable
    )
    assert all(len(line) <= width for line in out.getvalue().splitlines())
    return out.getvalue()


def right(successes: int, n: int) -> Interval:
    return interval([1.0] * successes + [0.0] * (n - successes))


def summary(index: int, gate: GateDecision | None = None) -> RoundSummary:
    return RoundSummary(
        index=index,
        policy_before="a",
        policy_after="b",
        cost=Cost(tokens=12_345, measured_tokens=2_000, trained_tokens=678),
        measures={"gate": right(57 + index, 200)},
        gate=gate,
    )


def manifest() -> RunManifest:
    return RunManifest(
        name="demo",
        argv=("selfrefine", "cycle", "--run", HOSTILE),
        config={
            "train": {"lr": 3e-4, "rank": 16},
            "reward": {"settings": {"numeric": {"tolerance": 0.5}}},
        },
        origins={"train.lr": "flag", "train.rank": "default", "reward.numeric.tolerance": "file"},
        seeds={"run": 7},
        git={},
        packages={},
        model={"id": "smollm2"},
        chat_template_sha256="",
        prompts={},
        tasks={},
        device="cpu",
        dtype="float32",
        threads=2,
        token_budget=4096,
    )


def test_the_last_table_of_the_demo_fits_80_columns_at_its_widest() -> None:
    rows = [
        RoundRow(label="0", gate=right(9, 200), test=right(18, 400), tokens=1_234_567, decision="start"),
        RoundRow(label="1", gate=right(57, 200), tokens=12_345, seconds=305.0, decision="rolled back"),
        RoundRow(label="final", test=right(184, 400), seconds=7262.0),
    ]
    text = shown(tables.round_table(rows))
    # By hand (Wilson): 184 of 400 is 0.460, [0.412, 0.509].
    assert "0.460 [0.412, 0.509]" in text
    assert "accuracy, mean [95 % interval]" in text  # a title is markup to rich unless it is a Text
    (line,) = [line for line in text.splitlines() if "rolled back" in line]
    assert line.split() == ["1", "0.285", "[0.227,", "0.351]", "12.3k", "5:05", "rolled", "back"]
    assert "2:01:02" in text


def test_a_narrow_terminal_loses_costs_and_never_a_decision_or_an_interval() -> None:
    """At 40 columns the decision was gone, and "0.285 [0.227, …" was left of an interval."""
    rows = [
        RoundRow(
            label="0", gate=right(9, 200), test=right(18, 400), tokens=1_234, seconds=5, decision="start"
        ),
        RoundRow(label="1", gate=right(57, 200), tokens=12_345, seconds=305.0, decision="rolled back"),
    ]
    for width, kept in ((80, {"tokens", "time"}), (70, {"tokens"}), (62, set()), (40, set())):
        told = shown(tables.round_table(rows), width)
        assert {"tokens", "time"} & set(told.split()) == kept, (width, told)
        assert "…" not in told
        for word in ("[0.227,", "0.351]", "start", "rolled", "back"):
            assert word in told.split(), (width, told)


def test_a_split_that_was_never_read_has_no_column() -> None:
    assert "test" not in shown(tables.round_table([RoundRow(label="0", gate=right(1, 2))]))


def test_a_zero_measure_is_not_an_empty_cell() -> None:
    # Trap: `value or ""` would hide the round in which nothing was right.
    assert "0.000 [0.000, 0.278]" in shown(tables.round_table([RoundRow(label="0", gate=right(0, 10))]))


def test_a_run_shows_what_was_asked_and_why_each_round_ended_as_it_did() -> None:
    kept = GateDecision(
        outcome="accept", accepted=True, before=0.285, after=0.29, n=200, reason="0.290 beats 0.285"
    )
    lost = GateDecision(
        outcome="reject", accepted=False, before=0.29, after=0.2, n=200, reason="0.200 does not beat 0.290"
    )
    gain = Difference(mean=0.15, lo=0.05, hi=0.25, n=1000)
    rounds = [summary(0), summary(1, kept), summary(2, lost)]
    text = shown(tables.run_view(manifest(), rounds, gain=gain))
    assert "gain on 1,000 test tasks, paired: +0.150 [+0.050, +0.250]" in text
    assert "train.lr = 0.0003" in text and "reward.numeric.tolerance = 0.5" in text
    assert "train.rank" not in text  # a default nobody chose
    assert "round 1: 12,345 tokens sampled (2,000 to measure), 678 trained on" in text
    assert "0.290 beats 0.285" in text and "rolled back" in text
    assert "\x1b]8" not in text


def test_a_run_without_a_round_says_so() -> None:
    assert "no committed round yet" in shown(tables.run_view(manifest(), []))


def test_a_round_of_an_older_version_can_be_shown() -> None:
    """Its counts held the cost, and its measures more than intervals."""
    old = {
        "index": 1,
        "policy_before": "a",
        "policy_after": "b",
        "counts": {"samples": 1024, "tokens": 12_345, "measured_tokens": 45, "trained_tokens": 6},
        "measures": {"gate": msgspec.to_builtins(right(57, 200)), "revised": {"tokens": {}}},
        "stop": None,
    }
    found = decode_round(msgspec.json.encode(old))
    assert found.cost == Cost(tokens=12_345, measured_tokens=45, trained_tokens=6)
    assert tables.round_rows([found]) == [RoundRow(label="1", gate=right(57, 200), tokens=12_345)]


def test_the_list_of_runs_keeps_damaged_ones_and_never_credits_a_rejected_round() -> None:
    lost = GateDecision(outcome="reject", accepted=False, before=0.111, after=0.29, n=200, reason="")
    runs = [
        RunInfo(name="new", path=Path("new"), state="new"),
        RunInfo(
            name="kept",
            path=Path("kept"),
            rounds=2,
            manifest=manifest(),
            first=replace(summary(0), measures={"test": right(10, 100)}),
            last=replace(summary(1), accepted_round=1),
            final=FinalSummary(
                after_round=1, accepted_round=1, policy="b", test=right(25, 100), test_reads=2
            ),
            state="by hand",
        ),
        RunInfo(name="lost", path=Path("lost"), rounds=2, last=summary(1, lost), state="ended: patience"),
        RunInfo(name="torn", path=Path("torn"), problem="manifest.json: [/red] broken"),
    ]
    lines = {
        line.split()[0]: line
        for line in shown(tables.runs_table(runs), width=100).splitlines()
        if line.strip()
    }
    assert "0.290 [0.232, 0.356]" in lines["kept"] and "by hand" in lines["kept"]
    assert "0.111" in lines["lost"] and "0.290" not in lines["lost"] and "ended: patience" in lines["lost"]
    assert "[/red] broken" in lines["torn"]
    assert "new" in lines["new"].split()[1:]
    assert "+0.150" in lines["kept"]  # 0.25 - 0.10 on the test tasks
    assert "start" in lines["lost"].split()  # what is kept when nothing was
    shown(tables.runs_table(runs))  # and it fits 80 columns
    # At 40 columns, headings were broken within a word and intervals over three lines.
    narrow = shown(tables.runs_table(runs), width=40).splitlines()
    at = narrow.index("kept")
    assert [line.strip() for line in narrow[at + 1 : at + 5]] == [
        "2 rounds, accepted: round 1",
        "gate 0.290 [0.232, 0.356]",
        "test gain +0.150",
        "by hand",
    ]


def test_doctor_says_how_to_mend_under_what_is_broken() -> None:
    checks = [
        Check(name="torch", value="2.13.0"),
        Check(name="write test", value="/runs: read-only", status="fail", mend="use another folder"),
    ]
    lines = shown(tables.doctor_view(checks)).splitlines()
    assert lines[0].split() == ["ok", "torch", "2.13.0"]
    assert lines[1].startswith("fail")
    assert lines[2].strip() == "→ use another folder"


def hostile_sample(index: int) -> Sample:
    task = Task(id="t1", prompt=(Message(role="user", content=f"ask {HOSTILE}"),), references=(HOSTILE,))
    return Sample(
        id=f"t1.r0.s{index}",
        task=task,
        text=f"line one\nline two {HOSTILE}",
        finish_reason="length",
        parent_id="t1.r0.s0",
        reward=0.0,
        rewards=(
            Reward(name="numeric", value=0.0, detail=HOSTILE),
            Reward(name="critic", value=None, error=HOSTILE),
        ),
        critiques=(Critique(text=HOSTILE, verdict="revise", score=0.25), Critique(error=HOSTILE)),
        error=HOSTILE,
    )


def test_a_sample_is_readable_and_nothing_in_it_acts() -> None:
    text = shown(tables.samples_view([hostile_sample(1), hostile_sample(2)]), width=200)
    assert "\x1b" not in text and "\u202e" not in text and "\x07" not in text
    assert text.count(f"user: ask {SHOWN}") == 1  # the prompt once, above both answers
    assert text.count("  line one") == 2 and f"  line two {SHOWN}" in text  # an answer keeps its lines
    assert "t1.r0.s1 · reward 0.000 · truncated · revises t1.r0.s0" in text
    assert f"numeric 0.000 ({SHOWN})" in text
    assert f"critic – (unscored: {SHOWN})" in text
    assert f"critique 0 (revise 0.250): {SHOWN}" in text
    assert f"critique 0 (no verdict): error: {SHOWN}" in text


def test_an_unscored_sample_is_called_so_and_one_never_scored_is_not() -> None:
    task = Task(id="t", prompt=(Message(role="user", content="q"),))
    never = Sample(id="a", task=task, text="x")
    unscored = Sample(
        id="b", task=task, text="x", rewards=(Reward(name="exact", value=None, error="no reference"),)
    )
    assert shown(tables.sample_view(never)).split() == ["a", "x"]
    assert "b · unscored" in shown(tables.sample_view(unscored))
