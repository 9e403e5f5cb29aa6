"""A headless Chromium for the tests of the report, where there is one; pages are opened from files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import page_runs
import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-prefers-reduced-motion",  # what is clicked must not be on its way elsewhere
    "--window-size=1280,900",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("browser")


def _binary(variable: str, *names: str) -> str:
    found = os.environ.get(variable) or next(filter(None, map(shutil.which, names)), None)
    if not found:
        pytest.skip(f"no {names[0]}: `apt install chromium chromium-driver`, or set {variable} to its path")
    return found


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One for all tests, each of which opens its own page."""
    chromium = _binary("CHROMIUM", "chromium", "chromium-browser", "google-chrome")
    driver = _binary("CHROMEDRIVER", "chromedriver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium: pip install 'selfrefine[dev]'")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    started.set_page_load_timeout(30)
    yield started
    started.quit()


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The address of a run's report, by the name of a function of page_runs; each is made once."""
    from selfrefine.report.page.build import page

    folder = tmp_path_factory.mktemp("pages")
    makers: dict[str, Callable[[Path], Any]] = {
        "small": lambda path: [page_runs.small(path)],
        "hostile": lambda path: [page_runs.hostile(path)],
        "many": lambda path: [page_runs.many(path, tasks=500, rounds=4)],
        "two": lambda path: [page_runs.small(path / "small"), page_runs.small(path / "other")],
    }

    def address(name: str) -> str:
        file = folder / f"{name}.html"
        if not file.is_file():
            file.write_text(page(makers[name](folder / name)), encoding="utf-8", newline="")
        return file.as_uri()

    return address
