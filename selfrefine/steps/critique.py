"""Critique and revision, built to be measured: drafts in, drafts with critiques and their revisions out.

A critique is attached to the row whose text it is about: pass 0's to the draft, pass 1's to the revision of
pass 0. A pass ends a draft's thread at verdict `ok` or when the engine cannot answer (prompt too long); a
verdict that could not be read counts as `revise`. Rows are scored once their critiques are there, for a
reward that reads them (`critic`); with `feedback` rewards, and where rewards are the critique, before, and
again if one is null. What passes through untouched: revisions, rows that carry critiques already (running the
step twice changes nothing), and rows with finish_reason `error`.

Source: Madaan et al. 2023, "Self-Refine" (feedback, refine, stop); Huang et al. 2024, "Large Language Models
Cannot Self-Correct Reasoning Yet", for why the comparison must be at equal cost and without references.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal, NamedTuple

from msgspec import UNSET, Raw, Struct
from msgspec.structs import replace

from selfrefine.config import Sampling
from selfrefine.engines.base import Completion, Engine
from selfrefine.prompts import Template
from selfrefine.records import Message, Sample, unless_prompt
from selfrefine.seeds import row_seed
from selfrefine.steps.asking import ask
from selfrefine.steps.critics import Asked, Critic, Teller, scored, told, written
from selfrefine.steps.critique_outcome import (
    Arm,
    Outcome,
    PassOutcome,
    comparison,
    judged,
    nearness,
    transition,
)
from selfrefine.steps.fresh import fresh_counts
from selfrefine.steps.jury import Member, jury, members
from selfrefine.steps.resume import Resume, resume, resumed
from selfrefine.steps.reward import mean_sums
from selfrefine.steps.select_details import TOLD
from selfrefine.steps.turns import as_text, of_chat, revise_chat
from selfrefine.steps.votes import counted

REVEALED = "references_revealed"
"""Column of a revision whose critic saw the references; that critique's `critic` ends in `+references`."""

ScoreFn = Callable[[list[Sample]], list[Sample]]
"""Adds rewards: the same rows in the same order."""


class CritiqueSettings(Struct, frozen=True, kw_only=True):
    """With `revise` off the critic only judges. Fresh samples of the comparison are drawn as the drafts were
    (`drafting`) and, where that is something else, as the revisions are.

    mark: the reward from which a text needs no revision, where rewards criticise.
    principles: each critique, and the revision after it, gets one of them, drawn by the row's own seed.
    """

    passes: int = 1
    revise: bool = True
    principles: tuple[str, ...] = ()
    feedback: Literal["none", "rewards"] = "none"
    resume: bool = False
    """Revise from the first fault on, where the critic placed it (`resume.py`)."""
    reveal_references: bool = False
    verdict: Literal["written", "scored"] = "written"
    ok_from: float = 0.5
    mark: float = 1.0
    critique: Sampling = Sampling()
    revision: Sampling = Sampling()
    drafting: Sampling | None = None
    """Not known: as the revisions."""
    control: bool = True


class Templates(NamedTuple):
    """`critique` may be of kind critique or rubric. `choice` asks for a scored verdict."""

    critique: Template
    revise: Template
    choice: Template | None = None


class CritiqueResult(Struct, frozen=True, kw_only=True):
    """`rows`: input order, each draft followed by its revisions. `controls`: the fresh samples by how they
    were drawn; they are no output rows."""

    rows: list[Sample]
    controls: dict[Arm, list[Sample]]
    outcome: Outcome


@dataclass
class _Thread:
    """A draft and what became of it; the last row is the one the critic sees next."""

    rows: list[Sample]
    tokens: int = 0
    live: bool = True


