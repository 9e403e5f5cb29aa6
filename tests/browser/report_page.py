"""An open report as the tests of the browser see it."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote


def console(browser: Any) -> list[str]:
    """What the page wrote to the console since the last call: errors, and refusals of its policy."""
    return [entry["message"] for entry in browser.get_log("browser")]


def requests(browser: Any) -> list[str]:
    """Addresses that were asked for since the last call, other than files."""
    told = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [one["params"]["request"]["url"] for one in told if one["method"] == "Network.requestWillBeSent"]
    return [url for url in urls if not url.startswith(("file:", "data:"))]


class Page:
    """The open report: what is listed, what is open, where the focus is."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser

    def run(self, script: str, *args: Any) -> Any:
        return self.browser.execute_script(script, *args)

    def each(self, selector: str, what: str) -> Any:
        """`what`, an expression of `one`, of every element in the page's order."""
        return self.run(f"return [...document.querySelectorAll(arguments[0])].map((one) => {what})", selector)

    def keys(self, *keys: str) -> None:
        """To whatever has the focus, as a keyboard sends them."""
        from selenium.webdriver import ActionChains

        ActionChains(self.browser).send_keys(*keys).perform()
        self.settle()

    def settle(self) -> None:
        """Until events of the history have arrived."""
        self.browser.execute_async_script("const done = arguments[0]; setTimeout(() => setTimeout(done), 20)")

    def click(self, selector: str) -> None:
        self.browser.find_element("css selector", selector).click()
        self.settle()

    def choose(self, name: str, value: str) -> None:
        self.run(
            "const one = document.querySelector(`#samples-filters [name=${arguments[0]}]`);"
            "one.value = arguments[1]; one.dispatchEvent(new Event('input', { bubbles: true }))",
            name,
            value,
        )

    def go(self, fragment: str) -> None:
        self.run("location.hash = arguments[0]", fragment)
        self.settle()

    @property
    def listed(self) -> list[str]:
        """Links of the list, as `id@place`."""
        hashes = self.run("return [...document.querySelectorAll('.samples-entry')].map((one) => one.hash)")
        return [unquote(one).removeprefix("#sample=") for one in hashes]

    @property
    def count(self) -> str:
        return str(self.run("return document.getElementById('samples-count').textContent"))

    @property
    def open(self) -> str | None:
        """The text of the open task."""
        text = self.run(
            "const one = document.getElementById('samples-open'); return one.hidden ? null : one.innerText"
        )
        return text if text is None else str(text)

    @property
    def chosen(self) -> str:
        return str(self.run("return document.getElementById('samples-chosen').innerText"))

    @property
    def address(self) -> str:
        return str(self.run("return decodeURIComponent(location.hash)"))

    @property
    def focused(self) -> str:
        """Id, name or address of what has the focus."""
        one = "const one = document.activeElement; return one.id || one.name || one.hash || ''"
        return unquote(self.run(one)).removeprefix("#sample=")
