"""The answers that a round drew for its training tasks: rewards, lengths, pass@k, diversity."""

from __future__ import annotations

from collections.abc import Sequence

from selfrefine.report.page import charts
from selfrefine.report.page.counts import LEVELS, Answers, bin_name
from selfrefine.report.page.figures import Figure, Section, Table
from selfrefine.report.page.read import Told
from selfrefine.report.words import percent
from selfrefine.words import count

MOST_LINES = 5
_LEVEL_COLOURS = ("var(--c2)", *(f"var(--heat-{i})" for i in (1, 2, 3, 4, 6)), "var(--grey)")
LEARNABILITY = ("never right", "sometimes right", "always right")


def section(told: Told, key: str) -> Section | None:
    """None where no round has scored answers yet."""
    rounds = {k: answers for k, answers in sorted(told.answers.items()) if answers.answers}
    if not rounds:
        return None
    figures = [
        _rewards(rounds, key),
        _diversity(rounds, key),
        _pass_at(rounds, key),
        _by_length(told, rounds, key),
    ]
    last = max(rounds)
    total = sum(one.answers for one in rounds.values())
    return Section(
        id=f"{key}-answers",
        title="What it learnt from",
        lead=f"All {count(total, 'answer')} that the rounds drew for their training tasks, scored "
        f"by {told.trains_on}; the last round "
        f"is {last}. Right is a reward of 1; revisions are left out.",
        figures=tuple(one for one in figures if one is not None),
    )


def _rewards(rounds: dict[int, Answers], key: str) -> Figure:
    used = [i for i in range(len(LEVELS)) if any(one.levels[i] for one in rounds.values())]
    points = [
        {
            "row": str(k),
            "part": LEVELS[i],
            "place": i,
            "value": one.levels[i] / one.answers,
            "tip": f"round {k}, reward {LEVELS[i]}: {one.levels[i]:,} of {count(one.answers, 'answer')}",
        }
        for k, one in rounds.items()
        for i in used
    ]
    first, last = min(rounds), max(rounds)
    full = [rounds[k].levels[5] / rounds[k].answers for k in (first, last)]
    finding = f"Answers with full reward: {percent(full[0], 1)} in round {first}" + (
        f", {percent(full[1], 1)} in round {last}." if last != first else "."
    )
    if missing := sum(one.levels[6] for one in rounds.values()):
        finding += f" {count(missing, 'answer')} could not be scored; that is not a reward of 0."
    return Figure(
        id=f"{key}-rewards",
        title="Rewards by round",
        finding=finding,
        chart=charts.stacked(
            points,
            [LEVELS[i] for i in used],
            [_LEVEL_COLOURS[i] for i in used],
            "round",
            "share of answers",
            share=True,
        ),
        table=Table(
            headings=("round", "answers", *(f"reward {LEVELS[i]}" if i < 6 else LEVELS[i] for i in used)),
            rows=tuple(
                (str(k), f"{one.answers:,}", *(f"{one.levels[i]:,}" for i in used))
                for k, one in rounds.items()
            ),
        ),
    )


def _pass_at(rounds: dict[int, Answers], key: str) -> Figure | None:
    """The chance that k answers to a task hold a right one."""
    most = max(one.most_samples() for one in rounds.values())
    ks = [k for k in (1, 2, 4, 8, 16, 32, 64, 128, 256) if k <= most]
    if len(ks) < 2:
        return None
    table, found = [], {}
    for r, one in rounds.items():
        means = []
        for k in ks:
            chances = one.pass_at(k)
            means.append(sum(chances) / len(chances) if chances else None)
        found[r] = means
        table.append(
            (str(r), f"{len(one.tasks):,}", *("–" if mean is None else f"{mean:.3f}" for mean in means))
        )
    shown = some(list(rounds), MOST_LINES)
    points = [
        {"x": k, "series": f"round {r}", "y": mean, "tip": f"round {r}, pass@{k}: {mean:.3f}"}
        for r in shown
        for k, mean in zip(ks, found[r], strict=True)
        if mean is not None
    ]
    last = shown[-1]
    ends = [found[last][0], found[last][-1]]
    finding = (
        "The chance that k answers to a task hold a right one, by the unbiased estimator of "
        "Chen et al. (2021). "
    )
    if ends[0] is not None and ends[1] is not None:
        finding += (
            f"In round {last}: {ends[0]:.3f} with one answer, {ends[1]:.3f} with {ks[-1]}: "
            "what lies between can be learnt from."
        )
    return Figure(
        id=f"{key}-pass",
        title="pass@k",
        finding=finding,
        chart=charts.lines(
            points, [f"round {r}" for r in shown], "k (answers per task)", "pass@k", unit=True, log=True
        ),
        table=Table(headings=("round", "tasks", *(f"pass@{k}" for k in ks)), rows=tuple(table)),
    )


