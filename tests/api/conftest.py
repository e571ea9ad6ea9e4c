"""A fresh KATO in memory for every test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.api.driving import Client, client


@pytest.fixture
async def http() -> AsyncIterator[Client]:
    async with client() as connected:
        yield connected
