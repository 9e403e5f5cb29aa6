"""`selfrefine` and `python -m selfrefine`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; never returns."""
    from selfrefine.cli import app
    from selfrefine.cli.guard import guarded

    sys.exit(guarded(app))


if __name__ == "__main__":
    main()
