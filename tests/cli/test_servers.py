"""`--model openai:NAME`: from the command line to a server and back. tests/engines/test_openai.py has the
faults one by one."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from harness import environment, jsonl, refused, selfrefine, task

sys.path.insert(0, str(Path(__file__).parents[1] / "engines"))
from faulty import Do, Faulty, faulty, last

QUICK = ("--set", "engine.backoff_s=0", "--set", "engine.retries=2")
TASKS = jsonl(*(task(f"t{i}", f"What is {i} + {i}?", str(2 * i)) for i in range(6)))
KEY = "sk-very-secret-1234567890"


def doubled(payload: dict[str, Any]) -> str:
    """Right, but for 3 + 3."""
    found = re.search(r"What is (\d+)", last(payload))
    assert found
    return str(2 * int(found[1]) + (found[1] == "3"))


def asks(*servers: Faulty, name: str = "m") -> tuple[str, ...]:
    return ("--model", f"openai:{name}", "--base-url", ",".join(one.url for one in servers), *QUICK)


def test_tasks_are_answered_and_measured_through_a_server(tmp_path: Path) -> None:
    with faulty(answer=doubled) as server:
        made = selfrefine("generate", *asks(server), "-n", "2", stdin=TASKS, cwd=tmp_path)
        measured = selfrefine("evaluate", *asks(server), "-m", "numeric", stdin=TASKS, cwd=tmp_path)
    assert made.code == measured.code == 0, made.err + measured.err
    assert [row["id"] for row in made.rows] == [f"t{i}.r0.s{k}" for i in range(6) for k in range(2)]
    row = made.rows[2]
    assert (row["text"], row["finish_reason"], row["error"]) == ("2", "stop", None)
    # The server's tokenizer is not here: no ids, no logprobs, and its own count of what it sampled.
    assert (row["token_ids"], row["logprobs"], row["counted_tokens"]) == ([], None, 2)
    assert json.loads(measured.out)["mean"] == pytest.approx(5 / 6)
    assert "tokens" in made.err


def test_a_prompt_that_is_too_long_costs_its_rows_only(tmp_path: Path) -> None:
    def long(number: int, payload: dict[str, Any]) -> Do | None:
        return Do(400, '{"error": {"message": "too long"}}') if "2 + 2" in last(payload) else None

    with faulty(long, doubled) as server:
        done = selfrefine("generate", *asks(server), "-n", "1", stdin=TASKS, cwd=tmp_path)
    assert done.code == 0
    assert [row["error"] for row in done.rows] == [None, None, "HTTP 400: too long", None, None, None]


def test_when_nothing_is_answered_the_exit_code_is_6_and_no_row_is_written(tmp_path: Path) -> None:
    with faulty(lambda number, payload: Do(400, '{"error": {"message": "no such model"}}')) as server:
        done = selfrefine("generate", *asks(server), stdin=TASKS, cwd=tmp_path)
    assert done.code == 6 and done.out == b""
    assert "no answer to any of 48 requests: HTTP 400: no such model" in done.err
    with faulty() as server:
        server.kill()
        refusal = selfrefine("generate", *asks(server), stdin=TASKS, cwd=tmp_path)
    assert refusal.code == 6 and "no server answers" in refusal.err and refusal.out == b""


def test_the_key_goes_to_the_server_and_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the variable, from a file, and in what a server says that repeats it."""
    (tmp_path / "tasks.jsonl").write_bytes(TASKS)
    monkeypatch.setenv("SELFREFINE_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")

    def denies(number: int, payload: dict[str, Any]) -> Do | None:
        return Do(400, json.dumps({"error": f"bad key {KEY}"})) if number == 3 else None

    with faulty(denies, doubled) as server:
        words = (
            "--set",
            "guards.probe=false",
            "--set",
            "cycle.rounds=0",
            "--set",
            "tasks.gate=2",
            "--set",
            "tasks.test=2",
        )
        begin = ("--tasks", "tasks.jsonl", "-r", "numeric", "--run", "r", "--gate", "off")
        ran = selfrefine("cycle", *begin, *words, *asks(server), cwd=tmp_path)
        rows = selfrefine("generate", *asks(server), "-n", "1", stdin=TASKS, cwd=tmp_path)
        assert {head["Authorization"] for head in server.heads} == {f"Bearer {KEY}"}
    assert ran.code == 0, ran.err
    files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert {"manifest.json", "events.jsonl"} <= {path.name for path in files}
    for said in (ran.out, ran.err.encode(), rows.out, rows.err.encode(), *(f.read_bytes() for f in files)):
        assert KEY.encode() not in said
    kept = tmp_path / "key"
    kept.write_text(f"{KEY}\n")
    kept.chmod(0o600)
    with faulty() as server:
        by_file = ("--set", f"engine.key_file={kept}")
        assert selfrefine("generate", *asks(server), *by_file, stdin=TASKS, cwd=tmp_path).code == 0
        assert server.heads[0]["Authorization"] == f"Bearer {KEY}"
        kept.chmod(0o640)
        done = selfrefine("generate", *asks(server), *by_file, stdin=TASKS, cwd=tmp_path)
    refused(done, 3, "others can read it (mode 0640)", "chmod 600")


