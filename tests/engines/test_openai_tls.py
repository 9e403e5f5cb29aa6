"""Keys and certificates on the way to a server: what is verified, and what is said of a plain connection."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty import Faulty, faulty

from selfrefine.engines import LoadOptions
from selfrefine.engines.openai import Served
from selfrefine.engines.openai_http import is_local, make_client
from selfrefine.errors import EngineError
from selfrefine.serving import EngineConfig

CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBmzCCAUGgAwIBAgIUDkqD8AuMeWj6ILpxplYpBRxgHVQwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyODEyMTgzNloYDzIxMjYxMTA0
MTIxODM2WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQMKKd7sKrrNai8tYpzOIwNlK0QXlwENt9wLJI2al3XA7VHCk4mBuYd
Jq7yuBZgIMHPDVzufRN8Cly0cadltiT6o28wbTAdBgNVHQ4EFgQU+fm8V9ClNXEC
Je1rfq8tha36n10wHwYDVR0jBBgwFoAU+fm8V9ClNXECJe1rfq8tha36n10wGgYD
VR0RBBMwEYIJbG9jYWxob3N0hwR/AAABMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZI
zj0EAwIDSAAwRQIgVLUdWou6pKhuPMC3BlXLAEMnZpQmSxn4IHVwoB51HqwCIQDL
+ymscm55O97Rlu7kr5h7PetKYdJsFD3V2gPCv+3yvQ==
-----END CERTIFICATE-----
"""
KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg8QtH9be0HShfdsFC
KLSttc++r7U9HodNZHHGdIpqr2ihRANCAAQMKKd7sKrrNai8tYpzOIwNlK0QXlwE
Nt9wLJI2al3XA7VHCk4mBuYdJq7yuBZgIMHPDVzufRN8Cly0cadltiT6
-----END PRIVATE KEY-----
"""
"""Of localhost and 127.0.0.1, signed by itself, until 2126. It protects nothing."""


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "certificate.pem"
    path.write_text(CERTIFICATE + KEY)
    return path


@pytest.fixture
def secured(certificate: Path) -> Iterator[Faulty]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with faulty(tls=context) as server:
        yield server


def test_a_certificate_that_nobody_vouches_for_is_refused(secured: Faulty) -> None:
    with pytest.raises(EngineError, match=r"no server answers: .*certificate verify failed"):
        Served("m", LoadOptions(servers=EngineConfig(base_url=secured.url)))
    assert secured.heads == []  # nothing was sent, and no key


def test_one_that_the_system_is_told_to_trust_is_taken(
    secured: Faulty, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    made = Served("m", LoadOptions(servers=EngineConfig(base_url=secured.url)))
    assert "seed" in made.abilities.words()


def test_a_plain_connection_to_another_machine_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with faulty(can=("n", "seed", "stop", "logprobs")) as server:
        own = EngineConfig(base_url=server.url)
        assert Served("m", LoadOptions(servers=own)).notes == ()
        # As if 127.0.0.1 were elsewhere: the test has no second machine.
        monkeypatch.setattr("selfrefine.engines.openai.is_local", lambda address: False)
        monkeypatch.setenv("SELFREFINE_API_KEY", "k")
        [note] = Served("m", LoadOptions(servers=own)).notes
    assert note.startswith(server.url) and "the key can be read on the way" in note


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://127.8.0.1/v1", True),
        ("http://localhost/v1", True),
        ("http://[::1]:80/v1", True),
        ("http://127.0.0.1.example.org/v1", False),
        ("http://10.0.0.1/v1", False),
        ("http://localhost.example.org/v1", False),
    ],
)
def test_which_addresses_are_this_machine(address: str, local: bool) -> None:
    assert is_local(address) is local


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """It could not reach it, and would read along."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    with faulty() as server:
        assert Served("m", LoadOptions(servers=EngineConfig(base_url=server.url))).name == "m"


def test_without_the_http_client_the_message_says_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(EngineError, match=r"selfrefine\[servers\]"):
        make_client("http://127.0.0.1:1/v1", EngineConfig(), None)
