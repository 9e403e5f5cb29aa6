"""sentence: 1 when the answer is one English sentence with a finite verb and not a list of nouns.

The second reward of the constrained-text demo: `coverage` alone is won by "A flute, a lane, and a world."
No parser and no model, a closed heuristic in four steps, each with its own `detail`:

1. one line, no list marker, and . ! or ? at its end and nowhere before;
2. a finite verb: an auxiliary, or a known verb in a finite form, and not where a noun stands (after a
   determiner, a preposition, a conjunction or a comma). A base form needs a subject it agrees with
   ("children play", "a dog and a cat play"). An unknown word counts as a verb when it ends in -ed, or in -s
   between a noun and a function word ("a clown unicycles across");
3. fewer than three bare noun phrases between commas and "and", so "I see a flute, a lane, a stove, and a
   world." is a list all the same.

A fault has a place (`Reward.keep`): a list begins to be one at its second bare noun phrase, and a sentence
without a verb, or without its full stop, ended too early.

Known misses, kept as tests. Passes wrongly: a reduced or relative clause alone ("A man dressed in red.", "A
dog that runs."). Fails wrongly: a verb after a comma ("The dog, tired, sleeps."), three nouns in a true
enumeration, a base form of an unknown verb. It judges form, not sense.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from selfrefine.records import Reward, Sample
from selfrefine.rewards.base import RewardKind, RewardOptions, Scorer, checked, each
from selfrefine.rewards.words import IRREGULAR_VERBS, ed_forms, ing_forms, s_form, word_set

SIGNATURE = "en-heuristic|v:2"
_REGULAR = """
accept ache achieve act add admire adore agree aim allow amaze amuse announce answer appear applaud
approach argue arrange arrive ask attach attack attempt attend bake balance bang bark bathe battle belong
blaze blend blink bloom blossom board boil bounce bow breathe brush bubble bury buzz call calm camp care
carry carve cause celebrate change charge chase chat cheer chew chirp chop clap clean clear climb close
collect comb compete complain complete connect consider contain continue cook copy cough count cover
crack crash crawl create cross crouch cry cuddle curl dance dart decide decorate deliver depend describe
deserve destroy dip disappear discover display drag dress drift drip drop dry dunk dust earn echo edge
emerge empty enjoy enter escape examine exercise exist expect explain explore face fade fail fear fetch
fill film fish fit fix flap flash flicker flip float flock flow flutter focus fold follow frame frighten
gallop gather gaze giggle glance glide glow grab grasp greet grill grin groom guard guess guide hammer
handle happen harvest haul help hike hop hope hover howl hug hum hunt hurry ignore imagine improve
include inspect install invite iron itch jog join joke juggle jump kick kill kiss knock land last laugh
launch lift like line listen live load lock look love lower manage march mark match melt miss mix move
name nap need nibble nod notice observe offer open operate order own pack paddle paint park pass paste
pause perch perform pet pick place plant play plow plunge point polish pose pour practice prance pray
prefer prepare present press pretend promise protect pull pump punch push race rain raise rake reach
receive recline relax release remain remember remove repair replace rescue reside rest return roam roar
roast rock roll rub rush sail sand save scatter score scramble scrape scratch scream search seem serve
shave shelter shout shovel sign sip skate sketch skip slice slip smash smell smile smoke snap sniff snow
soak soar sort sparkle splash sprint spray squat squeeze stack stalk stare start stay steer step stir
stop store stretch stroll study stumble stuff suit support surf surround survive sway tap taste tend
throb tickle tie touch tour tow toss trade train transform travel treat trim trip trot try tumble turn
twirl twist type use visit wag wait walk wander want warm wash waste watch water wave weigh whisper
whistle wipe wish wonder work worry wrap wrestle yawn yell
"""
_BASES = (word_set(_REGULAR) | IRREGULAR_VERBS.keys()) - {"be"}
_THIRD = frozenset(map(s_form, _BASES))
_ING = frozenset().union(*map(ing_forms, _BASES))
_PAST = frozenset().union(*map(ed_forms, _REGULAR.split())) | {
    form for base, (past, _) in IRREGULAR_VERBS.items() if base not in ("be", "have", "do") for form in past
}
_AUX = word_set(
    "am is are was were has have had do does did can could will would shall should may might must cannot"
)
_SUBJECTS = word_set("i you we they who that which people children men women feet mice geese sheep")
_PRONOUNS = word_set("i you he she it we they who that this there what here")
_DETERMINERS = word_set(
    "a an the my your his her its our their this these those some any no every each another one two three "
    "four five six several many few most"
)
_PREPOSITIONS = word_set(
    "of in on at by with without from to into onto for over under near through across along around behind "
    "beside between among against during after before above below inside outside off up down out about "
    "past toward towards beyond beneath upon as like than"
)
_JOINERS = word_set("and or nor but &")
_ADVERBS = word_set("always often never also still then now both all just soon sometimes quite very")
_NOT_PAST = word_set("naked sacred hundred beloved wicked rugged biped quadruped")
_ABBREVIATION = re.compile(r"\b(mr|mrs|ms|dr|st|vs|etc|e\.g|i\.e|a\.m|p\.m)\.(?=\s*\S)", re.IGNORECASE)


def make(_own: object, options: RewardOptions) -> Scorer:
    return Scorer(name="sentence", score=each(_score))


class Fault(NamedTuple):
    """Why a text is no sentence, and how many of its characters stand before that."""

    why: str
    keep: int


def _score(sample: Sample) -> Reward:
    fault = why_not_a_sentence(sample.text)
    if fault is None:
        return checked("sentence", 1.0, signature=SIGNATURE)
    return checked("sentence", 0.0, fault.why, SIGNATURE, keep=fault.keep)


def why_not_a_sentence(text: str) -> Fault | None:
    """What keeps `text` from being one sentence, and where; or None."""
    body = text.strip().strip("\"'“”‘’")
    if not body:
        return Fault("empty", 0)
    before = text.find(body)
    # Spaces for dots: a place in the body stays one in the text.
    body = _ABBREVIATION.sub(lambda dotted: dotted[0].replace(".", " "), body)
    if line := re.search(r"\n|^(?:[-*•]|\d+[.)]\s)", body):
        return Fault("more than one line, or a list", before + line.start())
    if not re.search(r"[.!?…][\"'”’)]*$", body):
        return Fault("no full stop at the end", before + len(body))
    if inner := re.search(r"[.!?…][\"'”’)]*(?:\s+\S|[^\W\d_])", body):
        return Fault("more than one sentence", before + inner.start())
    found = list(re.finditer(r"[^\W\d_]+(?:['’][^\W\d_]+)*|[,;:—–&()]", body))
    words = [one[0].casefold().replace("’", "'") for one in found]
    if len(words) > 300:  # looking back from each word is quadratic: no answer may buy minutes with length
        return Fault("too long for one sentence", 0)
    if not any(_is_finite(words, i) for i in range(len(words))):
        return Fault("no finite verb", _end_mark(text))
    bare = [begin for begin, segment in _segments(words) if _is_bare_noun(segment)]
    # From the second on it is a list; what joins it to the first goes too.
    if len(bare) < 3:
        return None
    return Fault(f"a list ({len(bare)} bare nouns)", before + found[bare[1] - 1].start())


def _end_mark(text: str) -> int:
    """How many characters stand before the marks that end the text: where it would go on."""
    body = text.rstrip()
    inside = body.rstrip("\"'”’)]")
    unmarked = inside.rstrip(".!?…。！？")
    return len(unmarked.rstrip()) if unmarked != inside else len(body)


def _is_finite(words: list[str], i: int) -> bool:
    word = words[i]
    previous = _before(words, i)
    after = words[i + 1] if i + 1 < len(words) else ""
    opens = previous is None or not previous[0].isalpha()
    if _is_contraction(word):
        return True
    if word in _AUX:
        return previous not in _DETERMINERS and not (opens and not after[:1].isalpha())
    if previous is None:  # an imperative: "Put the book on the shelf."
        return word in _BASES and after in _DETERMINERS | _PREPOSITIONS | {"me", "them", "him", "it"}
    noun_place = opens or previous in (_DETERMINERS | _PREPOSITIONS | _JOINERS) - {"that", "this", "these"}
    if noun_place or previous in _AUX:
        return False
    if word in _THIRD or word in _PAST:
        return True
    function_word = after in _DETERMINERS | _PREPOSITIONS or after.endswith("ly")
    if word in _BASES:
        if _is_plural(previous) or "and" in words[:i]:
            return True
        # "The birds in the tree sing a song": the plural subject stands further back.
        return function_word and any(map(_is_plural, words[:i]))
    if word.endswith("ed"):
        return len(word) > 4 and word not in _NOT_PAST
    singular = not previous.endswith("s")
    return word.endswith("s") and not word.endswith("ss") and singular and function_word


def _is_plural(word: str) -> bool:
    return word in _SUBJECTS or (word.endswith("s") and not word.endswith("ss") and word not in _AUX)


def _is_contraction(word: str) -> bool:
    head, _, tail = word.rpartition("'")
    return word.endswith("n't") or tail in ("re", "m", "ve", "ll", "d") or (tail == "s" and head in _PRONOUNS)


def _before(words: list[str], i: int) -> str | None:
    """The word before, adverbs skipped ("the dog quickly runs"); None at the start."""
    for word in reversed(words[:i]):
        if not (word in _ADVERBS or (word.endswith("ly") and len(word) > 4)):
            return word
    return None


def _segments(words: list[str]) -> list[tuple[int, list[str]]]:
    """Stretches between joiners and marks, each with the index of its first word."""
    segments: list[tuple[int, list[str]]] = [(0, [])]
    for i, word in enumerate(words):
        if word in _JOINERS or not word[0].isalpha():
            segments.append((i + 1, []))
        else:
            segments[-1][1].append(word)
    return [one for one in segments if one[1]]


def _is_bare_noun(segment: list[str]) -> bool:
    """At most four words with nothing that acts: "a stove", "the old red barn"."""
    if len(segment) > 4 or segment[-1].endswith("ly"):
        return False
    named = segment[0] in _DETERMINERS
    for word in segment:
        if word in _AUX or word in _PREPOSITIONS or word in _PRONOUNS - _DETERMINERS or _is_contraction(word):
            return False
        if not named and (word in _BASES or word in _THIRD or word in _PAST or word in _ING):
            return False
    return not any(_is_finite(segment, i) for i in range(len(segment)))


REWARD = RewardKind(
    name="sentence",
    about="1 if the answer is one English sentence with a verb, and not a list",
    make=make,
)
