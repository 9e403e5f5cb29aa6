"""`runs show` on one screen: what was asked, a row a round, gain, alarms, what is weak, what is next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table

from selfrefine.reflection.overview import Gain, Overview, Rang
from selfrefine.report.diagnosed import command, facts, flipped, one_line, shown_rounds, suggested, tag_gains
from selfrefine.report.guards import plain_table
from selfrefine.report.safe_text import text
from selfrefine.report.words import clock, compact, number, with_interval
from selfrefine.runfolder.summaries import GateDecision, RoundSummary, RunManifest
from selfrefine.stats import Interval
from selfrefine.words import count

_MOST_ROUNDS, _MOST_RANG, _MOST_WEAK = 12, 4, 4
_SPARKS = "▁▂▃▄▅▆▇█"
_WIDE = 12


def overview_view(manifest: RunManifest, seen: Overview, run: str) -> Group:
    """`run`: how it is named on a command line."""
    parts: list[RenderableType] = [
        text(f"{manifest.name}: {seen.state}", "bold"),
        *(text(one, "bold red", newlines=True) for one in seen.damage),
        facts(list(_asked(manifest, seen))),
        text(""),
    ]
    if not seen.rounds:
        parts.append(text("no committed round yet"))
    else:
        parts.append(Rounds(seen, split_shown(seen), _measures(manifest.config)))
    parts += [text(line) for line in _sparkline(seen)]
    told = [*_gained(seen), *_rang(seen.rang), *_weak(seen)]
    parts += [facts(told)] if told else []
    return Group(*parts, *_next(seen, run))


def _asked(manifest: RunManifest, seen: Overview) -> Iterator[tuple[str, str]]:
    config = manifest.config
    model = " ".join(manifest.model[key] for key in ("id", "revision") if manifest.model.get(key))
    computed = [one for one in (manifest.device, manifest.dtype) if one != "none"]
    yield "model", one_line(", ".join([model, *computed]), 200)
    generate, train, own = (config.get(key, {}) for key in ("generate", "train", "cycle"))
    named = [str(config["recipe"])] if config.get("recipe") else []
    objective = config.get("objective", {}).get("name", "sft")
    drawn = f"{generate.get('n', '?')} answers to {own.get('prompts_per_round', '?')} prompts a round"
    rate = train.get("lr")
    learns = f"{config.get('select', {}).get('strategy', '')} → {objective}".removeprefix(" → ")
    rate_said = f", lr {rate:g}" if isinstance(rate, int | float) else ""
    passes = config.get("critique", {}).get("passes")
    critique = [f"{count(passes, 'critique pass', 'critique passes')}"] if passes else []
    yield "recipe", one_line(", ".join([*named, drawn, *critique, learns]) + rate_said, 300)
    splits = ", ".join(f"{number(n)} {name}" for name, n in _ordered(seen.tasks) if n)
    source = config.get("tasks", {}).get("source", "")
    yield "tasks", one_line(f"{source}: {splits}; seed {manifest.seeds.get('run', '?')}", 200)
    measures, trained = _measures(config), _names(config.get("reward", {}).get("use") or ())
    trains = f", trained on {trained}" if trained and trained != measures else ""
    yield "measure", one_line(f"{measures}{trains}; gate {config.get('gate', {}).get('mode', '?')}", 200)


def _ordered(tasks: Mapping[str, int]) -> list[tuple[str, int]]:
    order = {"train": 0, "gate": 1, "test": 2}
    return sorted(tasks.items(), key=lambda item: order.get(item[0], 3))


def _measures(config: Mapping[str, Any]) -> str:
    used = config.get("evaluate", {}).get("measure") or config.get("reward", {}).get("use") or ()
    return _names(used) or "?"


def _names(specs: Sequence[str]) -> str:
    return " + ".join(one.partition(":")[0] if ".py:" not in one else one for one in specs)


def split_shown(seen: Overview) -> str:
    """The held-out split that each round was measured on."""
    return "gate" if any("gate" in one.measures for one in seen.rounds) else "test"


class Row(Struct, frozen=True, kw_only=True):
    label: str
    score: Interval | None
    decision: str
    why: str
    learnt: str
    tokens: str
    time: str
    accepted: bool


def rows(seen: Overview, split: str) -> list[Row]:
    """Of all rounds, the accepted policy's marked."""
    accepted = seen.rounds[-1].accepted_round if seen.rounds else 0
    return [
        Row(
            label=str(one.index),
            score=one.measures.get(split),
            decision=one.decision,
            why="" if one.gate is None else _why(one.gate, one),
            learnt="" if (learnt := seen.learnt.get(one.index)) is None else number(learnt),
            tokens=compact(one.cost.tokens),
            time="" if (spent := seen.seconds.get(one.index)) is None else clock(spent),
            accepted=one.index == accepted,
        )
        for one in seen.rounds
    ]


