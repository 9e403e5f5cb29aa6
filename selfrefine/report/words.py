"""Figures and summaries as people read them. Plain strings, no rich."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from selfrefine.report.safe_text import safe_text
from selfrefine.words import count

if TYPE_CHECKING:  # `runs` reads no stage, and a line on the screen takes no numpy
    from selfrefine.reflection.findings import Weaknesses
    from selfrefine.stages.revisions import RevisionSummary
    from selfrefine.stats import Difference, Interval
    from selfrefine.steps.critique_outcome import Arms, CritiqueSummary

_QUIET_AT_ZERO = frozenset(
    {"truncated", "failed", "errors", "edited", "retokenised", "passed_through", "duplicates", "below"}
    | {"over_the_cap", "groups", "groups_without_spread", "hinted", "teacher_tokens", "failed_critiques"}
)
"""Counts worth a word only when there are any. Every other zero is news, "0 unscored" included."""


_IN_WORDS = {
    "retokenised": "re-tokenised (sampled by another model)",
    "below": "below the threshold",
    "n": "tasks",
}
"""Keys that do not read as words."""


def number(value: float) -> str:
    """1234567 -> "1,234,567", 503.7 -> "504", 0.28512 -> "0.285"."""
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def three(value: float | None) -> str:
    """0.4553 -> "0.455", null -> "–": a mean reward, a rate."""
    return "–" if value is None else f"{value:.3f}"


def compact(value: float) -> str:
    """950 -> "950", 12345 -> "12.3k", 1234567 -> "1.23M"."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:
            return f"{value / size:.3g}{letter}"
    return f"{value:.0f}"


def size(count: float) -> str:
    """Bytes: 938_000_000 -> "938 MB", 34_200 -> "34.2 kB"."""
    short = compact(count)
    return f"{short[:-1]} {short[-1]}B" if short[-1].isalpha() else f"{short} B"


def percent(share: float, digits: int = 0) -> str:
    """0.88 -> "88 %"."""
    return f"{100 * share:.{digits}f} %"


def duration(seconds: float) -> str:
    """7.25 -> "7.2 s", 305 -> "5 min 05 s", 7262 -> "2 h 01 min"."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def clock(seconds: float) -> str:
    """305 -> "5:05", 7262 -> "2:01:02": narrow enough for a column."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def with_interval(measured: Interval | Difference | None) -> str:
    """ "0.285 [0.243, 0.331]", the mean alone where there is no interval, "–" where there is no mean."""
    from selfrefine.stats import Difference

    if measured is None or measured.mean is None:
        return "–"
    sign = "+" if isinstance(measured, Difference) else ""
    if measured.lo is None or measured.hi is None:
        return f"{measured.mean:{sign}.3f}"
    return f"{measured.mean:{sign}.3f} [{measured.lo:{sign}.3f}, {measured.hi:{sign}.3f}]"


def summary_line(summary: Mapping[str, Any]) -> str:
    """A stage's summary in one line: "generate: 512 samples of 64 tasks · 3 truncated · 504 tok/s".

    `stage` names it; `samples` and `tasks` are read together; keys ending in `_share` are shares, in `_s`
    seconds, `tokens_per_s` a rate; a mapping with a `mean` is a measure; lists are left to --summary-json.
    """
    rest = {key: value for key, value in summary.items() if key != "stage"}
    if "samples" in rest and "tasks" in rest:
        samples, tasks = rest.pop("samples"), rest.pop("tasks")
        of = f"{_scalar(samples)} {_noun(samples, 'samples')} of {_scalar(tasks)} {_noun(tasks, 'tasks')}"
        parts = [of, *_parts(rest)]
    else:
        parts = list(_parts(rest))
    name = summary.get("stage")
    return safe_text((f"{name}: " if name else "") + " · ".join(parts))


_FIRST = ("samples", "tasks", "rows", "drafts", "revisions", "mean", "drawn")
_SAID_AT_ZERO = frozenset({"unscored", "selected", "samples", "rows"})
_LAST = ("prompts_selected", "selected", "replayed", "first_loss", "last_loss", "tokens", "entropy")


def stage_line(name: str, told: Mapping[str, Any]) -> str:
    """A stored summary, whose keys are sorted, as it reads: what went in, what fell out of it, what came out.
    A count of 0 is left out: what the stage looked for and did not find stands in its file."""
    told = _named(_without_zeros(told))
    middle = [key for key in told if key not in (*_FIRST, *_LAST)]
    return summary_line(
        {"stage": name} | {key: told[key] for key in (*_FIRST, *middle, *_LAST) if key in told}
    )


def _named(told: Mapping[str, Any]) -> dict[str, Any]:
    """Without the mean of all rewards together where there is one: its own name says what it is."""
    rewards = told.get("rewards")
    found = {key: _named(value) if isinstance(value, Mapping) else value for key, value in told.items()}
    if isinstance(rewards, Mapping) and "reward" in found:
        together = found.pop("reward")
        if len(rewards) > 1:
            found = {"together": together} | found
    return found


def _without_zeros(told: Mapping[str, Any]) -> dict[str, Any]:
    """Nor with the costs of a part, which `runs show` has by round."""
    return {
        key: _without_zeros(value) if isinstance(value, Mapping) and "mean" not in value else value
        for key, value in told.items()
        if key != "cost" and (type(value) is not int or value or key in _SAID_AT_ZERO)
    }


