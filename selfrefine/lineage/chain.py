"""`lineage.json` of an accepted adapter: its base, every round up to it, and the hashes that tie them.

It is written when the round's gate has decided and before the round's files are hashed, so round.json covers
it. Of each earlier round it has the sha256 of round.json, which covers that round's files: the chain leads
from the base to this adapter. It holds no clock time and no path: two runs that are equal have equal ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any

import msgspec
from msgspec import Struct

from selfrefine.compute import adapter_files
from selfrefine.errors import ConfigError, RunFolderError
from selfrefine.records import Count
from selfrefine.runfolder.jsonl import read_json, sha256_file
from selfrefine.runfolder.round import ROUND_FILE, RoundDir
from selfrefine.runfolder.run import Run
from selfrefine.runfolder.summaries import GateDecision, Guard, RoundSummary
from selfrefine.stats import Interval

LINEAGE, CARD = "lineage.json", "README.md"
TOLD = (
    *("recipe", "seed", "tasks.source", "tasks.settings", "tasks.suffix", "generate.n"),
    *("generate.temperature", "generate.max_new_tokens", "generate.system", "critique.passes"),
    *("reward.use", "reward.gate_on", "evaluate.measure", "evaluate.n", "evaluate.temperature"),
    *("evaluate.best_of", "evaluate.by"),
    *("select.strategy", "select.min_reward", "objective.name", "objective.reference", "train.start"),
    *("train.lr", "train.epochs", "train.steps", "train.batch_size", "train.replay", "train.lora.r"),
    *("train.lora.alpha", "train.lora.targets", "cycle.prompts_per_round", "gate.mode", "gate.alpha"),
)
"""The settings that a reader of a card asks for; the manifest has all of them."""


class Origin(Struct, frozen=True, kw_only=True):
    """The adapter that a run started from (`--adapter`)."""

    name: str
    """Its folder's name."""
    adapter_sha256: str
    """Of what decides its policy; round 0's policy is computed from it and the base."""
    files: dict[str, str]
    """File to sha256."""
    run: str | None = None
    round: Count | None = None
    """The run and the round that made it, where its own lineage says so."""
    lineage_sha256: str | None = None
    """Of its own lineage.json."""


class Link(Struct, frozen=True, kw_only=True):
    """One round of the chain."""

    round: Count
    policy_before: str
    """The policy that sampled this round."""
    policy_after: str
    outcome: str | None = None
    """accept, undecided or reject; null of round 0, which measures the start."""
    gate: GateDecision | None = None
    measures: dict[str, Interval] = {}
    sampled_by: Count | None = None
    """The round whose adapter sampled this one; 0 is the start; null of round 0."""
    trained_from: Count | None = None
    """The round whose adapter training went on from. 0: the starting adapter, or a fresh one on the base."""
    data: dict[str, str] = {}
    """selected.jsonl, which training used, and train.jsonl to sha256."""
    adapter: dict[str, str] = {}
    """The adapter's files to sha256, without the card and this file."""
    round_sha256: str | None = None
    """Of round.json; null of the last round, whose round.json is written after this file and covers it."""


class Lineage(Struct, frozen=True, kw_only=True):
    """`lineage.json`."""

    v: int = 1
    run: str
    round: Count
    """The accepted round."""
    policy: str
    """What base + this adapter compute as; rows that it sampled carry it."""
    base: dict[str, str]
    """The base model: id, revision, weights_sha256."""
    chat_template_sha256: str
    origin: Origin | None = None
    chain: tuple[Link, ...]
    """Round 0 to this one."""
    guards: tuple[Guard, ...] = ()
    """Figures watched beside the main measure, of this round."""
    settings: dict[str, Any] = {}
    seeds: dict[str, int]
    tasks: dict[str, str]
    """Split to sha256 of its frozen file."""
    prompts: dict[str, str]
    code: dict[str, str]
    packages: dict[str, str]
    device: str
    dtype: str


def of_round(run: Run, summary: RoundSummary, origin: Origin | None) -> Lineage:
    """The lineage of an accepted round, from the rounds before it, its own `summary` (which may still have
    to be committed) and its files. Raises: RunFolderError."""
    own = run.manifest
    folder = run.round(summary.index)
    links = [_link(run, run.summary(k), run.round(k)) for k in range(summary.index)]
    last = msgspec.structs.replace(_link(run, summary, folder), round_sha256=None)
    return Lineage(
        run=own.name,
        round=summary.index,
        policy=summary.policy_after,
        base=dict(own.model) | {"id": _name(own.model.get("id", ""))},
        chat_template_sha256=own.chat_template_sha256,
        origin=origin,
        chain=(*links, last),
        guards=summary.guards,
        settings={key: _plain(value) for key in TOLD if (value := _at(own.config, key)) is not None},
        seeds=own.seeds,
        tasks=own.tasks,
        prompts=own.prompts,
        code={_name(file): sha256 for file, sha256 in own.code.items()},
        packages=own.packages,
        device=own.device,
        dtype=own.dtype,
    )


