"""What a run will take is told before it begins: of a new one, and of one that is there."""

from __future__ import annotations

from pathlib import Path

from harness import jsonl, selfrefine, task


def test_a_dry_run_of_a_run_has_its_settings_and_refuses_others(tmp_path: Path) -> None:
    """The trap: --run was parsed and ignored, and the plan was that of the defaults."""
    (tmp_path / "t.jsonl").write_bytes(jsonl(*(task(f"t{i}", f"What is {i} + 2?") for i in range(8))))
    sets = ["tasks.source=t.jsonl", "tasks.gate=2", "tasks.test=2", "generate.n=3", 'reward.use=["exact"]']
    words = [word for text in sets for word in ("--set", text)]
    assert selfrefine("runs", "new", "r", "--model", "scripted", *words, cwd=tmp_path).code == 0
    (tmp_path / "t.jsonl").unlink()  # a run has its tasks
    done = selfrefine("cycle", "--run", "r", "--dry-run", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "4 prompts × 3 samples = 12 answers" in done.out.decode()
    refused_run = selfrefine("cycle", "--run", "r", "-n", "5", "--dry-run", cwd=tmp_path)
    assert refused_run.code == 5 and "generate.n" in refused_run.err


def test_a_dry_run_counts_each_critic_that_writes_and_tells_of_fresh_samples(tmp_path: Path) -> None:
    """4 prompts x 2 answers x 8 tokens, 2 gate tasks of 8. A revision has 8 tokens, a model's critique 10:
    none, one and two of them for each answer are 8 x 8, 8 x 18 and 8 x 28. Fresh samples cost about as much
    again, and twice that where they are drawn as the cooler revisions, too."""
    (tmp_path / "t.jsonl").write_bytes(jsonl(*(task(f"t{i}", f"What is {i} + 2?") for i in range(8))))
    sets = ["tasks.source=t.jsonl", "tasks.gate=2", "tasks.test=2", "generate.n=2", 'reward.use=["exact"]']
    sets += ["generate.max_new_tokens=8", "critique.max_new_tokens=10", "critique.passes=1"]

    def told(*more: str) -> str:
        words = [word for text in [*sets, *more] for word in ("--set", text)]
        return selfrefine("cycle", "--dry-run", "--model", "scripted", *words, cwd=tmp_path).out.decode()

    two = ['critique.critics=["model", "policy", "exact"]', "critique.critic_model=scripted:"]
    for more, own in ((["critique.source=rewards"], 64), ([], 144), (two, 224)):
        plan = told(*more)
        assert f"at most {64 + own + 16} per round" in plan, plan
        assert f"fresh samples for about {own} more per round" in plan
    assert "about 288 more per round" in told("critique.revision_temperature=0.5")
    assert "fresh samples" not in told("critique.control=false")
