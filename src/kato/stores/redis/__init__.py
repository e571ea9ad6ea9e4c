"""Sessions and the feed between instances in Redis 6 or newer (`pip install kato[redis]`)."""

from kato.stores.redis.client import RedisClient
from kato.stores.redis.sessions import RedisSessionStore
from kato.stores.redis.stream import RedisStream, Tail

__all__ = ["RedisClient", "RedisSessionStore", "RedisStream", "Tail"]
