#!/usr/bin/env python3
"""Writes tickets.csv, the event log of `kato demo` and of the tutorial, beside this script.

The generator is `kato.cli.tickets`; its first lines say why the log looks as it does: kinds of tickets with a happy
path each, rework loops, waiting loops, escalations, missing steps, and cases that are still running. It is part of the
package because the demo must also work where this folder is not. The same bytes come out on every machine: the
generator uses a splitmix64 of its own.

    python examples/make_tickets.py
"""

from __future__ import annotations

from pathlib import Path

from kato.cli import tickets

FILE = Path(__file__).with_name("tickets.csv")

if __name__ == "__main__":
    FILE.write_text(tickets.text(), encoding="utf-8", newline="")
    print(
        f"{FILE.name}: {len(tickets.rows())} events, {tickets.CASES} cases, {tickets.RUNNING} of them running"
    )
