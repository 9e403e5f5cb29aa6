"""What is refused before a row is read and before a model is loaded: names that do not exist, files that
cannot be written, settings that contradict each other."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from selfrefine.compute import adapter_files
from selfrefine.config import Config
from selfrefine.errors import ConfigError, EngineError, RunFolderError
from selfrefine.layers import Settings
from selfrefine.registry import split
from selfrefine.serving import CRITIC_KEY_ENV


def verb(settings: Settings) -> None:
    """The rewards, models and adapter that a verb's settings name. Raises: ConfigError, EngineError."""
    from selfrefine.steps import best_of

    config = settings.config
    if config.reward.use or config.evaluate.measure or config.guards.gold is not None:
        from selfrefine.steps.scoring import check_named

        check_named(config)
    else:
        from selfrefine.steps.scoring import check_critics

        check_critics(config)
    best_of.check(config, said={key for key, origin in settings.origins.items() if origin == "flag"})
    models(config)


def run(config: Config) -> None:
    """The same for a run, and settings that contradict each other. Raises: ConfigError, EngineError."""
    from selfrefine.stages.settings import check_run
    from selfrefine.steps import best_of

    check_run(config)
    best_of.check(config, in_run=True)
    models(config)


def models(config: Config) -> None:
    """Raises: EngineError, ConfigError where a model or an adapter is not in the folder that is named."""
    critic, adapter = config.critique.critic_model, config.adapter
    _servers(config)
    if critic is not None and critic != config.model:
        try:
            _model(critic, scripts=True)  # the policy's is read next, the critic's after it
        except EngineError as error:
            raise EngineError(str(error).replace("--model", "critique.critic_model", 1)) from None
    local = _model(config.model)
    if local and adapter is not None:
        try:
            adapter_files.check(Path(adapter))
        except ConfigError as error:
            raise ConfigError(f"--adapter {error}") from None


def _servers(config: Config) -> None:
    """Raises: ConfigError for addresses that are none, keys that cannot be read, and both where no model is
    a server's."""
    from selfrefine.cli.common import of_critic
    from selfrefine.engines.openai_http import addresses, read_key

    own, asked = config.critique, config.critique.critic_model or ""
    policy, critic = (split(name)[0] == "openai" for name in (config.model, asked))
    if policy:
        addresses(config.engine.base_url, "--base-url (engine.base_url)")
        read_key(config.engine)
    if critic:
        addresses(of_critic(config).base_url, "critique.base_url")
        read_key(of_critic(config))
    shared = policy or (critic and not own.base_url)
    no_model = "a critique.critic_model of openai:NAME"
    no_address = "critique.base_url: the critic's server is that of engine.base_url, and has its key"
    why = no_address if critic else no_model
    for key, set_, taken, what in (
        ("engine.base_url", config.engine.base_url, shared, "a model of openai:NAME at this address"),
        ("engine.key_file", config.engine.key_file, shared, "a model of openai:NAME at engine.base_url"),
        ("critique.base_url", own.base_url, critic, no_model),
        ("critique.key_file", own.key_file, critic and own.base_url, why),
        ("critique.key_env", own.key_env != CRITIC_KEY_ENV, critic and own.base_url, why),
    ):
        if set_ and not taken:
            raise ConfigError(f"{key} is not used without {what}; leave it out")


def _model(name: str, *, scripts: bool = False) -> bool:
    """Whether it is one of transformers. Raises: EngineError, ConfigError where it is not there."""
    if name == Config().model:
        return True
    from selfrefine.engines import ENGINES, LoadOptions
    from selfrefine.engines.load import resolve

    kind, _, rest = split(name)
    if ".py:" in kind or ("/" not in kind and kind in ENGINES and kind != "local"):
        if scripts and kind == "scripted":
            ENGINES.get(kind).load(rest, None, LoadOptions())
        return False
    if name.count("/") != 1 or name.startswith((".", "/", "~")) or Path(name).is_dir():  # no hub id
        resolve(name.removeprefix("local:"))
    return True


def outputs(*paths: str | None) -> None:
    """Raises: RunFolderError for a file that cannot be written where it is to be."""
    for path in paths:
        if path in (None, "-"):
            continue
        target = Path(str(path))
        code = errno.EISDIR if target.is_dir() else 0 if target.parent.is_dir() else errno.ENOENT
        if code:
            raise RunFolderError(f"cannot write {path}: {os.strerror(code)}")