def _parts(values: Mapping[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        # A name with .py: is somebody's, not ours.
        words = key if ".py:" in key else _IN_WORDS.get(key, key.replace("_", " "))
        if isinstance(value, Mapping):
            yield from _of_mapping(words, value)
        elif isinstance(value, str) or not isinstance(value, Sequence):
            yield from _of_scalar(key, words, value)


def _of_mapping(words: str, value: Mapping[str, Any]) -> Iterator[str]:
    if "mean" in value:
        from selfrefine.stats import Interval

        measured = Interval(mean=value["mean"], lo=value.get("lo"), hi=value.get("hi"), n=value.get("n") or 0)
        unscored = value.get("unscored")
        yield f"{words} {with_interval(measured)}" + (f" ({number(unscored)} unscored)" if unscored else "")
        return
    flat = {k: v for k, v in value.items() if isinstance(v, str) or not isinstance(v, Mapping | Sequence)}
    if flat:
        yield f"{words}: " + ", ".join(f"{k.replace('_', ' ')} {_scalar(v)}" for k, v in flat.items())
    yield from _parts({k: v for k, v in value.items() if isinstance(v, Mapping)})


def _of_scalar(key: str, words: str, value: Any) -> Iterator[str]:
    if isinstance(value, int) and not isinstance(value, bool):
        if value or key not in _QUIET_AT_ZERO:
            yield f"{number(value)} {_noun(value, words)}"
    elif value is None or not isinstance(value, float):
        yield f"{words} {_scalar(value)}"
    elif key == "tokens_per_s":
        yield f"{number(value)} tok/s"
    elif key == "seconds" or key.endswith("_s"):
        yield duration(value) if key == "seconds" else f"{words[:-2]} {duration(value)}"
    elif key.endswith("_share"):
        yield f"{percent(value, 1)} {words.removesuffix(' share')}"
    else:
        yield f"{words} {number(value)}"


_NOUNS = frozenset(
    {"samples", "tasks", "rows", "tokens", "steps", "drafts", "revisions", "critiques", "prompts", "groups"}
    | {"errors", "duplicates"}
)


def _noun(n: Any, words: str) -> str:
    """ "samples", and of one "sample"; `words` are a key's: "prompts selected", "trained tokens"."""
    return words if n != 1 else " ".join(one[:-1] if one in _NOUNS else one for one in words.split())


def _scalar(value: Any) -> str:
    if value is None:
        return "–"
    return number(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def critique_line(found: CritiqueSummary) -> str:
    """What critique came to, with the comparison that decides whether it was worth its tokens."""
    compared = found.comparison
    parts = [f"{count(found.drafts, 'draft')}, {count(found.revisions, 'revision')}"]
    if found.unparsed_share is not None:
        parts.append(f"{percent(found.unparsed_share)} of verdicts unparsed")
    if found.failed_critiques:
        parts.append(f"{count(found.failed_critiques, 'critique')} failed ({found.first_failure})")
    for i, one in enumerate(found.passes, start=1):
        if one.unscored < one.revisions:  # without rewards nobody knows
            parts.append(f"pass {i} wrong→right {one.wrong_right}, right→wrong {one.right_wrong}")
        if one.unscored:
            parts.append(f"pass {i} {count(one.unscored, 'revision')} unscored")
    if compared.compared:
        parts.append(f"right at equal tokens: {_arms(compared.right)} ({number(compared.compared)} compared)")
        # A graded reward says what the share of right answers hides.
        if (graded := _arms(compared.reward)) != _arms(compared.right):
            parts.append(f"mean reward {graded}")
    return "critique: " + " · ".join(parts)


def _arms(rates: Arms) -> str:
    told = {"draft": rates.draft, "revision": rates.revision, "fresh": rates.fresh}
    return ", ".join(f"{arm} {rate:.3f}" for arm, rate in told.items() if rate is not None)


def outcome(lo: float | None, hi: float | None) -> str | None:
    """What the interval of a difference says in a verb; None without one, or with one of width zero: older
    runs have stored such of a few changes that were alike, and they say nothing."""
    if lo is None or hi is None or lo == hi:
        return None
    return "beats" if lo > 0 else "is worse than" if hi < 0 else "does not beat"


def revised_lines(told: RevisionSummary) -> list[str]:
    """The comparison of `stages.revisions`: what revising gained, and whether it was worth its tokens."""
    sides = {"draft": told.draft, "revision": told.revision, "fresh": told.fresh}
    arms = ", ".join(f"{name} {with_interval(side)}" for name, side in sides.items())
    lines = [f"critique on test tasks: {arms}"]
    for gain, words in (
        (told.revision_minus_draft, "the draft"),
        (told.revision_minus_fresh, "asking again for the same tokens"),
    ):
        if (won := outcome(gain.lo, gain.hi)) is None:
            few = f"too few of {count(gain.n, 'task')} changed to tell"
            lines.append(f"revision against {words}: {few if gain.n else 'nothing to compare'}")
            continue
        lines.append(f"revision {won} {words}: {with_interval(gain)}, paired, {count(gain.n, 'task')}")
    return lines


def weaknesses_line(found: Weaknesses) -> str:
    """Which slices are weak, and that their number was corrected for; "" where none was tested."""
    if not found.looked_at:
        return ""
    tested = (
        f"{count(found.looked_at, 'slice')} tested, corrected for their number "
        f"(Benjamini and Hochberg, q below {found.level:g})"
    )
    if not found.heaviest:
        return f"No slice of the tasks is significantly weaker than the rest; {tested}."
    return (
        f"Significantly weaker than the rest, the heaviest first: {', '.join(found.heaviest[:5])}; {tested}."
    )
