"""Bad settings, models and names: refused at once, and before anything is written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tiny
from harness import answer, jsonl, refused, selfrefine, task, tree

ROWS = jsonl(answer("a.r0.s0"), answer("a.r0.s1", "4"))
TASKS = jsonl(task("a"), task("b", "What is 2 + 2?", "4"))
SUMS = ["--tasks", "t.jsonl", "--run", "x"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "t.jsonl").write_bytes(
        jsonl(*(task(f"t{i}", f"What is {i} + 2?", str(i + 2)) for i in range(20)))
    )
    return tmp_path


CONFIG: dict[str, tuple[list[str], int, list[str]]] = {
    "an unknown key": (
        ["--set", "generate.temprature=1"],
        3,
        ["unknown key generate.temprature", "did you mean generate.temperature?"],
    ),
    "an unknown table": (["--set", "trian.lr=1"], 3, ["trian.lr", "did you mean train.lr?"]),
    "no value": (["--set", "generate.n"], 3, ["write KEY=VALUE"]),
    "another type": (["--set", "generate.n=many"], 3, ["generate.n must be a whole number, not text"]),
    "out of range": (["-n", "0"], 3, ["generate.n must be 1 or more"]),
    "a negative temperature": (["--temperature", "-1"], 3, ["generate.temperature must be 0 or more"]),
    # An empty stop string ends every answer before its first character.
    "nested 5,000 deep": (["--set", "generate.n=" + "[" * 5000], 3, ["generate.n", "nested too deeply"]),
    # An argument that is not UTF-8 arrives with half surrogate pairs in it, which no row can hold.
    "bytes that are no text": (["--system", "caf\udce9"], 3, ["generate.system", "not UTF-8"]),
    "a packed name that is not written": (["-o", "out.parquet"], 2, ["-o out.parquet", ".jsonl.gz"]),
    "an empty stop string": (["--stop", ""], 3, ["generate.stop", "must not be empty"]),
    "a missing folder for the output": (["-o", "no/out"], 5, ["cannot write no/out"]),
    "a folder as output": (["-o", "."], 5, ["cannot write .", "directory"]),
    "a model that is nowhere": (["--model", "nowhere"], 6, ["--model nowhere", "smollm2"]),
    "a script that is none": (["--model", "scripted:t.jsonl"], 3, ["t.jsonl:1", "not a valid script rule"]),
    "an adapter for a script": (["--adapter", "ad"], 3, ["--adapter ad", "scripted"]),
}


@pytest.mark.parametrize("what", CONFIG)
def test_a_bad_setting_is_named_and_nothing_is_written(what: str, folder: Path) -> None:
    words, code, said = CONFIG[what]
    out = [] if "-o" in words else ["-o", "out"]
    model = [] if "--model" in words else ["--model", "scripted"]
    refused(selfrefine("generate", *words, *out, *model, stdin=TASKS, cwd=folder), code, *said)
    assert tree(folder) == ["t.jsonl"]


BEFORE_ROWS: dict[str, tuple[int, list[str]]] = {
    "reward -r exakt": (3, ["no reward 'exakt'", "did you mean 'exact'?"]),
    "reward": (3, ["no reward", "-r NAME"]),
    "reward -r exact --gate-on chrf": (3, ["--gate-on chrf", "known: exact"]),
    "critique -r exakt": (3, ["'exakt'"]),
    "critique --set critique.critic_model=nowhere": (6, ["critique.critic_model nowhere: no model there"]),
    "critique --set critique.critic_model=scripted:no.jsonl": (3, ["no.jsonl", "No such file"]),
    "critique --set critique.critique_prompt=nope": (3, ["nope"]),
    "evaluate -m exakt": (3, ["'exakt'"]),
    "evaluate -m critic": (3, ["not criticised"]),
    "evaluate": (2, ["no measure", "-m numeric"]),
    "generate --model ./nowhere": (6, ["--model ./nowhere", "config.json"]),
    "generate --adapter nowhere": (3, ["--adapter nowhere", "adapter_config.json"]),
    "generate -o no/out": (5, ["cannot write no/out"]),
    "generate -o .": (5, ["cannot write .", "directory"]),
    "generate --summary-json no/out": (5, ["cannot write no/out"]),
    "select --select best_of_n": (3, ["did you mean 'best-of-n'?", "known: all, best-of-n, groups"]),
    "select --select pairs --learn critiques": (3, ["select.learn critiques", "pairs"]),
    "finetune --select pairs --learn critiques": (3, ["select.learn critiques", "pairs"]),
    "finetune --objective sfft": (3, ["'sfft'", "did you mean 'sft'?"]),
    "finetune --start adapter": (2, ["--start adapter", "--adapter"]),
    "cycle --tasks t.jsonl -r exakt": (3, ["'exakt'"]),
    "cycle --tasks gim:chain_sum -r exact": (3, ["did you mean gym:chain_sum?"]),
    "cycle --tasks t.jsonl -r exact --gate loose": (3, ["gate.mode", "known: off, significant, strict"]),
    "cycle --tasks t.jsonl -r exact --set objective.name=dpo": (3, ["dpo learns from pairs"]),
    "cycle --tasks t.jsonl -r exact --model ./nowhere": (6, ["--model ./nowhere"]),
    "cycle --tasks t.jsonl -r exact --dry-run --model ./nowhere": (6, ["--model ./nowhere"]),
    "cycle --tasks t.jsonl -r exact --summary-json no/out": (5, ["cannot write no/out"]),
    "cycle --config demo --recipe strr": (3, ["did you mean 'star'?"]),
}


@pytest.mark.parametrize("words", BEFORE_ROWS)
def test_arguments_are_checked_before_a_row_is_read_and_a_model_is_loaded(
    words: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trap: row 1 is complained about, it is mended, and only then the name of the reward is."""
    monkeypatch.setattr("selfrefine.engines.load.load_engine", lambda *_, **__: pytest.fail("loads a model"))
    code, said = BEFORE_ROWS[words]
    refused(selfrefine(*words.split(), stdin=b"no row\n", cwd=folder), code, *said)
    assert tree(folder) == ["t.jsonl"]


