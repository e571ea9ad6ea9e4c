"""A service with a session, under the control of a clock."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from kato.service import Kato
from tests.support.clock import Clock
from tests.support.kato import kato_running, opened


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def kato(clock: Clock) -> AsyncIterator[Kato]:
    async with kato_running(clock=clock) as running:
        yield running


@pytest.fixture
async def session(kato: Kato) -> str:
    return await opened(kato)
