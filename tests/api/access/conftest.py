from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import httpx
import pytest

from api.access.policy import AccessPolicy
from planner.archive import AccessScope
from tests.api.service import Service, served

HOST = "plans.example.org"
_numbers = count(1)


@pytest.fixture(scope="module")
def guarded(service: Service) -> Iterator[Service]:
    """The same archive behind an application that asks for tokens, as one that others can reach does."""
    policy = AccessPolicy(tokens_needed=True, hosts=frozenset({HOST}), addresses=True)
    with served(service.runtime, policy) as running:
        yield running


@pytest.fixture
def token(service: Service) -> Callable[[AccessScope], str]:
    """Makes tokens."""
    return lambda scope: service.runtime.archive.tokens.create(f"{scope}-{next(_numbers)}", scope).text


@pytest.fixture
def holder(guarded: Service, token: Callable[[AccessScope], str]) -> Iterator[Callable[[AccessScope], httpx.Client]]:
    """Clients that show a token of a scope."""
    clients: list[httpx.Client] = []

    def opened(scope: AccessScope) -> httpx.Client:
        headers = {"authorization": f"Bearer {token(scope)}"}
        clients.append(httpx.Client(base_url=guarded.url, headers=headers, timeout=20))
        return clients[-1]

    yield opened
    for client in clients:
        client.close()
