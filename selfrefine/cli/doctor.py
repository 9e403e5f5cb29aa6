"""`selfrefine doctor`: is this machine ready, and if not, what to do."""

from __future__ import annotations

import sys

import typer

from selfrefine.cli.common import RUNS_DIR, JsonOption


def command(json_: JsonOption = False) -> None:
    """Versions, device, free disk and memory, the embedded model, a write test. Exit 5 if one fails."""
    import msgspec

    from selfrefine.doctor import facts
    from selfrefine.engines.embedded import cache_dir
    from selfrefine.report.console import make_console
    from selfrefine.report.tables import doctor_view

    checks = facts(RUNS_DIR, cache_dir())
    if json_ or not sys.stdout.isatty():
        for check in checks:
            sys.stdout.write(msgspec.json.encode(check).decode() + "\n")
    else:
        make_console(sys.stdout).print(doctor_view(checks))
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(5)
