"""Patterns over /v2/patterns, symbols over /symbols."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.driving import Client, refused


@pytest.fixture
async def names(http: Client) -> list[str]:
    """Three patterns of the node "node", the second learned twice."""
    session = await http.session()
    found = [await http.teach(session, *events) for events in ("abc", "abd", "xy", "abd")]
    return found[:3]


class TestList:
    async def test_pages(self, http: Client, names: list[str]) -> None:
        seen, cursor = [], None
        while True:
            query = {"user_id": "node", "limit": 2, **({"cursor": cursor} if cursor else {})}
            page = (await http.get("/v2/patterns", params=query)).json()
            assert (page["total"], page["node_id"], page["user_id"]) == (3, "node", "node")
            assert page["count"] == len(page["patterns"])
            seen += [p["name"] for p in page["patterns"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert seen == sorted(names)

    async def test_by_symbol_and_frequency(self, http: Client, names: list[str]) -> None:
        async def listed(**query: Any) -> set[str]:
            page = (await http.get("/v2/patterns", params={"node_id": "node", **query})).json()
            return {p["name"] for p in page["patterns"]}

        assert await listed(symbol="a") == {names[0], names[1]}
        assert await listed(min_frequency=2) == {names[1]}
        assert await listed(symbol="x", min_frequency=2) == set()
        assert await listed(symbol="never") == set()

    async def test_without_an_owner_the_instances_own(self, http: Client, names: list[str]) -> None:
        for symbol in "pq":
            await http.post("/observe", json={"strings": [symbol]})
        learned = (await http.post("/learn")).json()["pattern_name"]
        page = (await http.get("/v2/patterns")).json()
        assert ([p["name"] for p in page["patterns"]], page["node_id"]) == ([learned], "kato")

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("cursor=xyz", "cursor"),
            ("min_frequency=-1", "min_frequency"),
            ("user_id=", "user_id"),
            ("user_id=%00", "user_id"),
            ("node_id=%01", "node_id"),
            ("symbol=" + "x" * 1025, "symbol"),
        ],
    )
    async def test_wrong_queries(self, http: Client, query: str, field: str) -> None:
        refused(await http.get(f"/v2/patterns?{query}"), 422, "VALIDATION_ERROR", field)


class TestOne:
    @pytest.mark.parametrize("form", ["{}", "{bare}", "{quoted}"])
    async def test_show(self, http: Client, names: list[str], form: str) -> None:
        bare = names[0].removeprefix("PTRN|")
        named = form.format(names[0], bare=bare, quoted=f"PTRN%7C{bare}")
        found = (await http.get(f"/v2/patterns/{named}?user_id=node")).json()
        assert found == {
            "pattern": {
                "name": names[0],
                "pattern_data": [["a"], ["b"], ["c"]],
                "length": 3,
                "frequency": 1,
                "emotives": [],
                "metadata": {},
            },
            "user_id": "node",
            "node_id": "node",
            "processor_id": "node_kato",
        }

    @pytest.mark.parametrize("method", ["PUT", "PATCH"])
    async def test_change(self, http: Client, names: list[str], method: str) -> None:
        path = f"/v2/patterns/{names[0]}?user_id=node"
        changed = (await http.request(method, path, json={"frequency": 7})).json()
        assert changed["pattern"]["frequency"] == 7
        changed = (await http.request(method, path, json={"emotives": {"joy": [0.5, 1]}})).json()
        assert (changed["pattern"]["emotives"], changed["pattern"]["frequency"]) == ({"joy": [0.5, 1.0]}, 7)
        changed = (await http.request(method, path, json={"emotives": [{"joy": 2}, {}]})).json()
        assert changed["pattern"]["emotives"] == [{"joy": 2.0}, {}]
        assert (await http.request(method, path, json={})).json() == changed
        assert (await http.get(path)).json() == changed

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"frequency": -1}, "frequency"),
            ({"frequency": 2**40}, "frequency"),
            ({"frequency": 1.5}, "frequency"),
            ({"frequency": True}, "frequency"),
            ({"emotives": 5}, "emotives"),
            ({"emotives": {"joy": 5}}, "emotives.joy"),
            ({"emotives": {"a": [1], "joy": [1, "x"]}}, "emotives.joy[1]"),
            ({"emotives": [{"joy": "x"}]}, "emotives[0].joy"),
            ({"emotives": {"joy": [1e300]}}, "emotives.joy[0]"),
        ],
    )
    async def test_wrong_changes(self, http: Client, names: list[str], body: Any, field: str) -> None:
        path = f"/v2/patterns/{names[0]}?user_id=node"
        before = (await http.get(path)).json()
        refused(await http.put(path, json=body), 422, "VALIDATION_ERROR", field)
        assert (await http.get(path)).json() == before

    async def test_emotives_beyond_the_window(self, http: Client, names: list[str]) -> None:
        path = f"/v2/patterns/{names[0]}?user_id=node"
        answer = await http.put(path, json={"emotives": {"joy": [1.0] * 6}})
        refused(answer, 422, "VALIDATION_ERROR")

    async def test_remove(self, http: Client, names: list[str]) -> None:
        path = f"/v2/patterns/{names[1]}?user_id=node"
        answer = (await http.delete(path)).json()
        assert answer == {"status": "deleted", "pattern_name": names[1], "user_id": "node", "node_id": "node"}
        for method in ("GET", "PUT", "PATCH", "DELETE"):
            body = {"json": {"frequency": 1}} if method.startswith("P") else {}
            refused(await http.request(method, path, **body), 404, "PATTERN_NOT_FOUND")
        symbols = (await http.get("/symbols/stats?node_id=node")).json()["symbols"]
        assert "d" not in symbols
        assert symbols["a"] == {"name": "a", "frequency": 1, "pattern_member_frequency": 1}


class TestSymbols:
    async def test_statistics(self, http: Client, names: list[str]) -> None:
        for query, headers in (("?node_id=node", {}), ("", {"X-Node-ID": "node"})):
            found = (await http.get(f"/symbols/stats{query}", headers=headers)).json()
            assert found["node_id"] == "node"
            assert found["symbols"]["b"] == {"name": "b", "frequency": 3, "pattern_member_frequency": 2}
        assert (await http.get("/symbols/stats")).json() == {"symbols": {}, "node_id": "default_node"}
        found = (await http.get("/symbols/stats", headers={"X-Test-ID": "t"})).json()
        assert found["node_id"] == "test_t"

    @pytest.mark.parametrize("symbol", ["a/b", "stats", "affinity", "", "ä ö", "%2F", "?x=1", "a+b"])
    async def test_affinity(self, http: Client, symbol: str) -> None:
        from urllib.parse import quote

        session = await http.session()
        await http.observe(session, symbol, emotives={"joy": 2})
        await http.observe(session, "other", emotives={"joy": 1})
        await http.post(f"{session}/learn")
        path = f"http://kato/symbols/{quote(symbol, safe='')}/affinity?node_id=node"
        found = (await http.get(path)).json()
        assert found == {"symbol": symbol, "affinity": {"joy": 1.5}, "node_id": "node"}
        everything = (await http.get("/symbols/affinity?node_id=node")).json()
        assert everything["affinities"] == {symbol: {"joy": 1.5}, "other": {"joy": 1.5}}
        unknown = (await http.get("/symbols/never/affinity?node_id=node")).json()
        assert unknown["affinity"] == {}

    @pytest.mark.parametrize("path", ["/symbols/stats", "/symbols/affinity", "/symbols/a/affinity"])
    async def test_wrong_nodes(self, http: Client, path: str) -> None:
        refused(await http.get(f"{path}?node_id="), 422, "VALIDATION_ERROR", "node_id")
        refused(await http.get(f"{path}?node_id=%0A"), 422, "VALIDATION_ERROR", "node_id")
        refused(await http.get(path, headers={"X-Test-ID": "x" * 256}), 422, "VALIDATION_ERROR", "X-Test-ID")
