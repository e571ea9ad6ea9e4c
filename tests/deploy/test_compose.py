"""What can be said of the compose files without an engine: they fit KATO's settings, each other, and the documents."""

from __future__ import annotations

import re
import subprocess
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from kato import settings
from kato.settings import Settings
from tests.support.environment import VARIABLES

ROOT = Path(__file__).parents[2]
STORES = ("postgres", "mongo")
ROLES = ("primary", "testing", "analytics")
_VARIABLE = re.compile(r"\$(?:\$|\{(\w+):-([^}]*)\})")


def interpolated(value: Any, given: dict[str, str]) -> Any:
    """A document with `${NAME:-default}` and `$$` replaced, the only forms that these files use."""
    if isinstance(value, dict):
        return {key: interpolated(each, given) for key, each in value.items()}
    if isinstance(value, list):
        return [interpolated(each, given) for each in value]
    if not isinstance(value, str):
        return value
    assert "$" not in _VARIABLE.sub("", value), value
    return _VARIABLE.sub(lambda found: given.get(found[1]) or found[2] if found[1] else "$", value)


def read(path: Path, given: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = interpolated(yaml.safe_load(path.read_text(encoding="utf-8")), given)
    return found


def composed(**given: str) -> dict[str, Any]:
    """The project as Compose puts it together: the file and those that it includes."""
    project = read(ROOT / "docker-compose.yml", given)
    for name in project.pop("include"):
        included = read(ROOT / name, given)
        for kind in ("services", "volumes"):
            assert not project[kind].keys() & included[kind].keys()
            project[kind] |= included[kind]
    return project


@pytest.fixture(params=STORES)
def project(request: pytest.FixtureRequest) -> dict[str, Any]:
    return composed(KATO_STORE=request.param)


def environment(project: dict[str, Any], role: str) -> dict[str, str]:
    found = project["services"][role]["environment"]
    return {name: str(value) for name, value in found.items()}


def test_postgres_is_the_store_unless_another_is_named() -> None:
    assert composed() == composed(KATO_STORE="postgres")
    assert environment(composed(), "primary")["KATO_STORE"] == "postgres"


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("role", ROLES)
def test_the_settings_of_a_role_are_settings_that_kato_accepts(
    store: str, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = environment(composed(KATO_STORE=store), role)
    assert set(given) <= VARIABLES
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    found = settings.load()
    assert (found.kato_store, found.processor_id) == (store, role)


def loaded(role: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in environment(composed(), role).items():
        monkeypatch.setenv(name, value)
    return settings.load()


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        ("primary", {"max_pattern_length": 0, "recall_threshold": 0.1, "session_ttl": 3600}),
        ("testing", {"max_pattern_length": 10, "log_level": "DEBUG", "session_ttl": 1800}),
        (
            "analytics",
            {"max_pattern_length": 50, "persistence": 10, "recall_threshold": 0.5, "session_ttl": 7200},
        ),
    ],
)
def test_each_role_has_its_character(
    role: str, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = loaded(role, monkeypatch)
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    "name",
    ["PROCESSOR_ID", "DATABASE_URL", "MONGO_BASE_URL", "REDIS_URL", "QDRANT_COLLECTION_PREFIX"],
)
def test_roles_share_servers_but_no_data(project: dict[str, Any], name: str) -> None:
    assert len({environment(project, role)[name] for role in ROLES}) == len(ROLES)


def test_the_databases_of_all_roles_are_made() -> None:
    script = (ROOT / "deploy/postgres/databases.sql").read_text(encoding="utf-8")
    made = set(re.findall(r"^CREATE DATABASE (\w+);$", script, re.MULTILINE))
    project = composed()
    assert made == {environment(project, role)["DATABASE_URL"].rpartition("/")[2] for role in ROLES}
    server = project["services"]["database"]["environment"]
    login = f"{server['POSTGRES_USER']}:{server['POSTGRES_PASSWORD']}@database:5432/"
    assert all(login in environment(project, role)["DATABASE_URL"] for role in ROLES)


def test_the_replica_set_is_the_one_that_clients_look_for() -> None:
    project = composed(KATO_STORE="mongo")
    command = project["services"]["database"]["command"]
    name = command[command.index("--replSet") + 1]
    script = (ROOT / "deploy/mongo/primary.js").read_text(encoding="utf-8")
    assert f'_id: "{name}"' in script
    assert '"database:27017"' in script
    for role in ROLES:
        url = environment(project, role)["MONGO_BASE_URL"]
        assert url.startswith("mongodb://database:27017/")
        assert url.endswith(f"?replicaSet={name}")


def test_servers_are_named_as_they_are_called(project: dict[str, Any]) -> None:
    for role in ROLES:
        given = environment(project, role)
        hosts = {
            re.sub(r".*[/@]([a-z]+):\d+/.*", r"\1", given[f"{name}_URL"]) for name in ("DATABASE", "REDIS")
        }
        hosts.add(given["QDRANT_HOST"])
        assert hosts <= project["services"].keys()
        # Each of them is waited for.
        waited = project["services"][role]["depends_on"]
        assert waited == {host: {"condition": "service_healthy"} for host in hosts}
        assert all("healthcheck" in project["services"][host] for host in hosts)


def test_ports_are_published_once_and_to_this_machine_only(project: dict[str, Any]) -> None:
    published = [port for service in project["services"].values() for port in service.get("ports", [])]
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in published)
    assert len({port.split(":")[1] for port in published}) == len(published)
    assert {role: project["services"][role]["ports"] for role in ROLES} == {
        "primary": ["127.0.0.1:8001:8000"],
        "testing": ["127.0.0.1:8002:8000"],
        "analytics": ["127.0.0.1:8003:8000"],
    }


