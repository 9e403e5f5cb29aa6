"""Why an answer failed, told from the row alone.

An answer fails where its reward is below `passing`: the run's `select.min_reward`, or 1 (right, as
`critique_outcome.is_right` has it) where none is set. So the same holds for graded rewards: with BLEU and no
`min_reward` nearly every answer fails a little, and the kinds say how, not how many. Without a reward it
fails where a reward gave a reason; a row that nobody has scored is not judged.

An answer has one kind, the first that fits, the most telling first: what stands in the text before what the
rewards say of it. A loop that ran into the limit is repetitive, because more room would not have ended it.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

from selfrefine.records import Sample, Task
from selfrefine.reflection.findings import FailureKind
from selfrefine.rewards.repetition import repeated
from selfrefine.steps.critique_outcome import RIGHT, is_right

REPETITIVE = 0.5
"""Share of repeated 3-grams from which on an answer counts as a loop."""
_MIDDLE = 0.5
_LOOP_WORDS = 12
"""Shorter answers repeat themselves by chance: `1 + 1 + 1 + 1`."""
_LETTERS = 4
"""Letters of a text from which on its script is told."""
_OF_THEM = 0.8
_STOP_WORDS = 3
"""Different stop words of a language that a text must hold before it counts as being in it."""
_SEEN = 4_000
"""Characters of a text that are looked at for its language."""

_CANNOT = r"(?:can(?:no|['’])t|can not|am (?:not able|unable)(?: to)?|won['’]t(?: be able to)?)"
_REFUSED = re.compile(
    "|".join(
        (
            r"\bas an? (?:ai|large) (?:language )?model\b",
            rf"\bi(?:['’]m| am) (?:sorry|afraid)[,.]? (?:but |that )?i {_CANNOT}",
            rf"\b(?:i|we) (?:{_CANNOT}|must decline to) (?:help(?! but)|assist|answer|provide|comply|fulfil+"
            r"|complete|solve|respond|do that|discuss|give you)\b",
            r"\bich kann (?:ihnen |dir |dabei |das |diese \w+ |leider )*"
            r"nicht (?:helfen|beantworten|weiterhelfen)",
            r"\bje ne peux pas (?:vous |t['’])?(?:aider|répondre|fournir)",
            r"\b(?:no|não) (?:puedo|posso) (?:ayudar|ajudar|responder|proporcionar)",
            r"я не могу (?:помочь|ответить)|我(?:不能|无法|無法)(?:帮|幫|回答|提供|协助)",
        )
    )
)
_IN_REFUSALS = ("can", "able to", "won", "decline", " model", "kann", "peux", "puedo", "posso", "могу", "我")
"""One of them is in each; a search for plain text is a hundred times as fast."""
_REFUSAL_SEEN = 300
"""A refusal stands at the beginning; further down, "I can't answer that" may be quoted."""
_TRANSLATION = re.compile(
    r"\btranslat|übersetz|\btradu[isczt]|перевед|перевод|翻[译譯訳]|\bvertaal"
    r"|\bin(?:to)? (?:english|german|french|spanish|italian|portuguese|dutch|russian|chinese|japanese|korean"
    r"|arabic|hebrew|greek|hindi|thai|turkish|polish|ukrainian)\b",
    re.IGNORECASE,
)
_WORDS = {
    "English": "the of and is are was with this that which from for have not it be",
    "German": "der die das und ist sind nicht ein eine mit von zu den dem auf für",
    "French": "le la les et est sont des une dans pour que qui pas sur avec du",
    "Spanish": "el los las y es son una del para que con por como pero más su",
    "Italian": "il lo gli e è sono una della per che con non come di nel ma",
    "Portuguese": "o os as e é são uma do da para que com não por como mas",
    "Dutch": "de het een en is zijn niet van met voor dat op aan te naar ook",
}
_LANGUAGES = {name: frozenset(words.split()) for name, words in _WORDS.items()}


def kind_of(row: Sample, passing: float = RIGHT) -> FailureKind | None:
    """Why this answer failed; None where it did not, or where nobody has scored it.

    passing: the reward from which on an answer passes, in [0, 1].
    """
    if not failed(row, passing):
        return None
    return _in_text(row) or _in_rewards(row)


def failed(row: Sample, passing: float = RIGHT) -> bool:
    """Whether the reward is below `passing`, or could not be computed. False where nobody has scored it."""
    if row.reward is None:
        return bool(row.rewards) or row.finish_reason == "error"
    return not passes(row.reward, passing)


def passes(reward: float, passing: float) -> bool:
    """Rewards are sums of thirds and tenths, so `passing` has the slack that `is_right` has."""
    return is_right(reward + (1.0 - passing))


def _in_text(row: Sample) -> FailureKind | None:
    if row.finish_reason == "error":
        return "unreadable"
    if not row.text.strip():
        return "empty"
    if len(row.text) >= _LOOP_WORDS and _loops(row.text):
        return "repetitive"
    if row.finish_reason == "length":
        return "cut off"
    if refuses(row.text):
        return "refused"
    return "other language" if other_language(row.text, row.task) else None


def refuses(text: str) -> bool:
    """Whether an answer begins by declining the task; patterns of a few languages, so some are missed."""
    start = text[:_REFUSAL_SEEN].casefold()
    return any(word in start for word in _IN_REFUSALS) and _REFUSED.search(start) is not None


def _in_rewards(row: Sample) -> FailureKind:
    if row.reward is None:
        return "unreadable"
    values = [reward.value for reward in row.rewards if reward.value is not None]
    if values and min(values) < _MIDDLE < max(values):
        return "rewards disagree"
    return "wrong"


def _loops(text: str) -> bool:
    units = len(text.split())
    return (units >= _LOOP_WORDS or (units <= 2 and not text.isascii())) and repeated(text) >= REPETITIVE


def other_language(text: str, task: Task) -> bool:
    """Whether `text` is surely in another script or language than the task wants it.

    The references say what is wanted; where they have no letters (numbers), the last message of the prompt,
    unless that speaks of translating or names a language. Scripts are told apart by their letters; languages
    of the Latin script by stop words of seven of them, and only where both sides are clear. Whatever cannot
    be told is not claimed. Chinese and Japanese count as one script.
    """
    prompt = task.prompt[-1].content[:_SEEN] if task.prompt else ""
    theirs, there = _wanted(" ".join(task.references)[:_SEEN], prompt)
    own = _scripts(text[:_SEEN])
    letters = own.total()
    if letters < _LETTERS or theirs.total() < _LETTERS:
        return False
    script, count = max(own.items(), key=lambda item: (item[1], item[0]))
    if script not in theirs:
        return count >= _OF_THEM * letters
    if script != "LATIN" or theirs["LATIN"] < _OF_THEM * theirs.total():
        return False
    return there is not None and _language(text[:_SEEN]) not in (None, there)


@lru_cache(maxsize=1_000)  # the answers to one task follow each other
def _wanted(references: str, prompt: str) -> tuple[Counter[str], str | None]:
    """Letters by script and the language of what an answer should be like; none where it cannot be told."""
    wanted = references
    if sum(map(str.isalpha, references)) < _LETTERS:
        wanted = "" if _TRANSLATION.search(prompt) else prompt
    return _scripts(wanted), _language(wanted)


def _scripts(text: str) -> Counter[str]:
    if text.isascii():
        return Counter({"LATIN": n} if (n := sum(map(str.isalpha, text))) else {})
    return Counter(_script(c) for c in text if c.isalpha())


@lru_cache(maxsize=10_000)
def _script(letter: str) -> str:
    first = unicodedata.name(letter, "UNKNOWN").partition(" ")[0]
    if first in ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HALFWIDTH", "IDEOGRAPHIC"):
        return "CJK"
    return "LATIN" if first == "FULLWIDTH" else first.partition("-")[0]


def _language(text: str) -> str | None:
    """The one of `_LANGUAGES` with the most stop words, if it has enough and twice those of the next."""
    words = set(re.findall(r"[^\W\d_]+", text.casefold()))
    ranked = sorted(((len(words & stops), name) for name, stops in _LANGUAGES.items()), reverse=True)
    (most, name), (second, _) = ranked[:2]
    return name if most >= _STOP_WORDS and most >= 2 * second else None
