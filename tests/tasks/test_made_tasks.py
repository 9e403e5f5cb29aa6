"""Tasks that are made or fetched: reasoning-gym, words to write around, datasets of the hub."""

from __future__ import annotations

import json
import re
import sys

import msgspec
import pytest
import reasoning_gym
from msgspec.structs import replace
from test_task_sources import question

from selfrefine.api import reward as api_reward
from selfrefine.errors import ConfigError, DataError
from selfrefine.records import Sample, Task, encode
from selfrefine.seeds import derive
from selfrefine.tasks import TaskOptions, load
from selfrefine.tasks.base import content_id
from selfrefine.tasks.concepts import words
from selfrefine.tasks.gym_import import modules
from selfrefine.tasks.splits import dedupe, split

ONE_DIGIT = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
TWO_DIGITS = ONE_DIGIT | {"max_digits": 2}


def test_a_gym_task_carries_what_its_scorer_needs() -> None:
    options = TaskOptions(n=20, seed=3, suffix=" Answer with just the number.", settings=TWO_DIGITS)
    tasks = list(load("gym:chain_sum", options))
    assert len(tasks) == 20
    for task in tasks:
        assert task.meta == {"gym": {"dataset": "chain_sum"}}  # its scorer reads the answer and nothing else
        asked = re.fullmatch(r".* (\S+ [+-] \S+)\D* Answer with just the number\.", question(task))
        assert asked
        left, operator, right = asked[1].split()
        value = int(left) + int(right) if operator == "+" else int(left) - int(right)
        assert task.references == (str(value),)
        assert task == msgspec.json.decode(encode(task), type=Task)  # tuples would not come back as tuples
    assert {t.tags["difficulty"] for t in tasks} == {"num_digits=1 num_terms=2", "num_digits=2 num_terms=2"}


def test_operators_are_those_that_stand_between_operands() -> None:
    """The sign of -5 is none: with it, 7 + -5 would count as a subtraction and hide that sums are easy."""
    signed = TaskOptions(n=60, seed=3, settings=TWO_DIGITS | {"allow_negation": True})
    tasks = list(load("gym:chain_sum", signed))
    for task in tasks:
        between = re.search(r": -?\d+ ([+-]) -?\d+ =", question(task))
        assert between
        assert task.tags["operators"] == between[1]
    assert any("+ -" in question(task) for task in tasks)
    assert any("- -" in question(task) for task in tasks)
    chains = load("gym:chain_sum", TaskOptions(n=40, seed=3, settings={"min_terms": 3, "max_terms": 3}))
    assert {task.tags["operators"] for task in chains} == {"+", "-", "+ -"}
    [shifted] = load("gym:bitwise_arithmetic", TaskOptions(n=1, seed=4, settings={"difficulty": 1}))
    signs = set(re.findall(r" (<<|>>|[-+*]) ", question(shifted)))
    assert shifted.tags["operators"] == " ".join(sorted(signs))


def test_an_expression_that_the_question_hides_is_no_tag() -> None:
    """Countdown keeps its solution as `expression`: as a tag it would stand in every row."""
    [task] = load("gym:countdown", TaskOptions(n=1, seed=3))
    assert "operators" not in task.tags


def test_tags_decide_neither_the_id_nor_the_split() -> None:
    """Older runs drew their tasks before this tag: the same seed must give them the same splits again."""
    tasks = dedupe(load("gym:chain_sum", TaskOptions(n=60, seed=3, settings=TWO_DIGITS)))[0]
    bare = [replace(task, tags={"difficulty": task.tags["difficulty"]}) for task in tasks]
    assert [content_id(task) for task in bare] == [task.id for task in tasks]
    with_tag, without = (split(some, 3, 10, 10) for some in (tasks, bare))
    assert [task.id for task in with_tag.train] == [task.id for task in without.train]
    assert [task.id for task in with_tag.test] == [task.id for task in without.test]


