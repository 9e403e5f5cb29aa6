"""Settings that decide and warn: the gate, its guards, the alarms of a stage, what a run makes of its own
failures. config.py has the others."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from selfrefine.fields import Factor, Natural, NonNegative, Positive, Share, says


class GateConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a candidate must show on the gate tasks."""

    mode: Annotated[
        Literal["strict", "significant", "off"],
        says(
            "What a candidate must show to be kept. `significant`: a significant gain; `strict`: also an "
            "interval above zero and no warning; `off`: nothing."
        ),
    ] = "significant"
    alpha: Annotated[
        Annotated[float, Meta(gt=0.0, lt=0.5)],
        says("Probability that a run keeps a round although nothing got better. The rounds share it."),
    ] = 0.05
    wear: Annotated[
        Share, says("Warn if repeated use of the gate tasks may overestimate a policy by this much.")
    ] = 0.2


class GuardsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is watched beside the main measure. All warn; forgetting, perplexity and gold also veto. A share
    of 1 and a high factor turn a guard off."""

    probe: Annotated[
        bool, says("Score 24 general texts and answers of earlier rounds after each round; takes seconds.")
    ] = True
    gold: Annotated[
        str | None,
        says(
            "Reward that is never trained on, such as `exact`. It is measured on the gate tasks in "
            "addition to the main one."
        ),
    ] = None
    forgetting_warn: Annotated[
        Share,
        says("Warn if accuracy on the general texts, or the mean on a task source, falls by this much."),
    ] = 0.1
    forgetting_veto: Annotated[
        Share,
        says("Roll back if accuracy on the general texts, or the mean on a task source, falls by this much."),
    ] = 0.25
    perplexity_warn: Annotated[
        Factor,
        says(
            "Warn if perplexity of the general texts, or of an earlier round's answers, grows by this factor."
        ),
    ] = 1.5
    perplexity_veto: Annotated[
        Factor, says("Roll back if perplexity of the general texts grows by this factor.")
    ] = 4.0
    gold_warn: Annotated[Share, says("Warn if the gold reward falls by this much.")] = 0.02
    gold_veto: Annotated[
        Share, says("Roll back if the gold reward falls by this much and its whole interval lies below zero.")
    ] = 0.1
    distinct_warn: Annotated[Share, says("Warn if distinct answers per prompt fall by this share.")] = 0.5
    entropy_warn: Annotated[Share, says("Warn if entropy per sampled token falls by this share.")] = 0.8
    length_warn: Annotated[Factor, says("Warn if answers become longer or shorter by this factor.")] = 2.0
    repetition_warn: Annotated[Share, says("Warn if the share of repeated 3-grams rises by this much.")] = 0.1
    truncation_warn: Annotated[Share, says("Warn if the share of answers cut off rises by this much.")] = 0.1
    correlation_warn: Annotated[
        Share, says("Warn if reward and length have this rank correlation or a stronger one, of either sign.")
    ] = 0.5


class AlarmsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Thresholds beyond which a stage says that something is going wrong. Nothing is stopped."""

    entropy: Annotated[NonNegative, says("Alarm below this entropy, in nats per token.")] = 0.01
    kl: Annotated[
        NonNegative,
        says(
            "Alarm above this KL divergence from the reference policy, in nats per token. Policy "
            "gradients with `kl` 0: from the sampling policy."
        ),
    ] = 2.0
    clip_share: Annotated[Share, says("Alarm if this share of the tokens is clipped.")] = 0.8
    grad_norm: Annotated[NonNegative, says("Alarm above this gradient norm, before clipping.")] = 10.0
    no_spread: Annotated[
        Share,
        says(
            "Alarm if in this share of the prompts all rewards are equal. Not for `distil`, which does not "
            "learn from rewards."
        ),
    ] = 0.95
    truncated: Annotated[Share, says("Alarm if this share of the answers is cut off.")] = 0.5
    unparsed: Annotated[Share, says("Alarm if this share of the critiques has no readable verdict.")] = 0.5
    unplaced: Annotated[
        Share,
        says(
            "Alarm if this share of the revisions was written anew because their critiques place no fault. "
            'With `critique.revise_from = "fault"`.'
        ),
    ] = 0.5


class ReflectConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a run looks at its own failures before each round, and what it makes of them."""

    plan: Annotated[
        Literal["auto", "suggest", "off"],
        says(
            "What a run makes of its own failures. `auto`: it plans each round and follows the plan; "
            "`suggest`: it writes the plan and changes nothing; `off`: neither."
        ),
    ] = "off"
    causes: Annotated[
        bool,
        says(
            "Ask the critic what goes wrong in the heaviest weaknesses. Its sentences are marked as a "
            "model's; nothing depends on them."
        ),
    ] = True
    hints: Annotated[
        Natural,
        says(
            "Maximum number of hints and examples to try on training tasks before a round, with `plan` "
            "`auto`; 0 is off."
        ),
    ] = 1
    hint_tasks: Annotated[
        Positive, says("Training tasks to try them on, each once with and once without.")
    ] = 48
