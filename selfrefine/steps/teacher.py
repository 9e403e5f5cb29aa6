"""What a teacher is asked: the row's own prompt, with the reference or what is known of this answer in view.

Nothing is trained under such a prompt, and nothing is sampled under it: the teacher says how likely it finds
each token of an answer that is there already (`objectives/distil.py`).
"""

from __future__ import annotations

from selfrefine.prompts import Template
from selfrefine.records import Message, Sample

SHOWN = frozenset({"reference", "feedback"})
"""Variables of the template that are more than the task."""


def teacher_prompt(row: Sample, template: Template) -> tuple[Message, ...]:
    """The row's context, its last user message rendered with what there is to show; empty where there is
    nothing of what the template shows. Raises: ConfigError (the template)."""
    shown = {
        "reference": next((text for text in row.task.references if text.strip()), ""),
        "feedback": _feedback(row),
    }
    if not any(shown[name] for name in SHOWN & template.uses):
        return ()
    context = row.context
    users = [i for i, message in enumerate(context) if message.role == "user"]
    at = users[-1] if users else len(context) - 1
    text = template.render(task=context[at].content, **shown)
    return (*context[:at], Message(role="user", content=text), *context[at + 1 :])


def _feedback(row: Sample) -> str:
    """What the rewards say of this answer, and what its last critic wrote."""
    lines = [f"- {reward.name}: {reward.detail}" for reward in row.rewards if reward.detail]
    critiques = [critique.text.strip() for critique in row.critiques[-1:]]
    return "\n".join([*lines, *filter(None, critiques)])