TOML: dict[str, tuple[str, list[str]]] = {
    "an unknown key": ("[train]\nlora_r = 8\n", ["unknown key train.lora_r", "train.lora.r"]),
    "broken TOML": ("[train\n", ["c.toml", "line 1"]),
    "another type": ("[generate]\nn = 'eight'\n", ["generate.n must be a whole number"]),
    "a rate of zero": ("[train]\nlr = 0.0\n", ["train.lr must be more than 0"]),
    "rewards of another type under a recipe": ('recipe = "placebo"\n[reward]\nuse = 5\n', ["reward.use"]),
    "not UTF-8": ("# caf\udce9\n", ["c.toml"]),
    "nested 5,000 deep": ("a = " + "[" * 5000, ["c.toml", "nested too deeply"]),
}


@pytest.mark.parametrize("what", TOML)
def test_a_bad_file_of_settings_leaves_no_run(what: str, folder: Path) -> None:
    text, said = TOML[what]
    (folder / "c.toml").write_bytes(text.encode(errors="surrogateescape"))
    refused(selfrefine("cycle", "--config", "c.toml", *SUMS, cwd=folder), 3, *said)
    assert tree(folder) == ["c.toml", "t.jsonl"]


def test_a_configuration_that_does_not_exist_names_the_shipped_ones(folder: Path) -> None:
    refused(selfrefine("cycle", "--config", "dmo", cwd=folder), 3, "--config dmo", "demo, demo-text")


CYCLES: dict[str, tuple[list[str], int, list[str]]] = {
    "no reward": ([], 3, ["no reward", "-r NAME"]),
    "no tasks": (["-r", "numeric", "--tasks", ""], 3, ["no tasks", "--tasks"]),
    "a misspelt source": (["-r", "numeric", "--tasks", "gim:chain_sum"], 3, ["did you mean gym:chain_sum?"]),
    "a misspelt reward": (["-r", "numerc"], 3, ["'numerc'", "did you mean 'numeric'?"]),
    "a gate that was not chosen": (
        ["-r", "numeric", "--set", "reward.gate_on=exact"],
        3,
        ["--gate-on exact", "known: numeric"],
    ),
    "the critic as the measure": (["-r", "critic"], 3, ["held-out answers are not criticised", "--measure"]),
    "a template's unknown variable": (
        ["-r", "numeric", "--critique", "1", "--set", "critique.critique_prompt=t.md"],
        3,
        ["t.md", "'nope'"],
    ),
    "a critic that is nowhere": (
        ["-r", "numeric", "--critique", "1", "--set", "critique.critic_model=nowhere"],
        6,
        ["critique.critic_model nowhere"],
    ),
    "a path upwards as the name": (["-r", "numeric", "--run", "../x"], 5, ["'../x'", "'..'"]),
    "a bad name": (["-r", "numeric", "--run", ".x"], 5, ["'.x' is not a valid run name"]),
    "a name with a space": (["-r", "numeric", "--run", "a b"], 5, ["'a b' is not a valid run name"]),
    "a folder that is no run": (["-r", "numeric", "--run", "./taken"], 5, ["taken", "manifest.json"]),
    "too few tasks": (["-r", "numeric", "--set", "tasks.train=50"], 4, ["20", "50"]),
}


