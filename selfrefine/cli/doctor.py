"""`selfrefine doctor`: is this machine ready, and if not, what to do."""

from __future__ import annotations

import typer

from selfrefine.cli.common import RUNS_DIR, JsonOption, on_terminal, print_json, show


def command(json_: JsonOption = False) -> None:
    """Check this machine: versions, device, disk, memory, the embedded model, a write test.

    Exits with code 5 if a check fails.

    \b
      selfrefine doctor
    """
    from selfrefine.doctor import facts
    from selfrefine.engines.embedded import cache_dir
    from selfrefine.report.tables import doctor_view

    checks = facts(RUNS_DIR, cache_dir())
    if json_ or not on_terminal():
        for check in checks:
            print_json(check)
    else:
        show(doctor_view(checks))
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(5)
