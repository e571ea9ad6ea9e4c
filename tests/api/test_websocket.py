"""The command socket: every row of service.md 2.1, over a real connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from kato.api.app import Application, create_app
from kato.api.server import Server
from kato.errors import StorageError
from kato.settings import load
from tests.api.driving import serving
from tests.support.waiting import until


class Talk:
    """Frames sent and answered in turn."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def ask(self, kind: str, payload: Any = None, **more: Any) -> dict[str, Any]:
        """Send a frame, return the next one that comes."""
        frame = {"type": kind, **({} if payload is None else {"payload": payload}), **more}
        return await self.say(json.dumps(frame))

    async def say(self, text: str | bytes) -> dict[str, Any]:
        await self.connection.send(text)
        return await self.hear()

    async def hear(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await asyncio.wait_for(self.connection.recv(), 10))
        return found

    async def refused(self, kind: str, payload: Any = None, **more: Any) -> dict[str, Any]:
        """Send a frame that is refused; returns the `data` of the error frame."""
        answer = await self.ask(kind, payload, **more)
        assert answer["type"] == "error", answer
        data: dict[str, Any] = answer["data"]
        assert data["error"]["code"] == data["code"]
        assert data["trace_id"]
        return data


@pytest.fixture
async def server() -> AsyncIterator[tuple[Application, Server, str]]:
    app = create_app(
        load(kato_data=":memory:", port=0, graceful_shutdown_timeout=2, websocket_max_message_size=2048)
    )
    async with serving(app) as (running, address):
        yield app, running, address


@pytest.fixture
def address(server: tuple[Application, Server, str]) -> str:
    return server[2]


@pytest.fixture
async def talk(address: str) -> AsyncIterator[Talk]:
    async with connect(f"ws://{address}/ws") as connection:
        yield Talk(connection)


class TestCommands:
    async def test_each_verb(self, talk: Talk) -> None:
        seen = await talk.ask("observe", {"strings": ["b", "a"], "unique_id": "u"}, id=7)
        assert seen == {
            "type": "observation_result",
            "data": {
                "status": "okay",
                "processor_id": "kato",
                "session_id": "default-kato",
                "auto_learned_pattern": None,
                "time": 1,
                "unique_id": "u",
            },
            "id": 7,
        }
        batch = await talk.ask("observe_sequence", {"observations": [{"strings": ["c"]}]})
        assert (batch["type"], batch["data"]["observations_processed"]) == ("sequence_result", 1)
        stm = await talk.ask("get_stm")
        assert (stm["type"], stm["data"]["stm"]) == ("stm", [["a", "b"], ["c"]])
        learned = await talk.ask("learn", {})
        assert learned["type"] == "learn_result"
        assert learned["data"]["pattern_name"].startswith("PTRN|")
        assert (await talk.ask("learn", None))["data"]["pattern_name"] == ""
        await talk.ask("observe", {"strings": ["a", "b"], "unique_id": "v"})
        found = await talk.ask("get_predictions", {"unique_id": "v"})
        assert (found["type"], found["data"]["predictions"][0]["future"]) == ("predictions", [["c"]])
        done = await talk.ask("clear_stm")
        assert (done["type"], done["data"]["message"]) == ("status", "stm-cleared")
        done = await talk.ask("clear_all")
        assert (done["type"], done["data"]["message"]) == ("status", "all-cleared")
        pong = await talk.ask("ping", id={"any": [1, None]})
        assert (pong["type"], pong["id"], pong["data"]["processor_id"]) == (
            "pong",
            {"any": [1, None]},
            "kato",
        )
        assert pong["data"]["timestamp"] > 1_600_000_000

    @pytest.mark.parametrize("path", ["/ws", "/v1/ws"])
    async def test_the_same_as_http(self, address: str, path: str) -> None:
        async with (
            connect(f"ws://{address}{path}") as connection,
            httpx.AsyncClient(base_url=f"http://{address}") as http,
        ):
            talk = Talk(connection)
            for symbol in "abcab":
                await talk.ask("observe", {"strings": [symbol]})
            await talk.ask("learn")
            await talk.ask("observe", {"strings": ["a"]})
            for kind, url in (("get_stm", "/stm"), ("get_predictions", "/predictions")):
                assert (await talk.ask(kind))["data"] == (await http.get(url)).json()
            wrong = {"strings": [5]}
            over_http = (await http.post("/observe", json=wrong)).json()
            data = await talk.refused("observe", wrong)
            for name in ("code", "message", "details"):
                assert data[name] == over_http["error"][name]
            assert data["status"] == over_http["status"]

    async def test_answers_come_in_order(self, talk: Talk) -> None:
        for number in range(100):
            kind = {"type": "observe", "payload": {"strings": ["a"]}, "id": number}
            await talk.connection.send(json.dumps(kind if number % 3 else {"type": "nonsense", "id": number}))
        assert [(await talk.hear())["id"] for _ in range(100)] == list(range(100))

    async def test_events_on_request(self, talk: Talk) -> None:
        wanted = {"events": ["pattern.learned", "session.created"]}
        assert (await talk.ask("subscribe", wanted))["data"]["events"] == sorted(wanted["events"])
        again = await talk.ask("subscribe", {"events": ["session.created", "session.destroyed"]})
        assert again["type"] == "subscribed"
        assert len(again["data"]["events"]) == 3
        heard = [await talk.ask("create_session", {}), await talk.hear()]
        by_type = {frame["type"]: frame["data"] for frame in heard}
        assert by_type["event"]["event_type"] == "session.created"
        assert by_type["event"]["data"]["session_id"] == by_type["session"]["session_id"]
        data = await talk.refused("subscribe", {"events": ["heartbeat", "nonsense"]})
        assert (data["code"], data["details"]["validation_errors"][0]["field"]) == (
            "VALIDATION_ERROR",
            "events[1]",
        )