def encode(lineage: Lineage) -> bytes:
    return msgspec.json.format(msgspec.json.encode(lineage, order="deterministic")) + b"\n"


def read(adapter: Path) -> Lineage | None:
    """An adapter folder's lineage; None where it has none. Raises: RunFolderError: it is damaged."""
    return read_json(adapter / LINEAGE, Lineage)


def origin_of(adapter: Path | None) -> Origin | None:
    """What there is to know of the adapter that a run starts from. Raises: ConfigError, RunFolderError."""
    if adapter is None:
        return None
    told = None
    with suppress(RunFolderError):  # somebody else's file of that name
        told = read(adapter)
    return Origin(
        name=adapter.resolve().name if adapter.name in ("", ".", "..") else adapter.name,
        adapter_sha256=adapter_files.adapter_sha256(adapter),
        files=digests(adapter),
        run=told.run if told else None,
        round=told.round if told else None,
        lineage_sha256=sha256_file(adapter / LINEAGE) if told else None,
    )


def digests(adapter: Path) -> dict[str, str]:
    """File to sha256, without what is written about the adapter."""
    files = (path for path in sorted(adapter.rglob("*")) if path.is_file())
    named = ((path.relative_to(adapter).as_posix(), path) for path in files)
    return {
        name: sha256_file(path)
        for name, path in named
        if name not in (LINEAGE, CARD) and not name.startswith(".")
    }


def policy_of(base: Mapping[str, str], adapter: Path | str) -> str | None:
    """The policy of base + an adapter, given as its folder or its hash ("" is none). As `Weights.policy`.

    None where the base has no hash, or the folder's files cannot be read.
    """
    if not (weights := base.get("weights_sha256")):
        return None
    if isinstance(adapter, str):
        return adapter_files.policy(weights, adapter)
    try:
        return adapter_files.policy(weights, adapter_files.adapter_sha256(adapter))
    except (OSError, ValueError, ConfigError):
        return None


def _link(run: Run, summary: RoundSummary, folder: RoundDir) -> Link:
    k = summary.index
    measured = Link(
        round=k,
        policy_before=summary.policy_before,
        policy_after=summary.policy_after,
        outcome=summary.gate.outcome if summary.gate else None,
        gate=summary.gate,
        measures=summary.measures,
        round_sha256=sha256_file(folder.path / ROUND_FILE) if folder.committed else None,
    )
    if not k:
        return measured
    before = run.summary(k - 1)
    current = before.accepted_round if before.undecided_round is None else before.undecided_round
    goes_on = _at(run.manifest.config, "train.start") == "adapter"
    data = {name: folder.file(name.removesuffix(".jsonl")) for name in ("selected.jsonl", "train.jsonl")}
    hashed = summary.artifacts  # empty while the round is being committed
    return msgspec.structs.replace(
        measured,
        sampled_by=current,
        trained_from=current if goes_on else 0,
        data={
            name: hashed.get(name) or sha256_file(path)
            for name, path in data.items()
            if name in hashed or path.is_file()
        },
        adapter=_adapter(hashed) if hashed else digests(folder.adapter),
    )


def _adapter(hashed: Mapping[str, str]) -> dict[str, str]:
    """A committed round's adapter files by round.json: of a rejected one they may be gone."""
    own = {name.removeprefix("adapter/"): sha for name, sha in hashed.items() if name.startswith("adapter/")}
    return {name: sha for name, sha in own.items() if name not in (LINEAGE, CARD)}


def _at(config: Mapping[str, Any], key: str) -> Any:
    """A setting by its dotted key; None where a run of an earlier version has none."""
    found: Any = config
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _plain(value: Any) -> Any:
    """Paths in it by their names: a card is published, and where somebody's files lie is not its topic."""
    if isinstance(value, str):
        return _name(value)
    if isinstance(value, Sequence):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return value


def _name(value: str) -> str:
    """An absolute path's last part, whatever kind (`local:/home/me/x`) stands before it."""
    kind, colon, path = value.rpartition(":/") if ":/" in value and "://" not in value else ("", "", value)
    path = f"/{path}" if colon else path
    if not path.startswith(("/", "~", "./", "../")) or any(c.isspace() for c in path):
        return value
    short = PurePath(path).name or path
    return f"{kind}:{short}" if colon else short