def critique(
    samples: Sequence[Sample],
    policy: Engine,
    critic: Engine,
    templates: Templates,
    settings: CritiqueSettings,
    run_seed: int,
    score: ScoreFn | None = None,
    tell: Teller | None = None,
    critics: Sequence[Member] = (),
) -> CritiqueResult:
    """Criticises and revises each draft for up to `settings.passes` passes; `policy` writes the revisions.

    With `tell` no model criticises: the details of these rewards are the critique. With `critics` these do,
    and vote. Without `score` the rewards the drafts came with are used, and revisions have none. What the
    engine cannot answer (a prompt too long) is marked in its row and counted, not raised. The comparison with
    fresh samples is defined in `critique_outcome`; rows that share a task should come in one call for it.

    Raises: EngineError when an engine leaves an answer out; ConfigError from a template; what `score` raises.
    """
    by_model = partial(_critic, templates=templates, settings=settings)
    if critics:
        criticise = jury(members(critics, by_model, critic, policy, settings.mark))
    else:
        criticise = told(tell, TOLD, settings.mark) if tell else by_model(critic)
    names = tuple(one.name for one in critics)
    run = _Run(policy, criticise, names, templates, settings, run_seed, score or (lambda rows: rows))
    threads = [_Thread([row], live=_is_draft(row)) for row in samples]
    drafts = [thread for thread in threads if thread.live]
    tells = tell is not None or any(one.tell for one in critics)
    scored_first = tells or settings.feedback == "rewards"
    if scored_first:
        run.score_texts(drafts, 0)
    outcome = Outcome(drafts=len(drafts), passed_through=len(threads) - len(drafts))
    for pass_index in range(settings.passes):
        live = [thread for thread in drafts if thread.live]
        outcome += run.criticise(live, pass_index)
        if settings.revise:
            outcome += run.revise([thread for thread in live if thread.live], pass_index)
            if scored_first:
                run.score_texts(drafts, pass_index + 1)
    for k in range(settings.passes + 1):
        # All of them again, not the null ones only: a reward may compare the rows of a task (`majority`).
        if not scored_first or any(row.critiques and row.reward is None for row in _texts(drafts, k)):
            run.score_texts(drafts, k)
    outcome += _transitions(drafts, settings.passes)
    outcome += judged([row for thread in drafts for row in thread.rows])
    outcome += Outcome(rewards=mean_sums([row for thread in drafts for row in thread.rows]))
    outcome += Outcome(draft_tokens=sum(thread.rows[0].sampled_tokens for thread in drafts))
    revised = [thread for thread in drafts if len(thread.rows) > 1]
    fresh = run.fresh(revised, drafts) if settings.control else {}
    for i, thread in enumerate(revised):
        own = {arm: groups[i] for arm, groups in fresh.items()}
        outcome += comparison(thread.rows, thread.tokens, own) + nearness(thread.rows, own)
    return CritiqueResult(
        rows=[row for thread in threads for row in thread.rows],
        controls={arm: [row for group in groups for row in group] for arm, groups in fresh.items()},
        outcome=outcome,
    )


def _critic(engine: Engine, templates: Templates, settings: CritiqueSettings) -> Critic:
    write = written(engine, settings.critique, templates.critique)
    if settings.verdict == "written" or "score" not in engine.capabilities:  # as a server, which is said
        return write
    assert templates.choice is not None
    return scored(engine, templates.choice, settings.ok_from, write if settings.revise else None)


