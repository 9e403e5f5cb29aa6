"""`runs rows` and `runs sql`: which rows there are, unchanged; and a database that can only be read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from harness import environment, refused, selfrefine
from hostile import acting
from made import make

from selfrefine.query.rows import Seen


def rows(here: Path, *words: str) -> list[str]:
    found = selfrefine("runs", "rows", "r", *words, cwd=here)
    assert found.code == 0, found.err
    return [row["id"] for row in found.rows]


def test_every_answer_stands_there_once_with_its_scores(here: Path) -> None:
    """Trap: generate, reward and selected hold the same answers; a mean over all three counts them thrice.
    Of a stage in progress the half row at the end is not there yet."""
    learnt = ["a.r1.s0", "a.r1.s1", "b.r1.s0", "b.r1.s1", "c.r0.s0"]
    again = [name.replace("r1", "r2") for name in learnt]
    assert rows(here) == ["c.r0.s0", "d.r0.s0", *learnt, *again, "a.r3.s0", "d.r0.s0"]
    assert rows(here, "--round", "3") == ["a.r3.s0"] and rows(here, "--round", "final") == ["d.r0.s0"]
    assert rows(here, "--stage", "select") == ["a.r1.s0", "a.r2.s0"]


@pytest.mark.parametrize(("column", "tokens"), [("", 3), (',"kept_tokens":2', 1), (',"kept_tokens":"x"', 3)])
def test_tokens_that_a_revision_kept_were_not_sampled_for_it(column: str, tokens: int) -> None:
    """Somebody's own column of that name is no number of ours, and no error."""
    line = '{"id":"a.r0.s0.v1","task":{"id":"a"},"token_ids":[1,2,3]' + column + "}"
    assert msgspec.json.decode(line, type=Seen).tokens == tokens


def test_rows_are_the_bytes_of_the_file(here: Path) -> None:
    whole = (here / "runs/r/round-001/reward.jsonl").read_bytes()
    found = selfrefine("runs", "rows", "r", "--round", "1", "--stage", "reward", cwd=here)
    assert found.out == whole
    some = selfrefine(
        "runs", "rows", "r", "--where", 'reward < 0.2 and tag.op == "sub"', "--round", "1", cwd=here
    )
    assert some.out == b"".join(whole.splitlines(keepends=True)[2:])


def test_what_is_not_there_is_named_with_what_is(here: Path) -> None:
    refused(selfrefine("runs", "rows", "r", "--stage", "rewrad", cwd=here), 5, "did you mean reward?")
    refused(selfrefine("runs", "rows", "r", "--round", "7", cwd=here), 5, "no round-007", "round-003")
    refused(selfrefine("runs", "rows", "r", "--stage", "train", cwd=here), 5, "steps")
    refused(selfrefine("runs", "rows", "r", "--where", "x", cwd=here), 2, "--where")


def test_a_damaged_row_is_named(mine: Path) -> None:
    path = mine / "runs/r/round-001/reward.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"index":1', b'"index":"x"', 1))
    refused(
        selfrefine("runs", "sql", "r", "select avg(reward) from samples", cwd=mine),
        4,
        "round-001/reward.jsonl:2",
    )


MANY = "with recursive n(x) as (select 1 union all select x + 1 from n limit 50000) select x from n"


@pytest.mark.parametrize("command", ["rows r", f"sql r '{MANY}'"])
def test_a_reader_that_has_enough_ends_it_quietly(command: str, here: Path) -> None:
    """`runs rows | head -1`: no error, and the exit code of SIGPIPE, as of cat. Trap: the query's rows
    were left half read, and closing them after their database printed a traceback."""
    words = f"{sys.executable} -m selfrefine runs {command}; echo $? >&3"
    done = subprocess.run(
        ["bash", "-c", f"exec 3>code; ({words}) | true"],
        cwd=here,
        env=environment(),
        capture_output=True,
        check=True,
    )
    assert done.stderr == b"" and (here / "code").read_text().strip() in ("0", "141")


