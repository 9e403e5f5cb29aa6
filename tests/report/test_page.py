"""The page as a file: nothing foreign acts in it, nothing but its own scripts may run, any run gives one."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import page_runs
import pytest

from selfrefine.reflection.findings import Action, Cell, Outcome, Plan, Slice, Target, Weaknesses
from selfrefine.report.page import build, markup, svg
from selfrefine.runfolder.run import Run
from selfrefine.runfolder.summaries import FinalSummary
from selfrefine.stats import Interval


class Parsed(HTMLParser):
    """Elements with their attributes, and the text of scripts, styles and everything else."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []
        self.texts: dict[str, list[str]] = {"script": [], "style": [], "": []}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        tag = self.inside[-1] if self.inside else ""
        self.texts[tag if tag in self.texts else ""].append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def small(place: Path) -> Run:
    return page_runs.small(place / "small")


@pytest.fixture(scope="module")
def shown(small: Run) -> str:
    return build.page([small])


def policy_of(page: str) -> str:
    (found,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    return html.unescape(found)


def test_the_policy_lets_in_exactly_the_scripts_and_styles_that_stand_in_the_page(shown: str) -> None:
    """Trap: a hash of other bytes than the element has, by a newline, and the page is without style."""
    policy = policy_of(shown)
    scripts = re.findall(r"<script>(.*?)</script>", shown, re.S)
    styles = re.findall(r"<style>(.*?)</style>", shown, re.S)
    assert scripts and styles
    for text in (*scripts, *styles):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert policy.count("sha256-") == len(scripts) + len(styles)
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy


def test_no_attribute_is_a_style_or_a_handler_and_nothing_is_loaded(shown: str) -> None:
    """A policy by hash refuses both, so they would be dead; what is loaded from elsewhere would fail."""
    for tag, attrs in Parsed(shown).elements:
        bad = [
            name for name in attrs if name == "style" or name.startswith("on") or name in ("src", "srcset")
        ]
        assert not bad, (tag, bad)
        assert tag not in ("img", "iframe", "link", "object", "embed", "base"), tag
        for name in ("href", "xlink:href"):
            assert (attrs.get(name) or "#").startswith("#"), attrs


def test_it_can_be_walked_by_headings_landmarks_and_ids(shown: str) -> None:
    page = Parsed(shown)
    assert page.all("html") == [{"lang": "en"}]
    ids = Counter(attrs["id"] for _, attrs in page.elements if "id" in attrs)
    assert [one for one, n in ids.items() if n > 1] == []
    for _, attrs in page.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            named = (attrs.get(name) or "").split()
            assert "hidden" in attrs or all(one in ids for one in named), attrs
    for attrs in page.all("a"):
        assert (attrs["href"] or "")[1:] in ids  # of this run: there are no links to answers
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels)), levels
    assert [len(page.all(tag)) for tag in ("main", "header", "footer")] == [1, 1, 1]
    assert page.elements[[tag for tag, _ in page.elements].index("body") + 1][1]["class"] == "skip"


def test_every_chart_has_a_name_a_sentence_and_its_figures_in_a_table(shown: str) -> None:
    figures = re.findall(r"<figure.*?</figure>", shown, re.S)
    charts = [one for one in figures if "<svg" in one]
    assert len(charts) >= 6
    for one in charts:
        assert re.search(r'<svg[^>]*role="img"', one)
        assert re.search(r"<title [^>]*>.+?</title><desc [^>]*>.+?</desc>", one)
        assert '<p class="finding">' in one and "<table>" in one


def test_hostile_text_stays_text(place: Path) -> None:
    """Each as tag, value, prompt, answer, critique, reward: none becomes an element, and it is all there."""
    run = page_runs.hostile(place / "hostile")
    kinds = [
        page_runs.answer(page_runs.task(f"t{i}", "?", "1", kind=text), f"t{i}.r0.s0", "1", 1.0)
        for i, text in enumerate(page_runs.HOSTILE.values())
    ]
    page_runs.write(run, 1, "reject", gate=kinds)
    page = build.page([run])
    parsed = Parsed(page)
    assert "window.ran" not in "".join(s for s in parsed.texts["script"] if not s.startswith("{"))
    assert len(parsed.all("script")) == 1 + len(re.findall(r"<script>", page))
    assert not parsed.all("img") and not parsed.all("b")
    assert all("onerror" not in attrs for _, attrs in parsed.elements)
    words = "".join(parsed.texts[""])
    assert "<img src=x onerror=" in words  # as a tag of the heat map, to be read
    assert "‹U+202E›" in words and "\u202e" not in page.split('type="application/json"')[0]
    assert "\x00" not in page


