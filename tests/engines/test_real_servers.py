"""Real servers: llama.cpp (xllamacpp, from PyPI) with the embedded model's file, each a process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import selfrefine, task

from selfrefine.engines.embedded import gguf_path

pytest.importorskip("xllamacpp", reason="pip install xllamacpp")
pytestmark = [pytest.mark.long, pytest.mark.real]

SERVE = """
import sys, threading, xllamacpp
own = xllamacpp.CommonParams()
own.model.path, own.port = sys.argv[1], int(sys.argv[2])
own.hostnames, own.model_alias = ["127.0.0.1"], {"smollm2"}
own.n_ctx, own.n_parallel, own.cpuparams.n_threads = 4096, 2, 1
server = xllamacpp.Server(own)
threading.Event().wait()
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _started() -> tuple[subprocess.Popen[bytes], str]:
    port = _free_port()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, "-c", SERVE, str(gguf_path()), str(port)], **quiet)
    url = f"http://127.0.0.1:{port}/v1"
    for _ in range(600):
        assert process.poll() is None, "the server ended by itself"
        try:
            urllib.request.urlopen(f"{url}/models", timeout=1).close()
            return process, url
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the server does not answer")


@pytest.fixture
def two() -> Iterator[list[tuple[subprocess.Popen[bytes], str]]]:
    servers = [_started(), _started()]
    yield servers
    for process, _ in servers:
        process.kill()
        process.wait()


def _cpu_s(process: subprocess.Popen[bytes]) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _tasks(folder: Path, n: int) -> Path:
    path = folder / "tasks.jsonl"
    rows = (
        json.dumps(task(f"t{i}", f"What is {i} + 2? Answer with the number.", str(i + 2))) for i in range(n)
    )
    path.write_text("".join(f"{row}\n" for row in rows))
    return path


def test_two_real_servers_and_one_is_killed_in_the_middle(
    two: list[tuple[subprocess.Popen[bytes], str]], tmp_path: Path
) -> None:
    """Every row is there, in the order of the plan, and from a model: with ids that end each answer."""
    if not Path("/proc/self/stat").is_file():
        pytest.skip("tells by /proc when a server is at work")
    (first, one), (_, other) = two
    tasks = _tasks(tmp_path, 24)
    words = [sys.executable, "-m", "selfrefine", "generate", str(tasks), "-n", "4", "--max-new-tokens", "16"]
    words += ["--model", "openai:smollm2", "--base-url", f"{one},{other}", "--set", "engine.connections=2"]
    root = Path(__file__).parents[2]
    with (tmp_path / "rows").open("wb") as rows:
        running = subprocess.Popen(words, stdout=rows, stderr=subprocess.PIPE, cwd=root)
        assert running.stderr is not None
        begun = _cpu_s(first)
        while _cpu_s(first) < begun + 2 and running.poll() is None:  # the looking is over, answers have begun
            time.sleep(0.05)
        assert running.poll() is None, "it was faster than the test expects"
        first.kill()
        said = running.stderr.read().decode()
        assert running.wait(600) == 0, said
    assert f"{one}: " in said and "asking again" in said
    made = [json.loads(line) for line in (tmp_path / "rows").read_bytes().splitlines()]
    assert [row["id"] for row in made] == [f"t{i}.r0.s{k}" for i in range(24) for k in range(4)]
    assert {row["finish_reason"] for row in made} <= {"stop", "length"}
    for row in made:
        assert len(row["token_ids"]) == len(row["logprobs"]) <= 16
        assert row["finish_reason"] == "length" or row["token_ids"][-1] == 2  # <|im_end|>


def test_greedy_answers_of_the_server_are_those_of_the_model_here(
    two: list[tuple[subprocess.Popen[bytes], str]], tmp_path: Path
) -> None:
    """One chat template and one tokenizer on both sides. The weights are rounded differently (Q4_1 products
    here, float32 there), so a few answers may part; most agree to the last character."""
    tasks = _tasks(tmp_path, 12)
    words = ("generate", tasks, "-n", "1", "--temperature", "0", "--max-new-tokens", "12")
    urls = ",".join(url for _, url in two)
    served = selfrefine(*words, "--model", "openai:smollm2", "--base-url", urls, cwd=tmp_path)
    local = selfrefine(*words, "--model", "smollm2", cwd=tmp_path)
    assert served.code == local.code == 0, served.err + local.err
    same = [a["text"] == b["text"] for a, b in zip(served.rows, local.rows, strict=True)]
    assert sum(same) >= 6
    for mine, theirs in zip(served.rows, local.rows, strict=True):
        if mine["text"] == theirs["text"]:
            assert mine["token_ids"] == theirs["token_ids"]
            assert mine["logprobs"] == pytest.approx(theirs["logprobs"], abs=0.5)
