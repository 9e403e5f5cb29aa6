"""What stands before a task while it is answered."""

from __future__ import annotations

from selfrefine.records import Message, Task
from selfrefine.steps.in_context import Context


def test_a_task_is_never_shown_its_own_answer() -> None:
    """Examples come from training tasks, and so do trials: with 3 + 4 = 7 in view, 3 + 4 is copied, and the
    trial tells of a gain that no other task has."""
    context = Context(kind="few-shot", examples=(("3 + 4", "7"), ("5 + 1", "6")))
    task = Task(id="a", prompt=(Message(role="user", content="3 + 4"),))
    asked = [(m.role, m.content) for m in context.asked(task, None).prompt]
    assert asked == [("user", "5 + 1"), ("assistant", "6"), ("user", "3 + 4")]
    other = Task(id="b", prompt=(Message(role="user", content="2 + 2"),))
    assert [m.content for m in context.asked(other, None).prompt] == ["3 + 4", "7", "5 + 1", "6", "2 + 2"]