def test_a_person_reads_one_line_a_row_and_nothing_acts(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    shown = selfrefine("runs", "rows", "r", cwd=here, terminal=True).out.decode()
    assert len(shown.splitlines()) == 14 and acting(shown) == []
    assert "round-001/reward   –   truncated" in shown and "What is 1 + 2? → 3" in shown
    for words in (["rows", "r", "--json"], ["sql", "r", "select text from samples", "--csv"]):
        assert acting(selfrefine("runs", *words, cwd=here, terminal=True).out.decode()) == []
    table = selfrefine("runs", "sql", "r", "select text, reward from samples", cwd=here, terminal=True)
    assert acting(table.out.decode()) == [] and "␛[2J" in table.out.decode() and "–" in table.out.decode()


QUERIES = {
    "select count(*) from samples": [{"count(*)": 14}],
    "select count(*) n, sum(reward) total, count(reward) scored from samples "
    "where round = 1 and stage = 'reward'": [{"n": 4, "total": 1.1, "scored": 3}],
    "select tag_op, tags ->> 'digits' d, count(*) n from samples "
    "where place = 'round-001' group by 1 order by 1": [
        {"tag_op": "add", "d": "1", "n": 3},
        {"tag_op": "sub", "d": "1", "n": 2},
    ],
    "select id, selected from samples where selected": [
        {"id": "a.r1.s0", "selected": 1},
        {"id": "a.r2.s0", "selected": 1},
    ],
    "select value, error from rewards where id = 'a.r1.s1'": [{"value": None, "error": "no number"}],
    "select score, tokens, prompt_tokens from (select place, stage, id, score from critiques) "
    "join samples using (place, stage, id) where round = 1": [
        {"score": 0.25, "tokens": 2, "prompt_tokens": 3}
    ],
    # The columns that join are not among those that SQLite says it reads.
    "select count(*) n from critiques natural join (select place, stage, id from samples)": [{"n": 2}],
    "select count(*) n from samples natural join tasks": [{"n": 0}],
    "select count(*) n from samples s join samples t using (place, stage, id)": [{"n": 14}],
    "select score, verdict from critiques where round = 2": [{"score": 0.25, "verdict": "revise"}],
    "select verdict, tokens from votes where round = 2": [
        {"verdict": "ok", "tokens": 0},
        {"verdict": "revise", "tokens": 3},
    ],
    "select tokens from critiques where round = 2": [{"tokens": 3}],
    "select round, outcome, gate, tokens, seconds from rounds where outcome is not null": [
        {"round": 1, "outcome": "accept", "gate": 1.0, "tokens": 100, "seconds": 1.5},
        {"round": 2, "outcome": "reject", "gate": 0.0, "tokens": 200, "seconds": 1.5},
    ],
    "select place, test from rounds where test is not null": [
        {"place": "round-000", "test": 0.0},
        {"place": "final", "test": 1.0},
    ],
    "select loss, metrics ->> 'kl' kl from steps where round = 2": [{"loss": 0.5, "kl": 0.25}],
    "select kind, fields ->> 'continued' c from events limit 1": [{"kind": "cycle", "c": 0}],
    "select split, count(*) n from tasks group by 1 order by 1": [
        {"split": "gate", "n": 1},
        {"split": "test", "n": 1},
        {"split": "train", "n": 2},
    ],
    "select count(*) n from samples where text regexp '^sorry'": [{"n": 2}],
    "with s as (select * from samples) select max(tokens) t, max(tokens) t from s": [{"t": 2, "t_2": 2}],
}


@pytest.mark.parametrize("query", QUERIES)
def test_what_sql_answers(query: str, here: Path) -> None:
    found = selfrefine("runs", "sql", "r", query, cwd=here)
    assert found.code == 0, found.err
    assert found.rows == QUERIES[query]


WRITES = [
    "attach 'stolen.db' as s",
    "delete from samples",
    "drop table samples",
    "create table x (y)",
    "create temp table x (y)",
    "insert into samples (id) values (1)",
    "update samples set text = ''",
    "pragma query_only = off",
    "pragma writable_schema = on",
    "vacuum into 'stolen.db'",
    "begin",
    "select load_extension('x.so')",
]


@pytest.mark.parametrize("query", WRITES)
def test_sql_only_reads(query: str, here: Path) -> None:
    before = sorted(here.rglob("*"))
    refused(selfrefine("runs", "sql", "r", query, cwd=here), 2, "only select")
    assert sorted(here.rglob("*")) == before


def test_mistakes_in_sql_are_sentences(here: Path) -> None:
    told = {
        "select txt from samples": "did you mean text?",
        "select * from sample": "did you mean samples?",
        "selec 1": "not a query",
        "select 1; select 2": "one query at a time",
        "select (": "not a query",
        "explain select 1": "without it",
        " ; ": "empty",
        "select text from samples where text regexp '['": "not a regular expression",
    }
    for query, words in told.items():
        refused(selfrefine("runs", "sql", "r", query, cwd=here), 2, words)
    refused(selfrefine("runs", "sql", "r", cwd=here), 2, "--schema")


def test_the_schema_names_what_can_be_asked(here: Path) -> None:
    listed = selfrefine("runs", "sql", "r", "--schema", cwd=here).rows
    assert {row["table"] for row in listed} == {
        "rounds", "samples", "rewards", "critiques", "votes", "steps", "events", "tasks"
    }  # fmt: skip
    for table in {row["table"] for row in listed}:  # each of them can be read
        columns = [row["column"] for row in listed if row["table"] == table]
        found = selfrefine("runs", "sql", "r", f"select {', '.join(columns)} from {table}", cwd=here)
        assert found.code == 0, found.err
        assert list(found.rows[0]) == columns
    shown = selfrefine("runs", "sql", "r", "--schema", cwd=here, terminal=True)
    assert "tag_digits" in shown.out.decode()


def test_csv_tells_null_from_an_empty_text(here: Path) -> None:
    query = "select text, reward, text || ',x' y from samples where id = 'a.r1.s1'"
    assert selfrefine("runs", "sql", "r", query, "--csv", cwd=here).out == b'text,reward,y\n"",,",x"\n'


def test_an_endless_query_ends_at_ctrl_c(here: Path) -> None:
    """Trap: SQLite holds the main thread, where Python runs its signal handlers only between two steps."""
    query = "with recursive c(x) as (select 1 union all select x + 1 from c) select count(*) from c"
    words = [sys.executable, "-m", "selfrefine", "runs", "sql", "r", query]
    process = subprocess.Popen(
        words, cwd=here, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        time.sleep(1.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()  # where it fails, an endless query would go on
    assert (process.returncode, out, err) == (130, b"", b"")


def test_hostile_tags_are_columns_or_json_and_nothing_else(tmp_path: Path) -> None:
    """A tag's name may be anything: it is a column's name here, which must not become SQL.

    Trap: of names that are alike when signs become "_", as all Chinese ones were, only the first was one."""
    import made

    tags = {'x"); drop table samples; --': "1", "a b": "2", "A_B": "3", "é": "4", "难度": "5", "类别": "6"}
    splits = made.SPLITS | {"train": [made.task("a", tags=tags), made.task("b", tags={})]}
    make(tmp_path, splits=splits)
    found = selfrefine(
        "runs",
        "sql",
        "r",
        "select tag_a_b, tag_a_b_2, tag_难度, tag_类别 from tasks where id = 'a'",
        cwd=tmp_path,
    )
    assert found.rows == [{"tag_a_b": "3", "tag_a_b_2": "2", "tag_难度": "5", "tag_类别": "6"}], found.err
    names = {row["column"] for row in selfrefine("runs", "sql", "r", "--schema", cwd=tmp_path).rows}
    assert {"tag_x____drop_table_samples____", "tag_é"} <= names


def test_questions_import_no_torch(here: Path) -> None:
    code = (
        "import sys; from selfrefine.cli import app\n"
        "query = 'select count(*) from samples'\n"
        "for words in (['rows', 'r'], ['sql', 'r', query], ['env', 'r'], ['gc', 'r']):\n"
        "    try: app(['runs', *words])\n"
        "    except SystemExit: pass\n"
        "print({'torch', 'scipy', 'pyarrow', 'transformers'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=here, env=environment(), capture_output=True, check=True
    )
    assert done.stderr.splitlines()[-1] == b"set()", done.stderr
    assert json.loads(done.stdout.splitlines()[0])["id"] == "c.r0.s0" and os.sep
