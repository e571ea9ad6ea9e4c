"""Where Redis is: one server, one server behind TLS, or a master that Sentinels know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from redis.asyncio import Sentinel
from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff

from kato.errors import ConfigurationError

_SENTINEL_PORT: Final = 26379
# redis-py leaves these constructors without types.
_Sentinel: Final[Any] = Sentinel
_SentinelConnectionPool: Final[Any] = SentinelConnectionPool
_OPTIONS: Final = {"host", "port", "db", "username", "password", "path", "connection_class"}
_SENTINEL_OPTIONS: Final = {"sentinel_username", "sentinel_password"}


class Address(NamedTuple):
    """How to get a connection that is not connected yet, and what to close when none is wanted any more."""

    connection: Callable[[], AbstractConnection]
    sentinel: Sentinel | None

    async def close(self) -> None:
        """End the conversations with the Sentinels."""
        if self.sentinel is not None:
            await self.sentinel.aclose()


def locate(url: str, client_name: str, connect_timeout: float) -> Address:
    """The address that `url` stands for; nothing is connected. `ConfigurationError` if it makes no sense.

    `redis://[user:password@]host:port/db`, the same with `rediss://` for TLS, `unix://path`, and
    `redis+sentinel://[user:password@]host:port,host:port/master/db` (`rediss+sentinel://`), the Sentinels' own
    credentials as `?sentinel_username=&sentinel_password=`. TLS takes redis-py's `ssl_*` options in the query.
    """
    try:
        scheme, plus, _ = urlsplit(url).scheme.partition("+sentinel")
        options = {
            "client_name": client_name,
            # RESP2 needs fewer greetings and says all that is needed here.
            "protocol": 2,
            "driver_info": None,
            # The client bounds whole batches; a timer for each reply would cost more than reading it.
            "socket_timeout": None,
            "socket_connect_timeout": connect_timeout,
        }
        address = _sentinels(scheme, url, options) if plus else _server(url, options)
        address.connection()
    except Exception:  # noqa: BLE001 - whatever it says, it may quote the password
        raise ConfigurationError("Redis: the URL is not valid") from None
    return address


def _server(url: str, options: dict[str, Any]) -> Address:
    given = _given(url, set())
    kind: type[AbstractConnection] = given.pop("connection_class", Connection)
    return Address(lambda: kind(**given, **options), None)


def _sentinels(scheme: str, url: str, options: dict[str, Any]) -> Address:
    parts = urlsplit(url)
    login, at, hosts = parts.netloc.rpartition("@")
    master, _, database = parts.path.strip("/").partition("/")
    if not master:
        raise ValueError("the master's name is missing")
    given = _given(f"{scheme}://{login}{at}host/{int(database or 0)}?{parts.query}", _SENTINEL_OPTIONS)
    own = {name.removeprefix("sentinel_"): given.pop(name) for name in _SENTINEL_OPTIONS & given.keys()}
    del given["host"]
    tls = given.pop("connection_class", None) is not None
    addresses = [_host(each) for each in hosts.split(",")]
    # One that does not answer must leave time to ask the next.
    patience = options["socket_connect_timeout"] / (len(addresses) + 1)
    ssl = {name: value for name, value in given.items() if name.startswith("ssl_")}
    sentinel = _Sentinel(
        addresses,
        sentinel_kwargs={
            **own,
            **ssl,
            "ssl": tls,
            "protocol": 2,
            "socket_timeout": patience,
            "socket_connect_timeout": patience,
            "retry": Retry(NoBackoff(), 0),
        },
    )
    kind = SentinelManagedSSLConnection if tls else SentinelManagedConnection
    pool = _SentinelConnectionPool(unquote(master), sentinel, connection_class=kind, **given, **options)
    return Address(pool.make_connection, sentinel)


def _given(url: str, more: set[str]) -> dict[str, Any]:
    given: dict[str, Any] = dict(parse_url(url))
    unknown = [name for name in given if name not in _OPTIONS | more and not name.startswith("ssl_")]
    if unknown:
        raise ValueError(f"unknown options {unknown}")
    return given


def _host(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("a Sentinel without a host")
    return parts.hostname, parts.port or _SENTINEL_PORT
