"""Looking at runs from outside: what differs, what is damaged, what there is. Reads only, takes no lock."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from selfrefine.config import Config
from selfrefine.errors import DataError, RunFolderError
from selfrefine.records import decode_sample
from selfrefine.runfolder.collected import was_collected
from selfrefine.runfolder.jsonl import lines, read_json, sha256_file, torn_end
from selfrefine.runfolder.order import FILE_OF
from selfrefine.runfolder.round import RoundDir, called, check_link
from selfrefine.runfolder.run import REFLECTION, Run, overlaps, run_folders
from selfrefine.runfolder.summaries import FinalSummary, RoundSummary, RunManifest, StageCost
from selfrefine.runfolder.whole import HISTORY_LOST, lost_history, lost_round
from selfrefine.stats import Interval

UNCOMPARED = frozenset(
    {
        "name",
        "argv",
        "git",
        "origins",
        "config.cycle.rounds",
        "config.cycle.until",
        "config.cycle.max_minutes",
        "config.cycle.max_tokens",
        "config.engine",
        "config.critique.base_url",
        "config.critique.key_env",
        "config.critique.key_file",
        "model.can",
        "critic.can",
    }
)
"""What may differ between two commands on one run: extending a run is normal, and a server may have moved
or learnt something, but not changed its model. Every other setting is frozen, `cycle.patience` too: it
decides which rounds there are."""


def drift(old: RunManifest, new: RunManifest) -> list[str]:
    """A sentence for each setting that would make the rest of the run another experiment."""
    # Through JSON, since one of them came from a file: there a tuple is a list.
    before, now, usual = (
        dict(_flat(msgspec.json.decode(msgspec.json.encode(m)))) for m in (old, new, {"config": Config()})
    )

    def newer(key: str) -> bool:
        """A setting that the run's version did not have yet, as this one has it by itself."""
        by_default = new.origins.get(key.removeprefix("config.")) == "default"
        return key not in before and (by_default or (key in usual and now.get(key) == usual[key]))

    return [
        _difference(key, before, now)
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
        and not newer(key)
        and not any(f"{key}.".startswith(f"{u}.") for u in UNCOMPARED)
    ]


def _difference(key: str, before: dict[str, Any], now: dict[str, Any]) -> str:
    if key.startswith("code.") and all(_HASH.search(str(values.get(key))) for values in (before, now)):
        return f"{key.removeprefix('code.')} was edited since the run began"
    more = " (sums are rounded differently)" if key == "threads" else ""
    return f"{key.removeprefix('config.')}: {_short(before, key)} in the run, {_short(now, key)} now{more}"


def _flat(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, dict):
            yield from _flat(item, f"{prefix}{key}.")
        else:
            yield prefix + key, item


_HASH = re.compile(r"[0-9a-f]{40,}")


def _short(values: dict[str, Any], key: str) -> str:
    if key not in values:
        return "not set"
    value = values[key]
    text = _HASH.sub(lambda found: f"{found[0][:12]}…", msgspec.json.encode(value).decode())
    if len(text) > 60:
        text = text[:58] + "…"
        text += '"' * (text.replace('\\"', "").count('"') % 2)
    return text


def in_progress(run: Run) -> list[str]:
    """Stages begun and not finished, as paths within the run: normal for a run that was interrupted."""
    folders = [*run.rounds(), run.round(run.next_round()), run.final]
    return [str(part.relative_to(run.path)) for folder in folders for part in folder.in_progress()]


def verify(run: Run) -> list[str]:
    """A sentence for everything that is not as it was committed; empty is good."""
    problems: list[str] = []
    splits = {}
    for name in run.manifest.tasks:
        try:
            splits[name] = run.tasks(name)
        except (RunFolderError, DataError) as error:
            problems.append(str(error))
    problems += [f"the splits overlap: {sentence}" for sentence in overlaps(splits)]
    problems += [f"prompts/{name}: {what}" for name, what in _changed(run.prompts_dir, run.manifest.prompts)]
    policies: dict[int, str] = {}
    accepted: str | None = None
    for folder in run.rounds():
        try:
            summary = folder.summary()
        except RunFolderError as error:
            problems.append(str(error))
            continue
        problems += _verify_round(folder, summary)
        policies[folder.index] = summary.policy_after
        accepted = policies.get(summary.accepted_round)
    lost = lost_round(run.path)
    problems += _gone(run) if lost is None else [lost]
    began = run.round(run.next_round())
    for folder in (began, run.final):
        policy = accepted if folder is run.final and lost is None else None
        problems += [line for name in folder.stages() for line in _rows(folder, name, measured=policy)]
        problems += _summaries(folder)
    problems += _reflection(run)
    if (broken := run.events.broken()) is not None:
        problems.append(broken)
    if (history := lost_history(run.path)) is not None:
        problems.append(
            f"{history}: a file that has no hash yet cannot be missed; put it back from a copy, or go on "
            f"without that history: `selfrefine cycle --run {run.called}`"
        )
    return problems + ([] if lost else _link(run))


