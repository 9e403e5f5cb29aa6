"""The run that reading is timed on: made small, it can be asked, tidied and extended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from harness import environment

from benchmarks import big_run


def test_the_script_learns_additions_first() -> None:
    """Of 20 draws; with three rounds of learning additions of one digit are nearly always right."""
    right = {
        (question, skill): big_run._said(f"What is {question}?", skill).count(answer)
        for question, answer in (("2 + 2", "4"), ("2 - 2", "0"), ("22 + 22", "44"))
        for skill in (0, 3)
    }
    assert right == {
        ("2 + 2", 0): 11,
        ("2 + 2", 3): 17,
        ("2 - 2", 0): 3,
        ("2 - 2", 3): 6,
        ("22 + 22", 0): 7,
        ("22 + 22", 3): 16,
    }


@pytest.mark.long
def test_a_small_one_is_made_collected_and_extended(tmp_path: Path) -> None:
    """A real cycle goes on over a collected adapter, and the run is whole at its end."""

    def ran(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    ran("benchmarks.big_run", "--small", "--make")
    counted = ran(
        "selfrefine",
        "runs",
        "sql",
        "big",
        "select count(*) n from samples where parent_id is null and round > 0 and stage = 'reward'",
    )
    assert counted == '{"n":160}\n'
    import json

    round_file = tmp_path / "runs/big/round-002/round.json"
    told = json.loads(round_file.read_text())
    told["gate"] |= {"outcome": "reject", "accepted": False}
    told |= {"undecided_round": None, "accepted_round": 0}
    round_file.write_text(json.dumps(told))
    assert "round-002/adapter" in ran("selfrefine", "runs", "gc", "big", "--yes")
    ran("selfrefine", "cycle", "--run", "big", "--rounds", "3")
    assert (tmp_path / "runs/big/round-003/round.json").is_file()
    ran("selfrefine", "runs", "verify", "big")
