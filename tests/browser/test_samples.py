"""The browser of samples in a report, by mouse, keyboard and address, in a real Chromium."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from report_page import Page, console, requests


@pytest.fixture
def small(browser: Any, pages: Callable[[str], str]) -> Page:
    browser.get("about:blank")  # else the same address with another fragment is no new page
    console(browser), requests(browser)
    browser.get(pages("small"))
    return Page(browser)


def test_it_opens_from_a_file_without_an_error_and_without_a_request(small: Page) -> None:
    """Trap: a script or style that the page's own policy refuses says so on the console only."""
    assert small.count == "16 of 16 answers, 5 tasks"
    assert console(small.browser) == []
    assert requests(small.browser) == []
    policy = small.run("return document.querySelector('meta[http-equiv]').content")
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    small.run("const one = document.createElement('img'); one.src = 'x.png'; document.body.append(one)")
    small.settle()
    assert any("img-src" in line for line in console(small.browser)), "the console is not read"


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ({"round": "round-002", "stage": "train"}, ["drawn.r2.s0", "drawn.r2.s1"]),
        ({"stage": "test"}, ["check.r0.s0", "check.r0.s0"]),
        ({"outcome": "unscored"}, ["cut.r0.s0"]),
        ({"outcome": "cut"}, ["cut.r0.s0"] * 3),
        ({"outcome": "empty"}, ["check.r0.s0"]),
        ({"outcome": "right", "stage": "gate"}, ["add.r0.s0", "sub.r0.s0"]),
        ({"outcome": "wrong", "round": "round-000"}, ["add.r0.s0", "check.r0.s0", "cut.r0.s0", "sub.r0.s0"]),
        ({"least": "0.2", "most": "0.5"}, ["drawn.r1.s0", "drawn.r2.s0"]),
        ({"most": "0", "round": "round-002"}, ["add.r0.s0"]),
        ({"only": "became-wrong"}, ["add.r0.s0"]),
        ({"only": "became-right"}, ["add.r0.s0", "check.r0.s0", "drawn.r1.s0.v1", "sub.r0.s0"]),
        ({"only": "learnt"}, ["drawn.r1.s1"]),
        ({"only": "critique"}, ["drawn.r1.s0"]),
        ({"only": "revision"}, ["drawn.r1.s0.v1"]),
        ({"text": "WALLABY"}, ["drawn.r1.s0"]),
        ({"text": "hare quick"}, ["drawn.r1.s0"]),
        ({"text": '"quick brown" animal'}, ["drawn.r1.s0"]),
        ({"text": '"brown quick"'}, []),
        ({"text": "count to three", "outcome": "wrong"}, ["cut.r0.s0"] * 2),
    ],
)
def test_filters_show_what_fits_all_of_them(small: Page, filters: dict[str, str], ids: list[str]) -> None:
    """Trap: an unscored answer is not at most 0; a phrase in quotes is not two words."""
    for name, value in filters.items():
        small.choose(name, value)
    assert sorted(one.partition("@")[0] for one in small.listed) == ids
    if ids:
        assert small.count.startswith(f"{len(ids)} of 16 answers")
    else:
        assert small.count == "No answer fits. Clear the filters to see all."


def test_a_tag_filters_and_clear_shows_all_again(small: Page) -> None:
    small.choose("tag", "1")
    assert {one.partition(".")[0] for one in small.listed} == {"sub", "drawn"}
    assert small.count == "8 of 16 answers, 2 tasks"
    small.run("document.querySelector('#samples-filters [type=reset]').click()")
    small.settle()
    assert small.count == "16 of 16 answers, 5 tasks"


def test_the_keyboard_alone_finds_opens_follows_and_closes(small: Page) -> None:
    """/ types words, Enter goes to the list, j and k walk it, Enter opens, j goes on, Escape closes.
    Trap: j in the search field is a letter."""
    from selenium.webdriver.common.keys import Keys

    small.keys("/")
    assert small.focused == "text"
    small.keys("hops jk")
    assert small.listed == []
    small.keys(Keys.BACKSPACE, Keys.BACKSPACE, Keys.ENTER)
    first, second, third, *_ = small.listed
    assert first.startswith("drawn.r1.s0@round-001/train")
    assert small.focused == first
    small.keys("j")
    assert small.focused == second
    small.keys("k", "k", "j", "j")
    assert small.focused == third
    small.keys(Keys.ENTER)
    assert small.focused == "samples-open"
    assert small.address == f"#sample={third}"
    small.keys("k")
    assert small.address == f"#sample={second}"
    assert small.run("return document.querySelector('.samples-entry[aria-current]').hash") == small.run(
        "return location.hash"
    )
    small.keys(Keys.ESCAPE)
    assert small.open is None
    assert small.focused == second


def test_the_list_of_keys_opens_and_closes_and_can_turn_letters_off(small: Page) -> None:
    """Trap: who speaks to the computer says letters; they must not act on the page (WCAG 2.1.4)."""
    from selenium.webdriver.common.keys import Keys

    small.keys("?")
    assert small.run("return document.getElementById('samples-help').open")
    small.keys("j")
    assert small.focused != small.listed[0]
    small.run("document.getElementById('samples-keys-on').click()")
    small.keys(Keys.ESCAPE)
    assert not small.run("return document.getElementById('samples-help').open")
    small.keys("/")
    assert small.focused != "text"
    small.browser.refresh()
    small.keys("/")
    assert small.focused != "text", "it is forgotten"
    small.run("document.getElementById('samples-keys-on').click()")
    small.keys("/")
    assert small.focused == "text"