class TestSessions:
    async def test_a_frame_names_its_own(self, talk: Talk) -> None:
        mine = (
            await talk.ask("create_session", {"user_id": "mine", "ttl_seconds": 60, "metadata": {"a": 1}})
        )["data"]
        assert (mine["user_id"], mine["ttl_seconds"], mine["metadata"]) == ("mine", 60, {"a": 1})
        other = (await talk.ask("create_session", {"user_id": "other"}))["data"]["session_id"]
        seen = await talk.ask("observe", {"strings": ["a"]}, session_id=mine["session_id"])
        assert (seen["data"]["session_id"], seen["data"]["processor_id"]) == (mine["session_id"], "mine_kato")
        assert (await talk.ask("get_stm"))["data"]["session_id"] == other
        chosen = await talk.ask("use_session", {"session_id": mine["session_id"]})
        assert (chosen["type"], chosen["data"]["stm_length"]) == ("session", 1)
        assert (await talk.ask("get_stm"))["data"]["stm"] == [["a"]]

    async def test_the_handshake_names_one(self, address: str) -> None:
        async with httpx.AsyncClient(base_url=f"http://{address}") as http:
            found = (await http.post("/v2/sessions")).json()["session_id"]
        for url, headers in (
            (f"/ws?session_id={found}", {}),
            ("/ws", {"X-Session-ID": found}),
            (f"/v2/sessions/{found}/ws", {}),
            (f"/sessions/{found}/ws", {}),
        ):
            async with connect(f"ws://{address}{url}", additional_headers=headers) as connection:
                assert (await Talk(connection).ask("get_stm"))["data"]["session_id"] == found

    async def test_unknown_ones_leave_the_socket_open(self, address: str) -> None:
        async with connect(f"ws://{address}/ws?session_id=nobody") as connection:
            talk = Talk(connection)
            assert (await talk.refused("get_stm"))["code"] == "SESSION_NOT_FOUND"
            assert (await talk.refused("use_session", {"session_id": "x"}))["code"] == "SESSION_NOT_FOUND"
            await talk.ask("create_session", {})
            assert (await talk.ask("get_stm"))["type"] == "stm"

    async def test_a_path_fixes_its_session(self, address: str) -> None:
        async with httpx.AsyncClient(base_url=f"http://{address}") as http:
            found, other = [(await http.post("/v2/sessions")).json()["session_id"] for _ in range(2)]
        async with connect(f"ws://{address}/v2/sessions/{found}/ws") as connection:
            talk = Talk(connection)
            for kind, payload, named in (
                ("get_stm", None, other),
                ("use_session", {"session_id": other}, None),
                ("create_session", {}, None),
            ):
                more = {} if named is None else {"session_id": named}
                assert (await talk.refused(kind, payload, **more))["code"] == "BAD_REQUEST"
            assert (await talk.ask("get_stm", session_id=found))["data"]["session_id"] == found
            assert (await talk.ask("use_session", {"session_id": found}))["type"] == "session"
        with pytest.raises(InvalidStatus) as refusal:
            await connect(f"ws://{address}/v2/sessions/nobody/ws")
        assert refusal.value.response.status_code == 404
        assert json.loads(refusal.value.response.body or b"")["error"]["code"] == "SESSION_NOT_FOUND"

    async def test_one_that_expires_while_connected(
        self, server: tuple[Application, Server, str], talk: Talk
    ) -> None:
        app = server[0]
        assert app.instance.kato is not None
        found = (await talk.ask("create_session", {"ttl_seconds": 1}))["data"]["session_id"]
        keeper, now = app.instance.kato.sessions, app.instance.kato.clock()
        keeper._clock = lambda: now + 2
        assert (await talk.refused("get_stm"))["code"] == "SESSION_EXPIRED"
        assert (await talk.ask("get_stm", session_id="default-kato"))["type"] in ("stm", "error")
        assert (await talk.ask("create_session", {}))["data"]["session_id"] != found
        assert (await talk.ask("get_stm"))["type"] == "stm"


