"""Pictures of a run's report for docs/: light, dark, 400 pixels wide and as printed, small PNG files.

    python -m tools.screenshots RUN [-o docs/images]

The report is made anew and opened in a headless Chromium (`apt install chromium chromium-driver`).
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfrefine.errors import SelfrefineError
from selfrefine.report.page.build import page
from selfrefine.runfolder.run import Run, locate

MOST_BYTES = 150_000
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-prefers-reduced-motion",
)


@dataclass(frozen=True)
class Shot:
    name: str
    width: int
    height: int
    scheme: str = "light"
    media: str = "screen"
    at: str = ""
    """Id of the element that stands at the top; empty: the page's beginning. Not there: no picture."""
    opened: bool = False
    """With a task open that became right."""
    margin: int = 0
    """White pixels around it, as on paper."""


SHOTS = (
    Shot("report-light", 1280, 1500),
    Shot("report-dark", 1280, 1500, scheme="dark"),
    Shot("report-narrow", 400, 1500),
    Shot("report-print", 698, 1027, media="print", margin=48),  # A4 at 96 dots per inch
    Shot("samples-light", 1280, 1100, at="samples", opened=True),
    Shot("samples-dark", 1280, 1100, at="samples", opened=True, scheme="dark"),
    Shot("samples-narrow", 400, 1100, at="samples-open", opened=True),
    Shot("samples-print", 698, 1027, at="samples", opened=True, media="print", margin=48),
    Shot("reflection-light", 1280, 1300, at="run1-reflection"),
)

_OPEN = """
const data = JSON.parse(document.getElementById("samples-data").textContent);
const turned = data.tasks.flatMap((task) => (task.answers ?? []).filter((one) => one.became === "right")
  .map((one) => [(task.answers.some((other) => other.critiques) ? 100 : 0) + task.answers.length, one]));
turned.sort((a, b) => b[0] - a[0]);
const one = turned[0]?.[1] ?? data.tasks[0].answers[0];
location.hash = `sample=${encodeURIComponent(`${one.id}@${data.places[one.place].name}/${one.stage}`)}`;
"""

_SCROLL = """
const one = document.getElementById(arguments[0]);
scrollTo(0, one ? one.getBoundingClientRect().top + scrollY - 16 : 0);
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="a run's name in runs/, or its folder")
    parser.add_argument("-o", "--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--only", default="", metavar="BEGINNING", help="only pictures whose names begin so")
    asked = parser.parse_args()
    try:
        run = Run.open(locate(Path("runs"), asked.run))
        html = page([run])
    except SelfrefineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    asked.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, chromium(Path(folder)) as driver:
        file = Path(folder, "report.html")
        file.write_text(html, encoding="utf-8", newline="")
        for shot in (one for one in SHOTS if one.name.startswith(asked.only) and _there(one, html)):
            target = asked.out / f"{shot.name}.png"
            target.write_bytes(small(taken(driver, file.as_uri(), shot), shot.margin))
            print(f"{target}: {target.stat().st_size / 1000:.0f} kB")
    return 0


def _there(shot: Shot, html: str) -> bool:
    return not shot.at or f'id="{shot.at}"' in html or f'"{shot.at}"' in html


@contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """A driver of a headless Chromium. Raises: SystemExit where there is none."""
    from selenium import webdriver

    binary = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    driver = os.environ.get("CHROMEDRIVER") or shutil.which("chromedriver")
    if not (binary and driver):
        sys.exit("error: no chromium and chromedriver: apt install chromium chromium-driver, or set CHROMIUM")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={profile / 'profile'}"):
        options.add_argument(flag)
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    try:
        yield started
    finally:
        started.quit()


def taken(driver: Any, address: str, shot: Shot) -> bytes:
    """The picture as PNG, shot.width × shot.height pixels."""
    size = {"width": shot.width, "height": shot.height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": shot.scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": shot.media, "features": features})
    driver.get("about:blank")
    driver.get(address)
    if shot.opened:
        driver.execute_script(_OPEN)
    driver.execute_async_script("setTimeout(arguments[0], 200)")
    driver.execute_script(_SCROLL, shot.at)
    driver.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0], 100))")
    return bytes(driver.get_screenshot_as_png())


def small(picture: bytes, margin: int = 0) -> bytes:
    """With `margin` and as many colours of at most 256 as fit into MOST_BYTES; if need be, scaled down."""
    from PIL import Image, ImageOps

    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image = ImageOps.expand(image, margin, "white")
    while True:
        for colours in (256, 128, 64):
            packed = io.BytesIO()
            image.quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
                packed, "PNG", optimize=True
            )
            if packed.tell() <= MOST_BYTES:
                return packed.getvalue()
        image = image.resize((image.width * 4 // 5, image.height * 4 // 5), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    sys.exit(main())
