"""The stores of a KATO that runs as several instances, opened from the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pydantic import SecretStr

from kato.settings import Settings, SettingsError
from kato.stores.novectors import NoVectors
from kato.stores.ports import VectorStore

if TYPE_CHECKING:
    from kato.stores.mongo import MongoPatternStore
    from kato.stores.postgres import PostgresPatternStore
    from kato.stores.redis import RedisClient, RedisSessionStore
    from kato.stores.redis.events import RedisEvents
    from kato.stores.redis.stream import RedisStream


class Stores(NamedTuple):
    """What several instances share; `redis` is the client of the sessions, for what else goes that way."""

    patterns: PostgresPatternStore | MongoPatternStore
    vectors: VectorStore
    sessions: RedisSessionStore
    redis: RedisClient
    pending_seconds: float
    """How long an announced change is waited for: longer than any request may last."""

    def feed(self) -> RedisStream:
        """What tells the instances of each other's changes."""
        from kato.stores.redis.stream import RedisStream

        return RedisStream(self.redis, lookback_seconds=self.pending_seconds)

    def events(self) -> RedisEvents:
        """What tells listeners on one instance of what happens on the others."""
        from kato.stores.redis.events import RedisEvents

        return RedisEvents(self.redis)

    async def close(self) -> None:
        """Release everything."""
        await self.sessions.close()
        await self.vectors.close()
        await self.patterns.close()


def chosen(settings: Settings) -> Stores:
    """The stores that `settings` name; nothing is connected yet.

    Raises `SettingsError` when a driver is not installed: the plain install has those of the embedded stores only.
    """
    try:
        redis = _redis(settings)
        pending = max(60.0, 2 * settings.request_timeout)
        return Stores(_patterns(settings), _vectors(settings), _sessions(settings, redis), redis, pending)
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"KATO_STORE={settings.kato_store}: the driver {error.name!r} is not installed;"
            f" pip install 'kato[{settings.kato_store},redis,qdrant]' installs all that is needed"
        ) from error


def _patterns(settings: Settings) -> PostgresPatternStore | MongoPatternStore:
    if settings.kato_store == "postgres":
        from kato.stores.postgres import PostgresPatternStore

        return PostgresPatternStore(
            _secret(settings.database_url),
            min_connections=min(10, settings.kato_database_pool_size),
            max_connections=settings.kato_database_pool_size,
        )
    from kato.stores.mongo import MongoPatternStore

    return MongoPatternStore(
        _secret(settings.mongo_base_url),
        min_connections=min(settings.mongo_min_pool_size, settings.mongo_pool_size),
        max_connections=settings.mongo_pool_size,
        connect_timeout=settings.mongo_connect_timeout,
        socket_timeout=settings.mongo_socket_timeout,
        server_selection_timeout=settings.mongo_server_selection_timeout,
        wait_queue_timeout=settings.mongo_wait_queue_timeout,
        idle=settings.mongo_max_idle_time,
    )


def _vectors(settings: Settings) -> VectorStore:
    if not settings.kato_vectors:
        return NoVectors()
    from kato.stores.qdrant import QdrantVectorStore

    scheme = "https" if settings.qdrant_https else "http"
    return QdrantVectorStore(
        f"{scheme}://{settings.qdrant_host}:{settings.qdrant_port}",
        prefix=settings.qdrant_collection_prefix,
        exact=settings.kato_vector_exact,
        prefer_grpc=settings.qdrant_prefer_grpc,
        grpc_port=settings.qdrant_grpc_port,
        api_key=_secret(settings.qdrant_api_key) or None,
        timeout=settings.qdrant_timeout,
        concurrency=settings.qdrant_pool_size,
    )


def _redis(settings: Settings) -> RedisClient:
    from kato.stores.redis import RedisClient

    return RedisClient(
        _secret(settings.redis_url),
        max_connections=settings.redis_max_connections,
        min_connections=settings.redis_min_connections,
        connect_timeout=settings.redis_connect_timeout,
        timeout=settings.redis_socket_timeout,
    )


def _sessions(settings: Settings, redis: RedisClient) -> RedisSessionStore:
    from kato.stores.redis import RedisSessionStore

    return RedisSessionStore(redis, max_bytes=settings.max_session_memory_bytes)


def _secret(value: SecretStr | None) -> str:
    return "" if value is None else value.get_secret_value()
