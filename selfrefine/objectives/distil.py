"""On-policy self-distillation: the policy with more in view teaches itself without it, token by token.

With x the prompt, x+ the same with the reference (or what the reward says of this answer) in view, y an
answer sampled under x, T the completion tokens of the optimizer step, S the policy p(. | x_i, y_i<t) and Q
the policy that sampled, frozen, p_old(. | x+_i, y_i<t):

    forward    L = (1/T) sum_i sum_t sum_c Q(c) log(Q(c) / S(c))
    reverse    L = (1/T) sum_i sum_t sum_c S(c) log(S(c) / Q(c))

c runs over the classes of `Item.taught`: the top_k tokens that Q finds likeliest, and all others as one. So L
is at most the divergence over the vocabulary, and equals it where top_k is the vocabulary's size. With `clip`
above 0 a term of the sum over c counts at most so much, and one beyond has no gradient.

Metrics: `agreement`, the share of tokens where both find the same class likeliest; `rest`, the mean of Q's
probability outside the top_k; `entropy`.

Source: OPSD (Zhao et al. 2026, arXiv:2601.18734, equations 6 and 8: the reference in view, forward; clipped
term by term: section 3.2); SDPO (Huebotter et al. 2026, arXiv:2601.20802, equation 1: feedback in view,
reverse; section 2.2: top-k and the rest as one class).
Differs from the papers: 1. Q is the policy that sampled the round: it moves from round to round and stays
within one; OPSD keeps that of the start, SDPO a moving average (section 2.3). 2. the top_k are the teacher's,
since they are known before the first step; SDPO takes the student's. OPSD's implementation leaves the rest
out and normalises anew. 3. the mean is over tokens; OPSD takes it over each answer first (equation 6), SDPO
has the sum (equation 1). 4. several steps, in several passes, learn from one sample of answers. 5. answers
that were cut off or not scored are left out (`select`). 6. there is no weight: it would be of the only term,
and Adam's steps do not depend on the scale of a loss. 7. there is no Jensen-Shannon divergence, which OPSD
allows (equation 7) and SDPO takes for stability (section 2.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta, Struct

from selfrefine.objectives.base import Batch, Loss, ObjectiveKind, Teacher
from selfrefine.objectives.terms import joined, taught

if TYPE_CHECKING:
    from torch import Tensor


class DistilSettings(Struct, frozen=True, forbid_unknown_fields=True):
    direction: Annotated[
        Literal["forward", "reverse"],
        Meta(
            description="Divergence to minimise. `forward`: from the teacher, which spreads the policy over "
            "what the teacher may say; `reverse`: from the policy, which keeps to one of it."
        ),
    ] = "forward"
    top_k: Annotated[
        int,
        Meta(
            ge=1, description="Tokens of the teacher that are compared one by one; all others are one class."
        ),
    ] = 32
    clip: Annotated[
        float,
        Meta(
            ge=0.0,
            description="Most that one token of the vocabulary adds to the divergence, nats; 0 is off.",
        ),
    ] = 0.0
    prompt: Annotated[
        str,
        Meta(
            description="Template of what the teacher sees: `teacher`, `plain-teacher` for a small model, or "
            "a file."
        ),
    ] = "teacher"


def distil(logprobs: Sequence[Tensor], batch: Batch) -> Loss:
    """logprobs: one tensor [tokens, top_k + 1] of nats for each of batch.items."""
    own = batch.settings
    student = joined(logprobs)
    teacher = taught(batch.items, student)
    agree = student.detach().argmax(-1) == teacher.argmax(-1)
    rest = teacher[:, -1].exp().sum()
    # Nothing is left beside the top_k where that is the vocabulary: 0 log 0, which is 0 and not NaN.
    empty = teacher.isinf() | student.detach().isinf()
    student, teacher = student.masked_fill(empty, 0.0), teacher.masked_fill(empty, 0.0)
    if own.direction == "forward":
        terms = teacher.exp() * (teacher - student)
    else:
        terms = student.exp() * (student - teacher)
    if own.clip:
        terms = terms.clamp(max=own.clip)
    metrics = {
        "agreement": float(agree.sum()) / batch.step_tokens,
        "rest": float(rest) / batch.step_tokens,
    }
    return Loss(terms.sum() / batch.step_tokens, metrics)


DISTIL = ObjectiveKind(
    name="distil",
    about="all answers, taught by the policy with more in view",
    rows="all",
    loss=distil,
    settings=DistilSettings,
    learning_rate=2e-4,
    teacher=lambda own: Teacher(own.prompt, own.top_k),
    source="OPSD (Zhao et al. 2026), SDPO (Hübotter et al. 2026)",
)