def _link(run: Run) -> list[str]:
    """Whether `adapter` leads to the accepted policy, which is not known where a round is lost."""
    try:
        check_link(run.path)
        adapter, link = run.accepted_adapter, run.path / "adapter"
    except RunFolderError as error:
        return [str(error)]
    if link.is_symlink() == bool(adapter) and (not adapter or link.resolve() == adapter.resolve()):
        return []
    which = f"the link adapter does not point to round {run.accepted_round}"
    return [f"{which}: any command that writes to the run repairs it"]


def renewed(run: Run) -> str | None:
    """A sentence where events.jsonl begins anew: what a command that went on without its history wrote."""
    first = next(run.events.read(), {})
    if first.get("kind") != HISTORY_LOST:
        return None
    return (
        f"events.jsonl begins at {first.get('time')}, the earlier one was lost: a file from before that has "
        "no hash yet cannot be missed"
    )


def _verify_round(folder: RoundDir, summary: RoundSummary) -> list[str]:
    changed = _changed(folder.path, summary.artifacts)
    problems = [f"{folder.path.name}/{name}: {what}" for name, what in changed]
    # A rejected candidate's hash stands nowhere in the summary, so only one that was not can be compared.
    known = folder.index == 0 or (summary.gate is not None and summary.gate.outcome != "reject")
    measured = summary.policy_after if known else None
    for name in folder.stages():
        problems += _rows(folder, name, summary.policy_before, measured)
    return problems


def _gone(run: Run) -> list[str]:
    """What was there once, by the events, by later rounds or by the end, and no hash speaks of any more."""
    last = run.next_round() - 1
    try:
        told = [event for event in run.events.read() if event.get("kind") in ("stage-begin", "stage-end")]
    except DataError:  # so is this
        return []
    found: dict[str, None] = {}
    # Another round after an end that was begun only: that end is removed.
    rounds = [number for number, event in enumerate(told) if event.get("round") != "final"]
    for number, event in enumerate(told):
        if event["kind"] == "stage-begin":
            continue
        k, stage = event.get("round"), event.get("stage")
        file = FILE_OF.get(str(stage), f"{stage}.jsonl")
        if k == "final" and number > max(rounds, default=-1) and not any(run.path.glob(f"final*/{file}")):
            found[f"final/{file} is missing: events.jsonl says that its stage was finished"] = None
        elif isinstance(k, int) and k > last and not (run.round(k).path / file).is_file():
            where = run.round(k).path
            what = f"{where.name}/{file}" if where.is_dir() else where.name
            found[f"{what} is missing: events.jsonl says that its stage was finished"] = None
    return list(found)


def _summaries(folder: RoundDir) -> Iterator[str]:
    """Of stages whose hashes stand nowhere yet."""
    for path in sorted(folder.path.glob("*.json")):
        try:
            read_json(path, FinalSummary if path.name == "summary.json" else StageCost)
        except RunFolderError as error:
            yield str(error)


def _reflection(run: Run) -> Iterator[str]:
    """Of `selfrefine reflect RUN`: no hash speaks of its files, and nothing reads them but people."""
    for path in sorted((run.path / REFLECTION).glob("*.json")):
        try:
            read_json(path, dict[str, Any])
        except RunFolderError as error:
            yield f"{error}; `selfrefine reflect {run.called}` makes it again"


def _changed(folder: Path, digests: dict[str, str]) -> Iterator[tuple[str, str]]:
    for name, digest in digests.items():
        if not (folder / name).is_file():
            if not was_collected(folder.parent, folder / name, digest):
                yield name, "missing"
        elif sha256_file(folder / name) != digest:
            yield name, "changed since it was written"


def _rows(folder: RoundDir, name: str, sampled: str | None = None, measured: str | None = None) -> list[str]:
    """Decode every row of a stage; the first that fails speaks for its file.

    The trap behind the policies: a script that ignores its model argument and samples the old policy for
    ever. Rows of this round were `sampled` by the policy it began with. What measures has round 0's seeds,
    and so its number: `measured`. Rows of other rounds are replayed; an error row was sampled by nobody, nor
    was a text without ids that `select` made a row of (a reference, another model's critique).
    """
    path = folder.file(name)
    with path.open("rb") as stream:
        for where, line in lines(stream, f"{folder.path.name}/{path.name}"):
            try:
                sample = decode_sample(line, where)
            except DataError as error:
                return [str(error)]
            own = folder.path.name != "final" and sample.round == folder.index > 0
            policy = sampled if own else measured if sample.round == 0 else None
            nobody = sample.finish_reason == "error" or not (sample.policy or sample.token_ids)
            if policy is None or nobody or sample.policy == policy:
                continue
            return [f"{where}: sampled by policy {sample.policy[:12] or '(none)'}, not by {policy[:12]}"]
    return []


