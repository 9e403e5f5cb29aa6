"""Files of the user's as modules: loaded once, beside their neighbours, in nobody's way."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy  # noqa: F401  the fixture forgets what a test imports, and this loads only once
import pytest
from harness import answer, environment, jsonl, refused, selfrefine, task

from selfrefine import own_code
from selfrefine.errors import ConfigError
from selfrefine.own_code import files_read, load_file

ROWS = jsonl(answer("a.r0.s0", "LOUD"), answer("a.r0.s1", "so"))


@pytest.fixture(autouse=True)
def as_in_a_new_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(own_code, "_FILES", {})
    monkeypatch.setattr(own_code, "_NEIGHBOURS", {})
    monkeypatch.setattr(own_code, "_ADDED", [])
    modules, path = dict(sys.modules), list(sys.path)
    yield
    sys.modules.clear()
    sys.modules.update(modules)
    sys.path[:] = path


def written(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def test_a_file_is_one_module_of_its_own_name(tmp_path: Path) -> None:
    """It was executed again under another name: what it pickled could not be found, and it had two states."""
    written(tmp_path, pool_of_mine="import helper_of_mine\nhelper_of_mine.users.append(__name__)\n")
    written(tmp_path, helper_of_mine="users = []\n")
    module, _ = load_file(tmp_path / "pool_of_mine.py")
    assert sys.modules["pool_of_mine"] is module and sys.path[-1] == str(tmp_path)
    # A neighbour that is then asked for itself is the one that was imported.
    helper, _ = load_file(tmp_path / "helper_of_mine.py")
    assert helper is module.helper_of_mine and helper.users == ["pool_of_mine"]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_reward_may_use_a_process_pool(method: str, tmp_path: Path) -> None:
    written(
        tmp_path,
        pooled="import multiprocessing\nimport time\n"
        "def work(text):\n    return float(text.isupper())\n"
        "def a(samples):\n"
        f"    context = multiprocessing.get_context({method!r})\n"
        "    child = context.Process(target=time.sleep, args=(60,))\n"
        "    child.start()\n    time.sleep(0.1)\n    child.terminate()\n    child.join(20)\n"
        "    assert child.exitcode == -15, child.exitcode\n"  # it kept our handler, and pools hung
        "    with context.Pool(2) as pool:\n"
        "        return pool.map(work, [sample.text for sample in samples])\n"
        "def b(samples):\n    return a(samples)\n"
        "a.group = b.group = True\n",
    )
    (tmp_path / "in").write_bytes(ROWS)
    words = [sys.executable, "-m", "selfrefine", "reward", "in", "-r", "pooled.py:a", "-r", "pooled.py:b"]
    done = subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, check=False)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["reward"] for row in rows] == [1.0, 0.0], done.stderr.decode()


@pytest.mark.parametrize("name", ["json", "random", "code", "selfrefine", "numpy", "a-b"])
def test_a_file_or_a_neighbour_shadows_no_module(name: str, tmp_path: Path) -> None:
    written(tmp_path, mine="import json\n")
    (tmp_path / f"{name}.py").write_text("import json\nx = json.dumps(1)\nmine = True\n")
    before = sys.modules.get(name)
    module, _ = load_file(tmp_path / f"{name}.py")
    assert module.mine and module.x == "1"
    load_file(tmp_path / "mine.py")
    assert sys.modules.get(name) is before and not hasattr(__import__("json"), "mine")
    assert sys.modules[module.__name__] is module  # pickles find it all the same


def test_python_m_does_not_import_what_lies_in_the_working_directory(tmp_path: Path) -> None:
    """`python -m selfrefine` beside a file called random.py ended in an error out of NumPy."""
    written(tmp_path, random="raise SystemExit('shadow')\n", json="raise SystemExit('shadow')\n")
    (tmp_path / "in").write_bytes(ROWS)
    words = [sys.executable, "-m", "selfrefine", "reward", "in", "-r", "random", "-o", "out"]
    done = subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, check=False)
    assert done.returncode == 0 and (tmp_path / "out").is_file(), done.stderr.decode()


def test_files_and_neighbours_of_one_name_do_not_collide(tmp_path: Path) -> None:
    for folder in "ab":
        written(tmp_path / folder, score="import util_of_mine\nwhere = util_of_mine.where\n")
        written(tmp_path / folder, util_of_mine=f"where = {folder!r}\n")
    (a, _), (b, _) = (load_file(tmp_path / folder / "score.py") for folder in "ab")
    assert (a.where, b.where) == ("a", "b") and a.__name__ != b.__name__
    assert load_file(tmp_path / "a" / "score.py")[0] is a


def test_an_edited_neighbour_is_an_edit(tmp_path: Path) -> None:
    """The file itself stays the same, and the rewards do not."""
    written(tmp_path, mine="from aside import half\nimport json\n", aside="half = 0.5\n", unused="x = 1\n")
    path = tmp_path / "mine.py"
    before = files_read(path)
    assert [Path(name).name for name in before] == ["mine.py", "aside.py"]
    assert load_file(path)[0].half == 0.5
    (tmp_path / "aside.py").write_text("half = 0.4\n")  # as long as before, within the same second
    after = files_read(path)
    assert after[str(path)] == before[str(path)] and after != before
    assert load_file(path)[0].half == 0.4
    assert not (tmp_path / "__pycache__").exists()


def test_a_run_refuses_to_go_on_with_an_edited_neighbour(tiny_model_dir: Path, tmp_path: Path) -> None:
    """ "round 2 kept: 0.250 -> 0.867" was the edit."""
    written(tmp_path, mine="from aside import scale\ndef f(s):\n    return len(s.text) % scale / 10\n")
    written(tmp_path, aside="scale = 5\n")
    tasks = [task(f"t{i}", f"What is {i} + 1?", str(i + 1)) for i in range(12)]
    (tmp_path / "tasks.jsonl").write_bytes(jsonl(*tasks))
    words = ["cycle", "--run", "r", "--model", tiny_model_dir, "--tasks", "tasks.jsonl", "-r", "mine.py:f"]
    for key, n in {"train": 4, "gate": 4, "test": 4}.items():
        words += ["--set", f"tasks.{key}={n}"]
    words += ["--set", "generate.n=2", "--set", "cycle.rounds=1"]
    done = selfrefine(*words, cwd=tmp_path)
    assert done.code in (0, 8), done.err
    (tmp_path / "aside.py").write_text("scale = 3\n")
    again = selfrefine("cycle", "--run", "r", cwd=tmp_path)
    assert again.code == 5 and "aside.py" in again.err, again.err


def test_a_failed_load_leaves_nothing(tmp_path: Path) -> None:
    written(tmp_path, broken_one="import sys\nsys.stdout.write('talks')\nraise SystemExit(0)\n")
    with pytest.raises(ConfigError, match=r"broken_one\.py does not import: SystemExit: 0"):
        load_file(tmp_path / "broken_one.py")
    assert "broken_one" not in sys.modules
    (tmp_path / "broken_one.py").write_text("x = 1\n")
    assert load_file(tmp_path / "broken_one.py")[0].x == 1


OUTSIDE = """
import os
from selfrefine.engines import EngineKind
from selfrefine.engines.scripted import Scripted
from selfrefine.records import Message, Task
from selfrefine.rewards.base import RewardKind, Scorer, each
from selfrefine.tasks.base import SourceKind

