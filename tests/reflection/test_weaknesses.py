"""Exactly one slice is broken, and it is found first; where none is, none is found."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import pytest
from msgspec.structs import replace

from selfrefine.records import Sample, Task
from selfrefine.reflection.findings import Cell, Weaknesses
from selfrefine.reflection.slices import question
from selfrefine.reflection.weaknesses import find
from selfrefine.seeds import generator
from selfrefine.stats import wilson
from tests.reflection.planted import answer, answered, sums, task


def cells(found: tuple[Cell, ...]) -> dict[str, Cell]:
    return {cell.name: cell for cell in found}


def look(gate: list[Sample], train: list[Sample] | None = None, passing: float = 1.0) -> Weaknesses:
    return find(gate, train or [], after_round=1, seed=0, passing=passing)


def carries(one: Task) -> bool:
    a, b = (int(word) for word in question(one).split() if word.isdecimal())
    return a % 10 + b % 10 >= 10 or a // 10 + (a % 10 + b % 10) // 10 + b // 10 >= 10


@pytest.mark.parametrize("seed", range(3))
def test_sums_with_a_carry_are_found_first_without_a_tag(seed: int) -> None:
    found = look(answered(sums(300, seed, "+"), carries, seed))
    assert found.heaviest[0] == "carries >= 1"


def test_a_tag_with_the_same_tasks_gives_the_slice_its_name() -> None:
    tasks = [replace(one, tags={"carry": str(carries(one))}) for one in sums(300, signs="+")]
    assert look(answered(tasks, carries)).heaviest[0] == "carry = True"


def test_subtractions_are_found_by_their_operator() -> None:
    found = look(answered(sums(300), lambda one: " - " in question(one)))
    assert found.heaviest == ('word "-"',)
    # What goes with it by chance or as its other side is not weak: carries of "31 - 8" say nothing.
    assert cells(found.gate)['word "+"'].q_value == 1.0


WORDS = {
    "de": "Sage mir was der Hund und die Katze heute machen",
    "en": "Tell me what a dog or a cat does today",
}


def two_languages(seed: int) -> list[Task]:
    """Eight of nine words of a prompt, so that no word stands in all prompts of its language."""
    rng = generator(seed)
    found = []
    for i in range(300):
        own = WORDS["de" if rng.random() < 0.4 else "en"].split()
        del own[int(rng.integers(1, len(own)))]
        found.append(task(f"t{i:03d}", " ".join(own)))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_one_language_of_two_is_found_first(seed: int) -> None:
    found = look(answered(two_languages(seed), lambda one: "Sage" in question(one), seed))
    assert found.heaviest == ('word "sage"',)
    assert cells(found.gate)['word "hund"'].q_value < 1e-9  # type: ignore[operator]  # weak as well, and the same


def test_answers_over_20_tokens_are_found_by_their_kind_and_their_references() -> None:
    rng = generator(4)
    rows = []
    for i in range(200):
        n = int(rng.integers(1, 41))
        one = task(f"t{i:03d}", "Say it.", " ".join(["word"] * n))
        cut = n > 20
        more = {"finish_reason": "length", "token_ids": (7,) * 20} if cut else {"token_ids": (7,) * n}
        rows.append(answer(one, 0.0 if cut or rng.random() < 0.2 else 1.0, f"word {i}", **more))
    found = look(rows)
    # Cut at the quartiles: the nearest one to 20 words.
    edge = sorted(int(key.split()[-1]) for key in cells(found.gate) if key.startswith("reference words >="))
    assert found.heaviest[0] == f"reference words >= {min(edge, key=lambda e: abs(e - 20.5))}"
    assert [cell.name for cell in found.gate if cell.by == "failure"] == ["cut off", "wrong"]


@pytest.mark.parametrize("grade", [lambda r: r, lambda r: 0.2 + 0.6 * r], ids=["right or wrong", "graded"])
def test_nothing_is_found_where_nothing_is_broken(grade: Callable[[float], float]) -> None:
    seeds = 5
    assert chance(range(seeds), grade) <= 1


@pytest.mark.long
@pytest.mark.parametrize("kind", ["right or wrong", "graded"])
def test_with_shuffled_labels_nothing_is_found_in_95_of_100_seeds(kind: str) -> None:
    assert chance(range(100), (lambda r: r) if kind == "right or wrong" else (lambda r: 0.2 + 0.6 * r)) <= 5


def chance(seeds: range, grade: Callable[[float], float]) -> int:
    """In how many seeds something is found after the rewards were dealt out anew."""
    hits = 0
    for seed in seeds:
        tasks = [
            replace(one, tags={"lang": "ab"[i % 2], "level": str(i % 7)})
            for i, one in enumerate(sums(200, seed) + two_languages(seed)[:100])
        ]
        rng = random.Random(seed)
        gate = answered(tasks[::2], lambda one: " - " in question(one), seed)
        train = answered(tasks[1::2], lambda one: " - " in question(one), seed, n=4)
        dealt = []
        for rows in (gate, train):
            by_task: dict[str, list[float]] = {}
            for row in rows:
                by_task.setdefault(row.task.id, []).append(row.reward or 0.0)
            # Whole tasks change places: their samples belong together.
            rewards = list(by_task.values())
            rng.shuffle(rewards)
            places = dict(zip(by_task, rewards, strict=True))
            dealt.append([replace(row, reward=grade(places[row.task.id][row.index])) for row in rows])
        found = look(*dealt)
        assert found.looked_at > 40
        hits += bool(found.heaviest)
    return hits


def test_samples_of_one_task_are_not_counted_as_tasks() -> None:
    # Trap: two unlucky tasks with 100 samples each would make a significant slice of 200.
    tasks = [task(f"t{i}", "zebra " * (i % 4 == 0) + "what") for i in range(20)]
    rows = answered(tasks, lambda one: "zebra" in question(one), rates=(0.0, 1.0), n=1)
    many = [replace(rows[i], id=f"{rows[i].id}.{k}") for i in range(20) for k in range(100 if i < 8 else 1)]
    one, again = (cells(look(rows).gate), cells(look(many).gate))
    assert one['word "zebra"'].n == again['word "zebra"'].n == 5
    # None of the 15 right ones of 20 among its 5: one draw of C(20, 5).
    assert one['word "zebra"'].p_value == again['word "zebra"'].p_value == pytest.approx(1 / 15504)


def test_a_cell_has_rate_rest_interval_weight_and_its_worst_answers() -> None:
    tasks = [task(f"t{i:02d}", "q", op="-+"[i % 2]) for i in range(20)]
    rows = [answer(one, float(one.tags["op"] == "+" or i < 4)) for i, one in enumerate(tasks)]
    cell = cells(look(rows).gate)["op = -"]
    assert (cell.n, cell.rate, cell.rest) == (10, 0.2, 1.0)
    assert (cell.lo, cell.hi) == wilson(2, 10)
    # All 8 missing rewards are in it, which holds half of the tasks.
    assert (cell.weight, cell.excess) == (1.0, 0.5)
    assert cell.examples == ("t04.r1.s0", "t06.r1.s0", "t08.r1.s0")  # failed ones first


def test_learnability_and_failure_kinds_count_what_they_say() -> None:
    plan = {"a": [0.0, 0.0], "b": [1.0, 0.0], "c": [1.0, 1.0], "d": [None, 1.0], "e": [None, None]}
    rows = [
        answer(task(key, "q"), value, index=k) for key, own in plan.items() for k, value in enumerate(own)
    ]
    found = cells(look([], rows).train)
    # e has no score: it is neither never right nor zero.
    assert [(found[s].n, found[s].rate) for s in ("never right", "sometimes right", "always right")] == [
        (1, 0.25),
        (1, 0.25),
        (2, 0.5),
    ]
    assert (found["never right"].lo, found["never right"].hi) == wilson(1, 4)
    # Shares of wrong answers by task: 1, 1/2, 0, 0, 0; unreadable: 0, 0, 0, 1/2, 1.
    assert (found["wrong"].n, found["wrong"].rate) == (3, pytest.approx(0.3))
    assert (found["unreadable"].n, found["unreadable"].weight) == (3, 0.5)
    notes = " ".join(look([], rows).notes)
    assert "1 task without a reward" in notes and "gate: there are no answers" in notes


def test_passing_below_one_decides_what_is_right_of_graded_rewards() -> None:
    rows = [answer(task("a", "q"), 0.6, index=k) for k in range(3)]
    assert cells(look([], rows).train)["never right"].n == 1
    assert cells(look([], rows, passing=0.6).train)["always right"].n == 1
    assert not [cell for cell in look([], rows, passing=0.6).train if cell.by == "failure"]


def test_a_broken_slice_of_graded_rewards_is_found() -> None:
    rows = [
        replace(row, reward=0.3 + 0.5 * (row.reward or 0.0) + 0.001 * i % 0.1)
        for i, row in enumerate(answered(sums(300), lambda one: " - " in question(one)))
    ]
    assert look(rows).heaviest[0] == 'word "-"'


def test_an_n_gram_is_shown_only_where_it_is_weaker_than_its_words() -> None:
    texts = ["red hat", "red car", "old hat", "new sun"] * 60
    tasks = [task(f"t{i:03d}", text) for i, text in enumerate(texts)]
    by_word = look(answered(tasks, lambda one: "red" in question(one)))
    assert by_word.heaviest == ('word "red"',) and 'words "red hat"' not in cells(by_word.gate)
    together = look(answered(tasks, lambda one: question(one) == "red hat"))
    assert together.heaviest == ('words "red hat"',)


def test_one_weakness_on_both_splits_is_named_once() -> None:
    tasks = sums(400)
    rows = answered(tasks, lambda one: " - " in question(one))
    found = look(rows[:200], rows[200:])
    assert found.heaviest == ('word "-"',)
    assert cells(found.gate)['word "-"'].slice == cells(found.train)['word "-"'].slice


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "gate: there are no answers."),
        ([answer(task("a", "3 - 4"), 0.0)], "gate: 1 scored task, too few to test a slice (at least 10)."),
        ([answer(one, 1.0) for one in sums(50)], "gate: all 50 tasks are right"),
        ([answer(one, 0.5) for one in sums(50)], "gate: all 50 tasks are at a mean reward of 0.500"),
        ([answer(one, None) for one in sums(50)], "gate: no answer has a reward"),
        ([Sample(id=one.id, task=one) for one in sums(50)], "gate: no answer has a reward"),
        ([replace(answer(one, 0.0), parent_id="x") for one in sums(9)], "gate: all 9 answers are revisions"),
        ([answer(Task(id=str(i), prompt=()), i % 2.0) for i in range(30)], "gate: "),
    ],
)
def test_what_cannot_be_said_is_said(rows: list[Sample], said: str) -> None:
    found = look(rows)
    assert found.heaviest == () and found.looked_at == 0
    assert any(note.startswith(said) for note in found.notes) or said == "gate: "
    assert msgspec.json.decode(msgspec.json.encode(found), type=Weaknesses) == found


def test_the_order_of_rows_changes_no_byte() -> None:
    rows = answered(sums(150), lambda one: " - " in question(one), n=3)
    graded = [replace(row, reward=(row.reward or 0.0) / 3) for row in rows]
    mixed = random.Random(1).sample(graded, len(graded))
    one = find(graded[:90], graded, after_round=1, seed=5)
    other = find(graded[:90][::-1], mixed, after_round=1, seed=5)
    assert msgspec.json.encode(one) == msgspec.json.encode(other)


def test_hostile_tags_make_names_of_one_line() -> None:
    tasks = [task(f"t{i}", "q", **{"\x1b]8;;x\x07\n# op": "\u202e|" + "-+"[i % 2]}) for i in range(40)]
    found = look(answered(tasks, lambda one: "-" in next(iter(one.tags.values())), rates=(0.0, 1.0)))
    assert found.heaviest == ("]8;;x # op = |-",)
