"""KATO over HTTP: `Client` waits, `AsyncClient` is awaited; both speak the verbs of `kato.verbs`."""

from kato.client.asynchronous import AsyncClient
from kato.client.sync import Client

__all__ = ["AsyncClient", "Client"]