def test_a_name_of_a_run_is_text_too(small: Run) -> None:
    told = build.told(small, "<script>alert(1)</script>\u202e`x`")
    assert "<script>" not in str(markup.prose(told.name))
    assert str(markup.prose("say `selfrefine <x>` & go")) == "say <code>selfrefine &lt;x&gt;</code> &amp; go"


def test_data_cannot_end_its_script_and_comes_back_to_the_letter() -> None:
    value = {
        "a": "</script><!--<script>\u2028\u2029&amp;",
        "b": ["\x00\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")],
    }
    block = str(markup.data_block(value))
    assert not re.search(r"[<>&\u2028\u2029]", block)
    assert json.loads(block) == value


def test_a_script_that_would_end_its_own_element_is_refused() -> None:
    with pytest.raises(ValueError, match="end tag"):
        markup.inline("x = '</SCRIPT>'")


def test_the_same_run_gives_the_same_bytes(small: Run, shown: str) -> None:
    assert build.page([small]) == shown


def test_a_run_that_goes_on_is_followed_and_another_is_not(small: Run, shown: str) -> None:
    """Not by a meta refresh: that cannot be stopped by the reader."""
    page = build.page([small], watching=5)
    assert 'id="pause"' in page and 'data-seconds="5"' in page
    assert 'id="pause"' not in shown and "refresh" not in page.split("<script")[0]


def test_without_the_library_the_tables_stand_open(small: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svg, "available", lambda: False)
    page = build.page([small])
    assert "<svg" not in page
    figures = re.findall(r"<figure.*?</figure>", page, re.S)
    assert figures and not any("<details>" in one for one in figures)


# --- runs that are not whole -----------------------------------------------------------------------


def test_an_empty_run_says_so(place: Path) -> None:
    run = Run.create(place / "empty", page_runs.manifest("empty"), {"train": [], "gate": [], "test": []}, {})
    page = build.page([run])
    assert "No round is committed yet" in page
    assert "How it was made" in page


def test_a_damaged_file_costs_its_figures_and_is_named(place: Path) -> None:
    """Trap: figures of a file that somebody changed after the commit, shown as the round's."""
    run = page_runs.small(place / "damaged")
    file = run.round(1).file("reward")
    file.write_bytes(file.read_bytes().replace(b"0.25", b"1.00"))
    page = build.page([run])
    assert "reward.jsonl was changed after its round was committed" in page
    assert "The answers of this run are left out below" in page
    assert "Round by round" in page


def test_a_round_that_cannot_be_read_leaves_the_others(place: Path) -> None:
    run = page_runs.small(place / "broken")
    (run.round(1).path / "round.json").write_text("{")
    page = build.page([run])
    assert "round.json is damaged" in page
    assert "Decisions" in page


def test_of_two_runs_a_damaged_one_does_not_take_the_other_s_samples(small: Run, place: Path) -> None:
    other = page_runs.small(place / "other")
    other.round(1).file("gate").write_bytes(b"{\n")
    page = build.page([small, other])
    block = re.search(r'id="samples-data">(.*?)</script>', page, re.S)
    assert block is not None
    shown: dict[str, Any] = json.loads(block[1])
    assert {one["run"] for one in shown["places"]} == {"small"}


def test_runs_are_compared_pair_by_pair(small: Run, place: Path) -> None:
    runs = [page_runs.small(place / name) for name in ("first", "twin")]
    test = Interval(mean=1.0, lo=0.2, hi=1.0, n=1)
    end = FinalSummary(after_round=2, accepted_round=1, policy="p", test=test, test_reads=2)
    for run in runs:
        run.final_file.write_bytes(msgspec.json.encode(end))
    page = build.page(runs)
    assert "2 runs compared" in page
    assert "Against the end of first" in page
    ids = Counter(re.findall(r' id="([^"]+)"', page))
    assert [one for one, n in ids.items() if n > 1] == []


