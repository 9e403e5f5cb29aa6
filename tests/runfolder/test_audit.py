"""What differs in a run, what is damaged, and how runs are listed."""

from __future__ import annotations

import msgspec
import pytest
from folders import begin, commit_round, manifest, row, summary

from selfrefine.errors import RunFolderError
from selfrefine.runfolder.audit import drift, list_runs, verify
from selfrefine.runfolder.run import Run
from selfrefine.runfolder.summaries import GateDecision, RunManifest


def test_drift_names_what_differs_and_lets_a_run_be_extended() -> None:
    old = msgspec.json.decode(msgspec.json.encode(manifest()), type=RunManifest)
    later = manifest(
        name="x", argv=(), git={"commit": "def"}, origins={},
        config={"sampling": {"temperature": 1.0}, "cycle": {"rounds": 9, "until": 0.5, "max_minutes": 1}},
    )  # fmt: skip
    assert drift(old, later) == []
    # A run of a version without a setting: its default changes nothing, another value does.
    told = {"sampling": {"temperature": 1.0}, "cycle": {"rounds": 3}}
    assert drift(old, manifest(config=told | {"reward": {"isolate": False, "isolate_cpu_s": 60.0}})) == []
    assert drift(old, manifest(config=told | {"reward": {"isolate": True}})) == [
        "reward.isolate: not set in the run, true now"
    ]
    own = {"config": told | {"objective": {"grpo": {"eps": 0.2}}}}
    assert len(drift(old, manifest(**own))) == 1
    assert drift(old, manifest(**own, origins={"objective.grpo.eps": "default"})) == []
    other = manifest(
        threads=4,
        packages={"torch": "2.14.0"},
        config={"sampling": {"temperature": 0.7, "top_k": 5}, "cycle": {"rounds": 3, "n": 8}},
    )
    assert drift(old, other) == [
        "cycle.n: not set in the run, 8 now",
        "sampling.temperature: 1.0 in the run, 0.7 now",
        "sampling.top_k: not set in the run, 5 now",
        'packages.torch: "2.13.0" in the run, "2.14.0" now',
        "threads: 2 in the run, 4 now (sums are rounded differently)",
    ]


def test_a_drift_line_can_be_read() -> None:
    """Two hashes of 50 digits for an edited reward, and a long text that was cut lost its quote."""
    a, b, long = "a1" * 32, "b2" * 32, "word " * 20
    old = manifest(code={"rew.py": a, "gone.py": a}, prompts={"p.md": f"sha256:{a}"}, config={"x": long})
    new = manifest(code={"rew.py": b}, prompts={"p.md": f"sha256:{b}"}, config={"x": [long, "y"]})
    assert drift(old, new) == [
        'code.gone.py: "a1a1a1a1a1a1…" in the run, not set now',
        "rew.py was edited since the run began",
        f'x: "{long[:57]}…" in the run, ["{long[:56]}…" now',
        'prompts.p.md: "sha256:a1a1a1a1a1a1…" in the run, "sha256:b2b2b2b2b2b2…" now',
    ]


def test_verify_finds_a_changed_and_a_missing_artifact(run: Run) -> None:
    commit_round(run, 0)
    commit_round(run, 1, accepted=1)
    assert verify(run) == []
    path = run.round(0).file("generate")
    path.write_bytes(path.read_bytes().replace(b'"text":"2"', b'"text":"3"'))
    with pytest.raises(RunFolderError, match="changed after its round was committed"):
        list(run.round(0).samples("generate"))
    (run.round(1).adapter / "adapter_model.safetensors").unlink()
    assert verify(run) == [
        "round-000/generate.jsonl: changed since it was written",
        "round-001/adapter/adapter_model.safetensors: missing",
    ]


