"""All benchmarks, one after another: a table per section, result files, and what became of the budgets."""

from __future__ import annotations

import importlib
import sys
import time
import traceback
from pathlib import Path

import machine
import report
from options import arguments, measure, parsed

SECTIONS = {
    "search": "search",
    "predictions": "predicting",
    "learning": "learning",
    "opening": "opening",
    "http": "serving",
    "sessions": "sessions",
    "production": "production",
}
"""Each section and the module that measures it."""


def main() -> int:
    """Run what was asked for; 1 when a section could not be measured."""
    parser = arguments(__doc__ or "")
    parser.add_argument(
        "--only", default=",".join(SECTIONS), metavar="NAMES", help="sections, with commas between"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all sections into this file too")
    values = parser.parse_args()
    wanted = [name.strip() for name in values.only.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in SECTIONS]:
        parser.error(f"no such section: {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    options, facts, started = parsed(values), machine.describe(), time.monotonic()
    print(machine.headline(facts))
    measured: dict[str, list[report.Row]] = {}
    failed = []
    for name in wanted:
        try:
            section = importlib.import_module(SECTIONS[name]).run
            measured[name] = measure(name, section, options)
        except Exception:  # noqa: BLE001 - one section that cannot run must not cost the figures of the others
            failed.append(name)
            traceback.print_exc()
    print(f"\n{report.summary(measured)}")
    if failed:
        print(f"not measured: {', '.join(failed)} (see above)")
    print(f"{time.monotonic() - started:.0f} s")
    if values.json is not None:
        report.write(values.json, report.document(measured, facts, options.size))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