def _by_length(told: Told, rounds: dict[int, Answers], key: str) -> Figure | None:
    shown = some([k for k, one in rounds.items() if one.lengths], 3)
    if not shown:
        return None
    bins = sorted({b for k in shown for b in rounds[k].lengths})
    names = [f"round {k}" for k in shown]
    points = []
    for k in shown:
        for b, (n, total) in sorted(rounds[k].lengths.items()):
            points.append(
                {
                    "x": bin_name(b),
                    "series": f"round {k}",
                    "mean": total / n,
                    "lo": total / n,
                    "hi": total / n,
                    "tip": f"round {k}, {bin_name(b)} tokens: mean reward {total / n:.3f}, "
                    f"{count(int(n), 'answer')}",
                }
            )
    last = shown[-1]
    rank = next(
        (g.value for s in told.rounds if s.index == last for g in s.guards if g.name == "reward-length"), None
    )
    words = length_words(rounds[last], last)
    if rank is not None:
        words += f" Rank correlation of reward and length in round {last}: {rank:+.2f}."
    return Figure(
        id=f"{key}-length",
        title="Reward against length",
        finding=words,
        chart=charts.with_intervals(
            points, names, "tokens of the answer", "mean reward", [bin_name(b) for b in bins]
        ),
        table=Table(
            headings=("tokens", *(f"{name}: {what}" for name in names for what in ("answers", "mean"))),
            rows=tuple(
                (bin_name(b), *(cell for k in shown for cell in _length_cells(rounds[k].lengths.get(b))))
                for b in bins
            ),
        ),
    )


def length_words(one: Answers, k: int) -> str:
    """The lengths that do best, of those that a twentieth of the answers have: a few do well by chance."""
    scored = sum(n for n, _ in one.lengths.values())
    usual = [b for b, (n, _) in one.lengths.items() if 20 * n >= scored]
    best = max(usual, key=lambda b: one.lengths[b][1] / one.lengths[b][0])
    n, total = one.lengths[best]
    figures = f"mean reward {total / n:.3f} over {count(int(n), 'answer')}"
    return f"In round {k}, answers of {bin_name(best)} tokens do best: {figures}."


def _length_cells(sums: Sequence[float] | None) -> tuple[str, str]:
    return ("0", "–") if sums is None else (f"{sums[0]:,.0f}", f"{sums[1] / sums[0]:.3f}")


def _diversity(rounds: dict[int, Answers], key: str) -> Figure:
    points, rows = [], []
    colours = ("var(--grey)", "var(--c1)", "var(--c3)")
    for k, one in rounds.items():
        kinds = one.learnability
        tasks = sum(kinds.values())
        rows.append(
            (
                str(k),
                "–" if one.distinct is None else f"{one.distinct:.2f}",
                "–" if one.per_task is None else f"{one.per_task:.2f}",
                *(f"{kinds[name]:,}" for name in LEARNABILITY),
                f"{one.truncated:,}",
                f"{one.empty:,}",
                f"{one.failed:,}",
            )
        )
        points += [
            {
                "row": str(k),
                "part": name,
                "place": i,
                "value": kinds[name] / tasks,
                "tip": f"round {k}: {count(kinds[name], 'task')} {name}",
            }
            for i, name in enumerate(LEARNABILITY)
            if tasks
        ]
    last = max(rounds)
    one = rounds[last]
    said = ""
    if one.distinct is not None and one.per_task is not None:
        said = f"In round {last} a task got {one.per_task:.1f} answers, {one.distinct:.1f} of them distinct. "
    return Figure(
        id=f"{key}-diversity",
        title="Diversity and learnability",
        finding=said + "Only tasks that are sometimes right show which of their answers is the better one.",
        chart=charts.stacked(points, LEARNABILITY, colours, "round", "share of tasks", share=True),
        table=Table(
            headings=(
                "round",
                "distinct per task",
                "answers per task",
                *LEARNABILITY,
                "cut off",
                "empty",
                "failed",
            ),
            rows=tuple(rows),
        ),
    )


def some(rounds: Sequence[int], most: int) -> list[int]:
    """At most `most` of them, evenly, the first and the last among them."""
    if len(rounds) <= most:
        return list(rounds)
    return [rounds[round(i * (len(rounds) - 1) / (most - 1))] for i in range(most)]