def _why(gate: GateDecision, summary: RoundSummary) -> str:
    """The reason in a few words: the whole one is in `runs show --all`."""
    vetoes = [guard.name.partition(" ")[0] for guard in summary.guards if guard.state == "veto"]
    if gate.alpha is None:
        return "gate off"
    if gate.difference is None or gate.p_value is None:
        return "nothing scored"
    if gate.outcome == "reject":
        return f"veto: {', '.join(vetoes)}" if vetoes else "not better"
    p_value = "p<.0001" if gate.p_value < 1e-4 else f"p {gate.p_value:.4f}".replace("0.", ".")
    if gate.outcome == "accept":
        return p_value
    limit = f"{gate.alpha:.4f}".replace("0.", ".")
    return f"{p_value} > {limit}" if gate.p_value > gate.alpha else "strict"


class Rounds(Struct, frozen=True):
    """A row a round. Where it is narrow, without time and tokens, then without the picture, then with the
    interval below its mean; score, decision and why are always there."""

    seen: Overview
    split: str
    measure: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        every = ("picture", "learnt", "tokens", "time")
        for columns in (every, every[:3], every[:2], ("learnt",), ("learnt", "fold"), ("fold",)):
            table = self._table(columns)
            if console.measure(table, options=options.update(max_width=1_000)).maximum <= options.max_width:
                break
        yield table

    def _table(self, columns: Sequence[str]) -> Table:
        all_rows = rows(self.seen, self.split)
        kept, hidden = shown_rounds(len(all_rows), _MOST_ROUNDS)
        low, high = _range([row.score for row in all_rows])
        n = max((row.score.n for row in all_rows if row.score is not None), default=0)
        title = f"{self.measure} on {count(n, f'{self.split} task')}, mean [95 % interval]"
        table = plain_table(title)
        table.add_column("round", no_wrap=True)
        table.add_column(self.split)
        if "picture" in columns:
            ends = f"{low:.2f}".ljust(_WIDE - 4) + f"{high:.2f}"
            table.add_column(ends, no_wrap=True)
        table.add_column("decision, why", overflow="fold")
        numbers = [name for name in ("learnt", "tokens", "time") if name in columns]
        for name in numbers:
            table.add_column(name, justify="right", no_wrap=True)
        for i, at in enumerate(kept):
            row = all_rows[at]
            if hidden and i == 1:
                table.add_row(text("…"), text(f"{hidden} more: --all"))
            score = "–" if row.score is None else with_interval(row.score)
            if "fold" in columns:
                score = score.replace(" [", "\n[")
            cells = [text(f"{row.label}*" if row.accepted else row.label), text(score, newlines=True)]
            if "picture" in columns:
                cells.append(text(picture(row.score, low, high)))
            cells.append(text(", ".join(filter(None, (row.decision, row.why)))))
            style = "" if row.accepted or row.decision != "rolled back" else "dim"
            table.add_row(*cells, *(text(getattr(row, name)) for name in numbers), style=style)
        return table


def _range(scores: Sequence[Interval | None]) -> tuple[float, float]:
    ends = [end for one in scores if one for end in (one.lo, one.mean, one.hi) if end is not None]
    return (min(ends), max(ends)) if ends and max(ends) > min(ends) else (0.0, 1.0)


def picture(score: Interval | None, low: float, high: float, width: int = _WIDE) -> str:
    """The mean and its interval on an axis from `low` to `high`: "  ├──●──┤  "."""
    if score is None or score.mean is None:
        return ""

    def at(value: float) -> int:
        return min(width - 1, max(0, round((value - low) / (high - low) * (width - 1))))

    cells = [" "] * width
    if score.lo is not None and score.hi is not None:
        first, last = at(score.lo), at(score.hi)
        cells[first : last + 1] = ["─"] * (last - first + 1)
        cells[first], cells[last] = "├", "┤"
    cells[at(score.mean)] = "●"
    return "".join(cells).rstrip()


