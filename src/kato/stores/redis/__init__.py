"""Sessions, events and the feed between instances in Redis 6 or newer (`pip install kato[redis]`)."""

from kato.stores.redis.client import RedisClient
from kato.stores.redis.events import RedisEvents
from kato.stores.redis.sessions import RedisSessionStore
from kato.stores.redis.stream import RedisStream, Tail

__all__ = ["RedisClient", "RedisEvents", "RedisSessionStore", "RedisStream", "Tail"]
