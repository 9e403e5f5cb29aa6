"""What a gain is made of: by tag, and task by task."""

from __future__ import annotations

from selfrefine.records import Message, Sample, Task
from selfrefine.reflection.changes import by_tag, flips


def answers(rewards: dict[str, float | None], tags: dict[str, dict[str, str]]) -> list[Sample]:
    return [
        Sample(
            id=f"{key}-0",
            task=Task(id=key, prompt=(Message(role="user", content=key),), tags=tags.get(key, {})),
            reward=value,
        )
        for key, value in rewards.items()
    ]


TAGS = {"a": {"op": "+"}, "b": {"op": "+"}, "c": {"op": "-"}, "d": {"op": "-"}}


def test_a_gain_on_additions_does_not_hide_behind_subtractions() -> None:
    before = answers({"a": 0.0, "b": 0.0, "c": 0.0, "d": 1.0}, TAGS)
    after = answers({"a": 1.0, "b": 1.0, "c": 0.0, "d": 0.0}, TAGS)
    plus, minus = by_tag(before, after, seed=0)
    assert (plus.tag, plus.value, plus.tasks, plus.before, plus.after) == ("op", "+", 2, 0.0, 1.0)
    assert (minus.value, minus.before, minus.after, minus.gain.mean) == ("-", 0.5, 0.0, -0.5)


def test_a_task_without_a_score_counts_on_neither_side() -> None:
    # Its before alone would make the tag look worse or better than the pairs are.
    before = answers({"a": 1.0, "b": 0.0, "c": 0.0}, TAGS)
    after = answers({"a": None, "b": 1.0, "c": 0.0}, TAGS)
    plus = by_tag(before, after, seed=0)[0]
    assert (plus.tasks, plus.before, plus.after) == (1, 0.0, 1.0)
    assert flips(before, after).unscored == 1


def test_a_tag_with_a_value_per_task_is_no_cut() -> None:
    tags = {key: {"source": key} for key in "abcdefghijklm"}
    rows = answers(dict.fromkeys(tags, 0.0), tags)
    assert by_tag(rows, rows, seed=0) == []
    one = answers(dict.fromkeys("abcd", 0.0), {key: {"lang": "de"} for key in "abcd"})
    assert by_tag(one, one, seed=0) == []


def test_tasks_that_flipped_are_counted_each_way() -> None:
    before = answers({"a": 0.0, "b": 0.0, "c": 1.0, "d": 1.0, "e": 0.5}, {})
    after = answers({"a": 1.0, "b": 0.5, "c": 0.0, "d": 1.0, "e": None}, {})
    found = flips(before, after)
    assert (found.became_right, found.became_wrong, found.stayed_right, found.stayed_wrong) == (1, 1, 1, 1)
    assert found.unscored == 1