def test_the_address_follows_what_is_open_and_the_back_button_leads_back(small: Page) -> None:
    """By mouse, as the back button passes over what a script alone has opened."""
    small.click(".samples-list li:nth-child(2) a")
    assert small.address == "#sample=add.r0.s0@round-001/gate"
    assert small.open is not None
    assert small.open.count("What is 20 + 22?") == 1
    for line in ("round 0, gate", "round 1, gate", "round 2, gate", "rolled back"):
        assert line in small.open
    assert small.chosen.startswith("✓Answer: right · became right")
    small.click(".samples-way li:nth-child(3) a")
    assert small.address == "#sample=add.r0.s0@round-002/gate"
    assert "became wrong" in small.chosen
    small.browser.back()
    small.settle()
    assert "became right" in small.chosen
    small.browser.back()
    small.settle()
    assert small.open is None


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("add.r0.s0", "add.r0.s0"),  # of several rounds the last
        ("drawn", "drawn.r2.s1"),  # a task's id
        ("drawn.r1.s0.v1%40round-001%2Ftrain", "drawn.r1.s0.v1"),
    ],
)
def test_a_page_that_is_opened_at_an_answer_shows_it(
    browser: Any, pages: Callable[[str], str], name: str, shown: str
) -> None:
    browser.get("about:blank")
    browser.get(f"{pages('small')}#sample={name}")
    assert Page(browser).chosen.rstrip().endswith(shown)


def test_an_address_of_no_answer_says_so(small: Page) -> None:
    small.go("sample=%E0%A4%A")
    assert small.count == "%E0%A4%A is not among the answers of this page."
    assert small.open is None


def test_a_page_that_is_loaded_again_shows_what_it_showed(small: Page) -> None:
    """Trap: `--watch` loads it again every few seconds; filters would be gone, the focus would jump."""
    small.choose("stage", "gate")
    small.choose("text", "count")
    small.click(".samples-list li:nth-child(2) a")
    before = small.listed, small.chosen
    small.browser.refresh()
    assert (small.listed, small.chosen) == before
    assert small.count == "3 of 16 answers, 1 task"
    assert small.focused == ""


def test_several_runs_are_told_apart(browser: Any, pages: Callable[[str], str]) -> None:
    """Two runs of one task: its answers stand together, are filtered by run, and each has an own address."""
    browser.get("about:blank")
    browser.get(pages("two"))
    page = Page(browser)
    assert page.count == "32 of 32 answers, 5 tasks"
    page.choose("run", "other")
    assert page.count == "16 of 32 answers, 5 tasks"
    page.go("sample=add.r0.s0@other/round-001/gate")
    assert page.open is not None
    assert "small, round 1, gate" in page.open
    assert page.each("[aria-current=step]", "one.innerText") == ["other, round 1, gate\n✓ right"]


def test_a_revision_stands_beside_its_draft_with_its_changes(small: Page) -> None:
    small.go("sample=drawn.r1.s0.v1")
    changed = "#samples-chosen :is(del, ins)"
    assert small.each(changed, "[one.localName, one.textContent]") == [
        ["del", " [removed: quick brown hare] "],
        ["ins", " [added: red kangaroo] "],
    ]
    assert small.open is not None
    assert "Critique, score 0.250, verdict revise" in small.open
    assert "A wallaby hops as well" in small.open
    assert "learnt in round 1" in small.open
    draft, revision, *_ = small.each(".samples-card", "one.getBoundingClientRect().top")
    assert draft == revision


def test_two_thousand_answers_are_listed_in_pages_that_keys_turn(
    browser: Any, pages: Callable[[str], str]
) -> None:
    browser.get("about:blank")
    browser.get(pages("many"))
    page = Page(browser)
    assert page.count == "2,000 of 2,000 answers, 500 tasks"
    assert len(page.listed) == 50
    page.keys("j" * 51)
    assert page.focused == "t12.r0.s0@round-002/gate"
    assert page.run("return document.getElementById('samples-page').textContent") == "51–100"
    page.keys("k")
    assert page.run("return document.getElementById('samples-page').textContent") == "1–50"
    assert page.focused == "t12.r0.s0@round-001/gate"


def test_what_is_narrow_has_the_list_or_the_task_and_nothing_beside_the_screen(small: Page) -> None:
    size = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    small.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        small.go("sample=drawn.r1.s0.v1")
        panes = ".samples-list, .samples-open"
        assert small.each(panes, "one.checkVisibility()") == [False, True]
        assert small.run("return document.documentElement.scrollWidth") <= 400
        small.run("document.querySelector('.samples-close').click()")
        small.settle()
        assert small.each(panes, "one.checkVisibility()") == [True, False]
        assert small.run("return document.documentElement.scrollWidth") <= 400
    finally:
        small.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_print_has_the_open_task_and_no_filters(small: Page) -> None:
    small.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        parts = ".samples-filters, .samples-list, .samples-open, .samples-only-print"
        assert small.each(parts, "one.checkVisibility()") == [False, False, False, True]
        small.go("sample=add.r0.s0")
        assert small.each(parts, "one.checkVisibility()") == [False, False, True, False]
    finally:
        small.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
