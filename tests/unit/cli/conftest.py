from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Commands see neither the machine's settings nor its notes, and write wide tables."""
    for name in ("KATO_DATA", "PROCESSOR_ID", "KATO_CLUSTER_ID", "RECALL_THRESHOLD", "MAX_STM_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
