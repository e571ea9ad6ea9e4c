"""What a run of the benchmarks is asked to do, and how a section runs alone."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import AliasChoices

import machine
import report

T = TypeVar("T")
Size = Literal["full", "quick", "tiny"]
HERE = Path(__file__).resolve().parent
MSNBC = HERE.parent.parent / "shared" / "data" / "msnbc-full"


@dataclass(frozen=True)
class Options:
    """`tiny` is for the tests: everything runs once and the figures mean nothing."""

    size: Size = "full"
    results: Path = field(default=HERE / "results")
    msnbc: Path = MSNBC

    @property
    def tiny(self) -> bool:
        """Whether only the working of the benchmark is of interest."""
        return self.size == "tiny"

    def pick(self, full: T, quick: T, tiny: T) -> T:
        """The parameter for this size of run."""
        return {"full": full, "quick": quick, "tiny": tiny}[self.size]


Section = Callable[[Options], list[report.Row]]


def arguments(description: str) -> argparse.ArgumentParser:
    """The command line that every benchmark understands."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--quick", action="store_true", help="smaller sizes, shorter runs: about two minutes in all"
    )
    parser.add_argument("--tiny", action="store_true", help="everything once, for the tests")
    parser.add_argument("--msnbc", type=Path, default=MSNBC, metavar="DIR", help="the msnbc-full data set")
    parser.add_argument(
        "--results", type=Path, default=HERE / "results", metavar="DIR", help="where JSON is written"
    )
    return parser


def parsed(values: argparse.Namespace) -> Options:
    """The options in a parsed command line."""
    size: Size = "tiny" if values.tiny else "quick" if values.quick else "full"
    return Options(size=size, results=values.results, msnbc=values.msnbc)


def forget_settings() -> None:
    """Take KATO's own variables out of the environment: it is measured as users start it."""
    from kato.settings import Settings

    for field_name, info in Settings.model_fields.items():
        alias = info.validation_alias
        for name in (field_name.upper(), *(alias.choices if isinstance(alias, AliasChoices) else ())):
            os.environ.pop(str(name), None)


def measure(name: str, section: Section, options: Options) -> list[report.Row]:
    """Run one section, print its table and write its result file."""
    forget_settings()
    facts = machine.describe()
    print(f"\n{name}  (load average {' '.join(map(str, facts['load_average']))})", flush=True)
    rows = section(options)
    print(report.table(rows), flush=True)
    report.write(options.results / f"{name}.json", report.document({name: rows}, facts, options.size))
    return rows


def main(name: str, section: Section) -> None:
    """Run a section from its own command line."""
    options = parsed(arguments(sys.modules[section.__module__].__doc__ or name).parse_args())
    print(machine.headline(machine.describe()))
    print(report.summary({name: measure(name, section, options)}))