def test_what_no_hash_speaks_of_is_missed_too(run: Run) -> None:
    """The trap: a run that ended with nothing to learn in round 1, whose answers were deleted, was whole."""
    commit_round(run, 0)
    folder, events = run.round(1), run.path / "events.jsonl"
    folder.stage("generate", [0], lambda _: ([row("base", 1)], b"null"), summarise=lambda _: b"{}")
    for place, stage in ((1, "generate"), (1, "select"), ("final", "test")):
        run.events.append("stage-begin", round=place, stage=stage)
        if stage != "select":
            run.events.append("stage-end", round=place, stage=stage, seconds=1.0)
    run.final.stage("test", [0], lambda _: ([row("base")], b"null"), summarise=lambda _: b"{}")
    assert verify(run) == []
    folder.summary_file("generate").write_text("null")
    assert "generate.json is damaged: Expected `object`" in verify(run)[0]
    folder.summary_file("generate").unlink()
    folder.file("generate").unlink()
    said = "is missing: events.jsonl says that its stage was finished"
    assert verify(run) == [f"round-001/generate.jsonl {said}"]
    folder.path.rmdir()
    run.final.path.rename(run.path / "final-after-000")  # moved by an extension, which is no loss
    assert verify(run) == [f"round-001 {said}"]
    (run.path / "final-after-000/test.jsonl").unlink()
    assert verify(run) == [f"round-001 {said}", f"final/test.jsonl {said}"]
    run.events.append("stage-begin", round=2, stage="generate")  # an end without its summary is made anew
    assert verify(run) == [f"round-001 {said}"]
    commit_round(run, 1)
    (run.round(0).path / "round.json").unlink()
    assert "round-000/round.json is missing, but round 1 was committed" in verify(run)
    whole = events.read_bytes()
    for size in (60, len(whole) - 3):  # within the first line and within the last
        events.write_bytes(whole[:size])
        number = whole[:size].count(b"\n") + 1
        assert f"events.jsonl:{number} is damaged: not a whole event" in verify(run)
        assert run.events.cut()


def test_a_damaged_run_is_listed_as_such(run: Run) -> None:
    """The traps: "interrupted" for cut events, and no line at all without a manifest."""
    runs = run.path.parent
    commit_round(run, 0)
    run.events.append("end", why="1 round done")
    (runs / "empty").mkdir()
    (runs / "README.md").touch()
    (runs / "torn").mkdir()
    (runs / "torn/manifest.json").write_text("null")
    told = {info.name: (info.state, info.problem or "") for info in list_runs(runs)}
    assert told["demo"] == ("ended: 1 round done", "") and sorted(told) == ["demo", "empty", "torn"]
    assert told["empty"][0] == told["torn"][0] == "damaged"
    assert "manifest.json: No such file" in told["empty"][1] and "is damaged" in told["torn"][1]
    for broken in (run.round(0).file("generate"), run.path / "events.jsonl"):
        whole = broken.read_bytes()
        broken.write_bytes(whole[:-5])
        [info] = [one for one in list_runs(runs) if one.name == "demo"]
        what = f"{broken.relative_to(run.path)} is damaged: see `selfrefine runs verify"
        assert info.state == "damaged" and info.problem and info.problem.startswith(what)
        broken.write_bytes(whole)


def test_verify_names_the_row_that_does_not_decode(run: Run) -> None:
    begin(run)
    run.round(0).stage("generate", [0], lambda _: ([row("base"), b'{"id":'], b"null"))
    [problem] = verify(run)
    assert problem.startswith("round-000/generate.jsonl:2: broken JSON line")


def test_verify_finds_a_round_that_sampled_another_policy(run: Run) -> None:
    """The trap: a script that ignored its model argument and sampled the old model for ever (Oxen)."""
    commit_round(run, 0)
    folder = run.round(1)
    folder.stage(
        "generate",
        [0],
        lambda _: ([row("base", 1), row("", 1, finish_reason="error", error="too long")], b"null"),
    )
    folder.stage(
        "selected", [0], lambda _: ([row("older", 2), row("base", 1)], b"null")
    )  # a replayed row may be another's
    folder.stage("gate", [0], lambda _: ([row("base")], b"null"))
    gate = GateDecision(outcome="accept", accepted=True, before=0.1, after=0.2, n=1, reason="better")
    folder.put_directory("adapter", lambda d: None)
    folder.commit(summary(1, policy_after="new", gate=gate, accepted_round=1))
    assert verify(run) == ["round-001/gate.jsonl:1: sampled by policy base, not by new"]
    run.round(2).stage("generate", [0], lambda _: ([row("base", 2)], b"null"))
    run.round(2).commit(summary(2, policy_before="new", policy_after="new", accepted_round=1))
    run.final.stage("test", [0], lambda _: ([row("base")], b"null"))
    assert verify(run)[1:] == [
        "round-002/generate.jsonl:1: sampled by policy base, not by new",
        "final/test.jsonl:1: sampled by policy base, not by new",
    ]


def test_runs_are_listed_from_their_manifests_and_rounds_alone(run: Run) -> None:
    """None of them has a row file: a listing that read rows would take as long as the runs are large."""
    commit_round(run, 0)
    for n in range(199):
        path = run.path.parent / f"run-{n:03d}"
        (path / "round-000").mkdir(parents=True)
        for name in ("manifest.json", "round-000/round.json"):
            (path / name).write_bytes((run.path / name).read_bytes())
    found = list_runs(run.path.parent)
    assert len(found) == 200
    # The measurement of the starting policy is no round: three rounds were listed as four.
    assert all(info.rounds == 0 and info.last and info.manifest for info in found)


# --- events ----------------------------------------------------------------------------------------
