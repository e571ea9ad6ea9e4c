"""`kato serve`: start the server."""

from __future__ import annotations

from typing import Annotated

import typer

from kato import settings


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on.  [default: HOST or 127.0.0.1]")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.  [default: PORT or 8000]")] = None,
    data: Annotated[
        str | None, typer.Option(help="Data directory, or :memory:.  [default: KATO_DATA or ./kato-data]")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Number of processes; the embedded store allows one.  [default: WORKERS or 1]"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write the log as JSON Lines.")] = False,
) -> None:
    """Start the HTTP and WebSocket server.

    SIGTERM and Ctrl+C end it as soon as the requests in work are answered. With several workers, SIGHUP replaces one
    after the other, and no request is refused meanwhile.
    """
    chosen = settings.load(
        host=host, port=port, kato_data=data, workers=workers, log_format="json" if as_json else None
    )
    from kato.api.server import serve as run

    run(chosen)