SCORED_BY_METADATA = {"word_ladder", "number_sorting", "jugs", "shortest_path"}


@pytest.mark.parametrize("name", [*sorted(SCORED_BY_METADATA), "chain_sum", "leg_counting"])
def test_a_gym_task_scores_as_its_whole_entry_does_without_carrying_it(name: str) -> None:
    """The entry was three quarters of a row. What is left out must not be what the scorer reads: `jugs`
    plays the answer on the jugs of its metadata, and would raise KeyError, a row without a score."""
    [task] = load(f"gym:{name}", TaskOptions(n=1, seed=3))
    whole = reasoning_gym.create_dataset(name, size=1, seed=derive(3, "tasks", "gym", name) % 2**31)[0]
    assert ("entry" in task.meta["gym"]) == (name in SCORED_BY_METADATA)
    old = replace(task, meta={"gym": {"dataset": name, "entry": json.loads(json.dumps(whole))}})
    answers = [whole["answer"], whole["answer"].swapcase(), "7", "[1, 2]", "nonsense"]
    rows = [Sample(id="x", task=one, text=text) for one in (task, old) for text in answers]
    values = [reward.value for reward in api_reward("gym", rows)]
    assert values[:5] == values[5:]
    assert values[0] == 1.0


def test_settings_given_as_text_mean_the_same_as_numbers() -> None:
    as_text = {key: str(value) for key, value in TWO_DIGITS.items()} | {"allow_negation": "false"}
    by_text = load("gym:chain_sum", TaskOptions(n=5, settings=as_text))
    assert list(by_text) == list(load("gym:chain_sum", TaskOptions(n=5, settings=TWO_DIGITS)))
    [task] = load("gym:word_sorting", TaskOptions(n=1, settings={"min_words": "2", "max_words": "2"}))
    assert "num_words=2" in task.tags["difficulty"]


def test_neighbouring_seeds_do_not_share_their_tasks() -> None:
    """The library draws task i from Random(seed + i): plain seeds 0 and 1 would share 99 of 100 tasks."""
    wide = {"min_terms": 4, "max_terms": 6, "min_digits": 4}
    zero, one, again = (
        {question(t) for t in load("gym:chain_sum", TaskOptions(n=100, seed=seed, settings=wide))}
        for seed in (0, 1, 0)
    )
    assert not zero & one
    assert zero == again