def test_runs_that_cannot_be_compared_say_why(small: Run, place: Path) -> None:
    none = Run.create(place / "none", page_runs.manifest("none"), {"train": [], "gate": [], "test": []}, {})
    page = build.page([small, none])
    assert "They cannot be compared by test task" in page


# --- colours ---------------------------------------------------------------------------------------


def palettes() -> dict[str, dict[str, str]]:
    css = markup.asset("page.css")
    found = {}
    for name, block in (
        ("light", css.partition(":root {")[2]),
        ("dark", css.partition('[data-theme="dark"] {')[2]),
    ):
        found[name] = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block.partition("}")[0]))
    return found


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa_and_lines_can_be_seen(theme: str) -> None:
    """4.5 for text, 3 for what is drawn: WCAG 2.2, 1.4.3 and 1.4.11. Black on white is 21."""
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    own = palettes()[theme]
    for ground in ("bg", "surface", "sunken"):
        for ink in ("ink", "muted", "accent", "good", "bad", "warn"):
            assert contrast(own[ink], own[ground]) >= 4.5, (ink, ground)
    pairs = [
        ("good", "good-soft"),
        ("bad", "bad-soft"),
        ("warn", "warn-soft"),
        ("ink", "warn-soft"),
        ("ink", "new"),
        ("ink", "gone"),
    ]
    pairs += [("on-low", f"heat-{i}") for i in (0, 1, 2, 3, "none")] + [
        ("on-high", f"heat-{i}") for i in (4, 5, 6)
    ]
    for ink, ground in pairs:
        assert contrast(own[ink], own[ground]) >= 4.5, (ink, ground, contrast(own[ink], own[ground]))
    for i in range(1, 7):
        assert contrast(own[f"c{i}"], own["surface"]) >= 3, i


def test_dark_by_the_system_and_dark_by_the_switch_are_the_same_colours() -> None:
    css = markup.asset("page.css")
    by_system = css.partition("prefers-color-scheme: dark")[2].partition("}")[0]
    assert dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", by_system)) == palettes()["dark"]


# --- reflection ------------------------------------------------------------------------------------


def test_the_last_reflection_is_shown_with_a_link_to_a_row_that_is_there(place: Path) -> None:
    """Round 3's plan knows what became of round 2's; `reflect RUN` made a later one. A row id is hostile."""
    run = page_runs.small(place / "reflected")
    cell = Cell(
        name="op = -", by="tag", slice=Slice(by="tag", key="op", value="-"), n=20, rate=0.1, lo=0.03, hi=0.3,
        rest=0.74, q_value=0.001, weight=0.6, examples=('"><b>.r0.s0', "x"),
    )  # fmt: skip
    target = Target(figure="op = -", split="gate", direction="up", before=0.1)
    done = Outcome(round=2, kind="reweight", target=target, after=0.25, moved=True)
    action = Action(kind="few-shot", reason="it is weak", target=target)
    plan = Plan(round=3, mode="auto", actions=(action,), outcomes=(done,))
    early = Weaknesses(after_round=1, gate=(cell,), heaviest=(), looked_at=9)
    late = Weaknesses(after_round=2, gate=(cell,), heaviest=("op = -",), looked_at=40)
    files = {
        "round-003/weaknesses.json": early,
        "round-003/plan.json": plan,
        "reflection/weaknesses.json": late,
    }
    for name, value in files.items():
        (run.path / name).parent.mkdir(exist_ok=True)
        (run.path / name).write_bytes(msgspec.json.encode(value))
    (run.path / "reflection/causes.md").write_text("> </code><script>the model says</script>\n")
    page = build.page([run])
    assert "Significantly weaker than the rest, the heaviest first: op = -; 40 slices tested" in page
    assert 'href="#sample=%22%3E%3Cb%3E.r0.s0"' in page
    assert "1 of 1 action moved the number that it was meant to move." in page
    row = re.search(r"<tr><th[^>]*>2</th><td[^>]*>reweight</td>.*?</tr>", page)
    assert row is not None and re.sub(r"<[^>]*>", "|", row[0]).count("0.250") == 1
    assert "few-shot" in page and "it is weak" in page
    assert "&gt; &lt;/code&gt;&lt;script&gt;the model says" in page
