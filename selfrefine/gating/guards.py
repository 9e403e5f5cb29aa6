"""Guards beside the main measure: the ways in which a loop that gets better goes wrong, watched.

Every figure is compared with that of the starting policy, or, where it comes from what a round sampled, with
the first round's. A change is often plain learning (in a trial in which accuracy rose tenfold, distinct
answers fell from 8.0 to 5.1 of 8), so all of them warn and only three may veto: forgetting, perplexity, gold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from selfrefine.records import Sample, groups
from selfrefine.rewards.repetition import repeated
from selfrefine.runfolder.summaries import Guard
from selfrefine.stats import Comparison, spearman
from selfrefine.thresholds import GuardsConfig

MANY = 20
"""Tasks of a source from which on a fall in it may veto: fewer are too noisy for that."""
FEW = 3
"""Tasks of an earlier round that must be lost for a warning."""

Pair = tuple[float | None, float | None]
"""A figure, and what it is compared with."""
Row = Mapping[str, Mapping[str, float | None]]
"""A row of the rounds x tasks matrix (see `probe`)."""


def fell(name: str, what: str, values: Pair, warn: float, veto: float = 1.0) -> Guard:
    """Warns when a share (or a mean in [0, 1]) has fallen by `warn` or more."""
    return _guard(name, what, values, lambda a, b: b - a, (warn, veto), 1.0, "fell by {:.2f}")


def lost(name: str, what: str, values: Pair, warn: float) -> Guard:
    """Warns when that share of it is gone."""

    def share(a: float, b: float) -> float:
        return 1 - a / b if b else 0.0

    return _guard(name, what, values, share, (warn, 1.0), 1.0, "fell by {:.0%}")


def rose(name: str, what: str, values: Pair, warn: float) -> Guard:
    """Warns when a share has risen by `warn` or more."""
    return _guard(name, what, values, lambda a, b: a - b, (warn, 1.0), 1.0, "rose by {:.2f}")


def grew(name: str, what: str, values: Pair, warn: float, veto: float = math.inf) -> Guard:
    """Warns when it is `warn` times as large or more."""

    def factor(a: float, b: float) -> float:
        return a / b if b else 1.0

    return _guard(name, what, values, factor, (warn, veto), math.inf, "is {:.1f} times as high")


def drifted(name: str, what: str, values: Pair, warn: float) -> Guard:
    """Warns when it is `warn` times as large or as small, or more so."""

    def factor(a: float, b: float) -> float:
        return max(a / b, b / a) if a and b else 1.0 if a == b else math.inf

    return _guard(name, what, values, factor, (warn, math.inf), math.inf, "changed {:.1f}-fold")


def _guard(
    name: str,
    what: str,
    values: Pair,
    change: Callable[[float, float], float],
    limits: tuple[float, float],
    off: float,
    words: str,
) -> Guard:
    """A limit of `off` never counts."""
    value, against = values
    if value is None or against is None:
        return Guard(name=name, value=value, against=against, reason=f"no {what}" if value is None else None)
    by, (warn, veto) = change(value, against) + 1e-12, limits
    for state, limit in (("veto", veto), ("warn", warn)):
        if by >= limit and limit != off:
            said = f"{name}: {what} {words.format(by).replace('%', ' %')} ({against:.3g} → {value:.3g})"
            return Guard(name=name, value=value, against=against, limit=limit, state=state, reason=said)  # type: ignore[arg-type]
    return Guard(name=name, value=value, against=against)


def answers(held: Sequence[Sample], start: Mapping[str, float | None], settings: GuardsConfig) -> list[Guard]:
    """The candidate's answers to the gate tasks against the starting policy's."""
    rows = [row for row in held if row.finish_reason != "error"]
    length, again = _mean(len(row.token_ids) for row in rows), _mean(repeated(row.text) for row in rows)
    cut = _mean(row.finish_reason == "length" for row in rows)
    again_at_start, cut_at_start = start.get("repetition"), start.get("truncation")
    return [
        drifted("length", "tokens per answer", (length, start.get("length")), settings.length_warn),
        rose("repetition", "share of repeated 3-grams", (again, again_at_start), settings.repetition_warn),
        rose("truncation", "share of answers cut off", (cut, cut_at_start), settings.truncation_warn),
    ]


def drawn(
    sampled: Sequence[Sample], first: Mapping[str, float | None], settings: GuardsConfig
) -> list[Guard]:
    """What this round sampled to learn from against the first round: is there still anything to choose from?

    distinct: mean number of different answers to a prompt. entropy: nats per token, estimated by the mean of
    -logprob over what was sampled; unbiased at temperature 1, top-p 1 and top-k 0, a trend elsewhere.
    """
    rows = [row for row in sampled if row.finish_reason != "error" and row.parent_id is None]
    texts = _mean(len({row.text.strip() for row in group}) for group in groups(rows))
    distinct, entropy = (texts, first.get("distinct")), (sampled_entropy(rows), first.get("entropy"))
    return [
        lost("distinct", "distinct answers per prompt", distinct, settings.distinct_warn),
        lost("entropy", "nats per sampled token", entropy, settings.entropy_warn),
    ]


def sampled_entropy(rows: Iterable[Sample]) -> float | None:
    """Mean -logprob per sampled token, in nats; null without logprobs."""
    return _mean(-logprob for row in rows for logprob in row.logprobs or ())


def correlation(scored: Sequence[Sample], settings: GuardsConfig) -> Guard:
    """Rank correlation of reward and length over what was scored: is length what is being paid for?"""
    rows = [row for row in scored if row.reward is not None and row.finish_reason != "error"]
    rho = spearman([row.reward or 0.0 for row in rows], [float(len(row.token_ids)) for row in rows])
    name, limit = "reward-length", settings.correlation_warn
    if rho is None:
        return Guard(name=name, value=None, reason="rewards or lengths do not vary")
    if abs(rho) < limit or limit == 1.0:
        return Guard(name=name, value=rho)
    kind = "longer" if rho > 0 else "shorter"
    said = f"reward-length: {kind} answers are rewarded more (rank correlation {rho:+.2f})"
    return Guard(name=name, value=rho, limit=limit, state="warn", reason=said)


def forgetting(now: Row, start: Row, accepted: Row, settings: GuardsConfig) -> list[Guard]:
    """The probe's row of the candidate: general prompts against the starting policy's, what the run itself
    taught (earlier rounds, task sources) against the accepted policy's, which may have learnt it."""
    own, found = settings, []
    if ours := now.get("general", {}):
        theirs = start.get("general", {})
        right, nats = ((ours.get(key), theirs.get(key)) for key in ("accuracy", "perplexity"))
        asked = "on general prompts"
        found += [
            fell("forgetting", f"accuracy {asked}", right, own.forgetting_warn, own.forgetting_veto),
            grew("perplexity", f"perplexity {asked}", nats, own.perplexity_warn, own.perplexity_veto),
        ]
    for name, cell in now.items():
        before, is_round = accepted.get(name, {}), name.startswith("round-")
        if is_round and "perplexity" in before:
            nats = cell.get("perplexity"), before["perplexity"]
            learnt = "perplexity of the answers learnt there"
            found.append(grew(f"lessons {name}", learnt, nats, own.perplexity_warn))
        if "mean" in before:
            count = cell.get("tasks") or 1.0
            veto = own.forgetting_veto if count >= MANY and not is_round else 1.0
            # A round's tasks are a handful: one or two of them that are lost are noise.
            warn = max(own.forgetting_warn, FEW / count) if is_round else own.forgetting_warn
            means = cell.get("mean"), before["mean"]
            found.append(fell(f"forgetting {name}", "mean", means, min(1.0, warn), veto))
    return found


def gold(name: str, found: Comparison, settings: GuardsConfig) -> Guard:
    """A reward that nothing is trained on, candidate against accepted policy. It vetoes only where its whole
    interval lies below zero: noise must not."""
    if found.difference is None:
        said = f"gold: {name} could not be computed on any gate task, so this guard is off"
        return Guard(name="gold", value=None, state="warn", reason=said)
    values = found.after, found.before
    guard = fell("gold", name, values, settings.gold_warn, settings.gold_veto)
    if guard.state == "veto" and (found.hi is None or found.hi >= 0):
        return fell("gold", name, values, settings.gold_warn)
    return guard


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return math.fsum(found) / len(found) if found else None
