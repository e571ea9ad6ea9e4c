"""The environment without the settings of the machine that runs the tests."""

from __future__ import annotations

import os

from pydantic import AliasChoices

from kato.settings import Settings


def spellings(field: str) -> list[str]:
    """The variables that set a field, the one that wins first."""
    alias = Settings.model_fields[field].validation_alias
    assert isinstance(alias, AliasChoices)
    return [str(choice) for choice in alias.choices]


VARIABLES = frozenset(name for field in Settings.model_fields for name in spellings(field))


def clean_environment() -> dict[str, str]:
    """The environment of this process without any of KATO's variables."""
    return {name: value for name, value in os.environ.items() if name.upper() not in VARIABLES}
