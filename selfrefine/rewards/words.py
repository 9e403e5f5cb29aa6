"""English word forms by rule and table: which words count as "the same word" for coverage and sentence.

Forms are generated from the base (hop -> hopped, hopping; hope -> hoped, hoping) instead of cut off the found
word, because cutting makes "hoping" a form of "hop" and "caring" a form of "car". Limits: English only; no
derivation (runner, happily, taller); a form shared by two words (saw, leaves) counts for both.
"""

from __future__ import annotations

import re
from functools import lru_cache

_VERBS = """
be is/am/are/was/were been; have has/had had; do does/did done; go went gone; say said said
arise arose arisen; awake awoke awoken; bear bore borne; beat beat beaten; become became become
begin began begun; bend bent bent; bet bet bet; bind bound bound; bite bit bitten; bleed bled bled
blow blew blown; break broke broken; breed bred bred; bring brought brought; broadcast broadcast broadcast
build built built; burn burned/burnt burned/burnt; burst burst burst; buy bought bought; cast cast cast
catch caught caught; choose chose chosen; cling clung clung; come came come; cost cost cost
creep crept crept; cut cut cut; deal dealt dealt; dig dug dug; dive dived/dove dived; draw drew drawn
dream dreamed/dreamt dreamed/dreamt; drink drank drunk; drive drove driven; eat ate eaten; fall fell fallen
feed fed fed; feel felt felt; fight fought fought; find found found; flee fled fled; fling flung flung
fly flew flown; forbid forbade forbidden; forget forgot forgotten; forgive forgave forgiven
freeze froze frozen; get got gotten/got; give gave given; grind ground ground; grow grew grown
hang hung/hanged hung/hanged; hear heard heard; hide hid hidden; hit hit hit; hold held held; hurt hurt hurt
keep kept kept; kneel knelt/kneeled knelt/kneeled; knit knitted/knit knitted/knit; know knew known
lay laid laid; lead led led; lean leaned/leant leaned/leant; leap leaped/leapt leaped/leapt
learn learned/learnt learned/learnt; leave left left; lend lent lent; let let let; lie lay/lied lain/lied
light lit/lighted lit/lighted; lose lost lost; make made made; mean meant meant; meet met met
mow mowed mown/mowed; overcome overcame overcome; pay paid paid; prove proved proven/proved; put put put
quit quit quit; read read read; ride rode ridden; ring rang rung; rise rose risen; run ran run
saw sawed sawn/sawed; see saw seen; seek sought sought; sell sold sold; send sent sent; set set set
sew sewed sewn/sewed; shake shook shaken; shear sheared shorn; shed shed shed; shine shone/shined shone/shined
shoot shot shot; show showed shown/showed; shrink shrank shrunk; shut shut shut; sing sang sung
sink sank sunk; sit sat sat; sleep slept slept; slide slid slid; sling slung slung; slit slit slit
sow sowed sown; speak spoke spoken; speed sped/speeded sped/speeded; spend spent spent
spill spilled/spilt spilled/spilt; spin spun spun; spit spat/spit spat/spit; split split split
spread spread spread; spring sprang sprung; stand stood stood; steal stole stolen; stick stuck stuck
sting stung stung; stink stank stunk; stride strode stridden; strike struck struck/stricken
string strung strung; strive strove striven; swear swore sworn; sweep swept swept; swell swelled swollen
swim swam swum; swing swung swung; take took taken; teach taught taught; tear tore torn; tell told told
think thought thought; throw threw thrown; thrust thrust thrust; tread trod trodden
understand understood understood; wake woke woken; wear wore worn; weave wove woven; weep wept wept
win won won; wind wound wound; wring wrung wrung; write wrote written
"""
_NOUNS = """
man men; woman women; child children; person people; foot feet; tooth teeth; goose geese; mouse mice; ox oxen
louse lice; knife knives; life lives; wife wives; leaf leaves; wolf wolves; shelf shelves; half halves
calf calves; loaf loaves; thief thieves; scarf scarves/scarfs; hoof hooves/hoofs; elf elves; self selves
sheaf sheaves; sheep sheep; deer deer; fish fish/fishes; quiz quizzes; axis axes; crisis crises; oasis oases
cactus cacti/cactuses; fungus fungi; fireman firemen; policeman policemen; fisherman fishermen
snowman snowmen; grandchild grandchildren
"""


def word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


# These look inflected and are words of their own; asking for one does not ask for the other.
_WHOLE = word_set(
    "rose saw found ground wound bound left felt lay bore shot bit dove axes lives people news lens "
    "evening morning ceiling pudding king sled weed seed reed deed hundred naked sacred always perhaps "
    "series species during thing nothing something anything everything sibling herring darling duckling"
)


