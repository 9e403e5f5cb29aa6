"""Settings of servers that answer for a model. config.py has the others."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from selfrefine.fields import Natural, NonNegative, Positive, PositiveFloat, says

VariableName = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
"""Not a key itself: those have other characters in them, and this is written into manifests."""

KEY_ENV, CRITIC_KEY_ENV = "SELFREFINE_API_KEY", "SELFREFINE_CRITIC_API_KEY"
"""Of our own and not OPENAI_API_KEY, which would go to whatever address is named."""


class EngineConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How servers are asked (`model = "openai:NAME"`). None of it decides what they answer, so a run may be
    continued with other values."""

    base_url: Annotated[
        str | None,
        says(
            "Address of the server behind `openai:NAME`, such as http://127.0.0.1:8000/v1. Several, which "
            "share the work, are separated by commas."
        ),
    ] = None
    connections: Annotated[Positive, says("Requests to each server at the same time.")] = 8
    timeout_s: Annotated[
        PositiveFloat, says("Time limit of one request in seconds, until its whole answer is there.")
    ] = 300.0
    retries: Annotated[
        Natural,
        says(
            "How often a request that failed is asked again. That is after a broken connection, a timeout, "
            "and the statuses 408, 429 and from 500 on. Other errors are not asked again."
        ),
    ] = 6
    backoff_s: Annotated[
        NonNegative,
        says(
            "How long a server is left alone after a fault, in seconds. It doubles with each fault in a row, "
            "and with each 429 to one request, up to 30 s, times 0.5 to 1.5. A `Retry-After` of the server "
            "counts instead."
        ),
    ] = 0.5
    key_env: Annotated[
        VariableName, says("Name of the environment variable that holds the key, if the server wants one.")
    ] = KEY_ENV
    key_file: Annotated[
        str | None, says("File that holds the key, readable by its owner only (mode 0600).")
    ] = None
