"""Six KATOs for all tests of congruence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.congruence.speakers import speakers


@pytest.fixture(scope="session")
def katos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Six KATOs by name; every test uses nodes of its own."""
    with speakers(tmp_path_factory.mktemp("congruence")) as found:
        yield found