def test_what_cannot_be_used_is_refused_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusal(*words: str) -> Any:
        return selfrefine("generate", *words, stdin=TASKS, cwd=tmp_path)

    refused(refusal("--model", "openai:m"), 3, "--base-url")
    refused(refusal("--base-url", "http://127.0.0.1:1/v1"), 3, "engine.base_url is not used without")
    at = ("--base-url", "http://127.0.0.1:1/v1")
    refused(refusal("--model", "openai:", *at), 3, "names no model")
    refused(refusal("--model", "openai:m", "--adapter", "x", *at), 3, "a server loads its adapters itself")
    refused(refusal("--model", "openai:m", *at, "--set", f"engine.key_env={KEY}"), 3, "engine.key_env")
    assert KEY not in refusal("--model", "openai:m", *at, "--set", f"engine.key_env={KEY}").err
    # Some keys could be names of variables: requests without a key, and the key in the manifest.
    alike = refusal("--model", "openai:m", *at, "--set", "engine.key_env=hf_AbCdEf0123456789")
    refused(alike, 3, "key_env names an environment variable that is not set")
    assert "hf_" not in alike.err
    # A key or an address that nobody is asked with or at: said, not passed over.
    refused(refusal("--set", "engine.key_file=k"), 3, "engine.key_file is not used without")
    critic = ("--set", "critique.critic_model=openai:c")
    apart = (*critic, "--set", "critique.base_url=http://127.0.0.1:2/v1")
    refused(refusal("--model", "scripted", *at, *apart), 3, "engine.base_url is not used without")
    for own in ("critique.key_file=k", "critique.key_env=MINE"):
        done = refusal("--model", "openai:m", *at, *critic, "--set", own)
        refused(done, 3, f"{own.partition('=')[0]} is not used without critique.base_url")
        refused(refusal("--set", own), 3, "is not used without a critique.critic_model")
    monkeypatch.setenv("SELFREFINE_API_KEY", "two words")
    done = refusal("--model", "openai:m", *at)
    refused(done, 3, "$SELFREFINE_API_KEY: holds no key")
    assert "two words" not in done.err


def test_what_needs_a_model_here_is_refused_in_a_sentence(tmp_path: Path, tiny_model_dir: Path) -> None:
    with faulty(answer=doubled) as server:
        done = selfrefine("evaluate", *asks(server), "-m", "p-true", stdin=TASKS, cwd=tmp_path)
        refused(done, 6, "reward p-true needs logprobs", "openai:m cannot score")
        rows = selfrefine("generate", *asks(server), "-n", "2", stdin=TASKS, cwd=tmp_path)
    scored = selfrefine("reward", "-r", "random", stdin=rows.out, cwd=tmp_path)
    assert scored.code == 0, scored.err
    model = ("--model", str(tiny_model_dir), "--set", "train.lora.r=2")
    grpo = selfrefine(
        "finetune", *model, "--select", "groups", "--objective", "grpo", stdin=scored.out, cwd=tmp_path
    )
    assert grpo.code == 4 and "grpo needs logprobs of the policy that sampled" in grpo.err
    sft = selfrefine(
        "finetune", *model, "--select", "all", "--summary-json", "s.json", stdin=scored.out, cwd=tmp_path
    )
    assert sft.code == 0, sft.err
    told = json.loads((tmp_path / "s.json").read_text())
    # Two equal answers to each task count once. Texts are encoded here: they are neither edited nor another
    # tokenizer's, as far as is known.
    assert (told["rows"], told["edited"], told["retokenised"]) == (6, 0, 0)


def test_ids_of_a_server_with_another_tokenizer_are_not_trained_on(
    tmp_path: Path, tiny_model_dir: Path
) -> None:
    """faulty.py's ids are code points, which here would be other tokens: the texts are encoded again."""
    with faulty(answer=doubled, can=("seed", "logprobs", "token_ids")) as server:
        rows = selfrefine("generate", *asks(server), "-n", "1", stdin=TASKS, cwd=tmp_path)
    assert rows.rows[4]["token_ids"] == [ord("8"), 0]
    model = ("--model", tiny_model_dir, "--set", "train.lora.r=2", "--summary-json", "s.json")
    scored = selfrefine("reward", "-r", "random", stdin=rows.out, cwd=tmp_path)
    done = selfrefine("finetune", *model, "--select", "all", stdin=scored.out, cwd=tmp_path)
    assert done.code == 0, done.err
    told = json.loads((tmp_path / "s.json").read_text())
    assert (told["rows"], told["edited"], told["retokenised"]) == (6, 0, 6)


