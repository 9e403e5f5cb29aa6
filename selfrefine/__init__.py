"""A language model improves itself, and an improvement is kept only when it is measured.

The Python door, explained in docs/python.md. Its names are loaded when they are first used (PEP 562):
`selfrefine --help` must not wait for them.
"""

TYPE_CHECKING = False  # importing typing takes 20 ms, in which a Ctrl-C would print a traceback
if TYPE_CHECKING:
    from selfrefine.api import OpenedRun, Round, Rows, open_run, reward, run_cycle
    from selfrefine.errors import SelfrefineError
    from selfrefine.records import Message, Reward, Sample, Task

__all__ = [
    "Message",
    "OpenedRun",
    "Reward",
    "Round",
    "Rows",
    "Sample",
    "SelfrefineError",
    "Task",
    "open_run",
    "reward",
    "run_cycle",
]
__version__ = "0.1.0"

_RECORDS = {"Message", "Reward", "Sample", "Task"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    home = "records" if name in _RECORDS else "errors" if name == "SelfrefineError" else "api"
    # By its name as a string: an import statement would put this package above everything that it holds.
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
