"""A stand-in for a Qdrant server, and not Qdrant: the client's local mode behind a part of Qdrant's REST protocol.

It speaks what KATO's vector store says and answers 501 to everything else. What it proves is KATO's way over the
network (one store for several processes, a server that stops, hangs or loses its data); it knows no gRPC, no HNSW
graph and no durability, and its search is numpy's.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from pydantic import TypeAdapter
from pydantic_core import to_json
from qdrant_client import QdrantClient, models

from tests.support.proxy import Proxy

Handler = Callable[[QdrantClient, str, bytes], Any]
_SELECTORS: Final[TypeAdapter[models.PointsSelector]] = TypeAdapter(models.PointsSelector)
_DONE: Final = models.UpdateResult(operation_id=0, status=models.UpdateStatus.COMPLETED)


class QdrantServer:
    """The stand-in on a free port. `url` and `port` stay the same also when it is stopped and started again.

    It is reached through `proxy`, for faults of the network.
    """

    def __init__(self) -> None:
        self.client = QdrantClient(location=":memory:")
        self.lock = threading.Lock()
        self._http = _Http(self)
        self._thread = threading.Thread(
            target=self._http.serve_forever, args=(0.05,), name="qdrant", daemon=True
        )
        self._thread.start()
        self.proxy = Proxy("127.0.0.1", self._http.server_address[1])
        self.port = self.proxy.port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The settings of a KATO that keeps its vectors here."""
        return {"QDRANT_HOST": "127.0.0.1", "QDRANT_PORT": str(self.port), "QDRANT_PREFER_GRPC": "false"}

    def stop(self) -> None:
        """End all connections and refuse new ones; the data are kept."""
        self.proxy.cut()

    def start(self) -> None:
        """Undo `stop`."""
        self.proxy.mend()

    def lose(self) -> None:
        """Forget everything that was stored, as a server does that keeps nothing and is started again."""
        self.stop()
        with self.lock:
            self.client.close()
            self.client = QdrantClient(location=":memory:")
        self.start()

    def pause(self) -> None:
        """Stand still: connections stay open and nobody answers."""
        self.proxy.freeze()

    def resume(self) -> None:
        """Undo `pause`."""
        self.proxy.thaw()

    def remove(self) -> None:
        """End it and forget its data."""
        self.proxy.close()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
        self.client.close()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, server: QdrantServer) -> None:
        self.stand_in = server
        super().__init__(("127.0.0.1", 0), _Conversation)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """That a client has gone is no news."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Conversation(BaseHTTPRequestHandler):
    """What is said over one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    """An answer travels in one piece."""
    server: _Http

    def setup(self) -> None:
        super().setup()
        # Requests of a connection that is cut belong to what was there before.
        self._client = self.server.stand_in.client

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        _, root, collection, place = (*urlsplit(self.path).path.split("/", 3), "", "")[:4]
        handler = _HANDLERS.get((self.command, root, bool(collection), place))
        if handler is None:
            self._say(501, _trouble("the stand-in does not know this request"))
            return
        try:
            with self.server.stand_in.lock:
                result = handler(self._client, unquote(collection), body)
        except ValueError as error:
            self._say(_status(error), _trouble(str(error)))
            return
        self._say(200, {"result": result, "status": "ok", "time": 0.0})

    do_GET = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815 - the names that the base class looks for

    def _say(self, status: int, answer: Any) -> None:
        content = to_json(answer)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        """Nobody reads it."""


def _trouble(reason: str) -> dict[str, Any]:
    return {"status": {"error": reason}, "time": 0.0}


def _status(error: ValueError) -> int:
    """What Qdrant answers where local mode raises `error`."""
    reason = str(error)
    return 404 if reason.endswith("not found") else 409 if reason.endswith("already exists") else 400


# Requests ------------------------------------------------------------------------------


def _collections(client: QdrantClient, _: str, body: bytes) -> Any:
    return client.get_collections()


def _exists(client: QdrantClient, collection: str, body: bytes) -> Any:
    return models.CollectionExistence(exists=client.collection_exists(collection))


def _create(client: QdrantClient, collection: str, body: bytes) -> Any:
    wanted = models.CreateCollection.model_validate_json(body)
    return client.create_collection(collection, vectors_config=wanted.vectors)


def _remove(client: QdrantClient, collection: str, body: bytes) -> Any:
    return client.delete_collection(collection)


def _index(client: QdrantClient, collection: str, body: bytes) -> Any:
    """Local mode has no indexes and would say so; what is asked for must still make sense."""
    models.CreateFieldIndex.model_validate_json(body)
    client.get_collection(collection)
    return _DONE


def _upsert(client: QdrantClient, collection: str, body: bytes) -> Any:
    wanted = models.PointsList.model_validate_json(body)
    return client.upsert(collection, wanted.points, update_mode=wanted.update_mode)


def _retrieve(client: QdrantClient, collection: str, body: bytes) -> Any:
    wanted = models.PointRequest.model_validate_json(body)
    return client.retrieve(collection, wanted.ids, wanted.with_payload or False, wanted.with_vector or False)


def _query(client: QdrantClient, collection: str, body: bytes) -> Any:
    wanted = models.QueryRequest.model_validate_json(body)
    return client.query_points(
        collection,
        query=wanted.query,
        query_filter=wanted.filter,
        limit=wanted.limit or 10,
        with_payload=wanted.with_payload or False,
    )


def _scroll(client: QdrantClient, collection: str, body: bytes) -> Any:
    wanted = models.ScrollRequest.model_validate_json(body)
    records, following = client.scroll(
        collection,
        scroll_filter=wanted.filter,
        limit=wanted.limit or 10,
        offset=wanted.offset,
        with_payload=True if wanted.with_payload is None else wanted.with_payload,
    )
    return models.ScrollResult(points=records, next_page_offset=following)


def _delete(client: QdrantClient, collection: str, body: bytes) -> Any:
    return client.delete(collection, _SELECTORS.validate_json(body))


_HANDLERS: Final[dict[tuple[str, str, bool, str], Handler]] = {
    ("GET", "collections", False, ""): _collections,
    ("GET", "collections", True, "exists"): _exists,
    ("PUT", "collections", True, ""): _create,
    ("DELETE", "collections", True, ""): _remove,
    ("PUT", "collections", True, "index"): _index,
    ("PUT", "collections", True, "points"): _upsert,
    ("POST", "collections", True, "points"): _retrieve,
    ("POST", "collections", True, "points/query"): _query,
    ("POST", "collections", True, "points/scroll"): _scroll,
    ("POST", "collections", True, "points/delete"): _delete,
}
"""By method, first part of the path, whether a collection is named, and the rest of the path."""


@contextlib.contextmanager
def qdrant_server() -> Iterator[QdrantServer]:
    """A running stand-in that is gone afterwards, whatever happened."""
    server = QdrantServer()
    try:
        yield server
    finally:
        server.remove()


@functools.cache
def shared() -> QdrantServer:
    """The stand-in that the tests share, started by the first that needs it and ended at the end of the run."""
    server = QdrantServer()
    atexit.register(server.remove)
    return server


def fresh_prefix() -> str:
    """A prefix of collections that no other test uses."""
    return f"test-{uuid.uuid4().hex}"
