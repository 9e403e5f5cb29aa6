"""Whether the adapters of a run are those that its lineage tells of: from the base through every round."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from selfrefine.errors import RunFolderError
from selfrefine.lineage.chain import CARD, LINEAGE, Lineage, digests, of_round, policy_of, read
from selfrefine.runfolder.round import RoundDir
from selfrefine.runfolder.run import Run
from selfrefine.runfolder.summaries import RoundSummary
from selfrefine.words import count

MOST = 4
"""Differences of one file that are named; the others are counted."""


def verify(run: Run) -> list[str]:
    """A sentence for each fault in the chain; empty is good. Rounds of a version without lineage have their
    policies checked only. What cannot be read is named by `audit.verify`."""
    try:
        summaries = [folder.summary() for folder in run.rounds()]
    except RunFolderError:
        return []
    found: list[str] = []
    ours = _known_policies(run, summaries)
    for summary in summaries[1:]:
        folder = run.round(summary.index)
        found += _lineage(run, folder, summary)
        if ours and summary.gate is not None and summary.gate.outcome != "reject":
            found += _policy(run, folder, summary)
    return found


def _known_policies(run: Run, summaries: list[RoundSummary]) -> bool:
    """Whether policies are named as `compute.adapter_files` does: a plugin's engine has names of its own.

    A run that started from an adapter is known by the origin that a lineage tells of.
    """
    if not summaries:
        return False
    start = summaries[0].policy_after
    told = (_read(run.round(one.index)) for one in summaries[1:])
    starts = ["", *(one.origin.adapter_sha256 for one in told if one is not None and one.origin)]
    return any(policy_of(run.manifest.model, adapter) == start for adapter in starts)


def _lineage(run: Run, folder: RoundDir, summary: RoundSummary) -> Iterator[str]:
    where = f"{folder.path.name}/adapter/{LINEAGE}"
    hashed = f"adapter/{LINEAGE}" in summary.artifacts
    if not (folder.adapter / LINEAGE).is_file():
        return  # with a hash it is missing, which the audit says; without, an earlier version made the round
    if not hashed:
        yield f"{where} was put there after the commit: round.json has no hash of it"
        return
    try:
        told = read(folder.adapter)
        assert told is not None
        expected = of_round(run, summary, told.origin)
    except RunFolderError as error:
        yield str(error)
        return
    if f"adapter/{CARD}" not in summary.artifacts:
        yield f"{folder.path.name}/adapter/{CARD} has no hash in round.json, but {LINEAGE} has one"
    yield from _origin(run, told, where)
    yield from _files(folder, told, where)
    differences = list(_differences(msgspec.to_builtins(told), msgspec.to_builtins(expected)))
    for key, said, is_now in differences[:MOST]:
        yield f"{where} says {key} {_short(said)}, the run's own files say {_short(is_now)}"
    if len(differences) > MOST:
        yield f"{where} differs from the run in {count(len(differences) - MOST, 'more value')}"


def _origin(run: Run, told: Lineage, where: str) -> Iterator[str]:
    """The adapter that the run started from, by the policy that round 0 measured."""
    given = run.manifest.config.get("adapter")
    if bool(given) != (told.origin is not None):
        began = "from an adapter" if given else "from the bare model"
        yield f"{where}: its origin does not fit the manifest, by which the run began {began}"
    elif told.origin is not None:
        start = policy_of(run.manifest.model, told.origin.adapter_sha256)
        if start is not None and start != run.summary(0).policy_after:
            yield (
                f"{where}: the adapter {told.origin.name!r} that it names as the origin is not the one that "
                "round 0 measured"
            )


def _files(folder: RoundDir, told: Lineage, where: str) -> Iterator[str]:
    """The adapter that lies there now, against the one that the lineage was written for."""
    now = digests(folder.adapter)
    for name, sha256 in told.chain[-1].adapter.items():
        if (found := now.get(name)) is not None and found != sha256:
            yield (
                f"{folder.path.name}/adapter/{name} is not the file of {where} ({found[:12]}… instead of "
                f"{sha256[:12]}…): the adapter was swapped, or the lineage edited"
            )
    for name in sorted(now.keys() - told.chain[-1].adapter.keys()):
        yield f"{folder.path.name}/adapter/{name} was added after the commit: {where} has no such file"


def _policy(run: Run, folder: RoundDir, summary: RoundSummary) -> Iterator[str]:
    policy = policy_of(run.manifest.model, folder.adapter)
    if policy is not None and policy != summary.policy_after:
        yield (
            f"{folder.path.name}/adapter computes as policy {policy[:12]}, but its round was measured as "
            f"{summary.policy_after[:12]}: it is another adapter, or one of another base"
        )


def _read(folder: RoundDir) -> Lineage | None:
    try:
        return read(folder.adapter)
    except RunFolderError:
        return None


def _differences(told: Any, now: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted keys at which two values differ, with both values."""
    if isinstance(told, dict) and isinstance(now, dict):
        for name in (*told, *(name for name in now if name not in told)):
            yield from _differences(told.get(name), now.get(name), f"{key}.{name}" if key else name)
    elif isinstance(told, list | tuple) and isinstance(now, list | tuple) and len(told) == len(now):
        for i, (one, other) in enumerate(zip(told, now, strict=True)):
            yield from _differences(one, other, f"{key}[{i}]")
    elif told != now:
        yield key, told, now


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= 40 else f"{text[:16]}…"
