"""What is refused before a row is read and before a model is loaded: names that do not exist, files that
cannot be written, settings that contradict each other."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from selfrefine.config import Config
from selfrefine.errors import ConfigError, RunFolderError


def settings(config: Config) -> None:
    """The rewards, models and adapter that a verb's settings name. Raises: ConfigError, EngineError."""
    if config.reward.use or config.evaluate.measure or config.guards.gold is not None:
        from selfrefine.steps.scoring import check_asked

        check_asked(config)
    for name in (config.model, config.critique.critic_model):
        if name is not None:
            model(name, config.adapter if name == config.model else None)


def model(name: str, adapter: str | None = None) -> None:
    """Raises: EngineError, ConfigError where a model or an adapter is not in the folder that is named."""
    if name == Config().model and adapter is None:
        return
    from selfrefine.engines import ENGINES, embedded
    from selfrefine.engines.load import resolve
    from selfrefine.registry import split

    kind = split(name)[0]
    if "/" not in kind and ".py:" not in kind and kind in ENGINES and kind != "local":
        return  # it checks what stands behind its name at once
    path = Path(name).expanduser()
    on_hub = name.count("/") == 1 and not name.startswith((".", "/", "~")) and not path.is_dir()
    if name != embedded.NAME and ".py:" not in kind and not on_hub:
        resolve(name.removeprefix("local:"))
    if adapter is not None and not (Path(adapter) / "adapter_config.json").is_file():
        raise ConfigError(f"--adapter {adapter}: not an adapter folder, it has no adapter_config.json")


def outputs(*paths: str | None) -> None:
    """Raises: RunFolderError for a file that cannot be written where it is to be."""
    for path in paths:
        if path in (None, "-"):
            continue
        target = Path(str(path))
        code = errno.EISDIR if target.is_dir() else 0 if target.parent.is_dir() else errno.ENOENT
        if code:
            raise RunFolderError(f"cannot write {path}: {os.strerror(code)}")