class Leaves(Scripted):
    def generate(self, requests, sampling):
        print("loud")
        yield from super().generate(requests[:1], sampling)
        raise SystemExit(0)

engine = EngineKind(name="x", spelling="x", about="y",
    load=lambda *_: Leaves([{"match": "", "answers": ["a"]}]))

def read(name, options):
    print("loud")
    message = Message(role="user", content="half \\udc80" if name == "half" else "q")
    yield ("here", Task(id="", prompt=(message,))) if name != "odd" else 5

source = SourceKind(name="x", spelling="x", about="y", example="z", read=read)

class Figure:
    @staticmethod
    def statistics(sample):
        raise SystemExit(0)

reward = RewardKind(name="x", about="y", corpus=True,
    make=lambda *_: Scorer(name="x", score=each(lambda sample: 1.0), corpus=Figure))
"""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["generate", "--model", "out.py:engine:x"], "engine out.py:engine: its file failed: SystemExit: 0"),
        (["tasks", "out.py:source:half"], "error: here: a text of this task is not UTF-8"),
        (
            ["tasks", "out.py:source:odd"],
            "its file failed: TypeError: a source yields (where, Task), not int",
        ),
        (["reward", "-r", "out.py:reward"], "reward out.py:reward: its file failed: SystemExit: 0"),
    ],
)
def test_engines_sources_and_figures_are_behind_the_boundary(
    words: list[str], said: str, tmp_path: Path
) -> None:
    """`exit()` in one of them ended a run in the middle, with code 0."""
    written(tmp_path, out=OUTSIDE)
    stdin = ROWS if words[0] == "reward" else jsonl(task("a"), task("b"))
    done = selfrefine(*words, stdin=stdin, cwd=tmp_path)
    assert (
        done.code == (4 if said.startswith("error: here") else 3)
        and said in done.err
        and b"loud" not in done.out
    ), done.err
    if words[0] == "tasks":
        refused(selfrefine("tasks", "out.py:sauce:1", cwd=tmp_path), 3, "has no sauce (it has: source")
