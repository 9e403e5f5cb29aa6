"""Verbs as Unix filters, in a real shell: pipes, closed streams, full devices, jq in between."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from harness import answer, environment, jsonl, task

SCRIPTED = "--model scripted"
# jq is what people use; where it is missing, python does the same.
KEEP_GOOD = "jq -c 'select(.reward>0.5)'"
KEEP_GOOD_PYTHON = """import json, sys
for line in sys.stdin:
    if (json.loads(line)["reward"] or 0) > 0.5: sys.stdout.write(line)"""
EDIT = """jq -c 'if .index == 0 then .text = "forty two" else . end'"""
EDIT_PYTHON = """import json, sys
for line in sys.stdin:
    row = json.loads(line)
    print(json.dumps(row | {"text": "forty two"} if row["index"] == 0 else row))"""


MAIN = "import sys\nfrom selfrefine.__main__ import main\n"


@dataclass(frozen=True)
class Shell:
    folder: Path

    def __call__(self, script: str, **env: str) -> subprocess.CompletedProcess[str]:
        """A bash script that finds `selfrefine` and in which a pipe fails with its rightmost failure."""
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            ["bash", "-c", f"set -o pipefail\n{script}"],
            cwd=self.folder,
            env=environment(PATH=path, **env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def rows(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    sums = (task(f"t{i}", f"What is {i} + 2?", str(i + 2)) for i in range(400))
    (tmp_path / "tasks.jsonl").write_bytes(jsonl(*sums))
    answers = (answer(f"t{i}.r0.s0", str(i + 2)) for i in range(4_000))
    (tmp_path / "answers.jsonl").write_bytes(jsonl(*answers))
    program = tmp_path / "bin" / "selfrefine"  # what pip makes of [project.scripts]
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\n{MAIN}main()\n")
    program.chmod(0o755)
    return Shell(tmp_path)


def with_jq(program: str, python: str) -> str:
    return program if shutil.which("jq") else f"{shlex.quote(sys.executable)} -c {shlex.quote(python)}"


def test_the_whole_pipe(shell: Shell, tiny_model_dir: Path) -> None:
    """tasks | generate | reward | jq | jq | finetune, with a text edited by hand on the way."""
    (shell.folder / "mine.py").write_text("def f(sample):\n    return 0.9 if sample.index < 2 else 0.1\n")
    model = f"--model {shlex.quote(str(tiny_model_dir))}"
    stops = "--stop a --stop e --stop o --stop ' '"
    done = shell(
        f"selfrefine tasks tasks.jsonl -n 3 | selfrefine generate {model} -n 4 --max-new-tokens 60 {stops} |"
        f"selfrefine reward -r mine.py:f | tee scored.jsonl |"
        f"{with_jq(KEEP_GOOD, KEEP_GOOD_PYTHON)} | {with_jq(EDIT, EDIT_PYTHON)} |"
        f"selfrefine finetune {model} --select all --set train.lora.r=2 -o adapter --summary-json s.json"
    )
    assert done.returncode == 0, done.stderr
    assert [row["reward"] for row in shell.rows("scored.jsonl")] == [0.9, 0.9, 0.1, 0.1] * 3
    told = json.loads((shell.folder / "s.json").read_text())
    # Three texts were edited: their ids no longer spell them, so they are encoded anew, and that is said.
    assert told["edited"] == 3 and told["rows"] == told["selection"]["selected"]
    assert "3 edited" in done.stderr
    kept = sorted(path.name for path in (shell.folder / "adapter").iterdir())
    assert {"adapter_config.json", "adapter_model.safetensors", "train.jsonl"} <= set(kept)
    assert not [name for name in kept if name.endswith((".bin", ".pt", ".pkl"))]


def test_foreign_columns_travel_through_every_verb_as_they_are_spelled(shell: Shell) -> None:
    """Through a float 1.0 becomes 1, 1e5 becomes 100000.0, and a long integer loses its last digits."""
    columns = '"one":1.0,"big":1e5,"exp":1E+2,"minus":-0.0,"long":12345678901234567890,"text":"caf\\u00e9"'
    inner = '"deep":{"a":[1.50,{"b":2E0}]},"none":null'
    in_task = columns.replace('"text"', '"note"')
    row = f'{{"id":"a","prompt":[{{"role":"user","content":"What is 1 + 2?"}}],{in_task},{inner}}}\n'
    (shell.folder / "t.jsonl").write_text(row)
    done = shell(
        f"selfrefine tasks t.jsonl | tee 1 | selfrefine generate {SCRIPTED} -n 2 | tee 2 |"
        f'sed \'s/}}$/,{columns.replace(chr(92), chr(92) * 2)}}}/; s/,"text":"caf/,"note":"caf/\' | tee 3 |'
        f"selfrefine critique {SCRIPTED} -r length | tee 4 | selfrefine reward -r repetition | tee 5 |"
        f"selfrefine select --select all > 6".replace("-r length ", "")
    )
    assert done.returncode == 0, done.stderr
    for name in "123456":
        for line in (shell.folder / name).read_text().splitlines():
            for column in [*in_task.split(","), *inner.split(',"none')[:1]]:
                assert column in line, (name, column)
    for name in "3456":
        drafts = [s for s in (shell.folder / name).read_text().splitlines() if '"parent_id":null' in s]
        assert drafts
        for line in drafts:
            for column in in_task.split(","):
                assert line.count(column) == 2, (name, column)  # the row's own and its task's


PRODUCERS = {
    "tasks": "selfrefine tasks answers-as-tasks.jsonl",
    "generate": f"selfrefine generate tasks.jsonl {SCRIPTED} -n 8",
    "critique": f"selfrefine critique answers.jsonl {SCRIPTED}",
    "reward": "selfrefine reward answers.jsonl -r numeric",
    "select": "selfrefine select scored.jsonl --select all",
    "listing": "(sleep 0.2; selfrefine tasks)",
    "version": "(sleep 0.2; selfrefine --version)",
}


@pytest.mark.parametrize("what", PRODUCERS)
def test_a_reader_that_goes_away_is_no_error(what: str, shell: Shell) -> None:
    """`| head -1`: silence and 141, what a shell shows for a writer that met a closed pipe.

    Unbuffered, as containers set it, Python's own write may be short: the rest was dropped without a word.
    """
    asked = [task(f"t{i}", f"What is {i} + 2?") for i in range(4_000)]
    (shell.folder / "answers-as-tasks.jsonl").write_bytes(jsonl(*asked))
    scored = [answer(f"t{i}", str(i), reward=1) for i in range(2_000)]
    (shell.folder / "scored.jsonl").write_bytes(jsonl(*scored))
    reader = "head -1" if "sleep" not in PRODUCERS[what] else "true"
    done = shell(f"{PRODUCERS[what]} | {reader}; echo ${{PIPESTATUS[@]}} > status", PYTHONUNBUFFERED="1")
    assert done.stderr == ""
    assert (shell.folder / "status").read_text().split() == ["141", "0"]
    if reader == "head -1":
        json.loads(done.stdout)


FULL = {
    "tasks": "tasks tasks.jsonl",
    "generate": f"generate tasks.jsonl {SCRIPTED}",
    "reward": "reward answers.jsonl -r numeric",
    "evaluate": f"evaluate tasks.jsonl {SCRIPTED} -m numeric",
    "listing": "tasks",
    "doctor": "runs show x",
}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("what", FULL)
def test_a_full_disk_behind_stdout(what: str, shell: Shell) -> None:
    if "show" in FULL[what]:
        sets = """--set tasks.source=tasks.jsonl --set 'reward.use=["numeric"]'"""
        assert shell(f"selfrefine runs new x {SCRIPTED} {sets}").returncode == 0
    done = shell(f"selfrefine {FULL[what]} > /dev/full")
    assert done.returncode == 5
    assert "No space left" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


def test_a_full_disk_behind_a_file_is_exit_5_as_well(shell: Shell) -> None:
    done = shell("selfrefine reward answers.jsonl -r numeric -o /dev/full")
    assert done.returncode == 5 and "disk full: /dev/full" in done.stderr


def test_closed_streams(shell: Shell) -> None:
    closed_out = shell("selfrefine reward answers.jsonl -r numeric >&-")
    assert closed_out.returncode == 5 and "stdout: it is closed" in closed_out.stderr
    closed_in = shell("selfrefine reward -r numeric <&-")
    assert closed_in.returncode == 4 and "stdin: it is closed" in closed_in.stderr
    shown = shell("selfrefine tasks >&-")
    assert shown.returncode == 5 and "Traceback" not in shown.stderr
    # Nobody listens to what would be said: the work is done all the same.
    closed_err = shell("selfrefine reward answers.jsonl -r numeric 2>&-")
    assert closed_err.returncode == 0 and len(closed_err.stdout.splitlines()) == 4_000
    refused = shell("selfrefine reward nowhere.jsonl -r numeric 2>&-")
    assert refused.returncode == 4


def test_without_a_terminal_a_stage_is_one_line_and_no_escape_code(shell: Shell) -> None:
    for verb in (f"generate tasks.jsonl {SCRIPTED}", "reward answers.jsonl -r numeric"):
        done = shell(f"selfrefine {verb} > rows", TERM="xterm-256color", FORCE_COLOR="1")
        assert done.returncode == 0
        assert len(done.stderr.splitlines()) == 1 and "\x1b" not in done.stderr + done.stdout


def test_dashes_are_the_standard_streams_and_the_default(shell: Shell) -> None:
    outputs = [
        shell(f"selfrefine reward {words} < answers.jsonl").stdout
        for words in (
            "-r numeric",
            "-r numeric - -o -",
            "-r numeric --json",
            "/dev/stdin -r numeric -o /dev/stdout",
        )
    ]
    assert outputs[0] and len(set(outputs)) == 1


def test_a_summary_is_one_json_object_and_does_not_disturb_the_rows(shell: Shell) -> None:
    done = shell("selfrefine reward answers.jsonl -r numeric --summary-json s.json > rows")
    assert done.returncode == 0
    told = json.loads((shell.folder / "s.json").read_text())
    assert told["stage"] == "reward" and told["rows"] == 4_000
    assert told["rewards"]["numeric"] == {"mean": 0.00025, "scored": 4000, "unscored": 0, "first_error": None}
    assert len(shell.rows("rows")) == 4_000


HEAVY = ("torch", "transformers", "peft", "datasets", "gguf")
LIGHT = {
    "help": "--help",
    "version": "--version",
    "verb's help": "generate --help",
    "reward": "reward answers.jsonl -r numeric -r bleu -r coverage:2 -r gym -o out",
    "select": "select scored.jsonl -o out",
    "tasks": "tasks tasks.jsonl -o out",
    "scripted": "generate tasks.jsonl --model scripted -n 1 -o out",
    "runs": "runs ls",
}


@pytest.mark.parametrize("what", LIGHT)
def test_what_needs_no_model_never_imports_torch(what: str, shell: Shell) -> None:
    """Two seconds of start-up for a `--help` is the trap; an import at a module's top is enough."""
    (shell.folder / "scored.jsonl").write_bytes(jsonl(answer("a", reward=1), answer("b", "4", reward=0)))
    code = f"{MAIN}try: main()\nfinally: sys.stderr.write(','.join(sys.modules))"
    done = shell(f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} {LIGHT[what]}")
    loaded = set(done.stderr.splitlines()[-1].split(","))
    assert "selfrefine.cli.guard" in loaded
    assert not loaded & set(HEAVY)
    if what in ("help", "verb's help", "version"):
        assert not loaded & {"numpy", "jinja2", "sacrebleu", "reasoning_gym", "rich.live"}


