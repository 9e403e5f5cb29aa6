"""What a round's files come to in numbers: for round.json and the table of rounds."""

from __future__ import annotations

import msgspec

from selfrefine.records import Sample
from selfrefine.runfolder.round import RoundDir
from selfrefine.steps import generate as generate_step


def round_counts(folder: RoundDir) -> dict[str, int]:
    """What the round's files hold. tokens: sampled ones, critiques, hints and revisions included;
    measured_tokens: those of them that were sampled to measure."""
    counts: dict[str, int] = {"tokens": 0, "measured_tokens": 0}
    for name in ("generate", "resampled", "rationalised", "critique", "gate", "test", "revised"):
        if not folder.has(name):
            continue
        rows = list(folder.samples(name))
        found = generate_step.counts(rows)
        tokens = found.pop("tokens")
        if name in ("critique", "revised"):  # their rows are the drafts too, and those are counted elsewhere
            tokens = critique_tokens(rows, name)
        if name == "critique":
            found["tokens"] = tokens
        counts["tokens"] += tokens
        if name in ("gate", "test", "revised"):
            counts["measured_tokens"] += tokens
        prefix = "" if name == "generate" else f"{name}_"
        counts |= {f"{prefix}{key}": value for key, value in found.items()}
    if folder.has("reward"):
        counts["unscored"] = sum(row.reward is None for row in folder.samples("reward"))
    if folder.file("train").is_file():
        lines = folder.file("train").read_bytes().splitlines()
        counts["steps"] = len(lines)
        counts["trained_tokens"] = sum(msgspec.json.decode(line)["tokens"] for line in lines)
    return counts


def critique_tokens(rows: list[Sample], name: str) -> int:
    """critique.jsonl repeats the drafts of generate.jsonl; the drafts of revised.jsonl are its own."""
    own = sum(len(row.token_ids) for row in rows if row.parent_id is not None or name == "revised")
    return own + sum(len(c.token_ids) for row in rows for c in row.critiques)
