"""Settings: names that operators know, wrong values that name their variable, and no dead option."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

import kato
from kato.model import SessionConfig
from kato.settings import Settings, SettingsError, load
from tests.support.environment import spellings

FIELDS = list(Settings.model_fields)
OTHER: dict[str, tuple[str, Any]] = {
    "processor_id": ("me", "me"),
    "processor_name": ("Me", "Me"),
    "kato_cluster_id": ("us", "us"),
    "host": ("0.0.0.0", "0.0.0.0"),
    "port": ("0", 0),
    "workers": ("2", 2),
    "log_level": ("DEBUG", "DEBUG"),
    "log_format": ("json", "json"),
    "kato_data": (":memory:", ":memory:"),
    "kato_store": ("postgres", "postgres"),
    "kato_vectors": ("off", False),
    "database_url": ("postgresql://h/db", SecretStr("postgresql://h/db")),
    "kato_database_pool_size": ("3", 3),
    "mongo_base_url": ("mongodb://h", SecretStr("mongodb://h")),
    "mongo_pool_size": ("3", 3),
    "mongo_min_pool_size": ("3", 3),
    "mongo_connect_timeout": ("3", 3),
    "mongo_socket_timeout": ("3", 3),
    "mongo_server_selection_timeout": ("3", 3),
    "mongo_wait_queue_timeout": ("3", 3),
    "mongo_max_idle_time": ("3", 3),
    "redis_url": ("redis://h", SecretStr("redis://h")),
    "redis_max_connections": ("3", 3),
    "redis_min_connections": ("3", 3),
    "redis_connect_timeout": ("3", 3.0),
    "redis_socket_timeout": ("3", 3.0),
    "qdrant_host": ("qdrant", "qdrant"),
    "qdrant_port": ("3", 3),
    "qdrant_grpc_port": ("3", 3),
    "qdrant_prefer_grpc": ("false", False),
    "qdrant_https": ("true", True),
    "qdrant_api_key": ("key", SecretStr("key")),
    "qdrant_timeout": ("3", 3.0),
    "qdrant_pool_size": ("3", 3),
    "qdrant_collection_prefix": ("team-1", "team-1"),
    "kato_vector_exact": ("false", False),
    "kato_database_failure_threshold": ("2", 2),
    "kato_database_recovery_timeout": ("1.5", 1.5),
    "mongo_failure_threshold": ("2", 2),
    "mongo_recovery_timeout": ("1.5", 1.5),
    "qdrant_failure_threshold": ("2", 2),
    "qdrant_recovery_timeout": ("1.5", 1.5),
    "redis_failure_threshold": ("2", 2),
    "redis_recovery_timeout": ("1.5", 1.5),
    "retry_max_attempts": ("2", 2),
    "retry_base_delay": ("0.5", 0.5),
    "retry_max_delay": ("2", 2.0),
    "health_check_interval": ("10s", 10.0),
    "enable_v2_features": ("false", False),
    "docs_enabled": ("0", False),
    "session_ttl": ("60", 60),
    "session_auto_extend": ("no", False),
    "session_cleanup_interval": ("0.5", 0.5),
    "max_sessions": ("0", 0),
    "max_sessions_per_user": ("10", 10),
    "max_stm_size": ("10", 10),
    "max_session_memory_bytes": ("2048", 2048),
    "kato_index_memory": ("1000000", 1_000_000),
    "max_processors": ("5", 5),
    "max_request_size": ("4096", 4096),
    "request_timeout": ("1.5", 1.5),
    "endpoint_batch_size_limit": ("7", 7),
    "endpoint_batch_timeout": ("9", 9.0),
    "graceful_shutdown_timeout": ("0", 0),
    "vector_dimension": ("768", 768),
    "websocket_max_connections": ("3", 3),
    "websocket_max_message_size": ("2048", 2048),
    "websocket_ping_interval": ("5", 5.0),
    "websocket_ping_timeout": ("5", 5.0),
    "max_pattern_length": ("4", 4),
    "persistence": ("9", 9),
    "recall_threshold": ("0.4", 0.4),
    "stm_mode": ("ROLLING", "ROLLING"),
    "max_predictions": ("7", 7),
    "sort_symbols": ("false", False),
    "process_predictions": ("false", False),
    "use_token_matching": ("false", False),
    "fuzzy_token_threshold": ("0.8", 0.8),
    "rank_sort_algo": ("similarity", "similarity"),
    "affinity_emotive": ("joy", "joy"),
    "filter_pipeline": ("length,jaccard", ("length", "jaccard")),
}
WRONG = {
    "processor_id": "",
    "kato_cluster_id": "x" * 129,
    "port": "65536",
    "workers": "0",
    "log_level": "LOUD",
    "log_format": "xml",
    "kato_data": "",
    "rank_sort_algo": "entropy",
    "filter_pipeline": "length,unknown",
    "stm_mode": "SOMETIMES",
    "recall_threshold": "1.1",
    "fuzzy_token_threshold": "-0.1",
    "max_request_size": "10",
    "session_ttl": "86401",
    "qdrant_host": "http://qdrant",
    "qdrant_collection_prefix": "a/b",
}
FREE_TEXT = {"processor_name", "host", "affinity_emotive", "qdrant_api_key"}
SECRETS = {"database_url", "mongo_base_url", "redis_url", "qdrant_api_key"}
SERVERS = {
    "DATABASE_URL": "postgresql://user:s3cret@h/db",
    "MONGO_URL": "mongodb://user:s3cret@h",
    "REDIS_URL": "redis://:s3cret@h",
    "QDRANT_HOST": "h",
}


@pytest.mark.parametrize("field", FIELDS)
def test_every_spelling_of_a_variable_sets_its_field(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, value = OTHER[field]
    assert getattr(load(), field) != value
    for name in spellings(field):
        with monkeypatch.context() as patch:
            patch.setenv(name, text)
            if field == "kato_store":
                for server, url in SERVERS.items():
                    patch.setenv(server, url)
            assert getattr(load(), field) == value


@pytest.mark.parametrize("field", [field for field in FIELDS if field not in FREE_TEXT])
def test_a_wrong_value_names_the_variable_that_holds_it(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in spellings(field):
        with monkeypatch.context() as patch:
            patch.setenv(name, WRONG.get(field, "nonsense"))
            with pytest.raises(SettingsError, match=rf"\b{name}\b") as caught:
                load()
        shown = repr(WRONG.get(field, "nonsense"))[1:5] in str(caught.value)
        assert shown == (field not in SECRETS)


def test_all_wrong_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSISTENCE", "0")
    monkeypatch.setenv("SORT", "perhaps")
    monkeypatch.setenv("API_PORT", "80")
    with pytest.raises(SettingsError) as caught:
        load(port=-1)
    assert all(name in str(caught.value) for name in ("PERSISTENCE:", "SORT:", " PORT:"))


@pytest.mark.parametrize("field", FIELDS)
def test_no_setting_is_dead(field: str) -> None:
    assert kato.__file__ is not None
    sources = [path for path in Path(kato.__file__).parent.rglob("*.py") if path.name != "settings.py"]
    used = re.compile(rf"(settings|chosen)\.{field}\b")
    own = field in SessionConfig.__struct_fields__ or field in ("processor_id", "kato_cluster_id")
    assert own or any(used.search(path.read_text(encoding="utf8")) for path in sources)


def test_what_is_given_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "1")
    monkeypatch.setenv("KATO_API_PORT", "2")
    assert load(port=3, host=None).port == 3
    assert load().port == 1


@pytest.mark.parametrize("field", [f for f in FIELDS if f in SessionConfig.__struct_fields__])
def test_the_defaults_of_sessions_follow_the_settings(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, value = OTHER[field]
    monkeypatch.setenv(spellings(field)[0], text)
    assert getattr(load().defaults(), field) == value


def test_without_settings_the_defaults_are_those_of_the_model() -> None:
    assert load().defaults() == SessionConfig()


def test_the_base_is_the_cluster_or_the_processor() -> None:
    assert load(processor_id="me").base == "me"
    assert load(processor_id="me", kato_cluster_id="us").base == "us"


def test_an_empty_pipeline_may_be_written_as_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FILTER_PIPELINE", "")
    assert load().filter_pipeline == ()


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("store", "given", "missing"),
    [
        ("postgres", {}, ["DATABASE_URL", "REDIS_URL", "QDRANT_HOST"]),
        ("mongo", {}, ["MONGO_BASE_URL", "REDIS_URL", "QDRANT_HOST"]),
        ("postgres", {"DATABASE_URL", "QDRANT_HOST"}, ["REDIS_URL"]),
        ("mongo", {"MONGO_URL", "REDIS_URL"}, ["QDRANT_HOST"]),
        ("mongo", {"DATABASE_URL", "REDIS_URL", "QDRANT_HOST"}, ["MONGO_BASE_URL"]),
    ],
)
def test_a_production_store_needs_a_server_for_each_kind_of_data(
    store: str, given: set[str], missing: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KATO_STORE", store)
    for name in given:
        monkeypatch.setenv(name, SERVERS[name])
    with pytest.raises(SettingsError) as caught:
        load()
    message = str(caught.value)
    assert message.startswith(f"Wrong settings: KATO_STORE={store} also needs {missing[0]}")
    assert [name for name in (*SERVERS, "MONGO_BASE_URL") if f"{name} (" in message] == sorted(
        missing, key=[*SERVERS, "MONGO_BASE_URL"].index
    )
    assert "s3cret" not in message


def test_without_vectors_no_server_for_them_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "REDIS_URL"):
        monkeypatch.setenv(name, SERVERS[name])
    assert load(kato_store="postgres", kato_vectors="off").kato_store == "postgres"


def test_secrets_are_shown_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QDRANT_API_KEY", "s3cret")
    for name, value in SERVERS.items():
        monkeypatch.setenv(name, value)
    settings = load()
    assert "s3cret" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    monkeypatch.setenv("PORT", "nonsense")
    for name in ("DATABASE_URL", "MONGO_URL", "REDIS_URL"):
        monkeypatch.setenv(name, "ftp://user:s3cret@h")
    with pytest.raises(SettingsError) as caught:
        load()
    shown = "".join(traceback.format_exception(caught.value))
    assert "PORT" in shown
    assert shown.count("a secret value") == 3
    assert "must begin with" in shown
    assert "s3cret" not in shown
