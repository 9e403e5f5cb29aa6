"""Peak memory is that of a process which does one side's epoch and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny

from benchmarks import memory, training, work


@pytest.mark.long
@pytest.mark.parametrize("side", ["ours", "peer"])
def test_a_side_alone_in_its_process(side: str, tiny_model_dir: Path) -> None:
    rows = work.with_text(tiny.engine(), work.made_up(10, 2, 2, 5, 250))
    order = memory.Order(
        side=side,
        model=str(tiny_model_dir),
        threads=1,
        settings=training.with_batch(training.SETTINGS, 4),
        cut=training.Setting(rows=2, padding_free=False),
        samples=tuple(rows),
    )
    found = memory.run_child(order)
    assert found.peak >= found.loaded > 100_000_000, "torch alone takes more"


@pytest.mark.long
def test_a_side_that_fails_says_so(tmp_path: Path) -> None:
    order = memory.Order(
        side="ours",
        model=str(tmp_path),
        threads=1,
        settings=training.SETTINGS,
        cut=training.Setting(rows=2, padding_free=False),
        samples=(),
    )
    with pytest.raises(RuntimeError, match=r"the process of ours failed: .*no model there"):
        memory.run_child(order)