def test_shell_completion(shell: Shell) -> None:
    """What `--install-completion` puts into a shell, asked as the shell asks it."""
    # `; true`: bash hands its process over to a last command, and the shell that asks would be sh or none.
    shown = shell("selfrefine --show-completion; true").stdout
    assert "_SELFREFINE_COMPLETE=complete_bash" in shown
    asked = {"_SELFREFINE_COMPLETE": "complete_bash", "COMP_WORDS": "selfrefine ge", "COMP_CWORD": "1"}
    assert shell("selfrefine", **asked).stdout.split() == ["generate"]


def test_secrets_on_the_command_line_never_reach_the_manifest(shell: Shell) -> None:
    sets = """--set tasks.source=tasks.jsonl --set 'reward.use=["numeric"]'"""
    secret = "hf_" + "a1B2" * 8
    done = shell(f"selfrefine runs new x {SCRIPTED} {sets} --set generate.system={secret}")
    assert done.returncode == 0, done.stderr
    argv = json.loads((shell.folder / "runs/x/manifest.json").read_text())["argv"]
    assert secret not in " ".join(argv) and "generate.system=***" in argv


@pytest.mark.parametrize(("signal", "code"), [("INT", 130), ("TERM", 143)])
def test_a_signal_lets_the_batch_finish_and_leaves_whole_rows(signal: str, code: int, shell: Shell) -> None:
    """To stdout what is written is whole rows; a file appears when all rows are done, so here not at all."""
    (shell.folder / "slow.py").write_text(SLOW)
    # A background job ignores SIGINT unless it has a group of its own (set -m).
    script = """
    set -m; rm -f begun
    selfrefine reward answers.jsonl -r slow.py:f {output} & child=$!
    while [ ! -e begun ]; do sleep 0.02; done
    kill -{signal} $child; wait $child
    """
    to_file = shell(script.format(output="-o out", signal=signal))
    assert to_file.returncode == code, to_file.stderr
    assert "nothing was written: the output file appears when all rows are done" in to_file.stderr
    assert not [name for name in os.listdir(shell.folder) if "out" in name]  # noqa: PTH208
    piped = shell(script.format(output="> rows", signal=signal))
    assert piped.returncode == code
    assert f"stopped by SIG{signal} after the running batch" in piped.stderr
    written = shell.rows("rows")
    assert len(written) % 1024 == 0 and 0 < len(written) < 4_000


def test_few_open_files_are_enough(shell: Shell) -> None:
    """Trap: stdout was kept under a number above this limit, and called closed."""
    done = shell("ulimit -n 64; selfrefine reward answers.jsonl -r numeric > limited; wc -l < limited")
    assert done.returncode == 0 and int(done.stdout) > 0, done.stderr


SLOW = """
import pathlib, time

def f(sample):
    pathlib.Path("begun").touch()
    time.sleep(0.0005)
    return 0.5
"""
