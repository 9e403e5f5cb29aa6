"""Settings of what judges an answer: critiques and rewards. config.py has the others."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Struct

from selfrefine.fields import Natural, NonNegative, Positive, PositiveFloat, Share, says
from selfrefine.serving import CRITIC_KEY_ENV, VariableName

MODELS = ("model", "policy")
"""Entries of `critique.critics` that are models; all but these and `rewards` name a reward."""


class CritiqueConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How answers are criticised and revised."""

    passes: Annotated[Natural, says("Critiques and revisions per answer at most. 0: none in `cycle`.")] = 0
    stop_without_gain: Annotated[
        bool,
        says(
            "Stop after the passes that paid. A round makes only the leading passes that raised the mean "
            "reward of what they revised in the round before, and always the first. Round 1 makes all of "
            "`critique.passes`; the comparison after the last round goes by that round."
        ),
    ] = False
    source: Annotated[
        str,
        says(
            "Where a critique's text comes from. `model`: the critic writes it; `rewards`: the details of "
            "the rewards, word for word; the name of one reward, or `file.py:function` (a compiler, a "
            "linter, a search): what it says. Only `model` costs tokens."
        ),
    ] = "model"
    critics: Annotated[
        tuple[str, ...],
        says(
            "Several critics of each text, which vote. Each as `critique.source`, which is then left "
            "alone, or `policy`: the policy itself, beside a `model` that is another. What more than half of "
            "the verdicts that can be read find ok is ok; the texts of those that say `revise` are the "
            "critique."
        ),
    ] = ()
    critic_model: Annotated[str | None, says("Model that criticises. Not set: the policy.")] = None
    base_url: Annotated[
        str | None,
        says("Address of the server behind a `critic_model` of `openai:NAME`. Not set: `engine.base_url`."),
    ] = None
    key_env: Annotated[
        VariableName, says("Name of the environment variable that holds the key of the critic's server.")
    ] = CRITIC_KEY_ENV
    key_file: Annotated[str | None, says("File that holds the key of the critic's server (mode 0600).")] = (
        None
    )
    verdict: Annotated[
        Literal["written", "scored"],
        says(
            "How a model's verdict and score are had. `written`: parsed from its critique; `scored`: from "
            "how probable each allowed verdict and score is to the critic, before it writes. What it finds "
            "ok is neither criticised nor revised."
        ),
    ] = "written"
    ok_from: Annotated[
        Share, says('With `verdict = "scored"`: probability of `ok` from which an answer is left as it is.')
    ] = 0.5
    revise: Annotated[bool, says("Revise answers. `false`: only judge them, for the reward `critic`.")] = True
    critique_prompt: Annotated[
        str, says("Template: `critique`, `rubric`, `reflect`, `constitutional-critique`, or a file.")
    ] = "critique"
    revise_prompt: Annotated[
        str, says("Template of a revision: `revise`, `mend`, `retry`, `constitutional-revise`, or a file.")
    ] = "revise"
    revise_from: Annotated[
        Literal["start", "fault"],
        says(
            "Where a revision begins. `start`: it is written anew, with the draft in view; `fault`: what "
            "stands before the first fault is kept and continued, where the critic placed it (`Reward.keep`)."
        ),
    ] = "start"
    choice_prompt: Annotated[
        str, says("Template of the question behind a scored verdict: `choice`, or a file.")
    ] = "choice"
    principles: Annotated[
        str | None,
        says(
            "Principles to judge by: `principles`, or a text file with one per line. Each draft and "
            "pass gets one of them."
        ),
    ] = None
    feedback: Annotated[
        Literal["none", "rewards"],
        says("What the critic sees besides the answer. `rewards`: what each reward found missing."),
    ] = "none"
    reveal_references: Annotated[bool, says("Show the critic the references. The rows record it.")] = False
    control: Annotated[bool, says("Compare revisions with fresh samples. `evaluate.revise` always does.")] = (
        True
    )
    max_new_tokens: Annotated[Positive, says("Maximum length of a critique, in tokens.")] = 128
    temperature: Annotated[
        NonNegative,
        says("Sampling temperature of critiques."),
    ] = 1.0
    revision_temperature: Annotated[
        NonNegative | None,
        says(
            "Sampling temperature of revisions; 0 is greedy. Not set: that of `generate`. The other settings "
            "of `generate` hold for revisions, too."
        ),
    ] = None

    @property
    def asked(self) -> tuple[str, ...]:
        """Who criticises: the entries of `critics`, else `source` alone."""
        return self.critics or (self.source,)


class RewardConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is trained on."""

    use: Annotated[
        tuple[str, ...],
        says(
            "Rewards to train on, each `NAME[:weight]` or `file.py:function[:weight]`. The reward of an "
            "answer is their weighted mean. Not set: those of `evaluate.measure`."
        ),
    ] = ()
    gate_on: Annotated[
        str | None,
        says(
            "One of the rewards, which must pass before the others count. If it does not pass, the "
            "reward is 0, in training and in evaluation."
        ),
    ] = None
    invert: Annotated[bool, says("Train on 1 - reward: the control of the recipe `sabotage`.")] = False
    timeout_s: Annotated[
        PositiveFloat | None,
        says(
            "Time limit in seconds for one call of a reward of your own or of a plugin. A call scores one "
            "row, or a prompt's rows for a group reward; beyond the limit these are unscored. Without "
            "`isolate` it interrupts neither a C function that never returns to Python nor code that "
            "catches every exception."
        ),
    ] = None
    isolate: Annotated[
        bool,
        says(
            "Run rewards of your own and of plugins in a separate process. A crash there leaves the rows of "
            "one call unscored, and the run goes on."
        ),
    ] = False
    isolate_memory_gib: Annotated[
        PositiveFloat,
        says(
            "With `isolate`: address space of that process in GiB. Beyond it the row is unscored "
            "(MemoryError). A reward that loads torch needs more than the default."
        ),
    ] = 4.0
    isolate_cpu_s: Annotated[PositiveFloat, says("With `isolate`: CPU time of one call, in seconds.")] = 60.0
    settings: Annotated[
        dict[str, dict[str, Any]],
        says("A table for each reward, such as `reward.numeric.tolerance=0.01`."),
    ] = {}
