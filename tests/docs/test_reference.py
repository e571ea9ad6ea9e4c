from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from kato.engine.configuration import PARAMETERS
from kato.model import FuturePotential, Prediction
from kato.settings import Settings

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference_generator", REFERENCE / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = _generator()


@pytest.mark.parametrize("name", sorted(GENERATOR.PAGES))
def test_page_is_what_the_code_says(name: str) -> None:
    page = (REFERENCE / name).read_text(encoding="utf-8")
    assert page == GENERATOR.PAGES[name](), "run: python docs/reference/generate.py"


def test_every_setting_is_described_and_no_other() -> None:
    described = set(GENERATOR.SETTINGS)
    assert set(Settings.model_fields) - set(PARAMETERS) == described


def test_every_session_parameter_is_described_and_no_other() -> None:
    assert set(PARAMETERS) == set(GENERATOR.PARAMETER_MEANINGS)


def test_every_field_of_a_prediction_is_described_in_order() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", (REFERENCE / "metrics.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [*Prediction.__struct_fields__, *FuturePotential.__struct_fields__]


def test_every_command_is_described() -> None:
    page = (REFERENCE / "cli.md").read_text(encoding="utf-8")
    names = [path for path, _ in GENERATOR.commands(GENERATOR.typer.main.get_command(GENERATOR.app), "kato")]
    assert names
    assert all(f"\n## {name}\n" in page for name in names)