def _sparkline(seen: Overview) -> Iterator[str]:
    """What each round came to in a character; worth a line from three rounds on."""
    split = split_shown(seen)
    means = [one.measures[split].mean for one in seen.rounds if split in one.measures]
    known = [mean for mean in means if mean is not None]
    if len(known) < 3:
        return
    yield f"{split} {sparkline(known)} {known[0]:.3f} → {known[-1]:.3f}   * the accepted policy"


def sparkline(values: Sequence[float]) -> str:
    """A character a value, from the least to the greatest of them."""
    low, high = min(values), max(values)
    span = high - low or 1.0
    return "".join(_SPARKS[round((value - low) / span * (len(_SPARKS) - 1))] for value in values)


def _gained(seen: Overview) -> Iterator[tuple[str, str]]:
    if len(seen.rounds) > 1 and seen.rounds[-1].accepted_round == 0:
        yield "gain", "none: no round was kept, the accepted policy is the starting one"
    elif seen.gain is not None:
        yield from gain_lines(seen.gain, seen.test_reads)


def gain_lines(gain: Gain, reads: int) -> Iterator[tuple[str, str]]:
    """The gain from start to end, how many answers flipped, and by tag."""
    change = gain.change
    note = f"test split read {count(reads, 'time')}" if gain.split == "test" else "these tasks decided, too"
    on = count(change.n, f"{gain.split} task")
    said = f"{with_interval(change)} on {on}, from the start to the accepted policy, paired ({note})"
    yield "gain", said
    yield "flipped", flipped(gain.flips, f"{gain.split} task")
    yield from tag_gains(gain.by_tag)


def _rang(rang: Sequence[Rang]) -> Iterator[tuple[str, str]]:
    for one in rang[:_MOST_RANG]:
        where = f"round{'s' if len(one.rounds) > 1 else ''} {', '.join(one.rounds)}"
        yield "alarms", f"{where} {one.what}: {one_line(one.reason.removeprefix('alarm: '), 160)}"
    if len(rang) > _MOST_RANG:
        yield "alarms", f"and {len(rang) - _MOST_RANG} more: --all"


def _weak(seen: Overview) -> Iterator[tuple[str, str]]:
    found = seen.weaknesses
    if found is None:
        return
    cells = {cell.name: cell for cell in (*found.train, *found.gate)}
    if not found.heaviest:
        slices = count(found.looked_at, "slice")
        yield "weak", f"nothing beyond chance in {slices} (after round {found.after_round})"
    for name in found.heaviest[:_MOST_WEAK]:
        cell = cells.get(name)
        said = one_line(name, 80)
        if cell is not None and cell.rate is not None:
            rest = f" against {cell.rest:.3f} elsewhere" if cell.rest is not None else ""
            said += f": {cell.rate:.3f}{rest}, {count(cell.n, 'task')}"
        yield "weak", said


def _next(seen: Overview, run: str) -> Iterator[RenderableType]:
    """What to look at, one command a line, each with what it shows."""
    told = seen.diagnosis
    if seen.state in ("interrupted", "by hand", "new") or seen.state.startswith("failed"):
        yield facts([("next", "to go on:")])
        yield command(f"selfrefine cycle --run {run}")
    elif told is not None and told.suggestion is not None and seen.state != "running":
        said, line = suggested(told.suggestion, run)
        if said and told.suggestion.kind != "none":
            yield facts([("next", said)])
            yield from [command(line)] if line else []
    example = told.examples[0] if told is not None and told.examples else None
    if example is not None:
        fell = (example.after_reward or 0.0) < (example.before_reward or 0.0)
        what = "became worse in" if fell else "became better in"
        yield facts([("look at", f"a task that {what} round {told.round if told else 0}; all figures:")])
        yield command(f"selfrefine runs show {run} --task {shlex.quote(example.task_id)}")
    elif seen.rounds:
        yield facts([("look at", "all figures:")])
    if seen.rounds:
        yield command(f"selfrefine runs show {run} --all")
