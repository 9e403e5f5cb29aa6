"""`selfrefine` and `python -m selfrefine`."""

from __future__ import annotations

import os
import sys

try:
    import signal
except KeyboardInterrupt:
    os._exit(130)


def main() -> None:
    """Run the command line; never returns."""
    # A Ctrl-C among the imports, or while libraries end, would be a traceback, or a library's ImportError.
    asks = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if asks:
        signal.signal(signal.SIGINT, _quit)
    from selfrefine import streams
    from selfrefine.cli import app
    from selfrefine.cli.guard import guarded

    streams.hold()  # to the very end: a thread of outside code may print after the last row

    def run() -> None:
        if asks:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        app()

    code = guarded(run)
    if asks:
        signal.signal(signal.SIGINT, _quit)
    sys.exit(code)


def _quit(*_: object) -> None:
    os._exit(130)


if __name__ == "__main__":
    if not sys.flags.safe_path:
        # `python -m` searches the working directory first, where a file may be called random.py.
        sys.path.append(sys.path.pop(0))
    main()
