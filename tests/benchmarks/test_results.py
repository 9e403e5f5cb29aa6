"""RESULTS.md is what was measured, and only on this machine."""

from __future__ import annotations

from pathlib import Path

import msgspec

from benchmarks import results
from benchmarks.compare import Ratio
from benchmarks.machine import Machine
from benchmarks.records import Results, Row, Section, Table

MACHINE = Machine(
    cpu="Abacus 9",
    cores=2,
    memory_gib=24.0,
    system="Linux x86_64",
    python="3.11.7",
    threads=2,
    versions={"torch": "2.13.0"},
)
ROW = Row(
    name="sample-fixed",
    work="64 prompts",
    against="a peer",
    at_least=2.4,
    aim_for=3.0,
    ratio=Ratio(median=2.5, low=2.25, high=2.75),
    repeats=3,
    ours="500 tokens/s",
    peer="200 tokens/s",
    share=0.5,
    peer_share=0.2,
    packed_share=0.25,
    packed_peer_share=0.1,
)


def section(name: str, *rows: Row, seconds: float = 61.0) -> Section:
    return Section(name=name, rows=rows, product_rate=2e11, seconds=seconds)


def test_a_line_of_the_table_says_what_was_asked_and_what_was_found() -> None:
    page = results.markdown(Results(machine=MACHINE, model="m", sections=(section("sample-fixed", ROW),)))
    assert (
        "| 64 prompts | a peer | 2.4× | 3× | **2.50×** (2.25 to 2.75, 3 pairs) | 500 tokens/s | 200 tokens/s "
        "| 50 % against 20 % | 25 % against 10 % | at least |"
    ) in page
    assert "Abacus 9, 2 cores, 24 GiB" in page
    assert "200 to 200 GFLOP/s" in page
    assert "torch 2.13.0" in page


def test_what_counts_as_reached() -> None:
    """The aim of the first line is a ratio and a share of the machine: one without the other is not it.

    The machine is what the faster library can do with it."""

    def at(median: float, share: float | None = None, packed: float | None = None) -> str:
        found = Ratio(median=median, low=median, high=median)
        row = msgspec.structs.replace(ROW, ratio=found, share=share, packed_share=packed, share_aim=0.75)
        return results.reached(row)

    assert at(2.39) == "no"
    assert at(2.4) == "at least"
    assert at(3.1, 0.7) == at(3.1, 0.82, 0.36) == "3×, not the share"
    assert at(3.1, 0.75) == at(3.1, 0.8, 0.76) == "aim"
    assert results.reached(msgspec.structs.replace(ROW, ratio=Ratio(median=3.0, low=1, high=4))) == "aim"


def test_a_single_run_shows_no_spread_and_a_row_without_a_share_shows_none() -> None:
    row = msgspec.structs.replace(ROW, repeats=1, share=None, packed_share=None)
    page = results.markdown(Results(machine=MACHINE, model="m", sections=(section("memory", row),)))
    assert "**2.50×** (one run each) | 500 tokens/s | 200 tokens/s | – | – |" in page


def test_a_side_that_ran_once_is_not_called_a_pair_and_no_aim_is_reached_where_none_was_set() -> None:
    row = msgspec.structs.replace(ROW, repeats=2, runs="two runs of ours, one of the peer", aim_for=None)
    page = results.markdown(Results(machine=MACHINE, model="m", sections=(section("round", row),)))
    assert "| 2.4× | – | **2.50×** (2.25 to 2.75, two runs of ours, one of the peer) |" in page
    assert results.reached(row) == "at least"


def test_a_part_measured_again_replaces_itself_and_leaves_the_others() -> None:
    before = Results(machine=MACHINE, model="m", sections=(section("a"), section("b", seconds=5.0)))
    after = results.merged(before, MACHINE, "m", [section("b", seconds=9.0), section("c")])
    assert [(s.name, s.seconds) for s in after.sections] == [("a", 61.0), ("b", 9.0), ("c", 61.0)]


def test_figures_of_another_machine_or_version_are_dropped() -> None:
    """Half a table from one processor and half from another would be read as one."""
    before = Results(machine=MACHINE, model="m", sections=(section("a"),))
    for changed in ({"cores": 4}, {"versions": {"torch": "2.14.0"}}, {"threads": 1}):
        other = msgspec.structs.replace(MACHINE, **changed)
        assert [s.name for s in results.merged(before, other, "m", [section("b")]).sections] == ["b"]
    assert [s.name for s in results.merged(before, MACHINE, "other", [section("b")]).sections] == ["b"]


def test_a_part_there_was_no_time_for_loses_its_old_figures() -> None:
    before = Results(machine=MACHINE, model="m", sections=(section("a"), section("b")))
    after = results.without(before, "a")
    assert after is not None
    assert [s.name for s in after.sections] == ["b"]


def test_what_is_written_is_read_again_and_a_foreign_file_is_nothing(tmp_path: Path) -> None:
    found = Results(machine=MACHINE, model="m", sections=(section("a", ROW),))
    results.write(found, tmp_path / "r.json", tmp_path / "R.md")
    assert results.read(tmp_path / "r.json") == found
    assert (tmp_path / "R.md").read_text() == results.markdown(found)
    (tmp_path / "r.json").write_text('{"sections": 1}')
    assert results.read(tmp_path / "r.json") is None
    assert results.read(tmp_path / "none.json") is None


def test_a_pipe_in_a_cell_does_not_make_another_column() -> None:
    table = Table(title="T", text="", head=("a",), rows=(("x|y",),))
    page = results.markdown(
        Results(
            machine=MACHINE, model="m", sections=(msgspec.structs.replace(section("t"), tables=(table,)),)
        )
    )
    assert "| x\\|y |" in page


def test_figures_of_two_versions_of_the_code_can_be_told_apart() -> None:
    """What is measured alone keeps the other lines as they were: they are of the sources they name."""
    old = msgspec.structs.replace(section("a"), code="11111111")
    new = msgspec.structs.replace(section("b"), code="22222222")
    page = results.markdown(Results(machine=MACHINE, model="m", sections=(old, new)))
    assert "| a | 61 s | 200 | 11111111 |" in page and "| b | 61 s | 200 | 22222222 |" in page