@pytest.mark.parametrize(
    ("source", "settings", "words"),
    [
        (
            "gym:chain_sums",
            {},
            ["no such dataset", "did you mean chain_sum or", "`selfrefine tasks gym:` lists"],
        ),
        ("gym:", {}, ["gym: names one of", "ab, acre, advanced_geometry", "zebra_puzzles"]),
        ("gym:chain_sum", {"max_term": 2}, ["max_term", "did you mean 'max_terms'"]),
        ("gym:chain_sum", {"max_terms": "two"}, ["max_terms=two: must be a whole number, not text"]),
        ("gym:chain_sum", {"max_terms": 1}, ["max_terms must be >= min_terms"]),  # the library's own words
        ("gym:chain_sum", {"seed": 1}, ["--seed"]),
        ("gym:chain_sum", {"size": 1}, ["-n"]),
    ],
)
def test_gym_refusals(source: str, settings: dict[str, str | int], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        list(load(source, TaskOptions(settings=settings)))
    assert all(word in str(caught.value) for word in words), caught.value


def test_the_names_of_datasets_are_read_without_importing_them() -> None:
    """`tasks gym:nope` took a second to import a hundred datasets, to say that none is called so."""
    assert modules().keys() == reasoning_gym.factory.DATASETS.keys()


def test_entries_with_numpy_text_become_plain_json() -> None:
    [task] = load("gym:knights_knaves", TaskOptions(n=1))
    assert msgspec.json.decode(encode(task), type=Task) == task


# --- concepts


def test_concepts_are_distinct_sets_of_the_projects_own_words() -> None:
    tasks = list(load("concepts:4", TaskOptions(n=600, seed=1)))
    sets = [tuple(t.meta["concepts"]) for t in tasks]
    assert len(set(sets)) == len({frozenset(s) for s in sets}) == 600
    listed = words()
    assert len(set(listed["noun"]) | set(listed["verb"])) == len(listed["noun"]) + len(listed["verb"]) >= 300
    for task, concepts in zip(tasks, sets, strict=True):
        assert question(task) == (
            f"Write one short sentence that uses all of these words: {', '.join(concepts)}."
        )
        assert list(concepts) == sorted(concepts) and task.references == ()
        assert sum(word in listed["verb"] for word in concepts) == 1


def test_concepts_do_not_depend_on_how_many_are_asked_for() -> None:
    few = list(load("concepts:4", TaskOptions(n=5, seed=9)))
    assert few == list(load("concepts:4", TaskOptions(n=50, seed=9)))[:5]
    assert few != list(load("concepts:4", TaskOptions(n=5, seed=10)))


def test_concepts_settings() -> None:
    [task] = load("concepts:3", TaskOptions(n=1, settings={"verbs": "0"}, template="Use {source}"))
    assert question(task) == "Use " + ", ".join(task.meta["concepts"])
    for name, settings in (
        ("x", {}),
        ("0", {}),
        ("3", {"verbs": 4}),
        ("3", {"nouns": 1}),
        ("3", {"verbs": 1.5}),
    ):
        with pytest.raises(ConfigError):
            list(load(f"concepts:{name}", TaskOptions(settings=settings)))
    singles = list(load("concepts:1", TaskOptions(n=len(words()["noun"]))))
    assert sorted(t.meta["concepts"][0] for t in singles) == sorted(words()["noun"])
    with pytest.raises(DataError, match=r"only [\d,]+ distinct sets of words exist, and 9,999 tasks"):
        list(load("concepts:1", TaskOptions(n=9999)))


# --- hub


def test_hub_without_its_library_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"selfrefine\[hub\]"):
        list(load("hub:openai/gsm8k", TaskOptions()))


class FakeDatasets:
    def __init__(self, rows: list[dict[str, object]]) -> None:
        self.rows = rows
        self.asked: list[object] = []

    def load_dataset(self, *args: object, **kwargs: object) -> list[dict[str, object]]:
        self.asked += [args, kwargs]
        return self.rows


def test_hub_rows_are_read_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeDatasets([{"question": "2+2?", "answer": "4"}, {"question": "?", "image": object()}])
    monkeypatch.setitem(sys.modules, "datasets", fake)
    monkeypatch.setattr("selfrefine.tasks.hub._reachable", lambda name, where: None)
    tasks = load("hub:a/b", TaskOptions(settings={"config": "main", "split": "test"}))
    first = next(tasks)
    assert (question(first), first.references) == ("2+2?", ("4",))
    assert fake.asked == [("a/b", "main"), {"split": "test", "revision": None, "streaming": True}]
    with pytest.raises(DataError, match=r"hub:a/b:2: cannot be written as JSON"):
        next(tasks)
    with pytest.raises(ConfigError, match=r"tasks\.settings\.splt.*did you mean 'split'"):
        list(load("hub:a/b", TaskOptions(settings={"splt": "test"})))


def test_hub_that_cannot_be_reached_fails_once_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi, constants

    def refuse(self: HfApi, name: str, timeout: float) -> None:
        assert timeout <= 10
        raise ConnectionError("connection refused")

    fake = FakeDatasets([])
    monkeypatch.setitem(sys.modules, "datasets", fake)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(HfApi, "dataset_info", refuse)
    with pytest.raises(DataError, match=r"connection refused[\s\S]*gym:chain_sum"):
        list(load("hub:a/b", TaskOptions()))
    assert not fake.asked
