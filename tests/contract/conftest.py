from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kato.stores.ports import PatternStore, SessionStore, VectorStore

from .adapters import ADAPTERS, ONLY, Adapters


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "adapters" in metafunc.fixturenames:
        suite = metafunc.module.__name__.rpartition("test_")[2]
        kinds = [kind for kind in sorted(ADAPTERS) if ONLY.get(kind, suite) == suite]
        metafunc.parametrize("adapters", kinds, indirect=True)


@pytest.fixture
def adapters(request: pytest.FixtureRequest, tmp_path: Path) -> Adapters:
    return ADAPTERS[request.param](tmp_path)


@pytest.fixture
async def patterns(adapters: Adapters) -> AsyncIterator[PatternStore]:
    store = await adapters.patterns()
    yield store
    await store.close()


@pytest.fixture
async def vectors(adapters: Adapters) -> AsyncIterator[VectorStore]:
    store = await adapters.vectors()
    yield store
    await store.close()


@pytest.fixture
async def sessions(adapters: Adapters) -> AsyncIterator[SessionStore]:
    store = await adapters.sessions()
    yield store
    await store.close()