def test_a_loop_on_a_server_is_planned_and_refused_before_it_begins(tmp_path: Path) -> None:
    words = ("cycle", "--tasks", "gym:chain_sum", "-r", "gym", "--run", "r")
    with faulty() as server:
        plan = selfrefine(*words, *asks(server), "--dry-run", cwd=tmp_path)
        refused(selfrefine(*words, *asks(server), cwd=tmp_path), 6, "cannot be trained")
    assert b"none here: the model is on a server" in plan.out
    assert not (tmp_path / "runs" / "r").exists()


def test_a_server_criticises_what_a_model_here_wrote(tmp_path: Path) -> None:
    """And with a scored verdict, which it cannot give, its text is read, and that is said."""

    def judges(payload: dict[str, Any]) -> str:
        return "All right.\nScore: 5\nVerdict: ok"

    rows = selfrefine("generate", "--model", "scripted", "-n", "1", stdin=TASKS, cwd=tmp_path).out
    with faulty(answer=judges) as server:
        critic = ("--set", "critique.critic_model=openai:m", "--set", f"critique.base_url={server.url}")
        scored = ("--set", "critique.verdict=scored")
        by = ("critique", "--model", "scripted", *critic, *QUICK)
        plain = selfrefine(*by, stdin=rows, cwd=tmp_path)
        other = selfrefine(*by, *scored, stdin=rows, cwd=tmp_path)
    assert plain.code == other.code == 0, plain.err + other.err
    for row in (*plain.rows, *other.rows):
        [told] = row["critiques"]
        assert (told["verdict"], told["score"], told["counted_tokens"]) == ("ok", 1.0, 32)
        assert told["critic"].startswith("openai|server|none|")
    # Its judgement is a reward, as any critic's.
    judged = selfrefine("reward", "-r", "critic", stdin=plain.out, cwd=tmp_path)
    assert [row["reward"] for row in judged.rows] == [1.0] * 6
    assert "verdicts are parsed from what it writes" in other.err
    assert "are parsed" not in plain.err


def test_what_a_server_does_not_count_is_not_compared_as_nothing(tmp_path: Path) -> None:
    """Trap: critiques that cost 0 tokens buy one fresh sample, and revisions win against it."""
    body = {"finish_reason": "stop", "message": {"content": "Wrong.\nScore: 1\nVerdict: revise"}}
    uncounted = Do(200, json.dumps({"choices": [body]}))
    rows = selfrefine("generate", "--model", "scripted", "-n", "1", stdin=TASKS, cwd=tmp_path).out
    with faulty(lambda number, payload: uncounted, can=("seed", "stop")) as server:
        critic = ("--set", "critique.critic_model=openai:m", "--set", f"critique.base_url={server.url}")
        by = ("critique", "--model", "scripted", *critic, *QUICK)
        compared = selfrefine(*by, "--set", "critique.control=true", stdin=rows, cwd=tmp_path)
        alone = selfrefine(*by, "--set", "critique.control=false", stdin=rows, cwd=tmp_path)
    assert compared.code == 6 and compared.out == b""
    assert "cannot be compared; set critique.control = false" in compared.err
    assert alone.code == 0, alone.err
    assert "counted_tokens" not in alone.rows[0]["critiques"][0]


def test_a_run_goes_on_with_another_address_but_not_with_another_model(tmp_path: Path) -> None:
    """Each task is answered once: what the first command committed is not asked for again."""
    (tmp_path / "tasks.jsonl").write_bytes(TASKS)
    begin = ("--tasks", "tasks.jsonl", "-r", "numeric", "--gate", "off", "--set", "tasks.gate=2")
    more = ("--set", "guards.probe=false", "--set", "tasks.test=2", "--set", "cycle.rounds=0", "--run", "r")
    with faulty(answer=doubled) as first:
        assert selfrefine("cycle", *begin, *more, *asks(first), cwd=tmp_path).code == 0
        asked = len(first.asked)
    with faulty(answer=doubled, can=("stop",)) as second:
        again = selfrefine("cycle", "--run", "r", "--base-url", second.url, cwd=tmp_path)
        other = selfrefine(
            "cycle", "--run", "r", "--base-url", second.url, "--model", "openai:x", cwd=tmp_path
        )
    assert again.code == 0, again.err
    assert asked > 0 and second.asked == []
    assert other.code == 5 and 'model: "openai:m" in the run, "openai:x" now' in other.err


