"""results.json and RESULTS.md: what the last runs found on one machine, and nothing typed by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from benchmarks.machine import SIZE, Machine
from benchmarks.records import Results, Row, Section, Table

INTRODUCTION = (
    "Written by `make bench` from `results.json`; not edited by hand. Both sides of a line run in one "
    "process tree on the same weights (float32), the same prompts and lengths and the same number of "
    "threads, in turn. The ratio is that of the medians; in brackets the least and the greatest ratio of two "
    "neighbours."
)
COUNTING = (
    "Useful FLOPs are 2 per parameter for a sampled token and 4 per parameter for a token trained on with "
    "LoRA. Useful tokens are counted alike on both sides: when sampling the tokens drawn, the stop token "
    "included; when training prompt + completion tokens, each row counted by itself. A share can therefore "
    "pass 100 % where a prompt is computed once and counted often."
)
HERE = Path(__file__).parent
JSON, MARKDOWN = HERE / "results.json", HERE / "RESULTS.md"


def merged(before: Results | None, machine: Machine, model: str, sections: Sequence[Section]) -> Results:
    """New sections over those of before, which are kept only where machine, versions and model are the same.

    Figures of two machines, or of two versions of a peer, do not belong in one table.
    """
    kept = before.sections if before and (before.machine, before.model) == (machine, model) else ()
    new = {section.name: section for section in sections}
    both = [new.pop(section.name, section) for section in kept] + list(new.values())
    return Results(machine=machine, model=model, sections=tuple(both))


def without(found: Results | None, name: str) -> Results | None:
    """A part that was to be measured anew and was not: its old figures would pass for new ones."""
    if found is None:
        return None
    return msgspec.structs.replace(found, sections=tuple(s for s in found.sections if s.name != name))


def read(path: Path) -> Results | None:
    """None where there is no file, or one of another shape."""
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Results)
    except msgspec.MsgspecError:
        return None


def write(results: Results, path: Path = JSON, page: Path = MARKDOWN) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
    page.write_text(markdown(results), encoding="utf-8")


def markdown(results: Results) -> str:
    rows = [row for section in results.sections for row in section.rows]
    tables = [table for section in results.sections for table in section.tables]
    parts = [
        "# Measured side by side",
        INTRODUCTION,
        _machine(results),
        "## The table\n\n" + _comparisons(rows) if rows else "",
        "## How each line was measured\n\n" + _notes(rows) if rows else "",
        *(_table(table) for table in tables),
        "## Time taken\n\nSources: the beginning of a hash of ours; lines that differ are of different "
        "versions of them.\n\n" + _times(results.sections),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _machine(results: Results) -> str:
    m = results.machine
    versions = ", ".join(f"{name} {version}" for name, version in m.versions.items())
    plain = _range([section.product_rate for section in results.sections])
    packed = _range([s.packed_rate for s in results.sections if s.packed_rate is not None])
    return (
        f"Machine: {m.cpu}, {m.cores} cores, {m.memory_gib:.0f} GiB, {m.system}, Python {m.python}; "
        f"{m.threads} threads. Versions: {versions}. Model: {results.model}.\n\n"
        f"Matrix-product rate: {plain} (`torch.mm`, float32, {SIZE} × {SIZE}, measured before and after each "
        f"benchmark in its own process). The same product through oneDNN with a packed right side: {packed}; "
        f"what is ours multiplies through oneDNN, the peers through `torch.mm`. {COUNTING}"
    )


def _range(rates: Sequence[float]) -> str:
    return f"{min(rates) / 1e9:.0f} to {max(rates) / 1e9:.0f} GFLOP/s" if rates else "not measured"


def _comparisons(rows: Iterable[Row]) -> str:
    head = (
        "work",
        "against",
        "at least",
        "aim for",
        "measured",
        "ours",
        "peer",
        "share of product rate",
        "of oneDNN's",
        "reached",
    )
    return _grid(head, [_comparison(row) for row in rows])


def _comparison(row: Row) -> tuple[str, ...]:
    low, high = row.ratio.low, row.ratio.high
    runs = row.runs or f"{row.repeats} pairs"
    spread = f" ({low:.2f} to {high:.2f}, {runs})" if row.repeats > 1 else " (one run each)"
    share, packed = (
        NONE if ours is None else f"{ours:.0%} against {peer or 0:.0%}"
        for ours, peer in ((row.share, row.peer_share), (row.packed_share, row.packed_peer_share))
    )
    aim = (
        NONE
        if row.aim_for is None
        else f"{row.aim_for:g}×" + (f" and {row.share_aim:.0%} of the product rate" if row.share_aim else "")
    )
    measured = f"**{row.ratio.median:.2f}×**{spread}"
    return (
        row.work,
        row.against,
        f"{row.at_least:g}×",
        aim,
        measured,
        row.ours,
        row.peer,
        share,
        packed,
        reached(row),
    )


NONE = "–"


def reached(row: Row) -> str:
    """ "no", "at least" or "aim". An aim with a share needs both, the share of the larger product rate."""
    if row.ratio.median < row.at_least:
        return "no"
    if row.aim_for is None:
        return "at least"
    if row.ratio.median < row.aim_for:
        return "at least"
    least = min((share for share in (row.share, row.packed_share) if share is not None), default=0.0)
    return "aim" if row.share_aim is None or least >= row.share_aim else f"{row.aim_for:g}×, not the share"


def _notes(rows: Iterable[Row]) -> str:
    return "\n".join(f"- {row.work}: {' '.join(row.notes)}" for row in rows)


def _table(table: Table) -> str:
    return f"## {table.title}\n\n{table.text}\n\n{_grid(table.head, table.rows)}"


def _times(sections: Iterable[Section]) -> str:
    lines = [
        (
            s.name,
            f"{s.seconds:.0f} s",
            f"{s.product_rate / 1e9:.0f}",
            s.code or NONE,
            "tried out, not measured" if s.quick else "",
        )
        for s in sections
    ]
    return _grid(("benchmark", "time", "GFLOP/s of the product", "sources", ""), lines)


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
