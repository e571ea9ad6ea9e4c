"""The `kato` command."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from kato.cli import bench, check, copy, demo, learn, output, patterns, predict, serve, transfer
from kato.errors import KatoError
from kato.settings import SettingsError


class Commands(TyperGroup):
    """Turns every error that is expected into one sentence on stderr and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except KatoError as error:
            output.fail(error.message)
        except SettingsError as error:
            output.fail(str(error))
        except BrokenPipeError:
            # Whoever read our output has seen enough; Python must not complain about it when it ends.
            sys.stdout = None
            raise typer.Exit(1) from None
        except OSError as error:
            name = f"{error.filename}: " if error.filename else ""
            output.fail(f"{name}{error.strerror or error}")


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="KATO, a memory that predicts.",
)


def version() -> str:
    """The version of the installed package."""
    try:
        return metadata.version("kato")
    except metadata.PackageNotFoundError:
        return "unreleased"


def _version(wanted: bool) -> None:
    if wanted:
        output.say(f"kato {version()}")
        raise typer.Exit


@app.callback()
def _main(
    show_version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version and stop.")
    ] = False,
) -> None:
    """KATO, a memory that predicts."""


app.command("serve")(serve.serve)
app.command("learn")(learn.learn)
app.command("predict")(predict.predict)
app.add_typer(patterns.app, name="patterns")
app.command("export")(transfer.export)
app.command("import")(transfer.import_)
app.command("copy")(copy.copy)
app.command("check")(check.check)
app.command("bench")(bench.bench)
app.command("demo")(demo.demo)
