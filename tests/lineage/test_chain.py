"""The lineage of a kept adapter, and every way in which it can stop being true."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import selfrefine

from selfrefine.lineage.chain import of_round, origin_of, read
from selfrefine.lineage.check import verify
from selfrefine.runfolder import audit
from selfrefine.runfolder.run import Run

WEIGHTS = "adapter/adapter_model.safetensors"


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def edit(path: Path, change: Callable[[Any], object]) -> None:
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))


def covered_up(run: Run, k: int) -> None:
    """Whoever changed a file wrote its new hash into round.json, too."""
    folder = run.round(k).path

    def hashes(told: Any) -> None:
        told["artifacts"] = {name: sha(folder / name) for name in told["artifacts"]}

    edit(folder / "round.json", hashes)


def test_the_chain_leads_from_the_base_to_the_adapter(run: Run) -> None:
    """Every hash in it is that of the file now; the policy is base + adapter, hashed as rows carry it."""
    told = read(run.round(2).adapter)
    assert told is not None and told.origin is None
    assert [link.round for link in told.chain] == [0, 1, 2]
    assert [link.sampled_by for link in told.chain] == [None, 0, 1]
    assert [link.trained_from for link in told.chain] == [None, 0, 1]
    for link in told.chain[:2]:
        assert link.round_sha256 == sha(run.round(link.round).path / "round.json")
    assert told.chain[2].round_sha256 is None
    assert told.chain[1].adapter["adapter_model.safetensors"] == sha(run.round(1).path / WEIGHTS)
    assert told.chain[2].data["selected.jsonl"] == sha(run.round(2).file("selected"))
    assert told.tasks["train"] == sha(run.path / "tasks/train.jsonl")
    assert told.policy == told.chain[2].policy_after == next(run.final.samples("test")).policy
    # As `Weights.policy`: 16 digits of sha256("base+adapter"), an adapter being weights and configuration.
    digest = hashlib.sha256()
    config = json.loads((run.round(2).adapter / "adapter_config.json").read_text())
    config |= {"base_model_name_or_path": run.manifest.model["id"], "revision": None}
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    for data in ((run.round(2).path / WEIGHTS).read_bytes(), text.encode()):
        digest.update(len(data).to_bytes(8, "big") + data)
    both = f"{told.base['weights_sha256']}+{digest.hexdigest()}"
    assert told.policy == hashlib.sha256(both.encode()).hexdigest()[:16]
    assert verify(run) == [] == audit.verify(run)


def test_a_run_that_starts_from_an_adapter_names_it_as_its_origin(mine: Path) -> None:
    run = Run.open(mine / "runs/b")
    told = read(run.round(1).adapter)
    assert told is not None and told.origin is not None
    assert (told.origin.run, told.origin.round, told.origin.name) == ("a", 1, "adapter")
    assert told.origin.lineage_sha256 == sha(mine / "runs/a/round-001/adapter/lineage.json")
    assert told.chain[1].trained_from == 0  # the start, which is that adapter
    assert verify(run) == []
    # The same claim about the other round's adapter, with every hash made to fit.
    other = origin_of(mine / "runs/a/round-002/adapter")
    assert other is not None

    def claim(lineage: Any) -> None:
        lineage["origin"]["adapter_sha256"] = other.adapter_sha256

    edit(run.round(1).adapter / "lineage.json", claim)
    covered_up(run, 1)
    assert verify(run) == [
        "round-001/adapter/lineage.json: the adapter 'adapter' that it names as the origin is not the one "
        "that round 0 measured"
    ]


def test_a_swapped_adapter_is_found(run: Run, mine: Path) -> None:
    """First as it is done by mistake, then with a round.json that was made to fit."""
    shutil.copyfile(run.round(2).path / WEIGHTS, run.round(1).path / WEIGHTS)
    assert f"round-001/{WEIGHTS}: changed since it was written" in audit.verify(run)
    for _ in range(2):
        found = verify(run)
        assert found[0].startswith(f"round-001/{WEIGHTS} is not the file of round-001/adapter/lineage.json (")
        assert found[0].endswith("): the adapter was swapped, or the lineage edited")
        assert any("round-001/adapter computes as policy" in line for line in found)
        covered_up(run, 1)
    assert audit.verify(run) == []  # the hashes alone say that all is well
    assert any(line.startswith("round-002/adapter/lineage.json says chain[1].round_sha256") for line in found)
    done = selfrefine("runs", "verify", "a", cwd=mine)
    assert done.code == 5 and found[0] in done.err


def test_a_swap_with_a_lineage_to_match_is_found_by_the_policy(run: Run) -> None:
    """Nothing in the last round contradicts the files any more, but what was measured was another policy."""
    shutil.copyfile(run.round(1).path / WEIGHTS, run.round(2).path / WEIGHTS)

    def match(told: Any) -> None:
        told["chain"][2]["adapter"]["adapter_model.safetensors"] = sha(run.round(2).path / WEIGHTS)

    edit(run.round(2).adapter / "lineage.json", match)
    covered_up(run, 2)
    [found] = verify(run)
    assert found.startswith("round-002/adapter computes as policy ")
    assert found.endswith("it is another adapter, or one of another base")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t["seeds"].update(run=7), "says seeds.run 7, the run's own files say 0"),
        (lambda t: t.update(round=1), "says round 1, the run's own files say 2"),
        (
            lambda t: t["chain"][1].update(outcome="reject"),
            "says chain[1].outcome reject, the run's own files",
        ),
        (lambda t: t["chain"][2]["gate"].update(after=1.0), "says chain[2].gate.after 1.0, the run's own"),
        (lambda t: t["base"].update(weights_sha256="0" * 64), "says base.weights_sha256 0000000000000000…"),
        (
            lambda t: t["tasks"].update(gate="0" * 64),
            "says tasks.gate 0000000000000000…, the run's own files",
        ),
        (lambda t: t["chain"].pop(0), "says chain ["),
    ],
)
def test_an_edited_lineage_is_found(run: Run, change: Callable[[Any], object], said: str) -> None:
    edit(run.round(2).adapter / "lineage.json", change)
    assert audit.verify(run) == ["round-002/adapter/lineage.json: changed since it was written"]
    covered_up(run, 2)
    assert audit.verify(run) == []
    assert any(line.startswith(f"round-002/adapter/lineage.json {said}") for line in verify(run)), verify(run)


def test_an_edited_manifest_no_longer_fits_the_lineage(run: Run) -> None:
    edit(run.path / "manifest.json", lambda told: told["seeds"].update(run=1))
    found = verify(Run.open(run.path))
    where = "round-{:03d}/adapter/lineage.json says seeds.run 5, the run's own files say 1"
    assert found == [where.format(k).replace("5,", "0,") for k in (1, 2)]


def test_what_is_damaged_missing_or_added_is_named(run: Run) -> None:
    adapter = run.round(2).adapter
    lineage = (adapter / "lineage.json").read_bytes()
    (adapter / "lineage.json").write_bytes(lineage[:-20])
    [found] = verify(run)
    assert "round-002/adapter/lineage.json is damaged: " in found
    (adapter / "lineage.json").unlink()
    assert verify(run) == []  # that is the audit's to say
    assert audit.verify(run) == ["round-002/adapter/lineage.json: missing"]
    (adapter / "lineage.json").write_bytes(lineage)
    (adapter / "extra.bin").write_bytes(b"x")
    where = "round-002/adapter/lineage.json"
    assert verify(run) == [
        f"round-002/adapter/extra.bin was added after the commit: {where} has no such file"
    ]
    (adapter / "extra.bin").unlink()

    def forget(*names: str) -> None:
        edit(run.round(2).path / "round.json", lambda told: [told["artifacts"].pop(name) for name in names])

    forget("adapter/README.md")
    assert verify(run) == ["round-002/adapter/README.md has no hash in round.json, but lineage.json has one"]
    forget("adapter/lineage.json")
    assert verify(run) == [f"{where} was put there after the commit: round.json has no hash of it"]


def test_a_run_of_a_version_without_lineage_is_whole_and_a_swap_in_it_is_found(run: Run) -> None:
    for k in (1, 2):
        for name in ("lineage.json", "README.md"):
            (run.round(k).adapter / name).unlink()
        told = json.loads((run.round(k).path / "round.json").read_text())
        artifacts = {
            n: v for n, v in told["artifacts"].items() if not n.endswith(("lineage.json", "README.md"))
        }
        (run.round(k).path / "round.json").write_text(json.dumps(told | {"artifacts": artifacts}))
    assert verify(run) == [] == audit.verify(run)
    shutil.copyfile(run.round(2).path / WEIGHTS, run.round(1).path / WEIGHTS)
    [found] = verify(run)
    assert found.startswith("round-001/adapter computes as policy")


def test_no_path_of_this_machine_stands_in_a_lineage_or_a_card(mine: Path, tiny_model_dir: Path) -> None:
    """The model's folder is an absolute path here: a card is published."""
    for adapter in (mine / "runs/a/round-002/adapter", mine / "runs/b/round-001/adapter"):
        for name in ("lineage.json", "README.md"):
            text = (adapter / name).read_text()
            assert str(tiny_model_dir.parent) not in text and str(mine) not in text
    told = read(mine / "runs/a/round-002/adapter")
    assert told is not None and told.base["id"] == tiny_model_dir.name


def test_a_round_that_is_not_kept_has_no_card(made: Path, tmp_path: Path) -> None:
    """Also where a killed process, which had decided otherwise, had begun to write one."""
    from selfrefine.lineage.card import place

    shutil.copytree(made / "runs/a", tmp_path / "r", symlinks=True)
    run = Run.open(tmp_path / "r")
    (run.round(2).path / "round.json").unlink()
    summary = Run.open(made / "runs/a").summary(2)
    assert summary.gate is not None
    from msgspec.structs import replace

    (run.round(2).adapter / ".README.md.tmp").write_text("half")
    gate = replace(summary.gate, outcome="undecided", accepted=False)
    place(run, replace(summary, gate=gate, artifacts={}), None)
    names = {path.name for path in run.round(2).adapter.iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "selfrefine.json"}
    # And of the round that was kept the same bytes come again.
    place(run, replace(summary, artifacts={}), None)
    for name in ("lineage.json", "README.md"):
        written = (run.round(2).adapter / name).read_bytes()
        assert written == (made / "runs/a/round-002/adapter" / name).read_bytes()
    assert of_round(Run.open(made / "runs/a"), summary, None) == read(made / "runs/a/round-002/adapter")
