"""Texts that would act in a page stay text, in every place where a text of a model or a file is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import page_runs
import pytest
from report_page import Page, console, requests


@pytest.fixture(scope="module")
def hostile(browser: Any, pages: Callable[[str], str]) -> Iterator[Page]:
    browser.get("about:blank")
    console(browser), requests(browser)
    browser.get(pages("hostile"))
    yield Page(browser)


def nothing_ran(page: Page) -> None:
    assert page.run("return window.ran") is None
    assert console(page.browser) == []
    assert requests(page.browser) == []
    foreign = "#samples :is(img, script, style, b, iframe), #samples a:not([href^='#'])"
    assert page.run("return document.querySelectorAll(arguments[0]).length", foreign) == 0


def test_the_list_and_its_filters_hold_text_only(hostile: Page) -> None:
    assert hostile.count == "24 of 24 answers, 12 tasks"
    nothing_ran(hostile)


@pytest.mark.parametrize("name", page_runs.HOSTILE)
def test_it_stays_text_when_its_task_is_open(hostile: Page, name: str) -> None:
    """Prompt, answer, tag, critique, detail and error are this text. Trap: what hides (NUL, bidi, no width)
    is shown by its code, and joiners that words and emoji need are not."""
    text = page_runs.HOSTILE[name]
    hostile.go("")
    hostile.run("location.hash = `sample=${encodeURIComponent(arguments[0])}`", f"task {text[:60]}.r0.s0")
    hostile.settle()
    nothing_ran(hostile)
    shown = hostile.run(
        "const own = (one) => document.querySelector(one)?.textContent;"
        "return [own('#samples-open-title'), own('#samples-chosen > .samples-text'),"
        " own('.samples-critique .samples-text'), own('#samples-chosen > .samples-error')]"
    )
    expected = {
        "bidi": "admin‹U+202E›txt.exe‹U+2066› ‹U+200B›hidden‹U+FEFF›",
        "nul": "a␀b␛[31mred␇",
        "separators": "one‹U+2028›two‹U+2029›three",
        "lines": "x" * 8_000 + " … [22,000 more characters]",
    }.get(name, text)
    assert shown[:3] == [expected] * 3
    assert shown[3].startswith(expected[:1_000])
    assert hostile.run("return document.documentElement.scrollWidth") <= 1280


def test_it_is_found_by_search_as_text(hostile: Page) -> None:
    hostile.go("")
    hostile.choose("text", "{{7*7}}")
    assert len(hostile.listed) == 2
    hostile.choose("text", "49")
    assert hostile.listed == []
    hostile.choose("text", "")
    nothing_ran(hostile)
