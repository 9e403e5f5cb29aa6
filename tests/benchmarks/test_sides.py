"""What both sides are given and how their tokens are counted."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
import torch

from benchmarks import __main__, machine, profile, sampling, training, work
from benchmarks.profile import Spent
from benchmarks.sampling import Job, Setting

JOB = Job(n=2, max_new_tokens=5, fixed=True)


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    """`python -m benchmarks` sets its own number of threads; the tests after these keep theirs."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_tokens_behind_a_stop_token_do_not_count() -> None:
    """Row 1 stops at its second token (2), row 2 never (3), row 3 at once (1): 6, where 9 were computed.

    The padding is the stop token itself: counting stop tokens, or what is no padding, would be wrong.
    """
    new = torch.tensor([[5, 0, 0], [5, 5, 5], [0, 0, 0]])
    assert sampling._sampled(new, torch.tensor([0, 9])) == 6
    assert sampling._sampled(new, torch.tensor([])) == 9


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_fixed_lengths_are_exact_on_both_sides(cache: str) -> None:
    """4 prompts x 2 samples x 5 tokens. A stop token drawn on the way must end neither side's answer."""
    engine = tiny.engine()
    prompts = work.demo_prompts(engine, 4)
    stops = engine.stop_ids
    assert sampling.ours(engine, prompts, JOB, 0).tokens == 40
    assert engine.stop_ids == stops, "put back"
    every = sampling.Peer(tiny.model(), range(300), engine.end_id)  # whatever is drawn would be a stop token
    assert sampling.peer(every, prompts, JOB, Setting(rows=4, cache=cache), 0).tokens == 40
    stopping = Job(n=2, max_new_tokens=5, fixed=False)
    assert sampling.peer(every, prompts, stopping, Setting(rows=4, cache=cache), 0).tokens < 40


def test_the_peer_gets_the_very_prompts_padded_on_the_left() -> None:
    engine = tiny.engine()
    prompts = work.demo_prompts(engine, 5)
    seen: list[list[int]] = []
    for ids, mask in sampling._batches(prompts, 2, pad=7):
        assert not torch.any(mask[:, -1] == 0)
        seen += [row[keep.bool()].tolist() for row, keep in zip(ids, mask, strict=True)]
    assert sorted(seen) == sorted(list(prompt.ids) for prompt in prompts)


def test_both_trainers_start_from_the_same_loss_on_the_same_rows() -> None:
    """Other labels, another order of steps or another mean would show here, before any time is compared."""
    pytest.importorskip("trl")
    engine = tiny.engine()
    rows = work.with_text(engine, work.made_up(10, 3, 4, 5, 250))
    settings = training.with_batch(training.SETTINGS, 4)
    peer = training.Peer(
        tiny.model(), engine.tokenizer, training.same_steps(engine, rows, settings), settings
    )
    ours = training.ours(engine, rows, settings)
    for setting in (
        training.Setting(rows=2, padding_free=False),
        training.Setting(rows=4, padding_free=True),
    ):
        theirs = peer.train(setting, steps=1)
        assert theirs.first_loss == pytest.approx(ours.first_loss, rel=1e-4)
        assert training.first_losses(ours.first_loss, theirs.first_loss).startswith("first loss ")
    assert ours.timed.tokens == 12 * 15
    assert theirs.timed.tokens == 4 * 15


def test_different_first_losses_are_refused() -> None:
    with pytest.raises(ValueError, match="not the same job"):
        training.first_losses(1.0, 1.01)
    with pytest.raises(ValueError, match="no loss"):
        training.first_losses(1.0, None)


def test_kinds_of_time() -> None:
    """1 s of products, 0.5 s of attention, 0.25 s over the vocabulary, 0.25 s elementwise, in 4 s.

    The head's product is a product over 300 words and belongs to the head.
    """
    spent = [
        Spent(name="aten::mm", shapes=((8, 32), (32, 48)), seconds=1.0),
        Spent(name="aten::_scaled_dot_product_flash_attention_for_cpu", shapes=((1, 4, 8, 8),), seconds=0.5),
        Spent(name="aten::mm", shapes=((8, 32), (32, 300)), seconds=0.25),
        Spent(name="aten::mul", shapes=((8, 32), (8, 32)), seconds=0.25),
        Spent(name="Optimizer.step#AdamW.step", shapes=(), seconds=9.0),
    ]
    found = profile.shares(spent, 4.0, vocabulary=300)
    assert found == {
        "matrix products": 0.25,
        "attention": 0.125,
        "head": 0.0625,
        "elementwise and copies": 0.0625,
        "Python and the rest": 0.5,
    }


def test_the_machine_is_described_without_its_name() -> None:
    import platform

    found = machine.describe(2)
    assert found.cores >= 1
    assert found.versions["torch"] == torch.__version__ or found.versions["torch"] in torch.__version__
    assert platform.node() not in (found.cpu, found.system)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads Linux's own account of a process")
def test_the_peak_is_never_below_what_is_held() -> None:
    assert machine.peak_bytes() >= machine.resident_bytes() > 10_000_000


def test_a_tiny_run_prints_the_page_and_leaves_the_published_one_alone(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import results

    for name in ("OMP_NUM_THREADS", "HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, "1")  # set by main for its own process; undone here
    monkeypatch.setattr(results, "write", lambda *args: pytest.fail("a quick run published its figures"))
    page = tmp_path / "page.md"
    words = [
        "--quick",
        "--only",
        "sample-fixed",
        "--model",
        str(tiny_model_dir),
        "--threads",
        "1",
        "-o",
        str(page),
    ]
    assert __main__.main(words) == 0
    out = capsys.readouterr()
    assert out.out.strip() == page.read_text().strip()
    assert "test run of a tiny job" in out.out
    assert "rows per call, dynamic cache" in out.out
    assert "Tokens per answer: 4.0 and 4.0." in out.out
    assert "1 of 1" in out.err
    assert "torch" in sys.modules


def test_what_there_is_no_time_for_is_a_gap_and_not_a_figure() -> None:
    from benchmarks.context import Context
    from benchmarks.load import NOT_RUN, training_load

    late = Context(model="", threads=1, quick=True, minutes=0.0, _kept={"engine": tiny.engine()})
    (table,) = training_load(late).tables
    assert table.rows == (("8 + 4", NOT_RUN, NOT_RUN),)