def test_images_are_pinned_and_ours_has_the_version_of_the_package(project: dict[str, Any]) -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        version = tomllib.load(file)["project"]["version"]
    for name, service in project["services"].items():
        image, _, tag = service["image"].partition(":")
        assert re.match(r"v?\d+\.\d+\.\d+|\d+\.\d+", tag), f"{name}: {service['image']}"
        assert (image == "kato") == (name in ROLES)
        assert image != "kato" or tag == version


def test_everything_comes_back_and_keeps_its_data(project: dict[str, Any]) -> None:
    for name, service in project["services"].items():
        assert service["restart"] == "unless-stopped"
        named = [volume.split(":")[0] for volume in service.get("volumes", []) if not volume.startswith(".")]
        assert len(named) == (0 if name in ROLES else 1)
        assert set(named) <= project["volumes"].keys()
    assert {*project["volumes"]} >= {"redis-data", "qdrant-data"}
    command = project["services"]["redis"]["command"]
    assert command[command.index("--appendonly") + 1] == "yes"


def test_mounted_files_are_there(project: dict[str, Any]) -> None:
    mounted = [
        volume.split(":")[0]
        for volume in project["services"]["database"]["volumes"]
        if volume.startswith("./")
    ]
    assert mounted
    assert all((ROOT / "deploy" / path).is_file() for path in mounted)


def test_kato_has_time_to_finish_its_requests(
    project: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for role in ROLES:
        grace = int(project["services"][role]["stop_grace_period"].removesuffix("s"))
        assert grace > loaded(role, monkeypatch).graceful_shutdown_timeout


@contextmanager
def answering(status: int) -> Iterator[int]:
    """A server that answers `/readyz` so; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 500)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing is worth telling."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False), (None, False)])
def test_the_health_check_of_qdrant(project: dict[str, Any], status: int | None, healthy: bool) -> None:
    kind, *command = project["services"]["qdrant"]["healthcheck"]["test"]
    assert kind == "CMD"

    def check(port: int) -> bool:
        words = [word.replace("127.0.0.1/6333", f"127.0.0.1/{port}") for word in command]
        return subprocess.run(words, capture_output=True, timeout=10, check=False).returncode == 0

    if status is None:
        with answering(200) as port:
            pass
        assert not check(port)
    else:
        with answering(status) as port:
            assert check(port) is healthy


def test_the_documents_say_how_to_start_it_and_what_was_not_tried() -> None:
    text = (ROOT / "docs/how-to/run-several-instances.md").read_text(encoding="utf-8")
    assert "docker compose up --build" in text
    assert "KATO_STORE=mongo docker compose up --build" in text
    assert "not been run" in text
