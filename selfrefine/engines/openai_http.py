"""One server: its address, its key, one request to it, and what an answer that is none means."""

from __future__ import annotations

import email.utils
import os
import re
import stat
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from selfrefine.errors import ConfigError, EngineError
from selfrefine.serving import CRITIC_KEY_ENV, KEY_ENV, EngineConfig

MOST_BYTES = 64 << 20
"""Of one answer: a server that sends more is broken, and would fill the memory."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")
RETRIED = frozenset({408, 429, *range(500, 600)})


class Fault(Exception):
    """No answer. `retry`: it may come if it is asked again, of this server or another. `after_s`: what the
    server asks to wait. `status`: of HTTP, 0 where none came."""

    def __init__(
        self, why: str, *, retry: bool = False, after_s: float | None = None, status: int = 0
    ) -> None:
        super().__init__(why)
        self.why, self.retry, self.after_s, self.status = why, retry, after_s, status

    @property
    def busy(self) -> bool:
        """The server works, but takes no more now."""
        return self.status == 429


def addresses(base_url: str | None, key: str) -> tuple[str, ...]:
    """The servers of a setting, without the slash at the end. `key`: the setting's name.

    Raises: ConfigError for what is no address, and for one with a password in it, which is not repeated.
    """
    found = [part.strip().rstrip("/") for part in (base_url or "").split(",") if part.strip()]
    if not found:
        raise ConfigError(
            f"openai:NAME needs the address of a server: set {key}, such as http://127.0.0.1:8000/v1"
        )
    for address in found:
        try:
            parts = urlsplit(address)
            usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
            (parts.hostname or "").encode("idna")  # what cannot be a host's name fails when it is looked up
        except ValueError:
            usable, parts = None, urlsplit("")
        if "@" in address or parts.query or parts.fragment:
            raise ConfigError(
                f"{key}: an address has no user, password or query in it: it is written into manifests\n"
                "give a key by its environment variable (engine.key_env) or file (engine.key_file)"
            )
        if not usable:
            raise ConfigError(f"{key} {address[:200]!r}: not an address such as http://127.0.0.1:8000/v1")
    if len(set(found)) != len(found):
        raise ConfigError(f"{key}: an address is named twice")
    return tuple(found)


def is_local(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    return host in LOOPBACK or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None


def read_key(settings: EngineConfig) -> str | None:
    """The key, from its file or else from the environment; None where there is none.

    Raises: ConfigError, which never repeats it.
    """
    if settings.key_file is not None:
        path = Path(settings.key_file).expanduser()
        try:
            mode = path.stat().st_mode
            key = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "not UTF-8 text"
            raise ConfigError(f"key file {settings.key_file}: cannot be read: {why}") from None
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError(
                f"key file {settings.key_file}: others can read it (mode {stat.S_IMODE(mode):04o}); "
                f"chmod 600 {settings.key_file}"
            )
        where = f"key file {settings.key_file}"
    else:
        key, where = os.environ.get(settings.key_env, "").strip(), f"${settings.key_env}"
    if not key and settings.key_file is None:
        if settings.key_env not in (KEY_ENV, CRITIC_KEY_ENV):  # the name may be a key, put there by mistake
            raise ConfigError("key_env names an environment variable that is not set")
        return None
    if not re.fullmatch(r"[!-~]+", key):
        raise ConfigError(f"{where}: holds no key: one word of printable ASCII is expected")
    return key


def make_client(address: str, settings: EngineConfig, key: str | None) -> Any:
    """An httpx client with kept connections; TLS is verified. Raises: EngineError where httpx is missing."""
    try:
        import httpx2 as httpx
    except ImportError:
        raise EngineError("openai:NAME needs httpx2: pip install 'selfrefine[servers]'") from None
    n = settings.connections
    return httpx.Client(
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=httpx.Timeout(settings.timeout_s, connect=min(10.0, settings.timeout_s)),
        limits=httpx.Limits(max_connections=n, max_keepalive_connections=n),
        verify=httpx.create_ssl_context(),  # heeds SSL_CERT_FILE, which trust_env would switch off
        # A proxy for the world outside is none for this machine, and could not reach it.
        trust_env=not is_local(address),
        follow_redirects=False,  # the key would go along
    )


class Server:
    """Asks one address. Used by several threads at once."""

    def __init__(self, address: str, settings: EngineConfig, key: str | None) -> None:
        self.address, self._key = address, key
        self._client = make_client(address, settings, key)
        self._timeout_s = settings.timeout_s

    def close(self) -> None:
        self._client.close()

    def ask(self, method: Literal["GET", "POST"], path: str, payload: Any = None) -> bytes:
        """The body of an answer with status 200. Raises: Fault."""
        import httpx2 as httpx

        content = None if payload is None else msgspec.json.encode(payload)
        headers = {"Content-Type": "application/json"} if content else {}
        until = time.monotonic() + self._timeout_s
        body = bytearray()
        try:
            with self._client.stream(
                method, f"{self.address}{path}", content=content, headers=headers
            ) as response:
                for block in response.iter_bytes():
                    body += block
                    if len(body) > MOST_BYTES:
                        raise Fault(f"the answer is longer than {MOST_BYTES >> 20} MiB")
                    # The client's own limit starts again with every byte.
                    if time.monotonic() > until:
                        raise Fault(self._late(), retry=True)
                status, sent = response.status_code, response.headers
        except httpx.TimeoutException as error:
            connecting = isinstance(error, httpx.ConnectTimeout)
            raise Fault(
                "it does not accept connections" if connecting else self._late(), retry=True
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Fault(_broken(error, self.clean), retry=isinstance(error, httpx.TransportError)) from None
        if status == 200:
            return bytes(body)
        raise Fault(
            f"HTTP {status}: {why_refused(bytes(body), sent.get('location'), self.clean)}",
            retry=status in RETRIED,
            after_s=retry_after_s(sent.get("retry-after"), datetime.now(UTC)) if status in RETRIED else None,
            status=status,
        )

    def _late(self) -> str:
        return f"no whole answer within {self._timeout_s:g} s (engine.timeout_s)"

    def clean(self, text: str) -> str:
        """What a server says, without the key: some repeat it. Before it is shortened, which could leave the
        first half of a key."""
        return text.replace(self._key, "***") if self._key else text


Clean = Callable[[str], str]


def _broken(error: Exception, clean: Clean) -> str:
    said = next(iter(clean(str(error)).splitlines()), "")[:200]
    return f"the connection broke ({said or type(error).__name__})"


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Seconds that a `Retry-After` header asks for, from 0; None where there is none that can be read."""
    if not value:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        when = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - now).total_seconds())


def why_refused(body: bytes, location: str | None = None, clean: Clean = str) -> str:
    """What a body that comes with an error says, in at most 300 characters. `clean`: see `Server`."""
    if location:
        return f"it sends you to {clean(location)[:200]}; use that address"
    text = body.decode(errors="replace").strip()
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return what_text(text, clean)
    for key in ("error", "message", "detail"):
        if isinstance(found, dict) and key in found:
            found = found[key]
    if isinstance(found, str):
        return " ".join(clean(found).split())[:300]
    return " ".join(clean(text).split())[:300]


def what_text(text: str, clean: Clean = str) -> str:
    """What stands there instead of JSON."""
    text = clean(text)
    if not text:
        return "an empty body"
    if "<html" in text[:2000].lower() or text.lower().startswith("<!doctype"):
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        said = " ".join(title[1].split())[:100] if title else ""
        return f"an HTML page{f' ({said})' if said else ''} instead of JSON"
    return f"no JSON: {' '.join(text.split())[:100]}"
