"""The HTTP clients that ``signer.auth()`` serves, each as a function that sends one request."""

from __future__ import annotations

import asyncio
import inspect
import os
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import pytest
import requests

if TYPE_CHECKING:
    from collections.abc import Callable

# niquests puts another urllib3 in the place of the one that boto3 and requests use: it has an environment of its own.
HAS_NIQUESTS = bool(os.environ.get("HSM_KEYS_TEST_NIQUESTS")) or find_spec("niquests") is not None
niquests: Any = import_module("niquests") if HAS_NIQUESTS else None

# Each sends one request and returns status, body and what came before.


def by_requests(auth: Any, method: str, url: str, **options: Any) -> Any:
    with requests.Session() as session:
        session.auth = auth
        return session.request(method, url, timeout=10, **options)


def by_niquests(auth: Any, method: str, url: str, **options: Any) -> Any:
    with niquests.Session() as session:
        session.auth = auth
        return session.request(method, url, timeout=10, **options)


def by_httpx(auth: Any, method: str, url: str, **options: Any) -> Any:
    with httpx.Client(auth=auth, follow_redirects=True) as client:
        return client.request(method, url, **options)


def by_httpx2(auth: Any, method: str, url: str, **options: Any) -> Any:
    with httpx2.Client(auth=auth, follow_redirects=True) as client:
        return client.request(method, url, **options)


async def a_niquests(auth: Any, method: str, url: str, **options: Any) -> Any:
    async with niquests.AsyncSession() as session:
        session.auth = auth
        return await session.request(method, url, timeout=10, **options)


async def a_httpx(auth: Any, method: str, url: str, **options: Any) -> Any:
    async with httpx.AsyncClient(auth=auth, follow_redirects=True) as client:
        return await client.request(method, url, **options)


async def a_httpx2(auth: Any, method: str, url: str, **options: Any) -> Any:
    async with httpx2.AsyncClient(auth=auth, follow_redirects=True) as client:
        return await client.request(method, url, **options)


def run(client: Any) -> Callable[..., Any]:
    """Return a function that sends with the client, sync or not."""
    if inspect.iscoroutinefunction(client):
        return lambda *arguments, **options: asyncio.run(client(*arguments, **options))
    sync: Callable[..., Any] = client
    return sync


ASYNC = [a_httpx, a_httpx2, *([a_niquests] if HAS_NIQUESTS else [])]
CLIENTS = [by_requests, by_httpx, by_httpx2, *([by_niquests] if HAS_NIQUESTS else []), *ASYNC]
each_client = pytest.mark.parametrize("client", CLIENTS, ids=[client.__name__ for client in CLIENTS])
