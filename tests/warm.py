"""A process that has imported what commands import and computed nothing; its forks start at once.

`served` gives a `selfrefine` program that only passes their arguments, folder, environment and
standard streams to it: for tests in which real shells call `selfrefine` and its start is not the point.
"""

from __future__ import annotations

import functools
import gc
import importlib.metadata
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

SHIM = """#!{python} -SE
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
asked = {{"argv": sys.argv[1:], "cwd": os.getcwd(), "env": dict(os.environ)}}
socket.send_fds(server, [json.dumps(asked).encode()], [0, 1, 2])
server.shutdown(socket.SHUT_WR)
sys.exit(int(server.recv(16) or 70))
"""


@contextmanager
def served(folder: Path) -> Iterator[Path]:
    """A `selfrefine` program in `folder` whose every call is a forked child of one warm process."""
    address, program = folder / "socket", folder / "selfrefine"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(address))
        listening.listen(64)
        words = [sys.executable, __file__, str(listening.fileno())]
        server = subprocess.Popen(words, pass_fds=[listening.fileno()])
    program.write_text(SHIM.format(python=sys.executable, address=str(address)))
    program.chmod(0o755)
    try:
        yield program
    finally:
        server.terminate()
        server.wait()


def up() -> Callable[[], Any]:
    """Import what a run imports; the command line, built once. No tensor is made here, and no thread."""
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    import peft  # noqa: F401
    import pytest  # noqa: F401
    import rich.live  # noqa: F401
    import scipy.special  # noqa: F401
    import typer._adapters  # type: ignore[import-not-found]
    import typer.main
    from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast  # noqa: F401

    import selfrefine.cli.open_run
    import selfrefine.engines.load
    import selfrefine.report.ending
    import selfrefine.stages.cycle
    import selfrefine.training.loop  # noqa: F401
    from selfrefine.cli import app

    _fill_caches()
    gc.freeze()  # or every child walks through all the imported modules at its first collection
    command: Callable[[], Any] = typer.main.get_command(app)
    return command


def _fill_caches() -> None:
    """What every child would build anew: pure Python, a third of a second."""
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping
    from transformers.models.llama import modeling_llama

    from selfrefine import prompts

    prompts.load("critique", "critique")  # compiles jinja's regular expressions, and our own
    importlib.metadata.version = functools.cache(importlib.metadata.version)
    get_checkpoint_conversion_mapping("llama")
    for kind in (*vars(modeling_llama).values(), torch.nn.Linear, torch.nn.Embedding, torch.nn.ModuleList):
        if isinstance(kind, type):
            issubclass(kind, BaseTunerLayer)


# --- the server ------------------------------------------------------------------------------------


def serve(listening: socket.socket, command: Callable[[], Any]) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    while True:  # the children answer themselves; they are waited for so that their time is counted
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        client, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            code = 70
            try:
                code = _child(client, command)
            finally:
                client.send(str(code).encode())
                os._exit(code)
        client.close()


def _child(client: socket.socket, command: Callable[[], Any]) -> int:
    import torch

    from selfrefine.cli.guard import guarded

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    data, fds, _, _ = socket.recv_fds(client, 1 << 20, 3)
    while more := client.recv(1 << 20):
        data += more
    asked = json.loads(data)
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    sys.argv = ["selfrefine", *asked["argv"]]
    torch.set_num_threads(1)
    code = guarded(command)
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[0]), str(Path(__file__).parents[1])]
    serve(socket.socket(fileno=int(sys.argv[1])), up())