@pytest.mark.parametrize("what", CYCLES)
def test_a_cycle_that_cannot_work_makes_no_run_folder(what: str, folder: Path, tiny_model_dir: Path) -> None:
    """The trap: a run folder stood there, and the corrected command was refused as drift from it."""
    words, code, said = CYCLES[what]
    (folder / "t.md").write_text("{{ answer }} {{ nope }}")
    (folder / "taken").mkdir()
    before = tree(folder)
    refused(selfrefine("cycle", *SUMS, "--model", tiny_model_dir, *words, cwd=folder), code, *said)
    assert tree(folder) == before
    assert not (folder.parent / "x").exists()


def test_a_model_that_cannot_be_trained_is_refused_before_the_first_sample(folder: Path) -> None:
    done = selfrefine("cycle", *SUMS, "-r", "numeric", "--model", "scripted", cwd=folder)
    refused(done, 6, "cannot be trained")
    assert tree(folder) == ["t.jsonl"]


@pytest.mark.parametrize("verb", ["generate", "critique", "reward", "select", "finetune", "evaluate", "gate"])
def test_a_verb_in_a_folder_that_is_no_run(verb: str, folder: Path) -> None:
    (folder / "taken").mkdir()
    refused(selfrefine(verb, "--run", "./taken", cwd=folder), 5, "taken", "not a run folder", "manifest.json")
    refused(selfrefine(verb, "--run", "nowhere", cwd=folder), 5, "nowhere", "runs ls")
    assert tree(folder) == ["t.jsonl", "taken"]


@pytest.mark.parametrize("name", ["../x", "..", "a/../../x", ".hidden", "-x", "a" * 101, "a\nb", ""])
def test_no_run_is_made_under_a_name_that_could_lead_elsewhere(name: str, folder: Path) -> None:
    inner = folder / "inner"
    inner.mkdir()
    words = ["--model", "scripted", "--set", "tasks.source=../t.jsonl", "--set", "reward.use=['numeric']"]
    refused(selfrefine("runs", "new", *words, "--", name, cwd=inner), 5)
    assert tree(folder) == ["inner", "t.jsonl"]


@pytest.mark.parametrize("name", ["../x", "..", "../../etc", "nowhere"])
@pytest.mark.parametrize("command", ["show", "verify"])
def test_reading_a_run_that_is_not_there(command: str, name: str, folder: Path) -> None:
    refused(selfrefine("runs", command, name, cwd=folder), 5)


BAD_REWARDS: dict[str, tuple[str, list[str]]] = {
    "numerc": ("", ["'numerc'", "did you mean 'numeric'?"]),
    "numeric:heavy": ("", ["'heavy' is not a number"]),
    "numeric:-1": ("", ["above 0"]),
    "mine.py:f": ("import surely_not_installed\n", ["does not import", "surely_not_installed"]),
    "mine.py:g": ("raise SystemExit(3)\n", ["does not import", "SystemExit"]),
    "mine.py:h": ("def f(sample):\n    return 1\n", ["has no h", "it has: f"]),
    "mine.py:i": ("def i(:\n", ["does not import", "SyntaxError"]),
    "nowhere.py:f": ("", ["cannot read nowhere.py"]),
}


@pytest.mark.parametrize("spec", BAD_REWARDS)
def test_a_reward_that_cannot_be_made(spec: str, tmp_path: Path) -> None:
    code, said = BAD_REWARDS[spec]
    (tmp_path / "mine.py").write_text(code)
    refused(selfrefine("reward", "-r", spec, "-o", "out", stdin=ROWS, cwd=tmp_path), 3, *said)
    assert not (tmp_path / "out").exists()


def test_rewards_that_contradict_each_other(tmp_path: Path) -> None:
    for words, said in {
        ("-r", "numeric", "--gate-on", "exact"): "--gate-on exact: not among the rewards",
        ("-r", "numeric", "-r", "numeric:2"): "given twice",
        (): "no reward given: use -r NAME",
    }.items():
        refused(selfrefine("reward", *words, "-o", "out", stdin=ROWS, cwd=tmp_path), 3, said)
    refused(selfrefine("evaluate", "--model", "scripted", stdin=TASKS, cwd=tmp_path), 2, "-m")
    refused(
        selfrefine("evaluate", "--model", "scripted", "-m", "critic", stdin=TASKS, cwd=tmp_path),
        3,
        "held-out answers are not criticised",
    )
    assert tree(tmp_path) == []


@pytest.mark.parametrize("flag", ["--critique-prompt", "--revise-prompt"])
def test_a_template_fails_when_it_is_loaded_not_at_row_900(flag: str, tmp_path: Path) -> None:
    (tmp_path / "t.md").write_text("{{ answer }} {{ nope }}")
    words = ["critique", "--model", "scripted", flag, "t.md", "-o", "out"]
    refused(selfrefine(*words, stdin=ROWS, cwd=tmp_path), 3, "t.md", "unknown variable 'nope'")
    assert tree(tmp_path) == ["t.md"]


