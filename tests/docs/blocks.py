"""The blocks in the docs' fences, and how they are run: each a shell script, all in one folder, in order."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "runs/README.md", ROOT / "prompts/README.md"]
)


def fences(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(script: str) -> list[list[str]]:
    """The `selfrefine` calls of a shell script as argument lists, pipes taken apart, redirections dropped."""
    script = re.sub(r"<<'(\w+)'\n.*?^\1$", "", script, flags=re.MULTILINE | re.DOTALL)
    # Newlines end a call, but not within quotes (a jq program) and not after a pipe.
    lexer = shlex.shlex(
        re.sub(r"\|\n", "| ", script.replace("\\\n", " ")), posix=True, punctuation_chars="|;&<>\n"
    )
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    calls, call, previous = [], list[str](), ""
    for word in [*lexer, ";"]:
        if set(word) <= set("|;&\n"):
            if call[:1] == ["selfrefine"]:
                calls.append(call[1:])
            call = []
        elif not any(set(one) <= set("<>&") for one in (word, previous) if one):  # 'reward < 0.2' is none
            call.append(word)
        previous = word
    return calls


def run(block: str, folder: Path, program: Path | None = None) -> str:
    """Run a block as a reader would paste it, `selfrefine` being this checkout; its stdout and stderr.

    `program`: what is called `selfrefine`, instead of a fresh process of this checkout.

    A failure anywhere, in the middle of a pipe too, fails the test and shows the block.
    """
    shim = program or folder / ".bin" / "selfrefine"
    if not shim.exists():
        shim.parent.mkdir()
        shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m selfrefine "$@"\n')
        shim.chmod(0o755)
    environment = os.environ | {"PATH": f"{shim.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", block],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, f"exit {done.returncode} of\n{block}\n{said}"
    return said


def substituted(block: str, table: list[tuple[str, str]]) -> str:
    """The block with each (regex, replacement) applied."""
    for pattern, replacement in table:
        block = re.sub(pattern, replacement, block, flags=re.MULTILINE)
    return block