def test_a_server_that_dies_in_the_middle_of_a_run_loses_nothing_and_nothing_is_asked_twice(
    tmp_path: Path,
) -> None:
    """A unit is 32,768 new tokens: here 4 tasks of 8 times 1,024. The server dies in the second unit."""
    (tmp_path / "tasks.jsonl").write_bytes(TASKS)
    (tmp_path / "c.toml").write_text(
        '[tasks]\nsource = "tasks.jsonl"\ngate_file = "g.jsonl"\ntest = 0\n'
        "[generate]\nn = 8\nmax_new_tokens = 1024\n[guards]\nprobe = false\n"
        '[evaluate]\nmeasure = ["numeric"]\n'
    )
    (tmp_path / "g.jsonl").write_bytes(jsonl(task("g", "What is 9 + 9?", "18")))

    def dies(number: int, payload: dict[str, Any]) -> Do | None:
        first.broken = 500 if number >= 1 + 32 + 5 else first.broken
        return Do(500, "out of memory") if first.broken else None

    with faulty(dies, doubled) as first:
        made = selfrefine("runs", "new", "r", "--config", "c.toml", *asks(first), cwd=tmp_path)
        assert made.code == 0, made.err
        died = selfrefine("generate", "--run", "r", cwd=tmp_path)
    assert died.code == 6 and "out of memory" in died.err
    assert "give the same command again" in died.err
    part = tmp_path / "runs" / "r" / "round-001" / "generate.jsonl.part"
    kept = part.read_bytes()
    assert kept.count(b"\n") == 32
    with faulty(answer=doubled) as second:
        done = selfrefine("generate", "--run", "r", "--base-url", second.url, cwd=tmp_path)
    assert done.code == 0, done.err
    rows = part.with_suffix("").read_bytes()
    assert rows.startswith(kept) and rows.count(b"\n") == 48
    ids = [json.loads(line)["id"] for line in rows.splitlines()]
    assert len(set(ids)) == 48 and len(second.asked) == 16


def test_a_loop_whose_critic_is_a_server(tmp_path: Path, tiny_model_dir: Path) -> None:
    """The policy is a model here; the manifest says who criticised it."""
    (tmp_path / "tasks.jsonl").write_bytes(TASKS)
    begin = ("--tasks", "tasks.jsonl", "-r", "random", "--measure", "numeric", "--gate", "off", "-n", "2")
    sizes = ("--set", "tasks.gate=2", "--set", "tasks.test=1", "--set", "generate.max_new_tokens=4")
    few = ("--set", "guards.probe=false", "--set", "train.lora.r=2", "--set", "select.strategy=all")
    judged = {"answer": lambda payload: "Wrong.\nScore: 1\nVerdict: revise"}
    with faulty(**judged) as server:
        critic = ("--rounds", "1", "--critique", "1", "--set", "critique.critic_model=openai:m")
        where = ("--set", f"critique.base_url={server.url}", "--run", "r")
        done = selfrefine(
            "cycle", *begin, *sizes, *few, *critic, *where, "--model", tiny_model_dir, *QUICK, cwd=tmp_path
        )
        # A random model ends no answer, so there is nothing to learn; it is criticised all the same.
        assert done.code == 8 and "nothing to learn" in done.err, done.err
        asked = len(server.asked)
    run = tmp_path / "runs" / "r"
    rows = [json.loads(line) for line in (run / "round-001" / "critique.jsonl").read_bytes().splitlines()]
    verdicts = [told["verdict"] for row in rows for told in row["critiques"]]
    assert verdicts == ["revise"] * asked and asked == 6  # three training tasks, two drafts each
    assert json.loads((run / "manifest.json").read_bytes())["critic"]["id"] == "openai:m"


def test_ctrl_c_does_not_wait_for_a_server(tmp_path: Path) -> None:
    """It answers in ten minutes; a thread that waits for it must not keep the process."""
    (tmp_path / "tasks.jsonl").write_bytes(TASKS)
    with faulty(lambda number, payload: Do(slow_s=600.0)) as server:
        words = [
            sys.executable,
            "-m",
            "selfrefine",
            "generate",
            "tasks.jsonl",
            "-o",
            "rows.jsonl",
            *asks(server),
        ]
        running = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, env=environment())
        while not server.asked:
            assert running.poll() is None
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        assert running.wait(120) == 130
        assert running.stderr is not None
        assert b"stopped by SIGINT" in running.stderr.read()
    assert not (tmp_path / "rows.jsonl").exists()
