"""A manifest's packages as a constraints file for pip."""

from __future__ import annotations

import re
from collections.abc import Iterator

from selfrefine.runfolder.summaries import RunManifest

_RELEASE = re.compile(r"\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?")
"""A version as an index has it (PEP 440): no `.dev`, which is a checkout, and no local part."""
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_OURS = "selfrefine"


def constraints(manifest: RunManifest) -> Iterator[str]:
    """Its lines: the packages that compute, each with the version that the run recorded."""
    yield f"# Packages that the run {manifest.name} recorded, for: pip install -c FILE …"
    yield f"# python {manifest.packages.get('python', 'not recorded')}"
    for name, version in sorted(manifest.packages.items()):
        if name != "python":
            yield from _line(name, version, manifest)


def _line(name: str, version: str, manifest: RunManifest) -> Iterator[str]:
    if name == _OURS:
        # Installed from a checkout as often as not, and a constraint would refuse that checkout later.
        yield f"# {name}=={version}{_commit(manifest)}"
    elif version == "not installed":
        yield f"# {name}: not installed"
    elif _NAME.fullmatch(name) is None:
        yield f"# {name}=={version}: not a package's name"
    elif _RELEASE.fullmatch(version):
        yield f"{name}=={version}"
    elif _RELEASE.fullmatch(public := version.partition("+")[0]):
        # `==2.9.0` allows 2.9.0+cpu too (PEP 440, "Version matching"): the index decides which build it is.
        yield f"# {name} {version} is a local build: the index it came from has it, the usual one may not"
        yield f"{name}=={public}"
    else:
        yield f"# {name}=={version}: a build of a checkout, on no index; install it from its repository"


def _commit(manifest: RunManifest) -> str:
    commit = manifest.git.get("commit")
    dirty = " with changes" if manifest.git.get("dirty") else ""
    return f" (the command was given in a checkout at commit {commit}{dirty})" if commit else ""
