"""The model card: metadata that the hub's own library takes, and somebody's text that stays text."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from harness import refused, selfrefine
from hostile_names import HOSTILE
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from msgspec.structs import replace

from selfrefine.lineage.card import code, render
from selfrefine.lineage.chain import Lineage, read
from selfrefine.lineage.tested import of_adapter
from selfrefine.runfolder.summaries import Guard


@pytest.fixture
def lineage(made: Path) -> Lineage:
    told = read(made / "runs/a/round-002/adapter")
    assert told is not None
    return told


def metadata(card: str) -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load(card.split("---\n")[1])
    return found


def test_the_card_of_a_kept_adapter(made: Path, lineage: Lineage) -> None:
    text = (made / "runs/a/round-002/adapter/README.md").read_text()
    assert text == render(lineage)
    told = metadata(text)
    assert (told["library_name"], told["pipeline_tag"]) == ("peft", "text-generation")
    # A base that lies in a folder is on no hub; a name that is wrong there would be refused.
    assert "base_model" not in told and "model-index" not in told
    gate = lineage.chain[2].gate
    assert gate is not None
    row = f"| {gate.n} gate tasks, against the policy before | {gate.before:.3f} | {gate.after:.3f} |"
    assert row in text
    for wanted in ("`mine.py:f`", lineage.tasks["gate"], "without a test: the gate was off", "`truncation`"):
        assert wanted in text
    for heading in ("Result", "Task and recipe", "Guards", "Intended use and limits", "Data", "How to load"):
        assert f"\n## {heading}\n" in text


def test_a_base_of_the_hub_is_named_as_the_hub_does(lineage: Lineage) -> None:
    """`a/b` alone may be a folder; with a revision it came from the hub."""
    hub = render(replace(lineage, base=lineage.base | {"id": "org/base-1", "revision": "abc"}))
    assert metadata(hub)["base_model"] == "org/base-1" and 'base = "org/base-1"' in hub
    folder = render(replace(lineage, base=lineage.base | {"id": "org/base-1", "revision": ""}))
    assert "base_model" not in metadata(folder) and 'base = "path/to/base"' in folder
    own = render(replace(lineage, base=lineage.base | {"id": "smollm2"}))
    assert metadata(own)["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert "4-bit version" in own and "--model" not in own.split("With selfrefine:")[1]


def test_an_exported_adapter_has_the_test_figures_and_is_the_same_policy(made: Path, tmp_path: Path) -> None:
    adapter, out = made / "runs/a/adapter", tmp_path / "out"
    done = selfrefine("adapter", "export", adapter, "-o", out, cwd=made)
    assert done.code == 0, done.err
    tested = of_adapter(adapter, read(adapter) or pytest.fail("no lineage"))
    assert tested is not None and tested.end.mean == 0.5 and tested.end.n == 6  # every answer has 0.5
    card = ModelCard.load(out / "README.md")  # the hub's own reader
    [result] = card.data.eval_results
    assert (result.metric_value, result.metric_type, result.task_type) == (
        0.5,
        "mean_reward",
        "text-generation",
    )
    assert "| 6 test tasks, against the start of the run | 0.500 " in card.text
    assert (out / "lineage.json").read_bytes() == (adapter / "lineage.json").read_bytes()
    for name in ("adapter_model.safetensors", "adapter_config.json", "selfrefine.json"):
        assert (out / name).read_bytes() == (adapter / name).read_bytes()
    refused(selfrefine("adapter", "export", adapter, "-o", out, cwd=made), 5, "already exists")
    # The first round's policy was not the one that was measured at the end.
    first = made / "runs/a/round-001/adapter"
    assert of_adapter(first, read(first) or pytest.fail("no lineage")) is None


def test_a_merged_model_carries_the_card_along(made: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "merged"
    words = ["adapter", "merge", made / "runs/a/adapter", "-o", out, "--model", tiny_model_dir]
    assert (done := selfrefine(*words, cwd=made)).code == 0, done.err
    text = (out / "README.md").read_text()
    assert metadata(text)["library_name"] == "transformers" and "PeftModel" not in text
    assert (out / "lineage.json").is_file() and "test tasks, against the start" in text


def test_an_adapter_that_no_run_kept_has_no_card_to_export(made: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    for path in (made / "runs/a/adapter").iterdir():
        if path.name not in ("lineage.json", "README.md"):
            (plain / path.name).write_bytes(path.read_bytes())
    refused(selfrefine("adapter", "export", plain, "-o", "o", cwd=tmp_path), 3, "has no lineage.json")


ACTIVE = {"html_inline", "html_block", "link_open", "image", "heading_open", "hr", "list_item_open"}


@pytest.mark.parametrize("what", sorted(HOSTILE))
def test_hostile_text_acts_neither_in_markdown_nor_in_the_metadata(lineage: Lineage, what: str) -> None:
    """Names, settings, reasons: each could end its table, begin a heading, or load an image."""
    text = HOSTILE[what]
    clean = render(lineage)
    gate = lineage.chain[2].gate
    assert gate is not None
    last = replace(lineage.chain[2], gate=replace(gate, reason=text))
    hostile = render(
        replace(
            lineage,
            run=text,
            base=lineage.base | {"id": text, "revision": "abc"},
            chain=(*lineage.chain[:2], last),
            guards=(Guard(name=text, value=0.5, reason=text, state="warn"),),
            settings=lineage.settings
            | {"generate.system": text, "recipe": text, "tasks.source": text, text: 1},
            tasks={text: text},
        ),
        of_tested(),
    )
    assert isinstance(metadata(hostile), dict) and set(metadata(hostile)) <= {
        *("base_model", "base_model_relation", "library_name", "pipeline_tag", "tags", "model-index")
    }
    body = hostile.partition("\n---\n\n")[2]
    assert all(line.isprintable() for line in body.split("\n"))

    def shape(card: str) -> list[str]:
        tokens = MarkdownIt("commonmark").enable("table").parse(card.partition("\n---\n\n")[2])
        flat = [child for token in tokens for child in (token, *(token.children or ()))]
        return [token.type for token in flat if token.type in ACTIVE]

    assert shape(hostile) == shape(clean)  # our headings, nothing else that acts


def of_tested() -> object:
    from selfrefine.lineage.tested import Tested
    from selfrefine.stats import Interval

    return Tested(start=None, end=Interval(mean=0.5, lo=None, hi=None, n=1), gain=None, reads=2)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "`plain`"),
        ("a`b", "``a`b``"),
        ("`", "`` ` ``"),
        ("a``b`c", "```a``b`c```"),
        ("a|b", "`a\\|b`"),
        ("a\n\n# b", "`a # b`"),
        ("", "–"),
        ("\u202e", "`‹U+202E›`"),
    ],
)
def test_a_code_span_is_longer_than_any_fence_in_it(text: str, shown: str) -> None:
    assert code(text) == shown
