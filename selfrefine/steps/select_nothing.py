"""Why nothing was selected: every cause with its count, the likely one first, and what to try."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from selfrefine.config import SelectConfig
from selfrefine.records import Sample
from selfrefine.steps import run_on
from selfrefine.steps.select_candidates import fit
from selfrefine.words import count


class Cause(NamedTuple):
    """`rows` that it took; `sure`: more likely than any that merely took more."""

    rows: int
    said: str
    tries: tuple[str, ...] = ()
    sure: int = 0
    here: float | None = None
    """A select.min_reward that would select something."""


def why_nothing(
    samples: Sequence[Sample],
    config: SelectConfig,
    counts: Mapping[str, int],
    *,
    in_run: bool = False,
    hinted: bool = False,
    template: bool | None = None,
    given: Collection[str] = (),
) -> str:
    """Two lines: the causes, and what to try.

    `counts`: those of `select` on these `samples`. `in_run`: settings are frozen. `hinted`: answers were also
    sampled with a hint. `template`: has the model a chat template? None: not known. `given`: the stop
    texts that were set.
    """
    n = len(samples)
    if not n:
        return "there are no answers to select from"
    found = [
        *_sampling(samples, config, counts, template, given, hinted, in_run),
        *_structure(samples, config, counts),
        *_rewards(samples, config, counts, hinted, in_run),
    ]
    # A stable sort: of equals the order above.
    first, *others = sorted(found, key=lambda cause: (-cause.sure, -cause.rows)) or [Cause(n, "no row fits")]
    said = f"nothing to learn from {count(n, 'answer')}: {first.said}"
    if others:
        said += f"; also {'; '.join(cause.said for cause in others)}"
    # Where one cause is plain and can be mended, what would help against the others is no use yet.
    apply = [first] if first.sure > 1 and first.tries else [first, *others]
    tries = list(dict.fromkeys(one for cause in apply for one in cause.tries))
    marks = [one.here for one in apply if one.here]
    if not in_run:
        ways = [f"--min-reward {mark:g}" for mark in marks] + tries
    else:
        ways = [f"--set select.min_reward={mark:g} --allow-drift in this run" for mark in marks]
        ways += [f"a new run with {', or '.join(tries)}"] if tries else []
    return f"{said}\ntry {', or '.join(ways)}" if ways else said


def _sampling(
    samples: Sequence[Sample],
    config: SelectConfig,
    counts: Mapping[str, int],
    template: bool | None,
    given: Collection[str],
    hinted: bool,
    in_run: bool,
) -> Iterator[Cause]:
    """What no reward is to blame for: answers that failed, were cut off, or have no reward."""
    n = len(samples)
    if errors := counts.get("errors", 0):
        yield Cause(errors, f"{_of(errors, n)} failed (`error` in the rows says why)")
    if cut := counts.get("truncated", 0):
        yield _cut(samples, config, cut, template, given, hinted, in_run)
    if unscored := counts.get("unscored", 0):
        if not any(row.rewards or row.reward is not None for row in samples):
            yield Cause(
                unscored,
                "no row has a reward",
                ("`selfrefine reward FILE -r NAME` first: it scores them",),
                2,
            )
        else:
            yield Cause(unscored, f"{_of(unscored, n)} could not be scored{_reason(samples)}")


def _cut(
    samples: Sequence[Sample],
    config: SelectConfig,
    cut: int,
    template: bool | None,
    given: Collection[str],
    hinted: bool,
    in_run: bool,
) -> Cause:
    answered = sum(row.finish_reason != "error" and row.error is None for row in samples)
    said = f"{_of(cut, len(samples))} were cut off at max_new_tokens"
    lost = [row.reward for row in samples if row.finish_reason == "length" and row.reward is not None]
    mark = _mark(config) or max((row.reward or 0.0 for row in _fit(samples, config)), default=0.0)
    good = sum(reward >= mark and reward > 0.0 for reward in lost)
    if lost:
        said += f", and {good:,} scored well" if good else ", and none scored well"
    longer = ("a shorter answer format (tasks.suffix)", "a higher generate.max_new_tokens")
    # Of complete answers `_rewards` says it.
    wrong = lost and max(lost) == 0.0 and not _fit(samples, config)
    others = (*_star(samples, hinted, in_run), *_graded(config, lost)) if wrong else ()
    if stops := run_on.stops(answered, cut, run_on.passed(samples), template, given):
        why = "the model has no chat template and does not end its answers"
        said += f": {why}" if template is False else ": they go on after the first line"
        stop = f"--set '{run_on.value(stops, given)}'" + ("" if in_run else " in `selfrefine generate`")
        return Cause(cut, said, (stop, *longer[: 0 if template is False else 2], *others), 3)
    return Cause(cut, said, (*longer, *others), 2 if good else 0)


def _star(rows: Sequence[Sample], hinted: bool, in_run: bool) -> tuple[str, ...]:
    """Answers with a hint, where there is a reference to give one and none was given."""
    referenced = not hinted and any(row.task.references for row in rows)
    return ("--recipe star" if in_run else "`selfrefine cycle --recipe star`",) if referenced else ()


def _graded(config: SelectConfig, values: Sequence[float]) -> tuple[str, ...]:
    best = "" if config.strategy == "best-of-n" else "best-of-n with "
    return (f"{best}a graded reward",) if set(values) <= {0.0, 1.0} else ()


_STRUCTURE: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "out_of_band": ("answer", "to prompts outside select.band", ("a wider select.band", "other tasks")),
    "not_better": ("revision", "no better than what was revised", ("more samples per prompt (generate.n)",)),
    "no_reference": ("answer", "to tasks without a reference", ("select.chosen=samples",)),
    "equal_to_reference": ("answer", "equal to the reference", ("harder tasks",)),
    "references_seen": (
        "critique",
        "by a critic that had seen the references",
        ("critique without --reveal-references",),
    ),
    "by_several": (
        "critique",
        "by several critics, of which none is the one to learn from",
        ("critique.source=model",),
    ),
    "critiques_truncated": ("critique", "cut off", ("a higher critique.max_new_tokens",)),
    "no_draft": ("revision", "without the text that was revised", ()),
    "no_critique": ("revision", "without a critique", ()),
    "too_far": ("draft", "with no better answer near enough", ("a lower select.min_similarity",)),
    "not_told": ("answer", "that no reward criticised", ("critique.source=rewards (`selfrefine critique`)",)),
    "not_criticised": ("draft", "not criticised", ("critique.passes=1 (`selfrefine critique`)",)),
    "critiques_failed": ("draft", "with a failed critique (`error` in `critiques` says why)", ()),
    "critiques_ok": ("draft", "that the critic found good", ()),
    "hinted": ("answer", "found with a hint, which is not judged", ()),
    "unbalanced": (
        "answer",
        "without one of the other kind: a judge learns from as many right answers as wrong ones",
        ("more samples per prompt (generate.n)", "easier or harder tasks"),
    ),
    "not_revised": ("draft", "criticised but not revised", ("critique.revise=true",)),
}
"""Of a count: what it counts, what is the matter with them, what to try."""


def _structure(samples: Sequence[Sample], config: SelectConfig, counts: Mapping[str, int]) -> Iterator[Cause]:
    """Rows that are not of the kind that is to be learnt."""
    n, turns = len(samples), config.learn not in ("answers", "verdicts")
    only_revisions = turns or config.candidates == "revisions"
    if only_revisions and counts.get("drafts", 0) == n:
        yield Cause(n, "all are drafts, and only revisions or critiques are learnt", (), 2)
    if counts.get("revisions", 0) == n:
        yield Cause(n, "all are revisions, and only drafts are learnt", (), 2)
    for key, (noun, what, tries) in _STRUCTURE.items():
        if rows := counts.get(key, 0):
            yield Cause(rows, f"{count(rows, noun)} {what}", tries)


def _rewards(
    samples: Sequence[Sample], config: SelectConfig, counts: Mapping[str, int], hinted: bool, in_run: bool
) -> Iterator[Cause]:
    """What the rewards of the scored answers lack: the likely cause, where enough were scored."""
    scored = _fit(samples, config)
    if not scored or config.learn != "answers" or config.chosen == "references":
        return
    values = [row.reward or 0.0 for row in scored]
    rows, sure = len(values), 4 * len(values) > len(samples) or len(values) >= _ENOUGH
    high, flat, mark = max(values), counts.get("prompts_without_spread", 0), _mark(config)
    what = "answer" if config.strategy == "groups" else "complete answer"
    n = count(rows, what)
    star, graded = _star(scored, hinted, in_run), _graded(config, values)
    more = ("more samples per prompt (-n)",)
    # Rounded down, since a threshold that nothing reaches would not help.
    lower = math.floor(high * 1000) / 1000 if config.strategy in ("best-of-n", "threshold", "all") else None
    if high == 0.0:
        said = (
            f"none of {n} is right (every reward is 0)"
            if rows > 1
            else f"the only {what} is wrong (reward 0)"
        )
        yield Cause(rows, said, (*star, *more, *graded, "easier tasks"), sure)
    elif mark is not None and high < mark:
        said = f"none of {n} reaches reward {mark:g} (the best has {high:.3f})"
        yield Cause(rows, said, (*star, *more, *graded), sure, lower)
    elif flat:
        alone = max(Counter(row.task.id for row in scored).values()) == 1
        said = f"all answers to {count(flat, 'prompt')} have the same reward"
        said += " (one answer per prompt)" if alone else f" (all {high:g})" if min(values) == high else ""
        other = ("harder tasks",) if min(values) == 1.0 and not alone else more
        yield Cause(rows, said, (*other, *graded), sure, lower if mark is None else None)
    elif counts.get("unpaired", 0):
        said = f"no two of {n} to one prompt are select.margin {config.margin:g} apart"
        said += f", the better one with reward {mark:g}" if mark is not None else ""
        yield Cause(rows, said, ("a lower select.margin", *more), sure)


_ENOUGH = 20
"""Scored answers from which on they say more than those that are missing."""


def _fit(samples: Sequence[Sample], config: SelectConfig) -> list[Sample]:
    return [row for row in samples if fit(row, Counter(), whole=config.strategy != "groups")]


def _mark(config: SelectConfig) -> float | None:
    """The reward that an answer must reach, if there is one."""
    return 1.0 if config.strategy == "threshold" and config.min_reward is None else config.min_reward


def _of(some: int, n: int) -> str:
    return f"{some:,} of {count(n, 'answer')}"


def _reason(samples: Sequence[Sample]) -> str:
    """The commonest reason that a reward gave."""
    said = Counter(
        f"{reward.name}: {' '.join(reward.error.split())[:100]}"
        for row in samples
        for reward in row.rewards
        if reward.error
    )
    return f" ({said.most_common(1)[0][0]})" if said else ""
