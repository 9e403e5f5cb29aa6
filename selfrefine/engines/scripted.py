"""The engine without a model: a script says what it answers. For dry runs, teaching and exact tests.

Text is UTF-8 bytes, so prompt ids can be written down by hand: 0-255 are bytes, 256 ends a turn, the role
markers follow. A chat is `<role> bytes <end>` per message and then `<assistant>`.

A rule is `{"match": REGEX, "answers": [TEXT, ...]}`; the first whose regex is found in the last user message
counts. A row draws `answers[seed % len(answers)]`; at temperature 0 it is the most frequent one. Its
logprobs are those of exactly this distribution, read byte by byte: of "12" and "15" the first byte is
certain and the second has log 1/2, and `score` gives the same numbers for the same ids.

Of the sampling settings it follows `max_new_tokens`, `stop`, and whether `temperature` is 0. top_k, top_p,
min_p and repetition_penalty shape a distribution over tokens: here whole answers are drawn, and they change
nothing.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from selfrefine.config import Sampling
from selfrefine.engines import EngineKind, LoadOptions
from selfrefine.engines.base import Capability, Completion, Engine, Request, refused
from selfrefine.errors import ConfigError
from selfrefine.records import UNDECODABLE, Message, why_undecodable
from selfrefine.runfolder.jsonl import lines

END = 256
SYSTEM, USER, ASSISTANT, OTHER = 257, 258, 259, 260
_MARKERS = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}
OFF_SCRIPT = -20.0
"""Nats for a token that no answer of the script has there."""

Answers = Callable[[str, re.Match[str]], Sequence[str]]


class Rule(Struct, frozen=True, forbid_unknown_fields=True):
    match: str
    answers: tuple[str, ...]


class Scripted(Engine):
    """`rules=None` takes the built-in ones: sums, and a critic, a reviser and a comparer for them.

    Raises: ConfigError for a rule that is none, has no answers or whose regex does not compile.
    """

    capabilities = frozenset[Capability]({"sample", "logprobs", "score"})

    def __init__(
        self,
        rules: Sequence[Rule | Mapping[str, Any]] | None = None,
        context_tokens: int = 4096,
        *,
        name: str = "scripted",
    ) -> None:
        self._context_tokens = context_tokens
        if rules is None:
            self._rules = [(re.compile(pattern, re.DOTALL), answers) for pattern, answers in _BUILT_IN]
            identity = b"built-in 2"
        else:
            checked = [_checked(rule, f"{name}: rule {i}") for i, rule in enumerate(rules, start=1)]
            self._rules = [(re.compile(rule.match, re.DOTALL), _constant(rule.answers)) for rule in checked]
            identity = msgspec.json.encode(checked)
        self._policy = hashlib.sha256(identity).hexdigest()

    @classmethod
    def from_file(cls, path: str | Path) -> Scripted:
        """Rules from JSON Lines. Raises: ConfigError naming file and line."""
        try:
            text = Path(path).read_bytes()
        except OSError as error:
            raise ConfigError(f"{path}: cannot read this script: {error.strerror}") from None
        rules = []
        for where, line in lines(BytesIO(text), str(path)):
            try:
                rule = msgspec.json.decode(line)
            except UNDECODABLE as error:
                raise ConfigError(f"{where}: {why_undecodable(line, error)}") from None
            rules.append(_checked(rule, where))
        return cls(rules, name=str(path))

    @property
    def signature(self) -> str:
        return f"scripted:{self._policy[:12]}"

    @property
    def policy(self) -> str:
        return self._policy

    @property
    def context_tokens(self) -> int:
        return self._context_tokens

    def encode_chat(self, messages: Sequence[Message]) -> tuple[int, ...]:
        ids: list[int] = []
        for message in messages:
            ids += [_MARKERS.get(message.role, OTHER), *self.encode_answer(message.content)]
        return (*ids, ASSISTANT)

    def encode_text(self, text: str) -> tuple[int, ...]:
        return tuple(text.encode(errors="replace"))

    def encode_answer(self, text: str) -> tuple[int, ...]:
        return (*self.encode_text(text), END)

    def decode(self, token_ids: Sequence[int]) -> str:
        return bytes(i for i in token_ids if i < END).decode(errors="replace")

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[list[Completion]]:
        """One list per request."""
        for number, request in enumerate(requests):
            answers = self._answers(request.prompt_token_ids)
            yield [
                self._complete(number, index, request.prompt_token_ids, answers, seed, sampling)
                for index, seed in enumerate(request.seeds)
            ]

    def score(
        self,
        prompts: Sequence[Sequence[int]],
        completions: Sequence[Sequence[int]],
        *,
        bare: bool = False,
    ) -> list[tuple[float, ...]]:
        pairs = zip(prompts, completions, strict=True)
        return [_logprobs(self._answers(prompt), tuple(ids)) for prompt, ids in pairs]

    def _answers(self, prompt: Sequence[int]) -> list[tuple[int, ...]]:
        text = self.decode(_last_user_turn(prompt))
        for pattern, answers in self._rules:
            if found := pattern.search(text):
                return [self.encode_answer(answer) for answer in answers(text, found)]
        return [self.encode_answer(" ".join(text.split()[-3:]))]

    def _complete(
        self,
        request: int,
        index: int,
        prompt: Sequence[int],
        answers: list[tuple[int, ...]],
        seed: int,
        sampling: Sampling,
    ) -> Completion:
        room = self._context_tokens - len(prompt)
        if room <= 0:
            why = f"the prompt has {len(prompt):,} tokens, but the context holds {self._context_tokens:,}"
            return refused(request, index, why)
        # max() keeps the first of equals: greedy does not depend on the seed.
        answer = answers[seed % len(answers)] if sampling.temperature else max(answers, key=answers.count)
        sampled = answer[: min(sampling.max_new_tokens, room)]
        cut = _first_stop(sampled, sampling.stop)
        ids = sampled if cut is None else (*sampled[:cut], END)
        return Completion(
            request=request,
            index=index,
            text=self.decode(ids),
            token_ids=ids,
            # The END after a stop string was not sampled and has no logprob.
            logprobs=_logprobs(answers, sampled[:cut]),
            finish_reason="stop" if ids[-1:] == (END,) else "length",
        )


def _checked(rule: object, where: str) -> Rule:
    try:
        checked = rule if isinstance(rule, Rule) else msgspec.convert(rule, Rule)
        re.compile(checked.match)
    except (msgspec.ValidationError, re.error) as error:
        raise ConfigError(f"{where}: not a valid script rule: {error}") from None
    if not checked.answers:
        raise ConfigError(f"{where}: a rule needs at least one answer")
    return checked


def _constant(answers: Sequence[str]) -> Answers:
    return lambda _text, _found: answers


def _last_user_turn(prompt: Sequence[int]) -> Sequence[int]:
    """The bytes after the last user marker; of a prompt that is no chat, all of it."""
    starts = [i for i, token in enumerate(prompt) if token == USER]
    turn = prompt[starts[-1] + 1 :] if starts else prompt
    return turn[: turn.index(END)] if END in turn else turn


def _first_stop(ids: tuple[int, ...], stops: Sequence[str]) -> int | None:
    """Where the earliest stop string begins, in tokens (a byte is a token)."""
    text = bytes(i for i in ids if i < END)
    places = [text.find(stop.encode()) for stop in stops if stop]
    return min((place for place in places if place >= 0), default=None)


def _logprobs(answers: Sequence[tuple[int, ...]], ids: tuple[int, ...]) -> tuple[float, ...]:
    """Nats of each token, given those before it, when one of `answers` is drawn evenly."""
    left = list(answers)
    out: list[float] = []
    for place, token in enumerate(ids):
        still = [answer for answer in left if answer[place : place + 1] == (token,)]
        out.append(math.log(len(still) / len(left)) if still else OFF_SCRIPT)
        left = still
    return tuple(out)


_SUM = r"(?<![\w.])-?\d+(?:\s*[-+−]\s*\d+)+(?!\w|\.\d)"


def _sums(_text: str, found: re.Match[str]) -> Sequence[str]:
    """Half the draws are right where the sum is easy; every third sum is hard: one in four, never greedy."""
    total = _value(found[0])
    if total % 3:
        return [str(total), str(total + 1), str(total), str(total - 10)]
    return [str(total + 1), str(total), str(total + 1), str(total - 10)]


def _critiques(text: str, found: re.Match[str]) -> Sequence[str]:
    """Judges the draft of a sum, right three times in four."""
    expression = re.search(_SUM, text)
    if expression is None:
        return ["I can only check sums.\nScore: 3\nVerdict: revise"]
    right = found["draft"].strip() == str(_value(expression[0]))
    passes = "The sum is right.\nScore: 5\nVerdict: ok"
    fails = "The sum is off, add the digits again.\nScore: 1\nVerdict: revise"
    return [passes, passes, passes, fails] if right else [fails, fails, fails, passes]


def _revisions(text: str, _found: re.Match[str]) -> Sequence[str]:
    """Revises a sum, right two times in three."""
    expression = re.search(_SUM, text)
    if expression is None:
        return ["I can only revise sums."]
    total = _value(expression[0])
    return [str(total), str(total), str(total + 1)]


def _compared(text: str, found: re.Match[str]) -> Sequence[str]:
    """Which of two answers to a sum is right, known three times in four; a coin where both or none is."""
    expression = re.search(_SUM, text)
    total = None if expression is None else str(_value(expression[0]))
    first, second = (found[side].strip() == total for side in ("first", "second"))
    if first == second:
        return ["A", "B"]
    return ["A", "A", "A", "B"] if first else ["B", "B", "B", "A"]


def _value(expression: str) -> int:
    terms = re.findall(r"[-+]?\d+", re.sub(r"\s", "", expression).replace("−", "-"))
    return sum(map(int, terms))


_BUILT_IN: list[tuple[str, Answers]] = [
    (r"<draft-a>(?P<first>.*?)</draft-a>.*<draft-b>(?P<second>.*?)</draft-b>", _compared),
    (r"<critique>", _revisions),
    (r"<draft>(?P<draft>.*?)</draft>.*Verdict:", _critiques),
    (_SUM, _sums),
]


def _load(rules: str, adapter: Path | None, _options: LoadOptions) -> Scripted:
    if adapter is not None:
        raise ConfigError(f"--adapter {adapter}: the scripted engine has no weights to adapt")
    return Scripted.from_file(rules) if rules else Scripted()


SCRIPTED = EngineKind(
    name="scripted",
    spelling="scripted[:rules.jsonl]",
    about="no model: answers come from a script; for dry runs, teaching and exact tests",
    load=_load,
)
