"""One fork server and one uninterrupted run for all the crash tests of a pytest process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from forks import Forks
from world import World


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    server = Forks()
    yield server
    server.close()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> World:
    return World(tmp_path_factory.mktemp("crash"), forks)
