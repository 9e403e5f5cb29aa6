"""What a run's manifest says: everything that decides its outcome, and who decided it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import re
import subprocess
from collections.abc import Sequence
from typing import Any

import msgspec

from selfrefine.layers import Settings
from selfrefine.runfolder.summaries import RunManifest

PACKAGES = (
    "selfrefine",
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "safetensors",
    "numpy",
    "scipy",
    "msgspec",
    "jinja2",
    "sacrebleu",
    "reasoning-gym",
)
_SECRET_FLAG = re.compile(r"--?[\w-]*(key|token|secret|password)[\w-]*$", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"\b(hf_|sk-|ghp_|xox[abp]-)[\w-]{8,}")
_NOT_SECRET = frozenset({"--max-new-tokens", "--token-budget"})


def redacted(argv: Sequence[str]) -> tuple[str, ...]:
    """The command line without what looks like a secret: it is copied into a file that gets shared."""
    shown: list[str] = []
    hide_next = False
    for word in argv:
        name, equals, _ = word.partition("=")
        secret = bool(_SECRET_FLAG.search(name)) and name not in _NOT_SECRET
        if hide_next:
            word = "***"
        elif secret and equals:
            word = f"{name}=***"
        shown.append(_SECRET_VALUE.sub("***", word))
        hide_next = secret and not equals
    return tuple(shown)


def packages() -> dict[str, str]:
    """Versions of what computes: another one may give other numbers."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def git_state() -> dict[str, Any]:
    """Commit and dirtiness of the folder the command was given in; empty outside a checkout."""
    try:
        commit = _git("rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git("status", "--porcelain"))} if commit else {}
    except (OSError, subprocess.SubprocessError):
        return {}


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


NO_TEMPLATE = hashlib.sha256(b"plain").hexdigest()
"""`chat_template_sha256` of a model without a chat template."""


class EngineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a manifest says of the engine."""

    model: dict[str, str]
    chat_template_sha256: str = ""
    device: str = "none"
    dtype: str = "none"
    threads: int = 0
    unit_tokens: int = 0


def build(
    name: str,
    argv: Sequence[str],
    settings: Settings,
    facts: EngineFacts,
    critic: dict[str, str] | None = None,
    code: dict[str, str] | None = None,
) -> RunManifest:
    """The manifest of a new run, but for the hashes of tasks and prompts, which `Run.create` fills in."""
    return RunManifest(
        name=name,
        argv=redacted(argv),
        config=msgspec.to_builtins(settings.config),
        origins=settings.origins,
        seeds={"run": settings.config.seed},
        git=git_state(),
        packages=packages(),
        model=facts.model,
        critic=critic or {},
        code=code or {},
        chat_template_sha256=facts.chat_template_sha256,
        prompts={},
        tasks={},
        device=facts.device,
        dtype=facts.dtype,
        threads=facts.threads,
        token_budget=facts.unit_tokens,
    )
