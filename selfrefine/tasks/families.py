"""Families of tasks that a policy can write itself, because a program knows their answers.

A family reads what was written into a task, or says why it is none. The answer is always computed here and
never taken from the text: "17 + 25 = 43" is the task 17 + 25 with the answer 42. A task is asked in the words
of a given one, so that held-out tasks measure the same skill.

Source: Zhao et al. 2025, "Absolute Zero: Reinforced Self-play Reasoning with Zero Data", arXiv:2505.03335,
where the family is programs and a Python executor reads them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from selfrefine.boundary import escaped
from selfrefine.errors import ConfigError, DataError
from selfrefine.records import Message, Task, encode
from selfrefine.registry import BUILT_IN, NoSettings, Origin, Registry, converted, outside_code

Read = Callable[[str, Task], "Task | str"]
"""What was written, and a given task in whose words to ask, to the new task (its id is filled in) or to the
reason why it is none, in a few words."""


def question(task: Task) -> str:
    """Its last message."""
    return task.prompt[-1].content.strip() if task.prompt else ""


class FamilyKind(Struct, frozen=True, kw_only=True):
    """What a family says of itself. Every field of `settings` has a `Meta(description=...)`."""

    name: str
    about: str
    """What its tasks are, as the object of a sentence: "a sum of whole numbers"."""
    make: Callable[[Any, Sequence[Task]], Read]
    """From its settings and the training tasks that it knows (those with something to show)."""
    show: Callable[[Task], str] = question
    """A given task as an example of what to write; "" for one of another kind. Two tasks that show the same
    are the same task."""
    settings: type[Struct] = NoSettings
    origin: Origin = BUILT_IN


def adopt(name: str, value: object, origin: Origin) -> FamilyKind | None:
    """A plain function (text, task) -> Task or a reason, as a family of that name; None for what is none.

    The first line of its docstring is what the policy is asked to write.
    """
    if not callable(value):
        return None
    run: Read = value
    about = next(iter((value.__doc__ or "").strip().splitlines()), "a task").rstrip(" .")
    return FamilyKind(name=name, about=about, make=lambda own, given: run, origin=origin)


FAMILIES: Registry[FamilyKind] = Registry(
    "task family",
    "selfrefine.families",
    "selfrefine.tasks.families:FamilyKind",
    {"sums": "selfrefine.tasks.sums:SUMS", "concepts": "selfrefine.tasks.families:CONCEPTS"},
    adopt="selfrefine.tasks.families:adopt",
)


class Family:
    """A family in use: what it knows of the run's tasks, with code that is not ours behind the boundary."""

    def __init__(self, name: str, settings: dict[str, Any], train: Sequence[Task]) -> None:
        """Raises: ConfigError for an unknown family, a setting, or training tasks of another kind only."""
        self.kind = FAMILIES.get(name)
        own = converted("propose.settings", settings, self.kind.settings, strict=False)
        self.given = [task for task in train if self.show(task)]
        """The training tasks that can stand as examples."""
        if not self.given:
            raise ConfigError(
                f"propose.family {name}: none of the training tasks is of this kind ({self.kind.about}); set "
                "propose.family to one that reads them"
            )
        with outside_code("task family", name, self.kind.origin):
            self._read = self.kind.make(own, self.given)

    def show(self, task: Task) -> str:
        with outside_code("task family", self.kind.name, self.kind.origin):
            return " ".join(str(self.kind.show(task)).split())

    def read(self, text: str, like: Task) -> Task | str:
        """Raises: ConfigError, with the text, where code that is not ours fails or gives something else."""
        try:
            with outside_code("task family", self.kind.name, self.kind.origin):
                return _checked(self._read(text, like))
        except ConfigError as error:
            raise ConfigError(f"{error}; the text was {text[:80]!r}") from error


def _checked(found: object) -> Task | str:
    """Raises: TypeError for what is neither a task that can be asked nor a reason."""
    if isinstance(found, Task) and found.prompt:
        if found.prompt[-1].role != "user":
            raise TypeError(f"the last message of a task is the user's, not the {found.prompt[-1].role}'s")
        try:
            return msgspec.convert(msgspec.json.decode(encode(found)), Task)
        except DataError:
            raise TypeError("a text of this task is not UTF-8") from None
    if isinstance(found, str) and found.strip():
        return escaped(found.strip()[:80])
    raise TypeError(f"a family gives a Task with a prompt, or a reason, not {_kind(found)}")


def _kind(found: object) -> str:
    empty = isinstance(found, Task | str)
    return f"an empty {type(found).__name__}" if empty else type(found).__name__


def asked_like(like: Task, old: str, new: str) -> tuple[Message, ...]:
    """The prompt of `like` with `new` in place of `old`, in its last message."""
    last = like.prompt[-1]
    return (*like.prompt[:-1], replace(last, content=last.content.replace(old, new, 1)))


class ConceptsOptions(Struct, frozen=True, forbid_unknown_fields=True):
    words: Annotated[
        Annotated[int, Meta(ge=1, le=12)] | None,
        Meta(description="Words of a task. Not set: as many as the training tasks have."),
    ] = None


_WORD = re.compile(r"[a-z]{2,16}")


def _concepts(own: ConceptsOptions, given: Sequence[Task]) -> Read:
    def read(text: str, like: Task) -> Task | str:
        """Words, separated by commas: as a set, since another order is the same task."""
        line = next((one for one in text.strip().splitlines() if one.strip()), "")
        words = [word.strip().lower() for word in line.strip(" .").split(",")]
        wanted = own.words or len(like.meta["concepts"])
        if not all(map(_WORD.fullmatch, words)):
            return "not a list of single words"
        if len(words) != len(set(words)):
            return "a word twice"
        if len(words) != wanted:
            return f"not {wanted} words"
        chosen = sorted(words)
        prompt = asked_like(like, _listed(like), ", ".join(chosen))
        return Task(id="", prompt=prompt, meta={"concepts": chosen})

    return read


def _listed(task: Task) -> str:
    words = task.meta.get("concepts")
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        return ""
    listed = ", ".join(words)
    return listed if listed in question(task) else ""


CONCEPTS = FamilyKind(
    name="concepts",
    about="a list of words to write a sentence with",
    make=_concepts,
    show=_listed,
    settings=ConceptsOptions,
)