def _table(text: str) -> dict[str, tuple[tuple[str, ...], ...]]:
    entries = (entry.split() for entry in text.replace("\n", ";").split(";") if entry.strip())
    return {base: tuple(tuple(column.split("/")) for column in rest) for base, *rest in entries}


IRREGULAR_VERBS = _table(_VERBS)
"""base -> (past forms, past participles); `be`, `have` and `do` keep their present forms with the past."""
_PLURALS = _table(_NOUNS)


def _bases() -> dict[str, set[str]]:
    out: dict[str, set[str]] = {}
    for table in (IRREGULAR_VERBS, _PLURALS):
        for base, columns in table.items():
            for form in (form for column in columns for form in column):
                out.setdefault(form, set()).add(base)
    return out


_BASES = _bases()


def s_form(word: str) -> str:
    """Third person or regular plural: watch -> watches, carry -> carries."""
    if re.search(r"(s|x|z|ch|sh)$", word):
        return word + ("zes" if re.search(r"[aeiou]z$", word) else "es")
    if re.search(r"[^aeiou]y$", word):
        return word[:-1] + "ies"
    return word + ("es" if word in ("go", "do") else "s")


def ed_forms(word: str) -> set[str]:
    if word.endswith("e"):
        return {word + "d"}
    if re.search(r"[^aeiou]y$", word):
        return {word[:-1] + "ied"}
    return {stem + "ed" for stem in _stems(word)}


def ing_forms(word: str) -> set[str]:
    if word.endswith("ie"):
        return {word[:-2] + "ying"}
    if re.search(r"[^eoy]e$", word) and len(word) > 2:
        return {word[:-1] + "ing"}
    return {stem + "ing" for stem in _stems(word)}


def _stems(word: str) -> set[str]:
    """The word before -ed and -ing, its last consonant doubled where English does (run) or may (travel)."""
    spelt = word.replace("qu", "q")
    if word.endswith("ic"):
        return {word + "k"}
    if not re.search(r"(?:^|[^aeiou])[aeiouy][^aeiouwxy]$", spelt):
        return {word}
    doubled = word + word[-1]
    syllables = len(re.findall(r"[aeiouy]+", re.sub("^y", "j", spelt)))
    return {doubled} if syllables == 1 else {word, doubled}


def inflect(base: str) -> set[str]:
    """Every form of a base word, itself included."""
    forms = {base, s_form(base), *ing_forms(base)}
    if base.endswith("o"):
        forms.add(base + "es")
    if base in IRREGULAR_VERBS:
        forms.update(form for column in IRREGULAR_VERBS[base] for form in column)
    else:
        forms |= ed_forms(base)
    if base in _PLURALS:
        forms.update(form for column in _PLURALS[base] for form in column)
    return forms


@lru_cache(maxsize=65536)
def forms(word: str) -> frozenset[str]:
    """Every form that counts as `word` (case-folded): its own, and its base's where it is one."""
    found = inflect(word)
    for base in _possible_bases(word):
        family = inflect(base)
        if word in family:  # "caring" is in care's family, not in car's
            found |= family
    return frozenset(found)


def _possible_bases(word: str) -> set[str]:
    if word in _WHOLE:
        return set()
    if word in _BASES:
        return _BASES[word]
    if word in IRREGULAR_VERBS:
        return set()
    bases = set()
    if word.endswith("s") and not re.search(r"(ss|us|is)$", word):
        bases |= {word[:-1], word[:-2]}
        if word.endswith("ies"):
            bases.add(word[:-3] + "y")
    for suffix in ("ed", "ing"):
        if word.endswith(suffix):
            stem = word[: -len(suffix)]
            bases |= {stem, stem + "e", stem[:-1]}
            if stem.endswith("i"):
                bases.add(stem[:-1] + "y")
            if stem.endswith("y"):
                bases.add(stem[:-1] + "ie")
    return {base for base in bases if len(base) > 2 and re.search("[aeiouy]", base)}


def tokens(text: str) -> list[str]:
    """Case-folded words; a possessive 's is cut, a hyphen separates."""
    return [word for word, _ in placed(text)]


def placed(text: str) -> list[tuple[str, int]]:
    """The same, each with where it ends in the text."""
    found = re.finditer(r"\w+(?:['’]\w+)*", text)
    return [(re.sub(r"['’]s$", "", one[0].casefold()), one.end()) for one in found]
