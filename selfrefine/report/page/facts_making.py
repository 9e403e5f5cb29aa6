"""How it was made: the adapter's lineage, the settings and who decided them, how to make it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import msgspec

from selfrefine.layers import path_of
from selfrefine.report.page.figures import Figure, Section, Table
from selfrefine.report.page.read import Told
from selfrefine.runfolder.summaries import RunManifest
from selfrefine.words import count

_WEIGHTS = "adapter/adapter_model.safetensors"
_MOST = 300
"""Characters of a setting."""


def section(told: Told, key: str) -> Section:
    figures = [
        lineage(told, key),
        _reproduce(told, key),
        _settings(told.manifest, key),
        _environment(told.manifest, key),
    ]
    return Section(
        id=f"{key}-made", title="How it was made", figures=tuple(one for one in figures if one is not None)
    )


def lineage(told: Told, key: str) -> Figure | None:
    """Each round's policy before and after, and the hash of its candidate."""
    if not told.rounds:
        return None
    rows = []
    for one in told.rounds:
        weights = one.artifacts.get(_WEIGHTS)
        rows.append(
            (
                str(one.index),
                one.decision or "–",
                one.policy_before[:12] or "–",
                one.policy_after[:12] or "–",
                f"round {one.accepted_round}" if one.accepted_round else "the start",
                weights[:16] if weights else "–",
            )
        )
    chain = lineage_chain(told)
    return Figure(
        id=f"{key}-lineage",
        title="Lineage of the adapter",
        finding=chain,
        wide=True,
        open=True,
        table=Table(
            headings=(
                "round",
                "decision",
                "policy before",
                "policy after",
                "accepted then",
                "sha256 of the candidate",
            ),
            rows=tuple(rows),
            kinds=("text", "text", "text", "text", "text", "text"),
        ),
    )


def lineage_chain(told: Told) -> str:
    """The rounds that the accepted policy came through, by the candidates that were not rolled back."""
    last = told.rounds[-1].accepted_round
    if not last:
        return "The accepted policy is the starting one: no round was kept."
    through = [last]
    while (parent := _parent(told, through[0])) > 0:
        through.insert(0, parent)
    base = told.manifest.model.get("id", "the model")
    how = (
        "trained on from the one before it"
        if told.manifest.config.get("train", {}).get("start") == "adapter"
        else "trained from the base, on answers of the policy before it"
    )
    chain = " → ".join(f"round {k}" for k in through)
    return f"The accepted adapter is that of round {last}: {base} → {chain}; each was {how}."


def _parent(told: Told, k: int) -> int:
    """The round whose policy sampled what round k learnt from; 0 is the starting one."""
    before = next((one for one in told.rounds if one.index == k - 1), None)
    if before is None:
        return 0
    return before.accepted_round if before.undecided_round is None else before.undecided_round


def _reproduce(told: Told, key: str) -> Figure:
    manifest = told.manifest
    argv = list(manifest.argv)
    if argv:
        argv[0] = argv[0].rpartition("/")[2]
    command = shlex.join(argv) if argv else "–"
    check = f"selfrefine runs verify {told.run.called}"
    commit = manifest.git.get("commit")
    dirty = " with changes that were not committed" if manifest.git.get("dirty") else ""
    where = f" It was given in a checkout of commit {str(commit)[:12]}{dirty}." if commit else ""
    seeds = ", ".join(f"{name} {value}" for name, value in manifest.seeds.items())
    return Figure(
        id=f"{key}-again",
        title="Make it again",
        finding=f"The command that made this run (seed: {seeds}). On the same kind of device, "
        f"with the same versions and "
        f"{count(manifest.threads, 'thread')}, it gives the same bytes.{where}",
        code=(command, check),
    )


def _settings(manifest: RunManifest, key: str) -> Figure:
    rows = sorted(settings(manifest), key=lambda row: (row[2] == "default", row[0]))
    chosen = sum(1 for row in rows if row[2] != "default")
    return Figure(
        id=f"{key}-settings",
        title="Settings",
        finding=f"{count(chosen, 'setting')} of {len(rows)} were chosen by a flag, a file or the "
        f"recipe; they stand first in the table.",
        table=Table(
            headings=("setting", "value", "decided by"), rows=tuple(rows), kinds=("text", "text", "text")
        ),
    )


def settings(manifest: RunManifest) -> Iterator[tuple[str, str, str]]:
    """Dotted key, value as JSON, and who decided it; of a value without an origin, the default."""
    seen = set()
    for key, origin in manifest.origins.items():
        seen.add(key)
        yield key, _short(_value(manifest.config, key)), origin
    for key, value in _flat(manifest.config):
        if not any(key == one or key.startswith(f"{one}.") for one in seen):
            yield key, _short(value), "default"


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _value(config: dict[str, Any], dotted: str) -> Any:
    value: Any = config
    for part in path_of(dotted):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _short(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _MOST else text[: _MOST - 1] + "…"


def _environment(manifest: RunManifest, key: str) -> Figure:
    facts = [("device", f"{manifest.device}, {manifest.dtype}, {count(manifest.threads, 'thread')}")]
    facts += [(f"model {name}", value) for name, value in manifest.model.items()]
    facts += [(f"critic {name}", value) for name, value in manifest.critic.items()]
    facts += [(f"tasks {name}", f"sha256 {value}") for name, value in manifest.tasks.items()]
    facts += [(f"template {name}", f"sha256 {value}") for name, value in manifest.prompts.items()]
    facts += [(f"code {name}", value) for name, value in manifest.code.items()]
    facts += [(name, version) for name, version in manifest.packages.items()]
    return Figure(
        id=f"{key}-environment",
        title="Environment and data",
        finding=f"{manifest.model.get('id', 'The model')} on {manifest.device}, {manifest.dtype}; "
        f"hashes of the tasks, the templates and "
        "the model, and versions of the packages.",
        table=Table(headings=("what", "value"), rows=tuple(facts), kinds=("text", "text")),
    )
