"""What the tests need from npm: fetched by npm itself, checked, kept in build/vendor.

    python -m tools.vendor

It prints the folder. npm's own settings decide where packages come from. Each file's sha256 stands here, so a
package that was changed anywhere on its way is refused.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

PLACE = Path(__file__).parents[1] / "build" / "vendor"


@dataclass(frozen=True)
class Package:
    name: str
    version: str
    licence: str
    files: dict[str, str]
    """Path within the package to sha256; the licence is among them."""


AXE = Package(
    name="axe-core",
    version="4.14.1",
    licence="MPL-2.0",
    files={
        "axe.min.js": "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c",
        "LICENSE": "af175b9d96ee93c21a036152e1b905b0b95304d4ae8c2c921c7609100ba8df7e",
    },
)
"""Finds faults of accessibility. Only tests load it: it is no part of selfrefine or of a report."""


class VendorError(Exception):
    """Why a package could not be had, in a sentence."""


def fetched(package: Package, timeout_s: float = 60.0) -> Path:
    """The folder with the package's files, fetched unless they are there.

    Raises: VendorError: no npm, no answer within `timeout_s` seconds, or other bytes than expected.
    """
    folder = PLACE / f"{package.name}-{package.version}"
    if folder.is_dir():
        check(package, folder)
        return folder
    npm = shutil.which("npm")
    if npm is None:
        raise VendorError(f"{package.name} is fetched by npm, which is not installed")
    PLACE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=PLACE) as scratch:
        asked = f"{package.name}@{package.version}"
        command = [npm, "pack", asked, "--silent", "--ignore-scripts", "--pack-destination", scratch]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=timeout_s, cwd=scratch)
        except subprocess.TimeoutExpired:
            raise VendorError(f"npm had no {asked} after {timeout_s:.0f} s") from None
        except subprocess.CalledProcessError as error:
            why = error.stderr.decode(errors="replace").strip().splitlines()
            raise VendorError(f"npm could not fetch {asked}: {why[0] if why else error}") from None
        (archive,) = Path(scratch).glob("*.tgz")
        made = Path(scratch) / "files"
        made.mkdir()
        with tarfile.open(archive) as packed:
            for name in package.files:
                member = packed.extractfile(f"package/{name}")
                if member is None:
                    raise VendorError(f"{asked} has no {name}")
                (made / name).write_bytes(member.read())
        check(package, made)
        if not folder.exists():  # or another process was faster
            made.rename(folder)
    return folder


def check(package: Package, folder: Path) -> None:
    """Raises: VendorError where a file's bytes are not those that are expected."""
    for name, expected in package.files.items():
        found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        if found != expected:
            raise VendorError(f"{folder / name} has sha256 {found}, expected {expected}")


if __name__ == "__main__":
    print(fetched(AXE))
