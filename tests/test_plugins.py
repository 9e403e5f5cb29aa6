"""A plugin is installed and used, and a file of one's own is as good, for each of the four kinds."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from harness import answer, environment, jsonl, refused, selfrefine

from selfrefine import doctor, layers, registry
from selfrefine.errors import ConfigError
from selfrefine.fields import settings_of
from selfrefine.registry import Registry, files_used, load_file, plugins_used
from selfrefine.rewards import REWARDS
from selfrefine.rewards.base import RewardKind

SOURCE = Path(__file__).parent / "plugin.py"
ROWS = jsonl(answer("a.r0.s0", "LOUD"), answer("a.r0.s1", "so"))
ENTRY_POINTS = """\
[selfrefine.rewards]
shout = echoing:shout
long = echoing:long
[selfrefine.objectives]
first = echoing:first
[selfrefine.tasks]
count = echoing:counted
[selfrefine.engines]
echo = echoing:said
"""


def wheel(folder: Path, entry_points: str, module: str, name: str = "echoing") -> Path:
    """What a build backend would make of the module and its entry points."""
    path = folder / f"{name}-1.2-py3-none-any.whl"
    info = f"{name}-1.2.dist-info"
    files = {
        f"{name}.py": module,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": entry_points,
    }
    record = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in (files | {f"{info}/RECORD": record}).items():
            archive.writestr(file, text)
    return path


def installed(folder: Path, *of: object, name: str = "echoing") -> Path:
    """Really installed, with pip and without an index, where PYTHONPATH will find it."""
    made, target = wheel(folder, *of, name=name), folder / "site"  # type: ignore[arg-type]
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*pip, "--target", str(target), str(made)], check=True, capture_output=True)
    return target


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(tmp_path_factory.mktemp("plugin"), ENTRY_POINTS, SOURCE.read_text())


def run(site: Path, cwd: Path, *words: str, stdin: bytes = b"") -> tuple[int, list[dict[str, object]], str]:
    done = subprocess.run(
        [sys.executable, "-m", "selfrefine", *words],
        input=stdin,
        capture_output=True,
        cwd=cwd,
        env=environment(PYTHONPATH=f"{environment()['PYTHONPATH']}:{site}"),
        check=False,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, rows, done.stderr.decode()


def test_a_plugin_is_listed_with_its_distribution_and_version(site: Path, tmp_path: Path) -> None:
    code, rows, said = run(site, tmp_path, "rewards", "ls")
    assert code == 0, said
    assert {row["name"]: row["plugin"] for row in rows if row["plugin"]} == {
        "shout": "echoing 1.2",
        "long": "echoing 1.2",
    }
    _, [shown], _ = run(site, tmp_path, "rewards", "show", "shout")
    half, _pass_at = shown["settings"]  # type: ignore[misc]
    assert (half["key"], half["value"], half["default"]) == ("reward.shout.half", "share 0 to 1", 0.5)
    assert str(shown["doc"]).startswith("A plugin with one of each kind")
    _, rows, _ = run(site, tmp_path, "objectives", "ls")
    assert rows[-1]["name"] == "first" and rows[-1]["plugin"] == "echoing 1.2"
    code, rows, _ = run(site, tmp_path, "doctor")
    found = {row["name"]: row["value"] for row in rows if "echoing 1.2" in str(row["value"])}
    assert list(found) == [
        "reward shout",
        "reward long",
        "objective first",
        "engine echo",
        "task source count",
    ]


def test_an_edited_plugin_is_another_edition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a plugin installed in place the version stays the same, and a run went on with other rewards."""
    with zipfile.ZipFile(wheel(tmp_path, BAD, "it = 1", "broken")) as archive:
        archive.extractall(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    fresh: Registry[RewardKind] = Registry("reward", "selfrefine.rewards", REWARDS.kind, {}, REWARDS.adopt)
    first = fresh.edition("bad")
    (tmp_path / "broken.py").write_text("it = 2")
    assert first.startswith("broken 1.2, sources ") and fresh.edition("bad") != first
    assert fresh.edition("numeric") == ""


def test_a_plugins_reward_scores_under_its_name_and_says_where_it_is_from(site: Path, tmp_path: Path) -> None:
    words = ["reward", "-r", "shout", "-r", "long:3", "--set", "reward.shout.half=0.25"]
    code, rows, said = run(site, tmp_path, *words, stdin=ROWS)
    assert code == 0, said
    assert [row["reward"] for row in rows] == [1.0, 0.0625]  # (0.25 + 3 * 0) / 4
    first = rows[0]["rewards"][0]  # type: ignore[index]
    assert (first["name"], first["signature"]) == ("shout", "plugin:echoing 1.2|name:shout")
    code, _, said = run(site, tmp_path, "reward", "-r", "shout", "--set", "reward.shout.half=2", stdin=ROWS)
    assert code == 3 and "reward.shout.half" in said


def test_a_plugins_source_and_engine_are_a_pipe(site: Path, tmp_path: Path) -> None:
    code, tasks, said = run(site, tmp_path, "tasks", "count:2")
    assert code == 0, said
    assert [task["prompt"][0]["content"] for task in tasks] == ["Say 0.", "Say 1."]  # type: ignore[index]
    words = ["generate", "--model", "echo:so it is", "-n", "1"]
    code, rows, said = run(site, tmp_path, *words, stdin=jsonl(*tasks))
    assert code == 0, said
    assert [row["text"] for row in rows] == ["SO IT IS"] * 2


FILE = str(SOURCE)


def test_a_file_is_as_good_for_all_four_kinds(tiny_model_dir: Path, tmp_path: Path) -> None:
    """The third step only learns first tokens: two of them at a rate of 0.5, the objective's own."""
    shutil.copy(FILE, tmp_path / "mine.py")
    tasks = selfrefine("tasks", "mine.py:counted:2", cwd=tmp_path)
    assert len(tasks.rows) == 2, tasks.err
    words = ["generate", "--model", "mine.py:said:loud", "-n", "1"]
    answers = selfrefine(*words, stdin=tasks.out, cwd=tmp_path)
    assert [row["text"] for row in answers.rows] == ["LOUD"] * 2, answers.err
    scored = selfrefine(
        "reward", "-r", "mine.py:shout", "-r", "mine.py:long", stdin=answers.out, cwd=tmp_path
    )
    assert [row["reward"] for row in scored.rows] == [1.0, 1.0], scored.err
    assert scored.rows[0]["rewards"][0]["signature"].startswith("file:mine.py|sha256:")
    words = ["finetune", "--model", str(tiny_model_dir), "--objective", "mine.py:first", "--select", "all"]
    done = selfrefine(*words, "--set", "train.warmup=0", "-o", "ad", stdin=scored.out, cwd=tmp_path)
    assert done.code == 0, done.err
    [row] = map(json.loads, (tmp_path / "ad/train.jsonl").read_text().splitlines())
    assert row["lr"] == 0.5 and row["loss"] > 1.0
    done = selfrefine("reward", "-r", "mine.py:counted", stdin=answers.out, cwd=tmp_path)
    refused(done, 3, "mine.py:counted", "a SourceKind, which is not a reward", "a function or a RewardKind")
    done = selfrefine("finetune", "--objective", "mine.py:long", stdin=scored.out, cwd=tmp_path)
    refused(done, 3, "a function, which is not an objective", "an ObjectiveKind (see selfrefine.objectives")
    assert selfrefine("rewards", "show", "mine.py:shout", cwd=tmp_path).rows[0]["about"] == "is it shouted"


BAD = "[selfrefine.rewards]\nbad = broken:it\n"


@pytest.mark.parametrize(
    ("entry_points", "module", "said"),
    [
        (BAD, "raise OSError('no licence')", "broken 1.2 does not import: OSError: no licence"),
        (BAD, "raise SystemExit(3)", "broken 1.2 does not import: SystemExit: 3"),
        (BAD, "", "broken 1.2 does not import: AttributeError"),
        (BAD, "it = [1]", "the plugin broken 1.2 defines it as a list, which is not a reward"),
        (BAD + "numeric = broken:it\n", "", "'numeric' is defined by both broken 1.2 and selfrefine itself"),
        (BAD + "shout = broken:it\n", "", "'shout' is defined by both echoing 1.2 and broken 1.2"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_named(
    entry_points: str, module: str, said: str, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Built-in rewards stay usable beside it: nobody has to pay for a plugin that is not asked for."""
    with zipfile.ZipFile(wheel(tmp_path, entry_points, module, "broken")) as archive:
        archive.extractall(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    if "echoing" in said:
        sys.path.append(str(site))  # undone with the above
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    fresh: Registry[RewardKind] = Registry(
        "reward", "selfrefine.rewards", REWARDS.kind, REWARDS.built_in, REWARDS.adopt
    )
    monkeypatch.setattr("selfrefine.rewards.REWARDS", fresh)
    with pytest.raises(ConfigError) as caught:
        fresh.get("bad")
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert fresh.get("numeric").name == "numeric"
    [check] = doctor._plugins()
    assert check.status == "fail" and said in check.value and check.mend


def test_a_file_is_executed_once_a_process_and_again_when_it_has_changed(tmp_path: Path) -> None:
    """Two rewards of one file share its state (a model they loaded, a cache)."""
    path = tmp_path / "mine.py"
    path.write_text(
        "from pathlib import Path\nwith Path(__file__).with_name('log').open('a') as f: f.write('x')\n"
    )
    first, sha256 = load_file(path)
    assert load_file(tmp_path / "." / "mine.py") == (first, sha256)
    assert (tmp_path / "log").read_text() == "x"
    path.write_text(path.read_text() + "y = 1\n")
    again, other = load_file(path)
    assert again.y == 1 and not hasattr(first, "y") and other != sha256


def test_what_a_configuration_uses_of_other_peoples_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("def f(sample): return 1\n")
    given = {"reward.use": ["shout:2", "mine.py:f"], "tasks.source": "mine.py:s:3", "model": "echo:x"}
    monkeypatch.setattr(
        Registry, "plugin", lambda self, name: "echoing 1.2" if name in ("shout", "echo") else ""
    )
    used = layers.resolve([("flag", given)]).config
    assert plugins_used(used) == {"reward shout": "echoing 1.2", "engine echo": "echoing 1.2"}
    assert files_used(used) == {"mine.py": hashlib.sha256(Path("mine.py").read_bytes()).hexdigest()}


def test_every_built_in_name_leads_to_a_description_of_that_name() -> None:
    for what in registry.REGISTRIES:
        found = registry.registry(what)
        for name in found.built_in:
            kind = found.get(name)
            assert kind.name == name and kind.about, (what, name)
            if hasattr(kind, "settings"):
                assert all(one.description for one in settings_of(kind.settings)), (what, name)


def test_an_unknown_name_is_refused_with_what_there_is() -> None:
    with pytest.raises(
        ConfigError, match=r"no reward 'numerc'; did you mean 'numeric'\? \(known: bleu, chrf"
    ):
        REWARDS.get("numerc")


BROKEN = """
from selfrefine.engines import EngineKind
from selfrefine.engines.scripted import Scripted
from selfrefine.rewards.base import RewardKind, Scorer
from selfrefine.tasks.base import SourceKind

print("a file may talk while it is read")


def leaves(sample):
    raise SystemExit(0)


def huge(sample):
    return 10**400


def talks(sample):
    print("and while it scores")
    return 1.0


def make(own, options):
    return Scorer(name="x", score=lambda rows: 1 / 0)


def unmade(own, options):
    return None


def read(name, options):
    yield int(name)


def load(rest, adapter, options):
    raise RuntimeError("no licence")


class Mute(Scripted):
    capabilities = frozenset({"sample"})


raises = RewardKind(name="x", about="y", make=make)
nothing = RewardKind(name="x", about="y", make=unmade)
source = SourceKind(name="x", spelling="x", about="y", example="z", read=read)
engine = EngineKind(name="x", spelling="x", about="y", load=load)
mute = EngineKind(name="x", spelling="x", about="y", load=lambda *_: Mute([{"match": "", "answers": ["a"]}]))
"""


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    (tmp_path / "bad.py").write_text(BROKEN)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("leaves", "SystemExit: 0"),  # it ended the program with code 0 and no output
        ("huge", "int too large to convert to float"),
        ("raises", "ZeroDivisionError"),
    ],
)
def test_a_reward_that_fails_leaves_its_rows_unscored_with_the_reason(
    broken: Path, name: str, why: str
) -> None:
    done = selfrefine("reward", "-r", f"bad.py:{name}", stdin=ROWS, cwd=broken)
    assert done.code == 4 and f"bad.py:{name} could not be computed" in done.err and why in done.err
    assert [row["reward"] for row in done.rows] == [None, None]


def test_what_outside_code_prints_is_no_data(broken: Path) -> None:
    """One line of it broke the next stage of a pipe."""
    done = selfrefine("reward", "-r", "bad.py:talks", stdin=ROWS, cwd=broken)
    assert [row["reward"] for row in done.rows] == [1.0, 1.0]
    assert "and while it scores" in done.err


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["reward", "-r", "bad.py:nothing"], 3, "reward bad.py:nothing: its file failed: TypeError"),
        (["tasks", "bad.py:source:many"], 3, "task source bad.py:source: its file failed: ValueError"),
        (
            ["generate", "--model", "bad.py:engine:x"],
            3,
            "engine bad.py:engine: its file failed: RuntimeError: no licence",
        ),
        (["reward", "-r", "fluency", "--model", "bad.py:mute:x"], 6, "cannot score (it supports: sample)"),
    ],
)
def test_outside_code_names_its_own_mistakes(broken: Path, words: list[str], code: int, why: str) -> None:
    """They were reported as bugs of ours, with a request to tell us."""
    stdin = jsonl({"prompt": "hello"}) if words[0] == "generate" else ROWS
    done = selfrefine(*words, stdin=stdin, cwd=broken)
    assert done.code == code and why in done.err and "bug" not in done.err, done.err


def test_a_file_says_what_it_offers_and_shows_its_own_words(broken: Path) -> None:
    done = selfrefine("reward", "-r", "bad.py:raise", stdin=ROWS, cwd=broken)
    assert "(it has: leaves, huge, talks" in done.err and "RewardKind" not in done.err
    (broken / "mine.py").write_text('"""What mine asks."""\n\ndef f(sample):\n    return 1.0\n')
    assert selfrefine("rewards", "show", "mine.py:f", cwd=broken).rows[0]["doc"] == "What mine asks."


def test_a_broken_plugin_does_not_hide_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(wheel(tmp_path, BAD, "raise OSError", "broken")) as archive:
        archive.extractall(tmp_path)
    code, rows, _ = run(tmp_path, tmp_path, "rewards", "ls")
    told = {row["name"]: str(row["about"]) for row in rows}
    assert (
        code == 0 and "numeric" in told and told["bad"].startswith("cannot be used: reward bad: the plugin")
    )


def test_an_objective_of_ones_own_reads_its_own_settings(tmp_path: Path) -> None:
    """`beta` is dpo's too: it was asked first, and 2.0 was dropped without a word."""
    (tmp_path / "mine.py").write_text(
        "from typing import Annotated\n"
        "from msgspec import Meta, Struct\n"
        "from selfrefine.objectives.base import Loss, ObjectiveKind\n"
        "class Own(Struct, frozen=True, forbid_unknown_fields=True):\n"
        "    beta: Annotated[float, Meta(description='How much.')] = 0.5\n"
        "mine = ObjectiveKind(name='x', about='y', rows='answers', loss=lambda l, b: Loss(0.0, {}),\n"
        "    settings=Own, learning_rate=0.1)\n"
    )
    name = f"{tmp_path}/mine.py:mine"
    for origin in ("file", "flag"):
        config = layers.resolve([(origin, {"objective": {"name": name, "beta": 2.0}})]).config
        assert config.objective.settings == {name: {"beta": 2.0}}
    # A finished run of it can be read when the file is gone.
    (tmp_path / "mine.py").unlink()
    table = {"objective": {"name": name, "settings": {name: {"beta": 2.0}}}, "evaluate": {"measure": ["gym"]}}
    assert layers.stored(table).evaluate.measure == ("gym",)


def test_a_key_that_is_given_twice_is_refused() -> None:
    twice = {"reward.use": ["gym"], "reward": {"use": ["numeric"]}}
    with pytest.raises(ConfigError, match=r"reward\.use is given twice"):
        layers.resolve([("file", twice)])