class TestTrouble:
    async def test_unknown_types(self, talk: Talk) -> None:
        data = await talk.refused("nonsense", id="x")
        assert (data["code"], data["message"]) == ("UNKNOWN_MESSAGE_TYPE", "Unknown message type: nonsense")
        assert (await talk.ask("ping"))["type"] == "pong"

    @pytest.mark.parametrize(
        "text",
        [
            "{",
            "[]",
            "5",
            '{"payload": {}}',
            '{"type": 5}',
            "[" * 1500,
            b"{}",
            "",
            '{"type": "ping", "session_id": 5}',
            '{"type": "ping"} x',
        ],
    )
    async def test_malformed_frames(self, talk: Talk, text: str | bytes) -> None:
        answer = await talk.say(text)
        assert (answer["type"], answer["data"]["code"]) == ("error", "INVALID_MESSAGE")
        assert (await talk.ask("ping"))["type"] == "pong"

    async def test_ten_in_a_row(self, talk: Talk) -> None:
        for _ in range(9):
            await talk.say("{")
        await talk.ask("ping")
        for _ in range(10):
            assert (await talk.say("{"))["data"]["code"] == "INVALID_MESSAGE"
        with pytest.raises(ConnectionClosed) as closed:
            await talk.hear()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008

    async def test_frames_over_the_limit(self, talk: Talk) -> None:
        await talk.connection.send(json.dumps({"type": "observe", "payload": {"strings": ["x" * 3000]}}))
        with pytest.raises(ConnectionClosed) as closed:
            await talk.hear()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009

    @pytest.mark.parametrize(
        ("kind", "payload", "code"),
        [
            ("observe", {"strings": [1]}, "VALIDATION_ERROR"),
            ("observe", [], "VALIDATION_ERROR"),
            ("observe", {"vectors": [[1], [1, 2]]}, "VECTOR_DIMENSION_ERROR"),
            ("observe_sequence", {}, "VALIDATION_ERROR"),
            ("create_session", {"ttl_seconds": 0}, "VALIDATION_ERROR"),
            ("create_session", {"user_id": "\n"}, "VALIDATION_ERROR"),
            ("create_session", {"config": {"persistence": 0}}, "CONFIGURATION_INVALID"),
            ("use_session", {}, "VALIDATION_ERROR"),
            ("get_predictions", {"unique_id": "never"}, "NOT_FOUND"),
        ],
    )
    async def test_refusals(self, talk: Talk, kind: str, payload: Any, code: str) -> None:
        assert (await talk.refused(kind, payload, id=1))["code"] == code
        assert (await talk.ask("get_stm"))["data"]["stm"] == []

    async def test_stores_and_defects(
        self, server: tuple[Application, Server, str], talk: Talk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kato = server[0].instance.kato
        assert kato is not None
        for raised, code in (
            (StorageError("Away"), "STORAGE_ERROR"),
            (ZeroDivisionError("secret"), "INTERNAL_ERROR"),
        ):

            async def failing(*_: Any, error: Exception = raised) -> None:
                raise error

            monkeypatch.setattr(kato, "clear_stm", failing)
            data = await talk.refused("clear_stm")
            assert data["code"] == code
            assert "secret" not in json.dumps(data)
        assert (await talk.ask("ping"))["type"] == "pong"

    async def test_places_are_limited(self) -> None:
        async with serving(websocket_max_connections=1) as (_, address), connect(f"ws://{address}/ws"):
            with pytest.raises(InvalidStatus) as refusal:
                await connect(f"ws://{address}/ws")
            assert refusal.value.response.status_code == 503
            body = json.loads(refusal.value.response.body or b"")
            assert body["error"]["code"] == "SERVICE_UNAVAILABLE"

    async def test_a_place_is_given_back(self) -> None:
        app = create_app(
            load(kato_data=":memory:", port=0, websocket_max_connections=1, graceful_shutdown_timeout=2)
        )
        async with serving(app) as (_, address):
            for _ in range(3):
                async with connect(f"ws://{address}/ws") as connection:
                    assert (await Talk(connection).ask("ping"))["type"] == "pong"
                await until(lambda: not app.instance.command_sockets)

    @pytest.mark.parametrize("path", ["/nowhere", "/ws/", "/v2/ws", "/v2/sessions//ws"])
    async def test_unknown_paths(self, address: str, path: str) -> None:
        with pytest.raises(InvalidStatus) as refusal:
            await connect(f"ws://{address}{path}")
        assert refusal.value.response.status_code == 404

    async def test_without_v2(self) -> None:
        async with serving(enable_v2_features=False) as (_, address):
            for path in ("/v2/sessions/default-kato/ws", "/v2/ws/events"):
                with pytest.raises(InvalidStatus):
                    await connect(f"ws://{address}{path}")
            async with connect(f"ws://{address}/v1/ws") as connection:
                assert (await Talk(connection).ask("ping"))["type"] == "pong"


class TestStopping:
    async def test_open_sockets_are_told(self) -> None:
        async with serving() as (_, address):
            connections = [await connect(f"ws://{address}{path}") for path in ("/ws", "/ws/events")]
            await Talk(connections[0]).ask("ping")
            await connections[1].recv()
        for connection in connections:
            with pytest.raises(ConnectionClosed) as closed:
                await asyncio.wait_for(connection.recv(), 5)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001
            await connection.close()

    async def test_new_ones_find_it_closed(self, server: tuple[Application, Server, str]) -> None:
        app, _, address = server
        for code in (1001, 1011):
            kept = app.instance.kato
            app.instance.draining, app.instance.kato = True, kept if code == 1001 else None
            async with connect(f"ws://{address}/ws") as connection:
                with pytest.raises(ConnectionClosed) as closed:
                    await connection.recv()
            app.instance.draining, app.instance.kato = False, kept
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == code

    async def test_servers_that_cannot_refuse_close_instead(
        self, server: tuple[Application, Server, str]
    ) -> None:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "websocket", "path": "/nowhere", "headers": [], "query_string": b""}
        await server[0](scope, receive, send)
        assert sent == [{"type": "websocket.close", "code": 1008, "reason": "NOT_FOUND"}]
