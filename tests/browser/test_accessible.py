"""axe-core finds no serious fault in a report, in light and in dark, listed, open, with the keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from report_page import Page

from tools.vendor import AXE, VendorError, fetched


@pytest.fixture(scope="session")
def axe() -> str:
    try:
        return (fetched(AXE, timeout_s=30) / "axe.min.js").read_text(encoding="utf-8")
    except VendorError as error:
        pytest.skip(str(error))


@pytest.fixture(params=["light", "dark"])
def coloured(request: pytest.FixtureRequest, browser: Any, pages: Callable[[str], str]) -> Any:
    scheme = [{"name": "prefers-color-scheme", "value": request.param}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    browser.get("about:blank")
    browser.get(pages("small"))
    yield Page(browser)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def faults(page: Page, axe: str) -> list[str]:
    """Rules that are broken seriously or critically, each with the first place."""
    # The page's policy forbids foreign scripts; the driver's are not the page's.
    page.run(axe + "; window.axe = axe")
    found = page.browser.execute_async_script(
        "const done = arguments[0];"
        "axe.run(document, { resultTypes: ['violations'] })"
        "  .then((result) => done(result.violations), (error) => done(String(error)))"
    )
    assert isinstance(found, list), found
    return [
        f"{one['id']}: {one['nodes'][0]['target']} {one['nodes'][0]['failureSummary']}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def test_axe_finds_no_serious_fault(coloured: Page, axe: str) -> None:
    assert faults(coloured, axe) == []
    coloured.go("sample=drawn.r1.s0.v1")
    coloured.choose("text", "kangaroo")
    assert faults(coloured, axe) == []
    coloured.keys("?")
    assert faults(coloured, axe) == []


def test_axe_would_find_one(coloured: Page, axe: str) -> None:
    """Trap: a checker that did not run finds nothing either."""
    coloured.run(
        "const label = document.querySelector('#samples-filters label');"
        "label.replaceWith(document.createElement('input'))"
    )
    assert any(one.startswith("label:") for one in faults(coloured, axe))


def test_counts_are_told_to_a_screen_reader_and_rows_have_their_outcome_in_words(coloured: Page) -> None:
    assert coloured.run("return document.querySelector('#samples-count[role=status]').textContent")
    first = coloured.run("return document.querySelector('.samples-entry').textContent")
    assert first.startswith("✗wrong, ")
    tree = coloured.browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    names = [
        one["name"]["value"] for one in tree if one.get("role", {}).get("value") == "link" and "name" in one
    ]
    assert any(name.startswith("wrong,") and "round 0, gate" in name for name in names), names[:8]
