"""When memory runs out: a smaller token budget, recorded, and the same piece of work from its beginning.

Budgets are constants of a device class and never follow free memory, so that a run can be done again. One
that turns out not to fit is halved once and for all: `Memory` keeps what holds from then on, a run keeps it
in `plan.json` (`stages/session.py`), and a run that has such a file is outside byte identity.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from selfrefine.errors import EngineError

Work = Literal["sampling", "scoring", "training"]

_SIGNS = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "bad_alloc",
    "could not create a primitive",
    "could not create a memory",
)
"""What allocators without an exception of their own say: PyTorch's for a CPU and for Metal, C++'s, and
oneDNN's, which says no more when there is no room for its code (and it has code for all of our products)."""


class PlanChange(Struct, frozen=True, kw_only=True):
    """One halving, as events.jsonl has it. `before` and `after` are tokens held at once."""

    work: Work
    before: int
    after: int
    why: str

    def sentence(self) -> str:
        return (
            f"out of memory while {self.work}: token budget lowered from {self.before:,} to {self.after:,}; "
            f"the current work starts again ({self.why})"
        )


class Memory:
    """The budgets that had to be halved. `on_change` is told of each halving before the work begins again."""

    def __init__(self) -> None:
        self.budgets: dict[str, int] = {}
        self.on_change: Callable[[PlanChange], object] = lambda change: None

    def tokens(self, work: Work, constant: int) -> int:
        """The budget that holds now, where `constant` is the one of the plan."""
        return min(constant, self.budgets.get(work, constant))

    def halve(self, work: Work, constant: int, cut: Callable[[int], object], why: str, mend: str) -> None:
        """Take the next smaller budget that changes how this piece of work is cut (`cut` of a budget).

        Raises: EngineError with `mend` when there is none.
        """
        before = after = self.tokens(work, constant)
        while after and cut(after) == cut(before):
            after //= 2
        if not after:
            raise EngineError(f"out of memory while {work}, even with the smallest batch ({why})\n{mend}")
        self.budgets[work] = after
        release()
        self.on_change(PlanChange(work=work, before=before, after=after, why=why))


def out_of_memory(error: BaseException) -> str | None:
    """What the allocator said, in one line, or None for an error of another kind."""
    told = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return told[:160]
    words = str(error).lower()
    if "primitive descriptor" in words:  # oneDNN has no code for that: another kind of error
        return None
    known = isinstance(error, RuntimeError) and any(sign in words for sign in _SIGNS)
    return told[:160] if known else None


def release() -> None:
    """Give back what nothing refers to. Call it outside the `except`: its traceback holds every tensor."""
    gc.collect()
    torch = sys.modules.get("torch")  # whoever ran out of device memory has imported it
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch is not None and torch.backends.mps.is_available():
        torch.mps.empty_cache()