# --- models and adapters -----------------------------------------------------------------------------


def test_pickled_weights_are_not_loaded(tiny_model_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model_dir, tmp_path / "m")
    for weights in (tmp_path / "m").glob("*.safetensors"):
        weights.rename(weights.with_name("pytorch_model.bin"))
    done = selfrefine("generate", "--model", "m", "-o", "out", stdin=TASKS, cwd=tmp_path)
    refused(done, 6, "no model.safetensors", "pickled weights are not loaded")
    assert not (tmp_path / "out").exists()


def test_a_hub_id_without_a_network_names_the_embedded_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # read once, at import
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    done = selfrefine("generate", "--model", "org/name", "-o", "out", stdin=TASKS, cwd=tmp_path)
    refused(done, 6, "--model org/name", "--model smollm2")
    assert not (tmp_path / "out").exists()


def test_a_model_without_a_chat_template_is_used_plainly_and_that_is_said_once(tmp_path: Path) -> None:
    tiny.save(tmp_path / "plain", template=None)
    words = ["--model", "plain", "-n", "1", "--max-new-tokens", "3"]
    done = selfrefine("generate", *words, stdin=TASKS, cwd=tmp_path)
    assert done.code == 0 and done.err.count("no chat template") == 1
    prompt = done.rows[0]["prompt_token_ids"]
    assert prompt == tiny.tokenizer()("What is 1 + 2?", add_special_tokens=False)["input_ids"]


def test_a_model_with_a_template_says_nothing_of_it(tiny_model_dir: Path, tmp_path: Path) -> None:
    words = ["--model", tiny_model_dir, "-n", "1", "--max-new-tokens", "3"]
    assert "template" not in selfrefine("generate", *words, stdin=TASKS, cwd=tmp_path).err


@pytest.fixture(scope="module")
def trained(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an adapter `ad` of the tiny model."""
    folder = tmp_path_factory.mktemp("trained")
    words = ["finetune", "--model", tiny_model_dir, "--select", "all", "-o", "ad", "--set", "train.lora.r=2"]
    rows = jsonl(answer("a.r0.s0", reward=1), answer("a.r0.s1", "4", reward=0))
    assert selfrefine(*words, stdin=rows, cwd=folder).code == 0
    return folder


def test_an_adapter_of_another_base_model_is_refused(trained: Path, tmp_path: Path) -> None:
    """peft would load it onto any model of the same shapes, and sample nonsense without a word."""
    tiny.save(tmp_path / "other", seed=1)
    for verb, stdin in (("generate", TASKS), ("evaluate", TASKS)):
        measure = ["-m", "numeric"] if verb == "evaluate" else []
        words = [verb, "--model", "other", "--adapter", trained / "ad", *measure]
        refused(selfrefine(*words, stdin=stdin, cwd=tmp_path), 3, "was trained on", "not on the model given")
    words = ["adapter", "merge", trained / "ad", "--model", "other", "-o", "merged"]
    refused(selfrefine(*words, cwd=tmp_path), 3, "was trained on")
    assert not (tmp_path / "merged").exists()


def test_no_adapter_is_written_over(trained: Path, tiny_model_dir: Path) -> None:
    words = ["finetune", "--model", tiny_model_dir, "-o", "ad"]
    refused(selfrefine(*words, stdin=ROWS, cwd=trained), 5, "ad already exists")


def test_continuing_an_adapter_needs_one(tmp_path: Path) -> None:
    done = selfrefine("finetune", "--start", "adapter", stdin=ROWS, cwd=tmp_path)
    refused(done, 2, "--start adapter", "--adapter")


def test_a_loss_that_is_not_finite_names_its_rows_and_keeps_the_last_good_adapter(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    rows = jsonl(*(answer(f"a.r0.s{i}", str(i), reward=1, index=i) for i in range(4)))
    words = ["finetune", "--model", tiny_model_dir, "--select", "all", "--lr", "1e30", "--batch-size", "2"]
    done = selfrefine(*words, "-o", "ad", stdin=rows, cwd=tmp_path)
    assert done.code == 7 and done.out == b""
    error = done.err.splitlines()[-1]
    named = {f"a.r0.s{i}" for i in range(4) if f"a.r0.s{i}" in error}
    assert "step 2" in error and len(named) == 2 and "train.lr" in error
    assert "ad.last-good" in done.err
    assert not (tmp_path / "ad").exists()
    kept = selfrefine(
        "generate",
        "--model",
        tiny_model_dir,
        "--adapter",
        "ad.last-good",
        "-n",
        "1",
        stdin=TASKS,
        cwd=tmp_path,
    )
    assert kept.code == 0, kept.err  # the weights of the step whose loss was a number, not those it led to