class RunInfo(Struct, frozen=True, kw_only=True):
    """What `runs ls` knows of a run."""

    name: str
    path: Path
    rounds: int = 0
    """Committed ones; the measurement of the starting policy, round 0, is none."""
    manifest: RunManifest | None = None
    first: RoundSummary | None = None
    """Round 0."""
    last: RoundSummary | None = None
    final: FinalSummary | None = None
    state: str = ""
    """running, new, interrupted, by hand, "ended: …" or "failed (exit N): …", by its lock and its events;
    damaged, where there is a `problem`."""
    began: str | None = None
    """Time of the first event, in UTC."""
    changed: str | None = None
    """Time of the last one."""
    problem: str | None = None

    @property
    def gate(self) -> Interval | None:
        """The accepted policy on the gate tasks: not what a candidate measured that was not accepted."""
        if self.last is None:
            return None
        decided = self.last.gate
        if decided is None or decided.accepted:
            return self.last.measures.get("gate")
        return Interval(mean=decided.before, lo=None, hi=None, n=decided.n)

    @property
    def gain(self) -> float | None:
        """From the starting to the accepted policy on the test tasks, once the run has ended."""
        start = self.first.measures.get("test") if self.first else None
        end = self.final.test if self.final else None
        if start is None or end is None or start.mean is None or end.mean is None:
            return None
        return end.mean - start.mean


def line(info: RunInfo) -> dict[str, Any]:
    """A line of `runs ls --json`: what a script asks of a run; null where it is not known."""
    return {
        "name": info.name,
        "path": str(info.path),
        "state": info.state,
        "rounds": info.rounds,
        "accepted_round": info.last.accepted_round if info.last else None,
        "gate": info.gate.mean if info.gate else None,
        "test": info.final.test.mean if info.final else None,
        "gain": info.gain,
        "began": info.began,
        "changed": info.changed,
        "problem": info.problem,
    }


def list_runs(runs_dir: Path) -> list[RunInfo]:
    """Every folder in `runs_dir` by name, damaged runs and what has no manifest too. Reads no rows."""
    found = []
    for name in run_folders(runs_dir):
        path = runs_dir / name
        try:
            run = Run.open(path)
            committed = run.next_round()
            first = run.summary(0) if committed else None
            began, changed = _times(run)
            last = run.summary(committed - 1) if committed > 1 else first
            damage = glance(run, [one for one in (first, last) if one])
            found.append(
                RunInfo(
                    name=name,
                    path=path,
                    rounds=max(0, committed - 1),
                    manifest=run.manifest,
                    first=first,
                    last=last,
                    final=run.final_summary(),
                    state="damaged" if damage else state(run),
                    began=began,
                    changed=changed,
                    problem=damage,
                )
            )
        except (RunFolderError, DataError) as error:
            found.append(RunInfo(name=name, path=path, state="damaged", problem=str(error)))
    return found


def glance(run: Run, summaries: Sequence[RoundSummary]) -> str | None:
    """What is wrong at a glance, no row read: files that are gone or end within a line."""
    files = {
        run.round(one.index).path / name: sha for one in summaries for name, sha in one.artifacts.items()
    }
    bad = next((path for path, sha256 in files.items() if _bad(run, path, sha256)), None)
    if bad is None and run.events.cut() and not run.locked():
        bad = run.events.path
    what = (
        None if bad is None else f"{bad.relative_to(run.path)} is {'damaged' if bad.is_file() else 'missing'}"
    )
    what = lost_round(run.path) or what or lost_history(run.path)
    return what and f"{what}: see `selfrefine runs verify {called(run.path)}`"


def _bad(run: Run, path: Path, sha256: str) -> bool:
    if not path.is_file():
        return not was_collected(run.path, path, sha256)
    return path.suffix == ".jsonl" and torn_end(path)


def _times(run: Run) -> tuple[str | None, str | None]:
    first = next(run.events.read(), {})
    last = next(reversed(run.events.tail()), first)
    return first.get("time"), last.get("time")


def state(run: Run) -> str:
    """What became of the run: from its lock, which dies with its process, and the last events."""
    if run.locked():
        return "running"
    told = [event for event in run.events.tail() if event.get("kind") in ENDS]
    if not told:
        return "interrupted" if run.next_round() else "new"
    last = told[-1]
    if last["kind"] == "end":
        return f"ended: {str(last.get('why')).partition(chr(10))[0]}"
    if last["kind"] == "failed":
        return f"failed (exit {last.get('code')}): {str(last.get('why')).partition(chr(10))[0]}"
    return "interrupted" if last["kind"] in ("cycle", "stopped") else "by hand"


ENDS = frozenset({"cycle", "stage-command", "end", "failed", "stopped"})
"""Kinds of events that begin or end a process's work."""
