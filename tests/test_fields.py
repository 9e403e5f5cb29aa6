"""What a settings struct says of its fields; the kinds that no setting of the run has, but a reward's may."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from selfrefine.fields import says, settings_of, table


class Inner(Struct, frozen=True):
    shift: Annotated[int, says("Moves it | here or there. `0` does not.")] = 0


class Settings(Struct, frozen=True):
    inner: Inner = Inner()
    scale: float = 1.0
    limits: tuple[Annotated[int, Meta(ge=1)], ...] = (1, 2)
    other: Any = None


def test_kinds_in_words_and_nested_keys() -> None:
    found = {setting.key: setting.kind for setting in settings_of(Settings, "reward.mine.")}
    assert found == {
        "reward.mine.inner.shift": "whole number",
        "reward.mine.scale": "number",
        "reward.mine.limits": "list of counts from 1",
        "reward.mine.other": "any value",
    }


def test_a_table_has_a_row_for_each_and_a_bar_in_a_text_does_not_end_its_cell() -> None:
    assert table(settings_of(Settings)).splitlines() == [
        "| key | value | default | meaning |",
        "|---|---|---|---|",
        r"| `inner.shift` | whole number | `0` | Moves it \| here or there. `0` does not. |",
        "| `scale` | number | `1.0` |  |",
        "| `limits` | list of counts from 1 | `[1, 2]` |  |",
        "| `other` | any value | – |  |",
    ]


def test_help_is_the_first_sentence_without_marks() -> None:
    assert next(settings_of(Inner)).help == "Moves it | here or there."
