"""Data that was answered elsewhere as rows to learn from: preferences, labelled and plain answers.

{"prompt", "chosen", "rejected"}    two rows, a pair: for dpo, ipo, kto; sft learns the chosen one
{"prompt", "completion", "label"}   one row, good (true, 1) or bad (false, 0): for kto
any task with a reference           one row, the first reference: for sft
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import UNSET, Raw

from selfrefine.errors import DataError
from selfrefine.records import UNDECODABLE, Lesson, Sample, Task
from selfrefine.tasks import messages


def rows_of(task: Task, where: str) -> Iterator[Sample]:
    """What is to be learnt from a task as `tasks.load` gives it. Raises: DataError where it has no answer."""
    extra = {} if task.extra is UNSET else task.extra
    if not task.references:
        raise DataError(f"{where}: no answer to learn; run `selfrefine generate` on tasks without one")
    if "rejected" in extra:
        kept = {key: value for key, value in extra.items() if key not in ("rejected", "chosen")}
        task = msgspec.structs.replace(task, extra=kept or UNSET)
        rejected = _text(extra["rejected"], f"{where}: rejected")
        # Beside an answer of the row's own, `chosen` is not the reference, but it is the pair's side.
        chosen = _text(extra["chosen"], f"{where}: chosen") if "chosen" in extra else task.references[0]
        yield _row(task, "chosen", chosen, Lesson(role="chosen", pair=task.id))
        yield _row(task, "rejected", rejected, Lesson(role="rejected", pair=task.id))
        return
    label = bytes(extra.get("label", Raw(b""))).strip()
    role = {b"true": "chosen", b"1": "chosen", b"false": "rejected", b"0": "rejected"}.get(label, "learn")
    yield _row(task, "answer", task.references[0], Lesson(role=role))  # type: ignore[arg-type]


def _row(task: Task, which: str, text: str, lesson: Lesson) -> Sample:
    """Without ids: the text is encoded when it is trained on."""
    return Sample(id=f"{task.id}.{which}", task=task, text=text, lesson=lesson)


def _text(raw: Raw, where: str) -> str:
    try:
        return messages.answer(msgspec.json.decode(raw), where)
    except UNDECODABLE as error:
        raise DataError(f"{where}: {error}") from None
