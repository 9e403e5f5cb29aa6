"""`selfrefine` and `python -m selfrefine`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; never returns."""
    from selfrefine import streams
    from selfrefine.cli import app
    from selfrefine.cli.guard import guarded

    streams.hold()  # to the very end: a thread of outside code may print after the last row
    sys.exit(guarded(app))


if __name__ == "__main__":
    if not sys.flags.safe_path:
        # `python -m` searches the working directory first, where a file may be called random.py.
        sys.path.append(sys.path.pop(0))
    main()