@dataclass(frozen=True)
class _Run:
    """What stays the same over the passes of one call."""

    policy: Engine
    critic: Critic
    critics: tuple[str, ...]
    templates: Templates
    settings: CritiqueSettings
    run_seed: int
    score: ScoreFn

    def scored(self, rows: list[Sample]) -> list[Sample]:
        scored = self.score(rows) if rows else rows
        if [row.id for row in scored] != [row.id for row in rows]:
            raise ValueError("score must return the rows it was given, in their order")
        return scored

    def score_texts(self, threads: list[_Thread], k: int) -> None:
        """The drafts (k = 0), or the k-th revisions, wherever there is one."""
        scored = iter(self.scored(_texts(threads, k)))
        for thread in threads:
            if len(thread.rows) > k:
                thread.rows[k] = next(scored)

    def seed(self, stage: str, pass_index: int, row: Sample) -> int:
        return row_seed(self.run_seed, stage, pass_index, row.round, row.task.id, row.index)

    def criticise(self, threads: list[_Thread], pass_index: int) -> Outcome:
        """Appends a critique to each thread's last row; verdict ok or a failed critique ends the thread."""
        asked = [self._asked(thread, pass_index) for thread in threads]
        counts = PassOutcome(critiques=len(threads))
        n_tokens = n_failed = 0
        told_all = self.critic(asked)
        for thread, made in zip(threads, told_all, strict=True):
            row = thread.rows[-1]
            failed = made.finish_reason == "error"
            thread.rows[-1] = replace(row, critiques=(*row.critiques, made))
            thread.tokens += made.sampled_tokens
            thread.live = not failed and made.verdict != "ok"
            n_tokens += made.sampled_tokens
            n_failed += failed
            counts += PassOutcome(
                failed=int(failed),
                unparsed=int(not failed and made.verdict is None),
                ok=int(made.verdict == "ok"),
            )
        passes = (PassOutcome(),) * pass_index + (counts,)
        return Outcome(
            passes=passes,
            critique_tokens=n_tokens,
            failed_critiques=n_failed,
            first_failure=next((made.error for made in told_all if made.finish_reason == "error"), None),
            agreement=counted(told_all, self.critics),
        )

    def revise(self, threads: list[_Thread], pass_index: int) -> Outcome:
        """Appends a revision to each thread; a failed one ends the thread."""
        resumes = [self._resume(thread) for thread in threads]
        chats = [
            thread.rows[0].context if begun else self._revise_chat(thread, pass_index)
            for thread, begun in zip(threads, resumes, strict=True)
        ]
        known = [(*begun.prompt, *begun.kept) if begun else () for begun in resumes]
        seeds = [(self.seed("revise", pass_index, thread.rows[0]),) for thread in threads]
        answers = ask(self.policy, chats, seeds, self.settings.revision, known)
        n_tokens = 0
        for k, (thread, (prompt, (answer,))) in enumerate(zip(threads, answers, strict=True)):
            draft, begun = thread.rows[0], resumes[k]
            row = self._row(draft, f".v{pass_index + 1}", chats[k], prompt, seeds[k][0], answer)
            if begun:
                row = resumed(row, begun, self.policy)
            if self._reveals(draft):
                columns = row.extra if isinstance(row.extra, dict) else {}
                row = replace(row, extra={**columns, REVEALED: Raw(b"true")})
            thread.rows.append(replace(row, parent_id=draft.id))
            thread.tokens += answer.sampled_tokens
            thread.live = row.finish_reason != "error"
            n_tokens += answer.sampled_tokens
        return Outcome(revision_tokens=n_tokens)

    def _resume(self, thread: _Thread) -> Resume | None:
        """What a revision goes on from; None where it is written anew."""
        keep = thread.rows[-1].critiques[-1].keep
        if not self.settings.resume or keep is UNSET:
            return None
        found = resume(thread.rows[0], thread.rows[-1], keep, self.policy)
        return found if found and found.fits(self.policy, self.settings.revision) else None

    def fresh(self, revised: list[_Thread], drafts: list[_Thread]) -> dict[Arm, list[list[Sample]]]:
        """Scored fresh samples per revised thread, as many as its critiques and revisions would pay for."""
        own = self.settings
        threads = [(thread.rows, thread.tokens) for thread in revised]
        counts = fresh_counts(threads, [thread.rows[0] for thread in drafts], self.policy)
        drafting = own.drafting or own.revision
        arms: dict[Arm, list[list[Sample]]] = {"drafts": self._drawn(revised, counts, drafting, "f", "fresh")}
        if own.revision != drafting:
            # All greedy samples of a prompt are one.
            as_many = counts if own.revision.temperature else [1] * len(counts)
            arms["revisions"] = self._drawn(revised, as_many, own.revision, "g", "fresh-as-revised")
        return arms

    def _drawn(
        self, revised: list[_Thread], counts: list[int], sampling: Sampling, suffix: str, stage: str
    ) -> list[list[Sample]]:
        drafts = [thread.rows[0] for thread in revised]
        chats = [draft.context for draft in drafts]
        seeds = [
            tuple(self.seed(stage, k, draft) for k in range(n))
            for draft, n in zip(drafts, counts, strict=True)
        ]
        # A draft of this very policy carries its prompt's ids; those of another may be another vocabulary's.
        known = [draft.prompt_token_ids if draft.policy == self.policy.policy else () for draft in drafts]
        answers = ask(self.policy, chats, seeds, sampling, known)
        rows = [
            self._row(draft, f".{suffix}{k}", chat, prompt, seed, answer)
            for draft, chat, own, (prompt, group) in zip(drafts, chats, seeds, answers, strict=True)
            for k, (seed, answer) in enumerate(zip(own, group, strict=True))
        ]
        scored = iter(self.scored(rows))
        return [[next(scored) for _ in own] for own in seeds]

    def _reveals(self, row: Sample) -> bool:
        return self.settings.reveal_references and bool(row.task.references)

    def _feedback(self, row: Sample) -> str:
        if self.settings.feedback == "none":
            return ""
        return "\n".join(f"- {reward.name}: {reward.detail}" for reward in row.rewards if reward.detail)

    def _principle(self, thread: _Thread, pass_index: int) -> str:
        if not self.settings.principles:
            return ""
        drawn = self.seed("principle", pass_index, thread.rows[0]) % len(self.settings.principles)
        return self.settings.principles[drawn]

    def _asked(self, thread: _Thread, pass_index: int) -> Asked:
        context, row = of_chat(thread.rows[0]), thread.rows[-1]
        reveals = self._reveals(row)
        shown = {
            "task": context.task,
            "conversation": as_text(context.system + context.before),
            "answer": row.text,
            "feedback": self._feedback(row),
            "references": "\n".join(row.task.references) if reveals else "",
            "principle": self._principle(thread, pass_index),
        }
        return Asked(
            row=row,
            chat=(Message(role="user", content=self.templates.critique.render(**shown)),),
            shown=shown,
            seed=self.seed("critique", pass_index, thread.rows[0]),
            pass_index=pass_index,
            mark="+references" if reveals else "",
        )

    def _revise_chat(self, thread: _Thread, pass_index: int) -> tuple[Message, ...]:
        row = thread.rows[-1]
        return revise_chat(
            self.templates.revise,
            of_chat(thread.rows[0]),
            row.text,
            row.critiques[-1].text,
            memory="\n".join(f"- {passed.critiques[-1].text}" for passed in thread.rows[:-1]),
            feedback=self._feedback(row),
            principle=self._principle(thread, pass_index),
        )

    def _row(
        self,
        draft: Sample,
        suffix: str,
        chat: tuple[Message, ...],
        prompt: tuple[int, ...],
        seed: int,
        answer: Completion,
    ) -> Sample:
        return Sample(
            id=draft.id + suffix,
            task=draft.task,
            messages=unless_prompt(chat, draft.task),
            prompt_token_ids=prompt,
            round=draft.round,
            index=draft.index,
            text=answer.text,
            finish_reason=answer.finish_reason,
            token_ids=answer.token_ids,
            counted_tokens=answer.count,
            logprobs=answer.logprobs,
            seed=seed,
            policy=self.policy.policy,
            engine=self.policy.signature,
            error=answer.error,
        )


def _texts(threads: list[_Thread], k: int) -> list[Sample]:
    """The drafts (k = 0), or the k-th revisions, of the threads that have one."""
    return [thread.rows[k] for thread in threads if len(thread.rows) > k]


def _transitions(threads: list[_Thread], passes: int) -> Outcome:
    """What each pass made of the texts, counted when all are scored."""
    counts = [PassOutcome()] * passes
    for thread in threads:
        for k, (before, after) in enumerate(pairwise(thread.rows)):
            counts[k] += transition(before, after)
    return Outcome(passes=tuple(counts))


def _is_draft(row: Sample) -> bool:
    return row.parent_id is None and row.finish_reason != "error" and not row.critiques
