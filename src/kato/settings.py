"""The one place where the environment is read.

Every variable listed here changes something; a wrong value stops the start and names the variable.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import AliasChoices, Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic import ValidationError as PydanticValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from kato.model import FilterName, RankMetric, SessionConfig


class SettingsError(ValueError):
    """A variable has a value that cannot be used; the message names each one and says why."""


def _names(*names: str) -> Any:
    return AliasChoices(*names)


Url: TypeAlias = SecretStr
"""An address that may hold a password."""
_SCHEMES: Final = {
    "database_url": ("postgresql://", "postgres://"),
    "mongo_base_url": ("mongodb://", "mongodb+srv://"),
    "redis_url": ("redis://", "rediss://", "unix://", "redis+sentinel://", "rediss+sentinel://"),
}
_PURPOSES: Final = {
    "database_url": "where patterns are kept",
    "mongo_base_url": "where patterns are kept",
    "redis_url": "where sessions are kept",
    "qdrant_host": "where vectors are kept; KATO_VECTORS=off does without vectors",
}


class Settings(BaseSettings):
    """KATO's settings. Field names are the variables' names in lower case; other spellings are aliases.

    >>> Settings(RECALL_THRESHOLD=0.4).defaults().recall_threshold
    0.4
    """

    model_config = SettingsConfigDict(
        extra="ignore", populate_by_name=True, case_sensitive=False, frozen=True
    )

    processor_id: str = Field("kato", min_length=1, max_length=128, validation_alias=_names("PROCESSOR_ID"))
    processor_name: str = Field("KatoProcessor", validation_alias=_names("PROCESSOR_NAME"))
    kato_cluster_id: str | None = Field(
        None, min_length=1, max_length=128, validation_alias=_names("KATO_CLUSTER_ID")
    )
    host: str = Field("127.0.0.1", validation_alias=_names("HOST"))
    port: int = Field(8000, ge=0, le=65535, validation_alias=_names("PORT", "API_PORT", "KATO_API_PORT"))
    workers: int = Field(1, ge=1, le=64, validation_alias=_names("WORKERS", "API_WORKERS", "KATO_WORKERS"))
    log_level: str = Field(
        "INFO", pattern="^(DEBUG|INFO|WARNING|ERROR|CRITICAL)$", validation_alias=_names("LOG_LEVEL")
    )
    log_format: str = Field("human", pattern="^(human|json)$", validation_alias=_names("LOG_FORMAT"))
    kato_data: str = Field("./kato-data", min_length=1, validation_alias=_names("KATO_DATA"))
    kato_store: Literal["embedded", "mongo", "postgres"] = Field(
        "embedded", validation_alias=_names("KATO_STORE")
    )
    kato_vectors: bool = Field(True, validation_alias=_names("KATO_VECTORS"))
    database_url: Url | None = Field(None, validation_alias=_names("DATABASE_URL"))
    kato_database_pool_size: int = Field(
        20, ge=1, le=1000, validation_alias=_names("KATO_DATABASE_POOL_SIZE")
    )
    mongo_base_url: Url | None = Field(None, validation_alias=_names("MONGO_BASE_URL", "MONGO_URL"))
    mongo_pool_size: int = Field(
        50, ge=1, le=1000, validation_alias=_names("MONGO_POOL_SIZE", "MONGO_MAX_POOL_SIZE")
    )
    mongo_min_pool_size: int = Field(10, ge=0, le=1000, validation_alias=_names("MONGO_MIN_POOL_SIZE"))
    mongo_connect_timeout: int = Field(5000, ge=1, validation_alias=_names("MONGO_CONNECT_TIMEOUT"))
    mongo_socket_timeout: int = Field(10_000, ge=1, validation_alias=_names("MONGO_SOCKET_TIMEOUT"))
    mongo_server_selection_timeout: int = Field(
        5000, ge=1, validation_alias=_names("MONGO_SERVER_SELECTION_TIMEOUT")
    )
    mongo_wait_queue_timeout: int = Field(5000, ge=1, validation_alias=_names("MONGO_WAIT_QUEUE_TIMEOUT"))
    mongo_max_idle_time: int = Field(30_000, ge=1, validation_alias=_names("MONGO_MAX_IDLE_TIME"))
    redis_url: Url | None = Field(None, validation_alias=_names("REDIS_URL"))
    redis_max_connections: int = Field(30, ge=1, le=1000, validation_alias=_names("REDIS_MAX_CONNECTIONS"))
    redis_min_connections: int = Field(5, ge=0, le=1000, validation_alias=_names("REDIS_MIN_CONNECTIONS"))
    redis_connect_timeout: float = Field(5, gt=0, validation_alias=_names("REDIS_CONNECT_TIMEOUT"))
    redis_socket_timeout: float = Field(5, gt=0, validation_alias=_names("REDIS_SOCKET_TIMEOUT"))
    qdrant_host: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_.-]+$", max_length=253, validation_alias=_names("QDRANT_HOST")
    )
    qdrant_port: int = Field(6333, ge=1, le=65535, validation_alias=_names("QDRANT_PORT"))
    qdrant_grpc_port: int = Field(6334, ge=1, le=65535, validation_alias=_names("QDRANT_GRPC_PORT"))
    qdrant_prefer_grpc: bool = Field(True, validation_alias=_names("QDRANT_PREFER_GRPC"))
    qdrant_https: bool = Field(False, validation_alias=_names("QDRANT_HTTPS"))
    qdrant_api_key: SecretStr | None = Field(None, validation_alias=_names("QDRANT_API_KEY"))
    qdrant_timeout: float = Field(10, ge=1, validation_alias=_names("QDRANT_TIMEOUT"))
    qdrant_pool_size: int = Field(20, ge=1, le=1000, validation_alias=_names("QDRANT_POOL_SIZE"))
    qdrant_collection_prefix: str = Field(
        "kato", pattern=r"^[A-Za-z0-9_-]{1,100}$", validation_alias=_names("QDRANT_COLLECTION_PREFIX")
    )
    kato_vector_exact: bool = Field(True, validation_alias=_names("KATO_VECTOR_EXACT"))
    kato_database_failure_threshold: int = Field(
        5, ge=1, validation_alias=_names("KATO_DATABASE_FAILURE_THRESHOLD")
    )
    kato_database_recovery_timeout: float = Field(
        30, gt=0, le=3600, validation_alias=_names("KATO_DATABASE_RECOVERY_TIMEOUT")
    )
    mongo_failure_threshold: int = Field(5, ge=1, validation_alias=_names("MONGO_FAILURE_THRESHOLD"))
    mongo_recovery_timeout: float = Field(
        30, gt=0, le=3600, validation_alias=_names("MONGO_RECOVERY_TIMEOUT")
    )
    qdrant_failure_threshold: int = Field(3, ge=1, validation_alias=_names("QDRANT_FAILURE_THRESHOLD"))
    qdrant_recovery_timeout: float = Field(
        20, gt=0, le=3600, validation_alias=_names("QDRANT_RECOVERY_TIMEOUT")
    )
    redis_failure_threshold: int = Field(5, ge=1, validation_alias=_names("REDIS_FAILURE_THRESHOLD"))
    redis_recovery_timeout: float = Field(
        15, gt=0, le=3600, validation_alias=_names("REDIS_RECOVERY_TIMEOUT")
    )
    retry_max_attempts: int = Field(3, ge=1, le=10, validation_alias=_names("RETRY_MAX_ATTEMPTS"))
    retry_base_delay: float = Field(1.0, ge=0, le=60, validation_alias=_names("RETRY_BASE_DELAY"))
    retry_max_delay: float = Field(10.0, ge=0, le=600, validation_alias=_names("RETRY_MAX_DELAY"))
    health_check_interval: float = Field(5, ge=0.1, le=60, validation_alias=_names("HEALTH_CHECK_INTERVAL"))
    enable_v2_features: bool = Field(True, validation_alias=_names("ENABLE_V2_FEATURES"))
    docs_enabled: bool = Field(True, validation_alias=_names("DOCS_ENABLED"))

    session_ttl: int = Field(3600, ge=1, le=86_400, validation_alias=_names("SESSION_TTL"))
    session_auto_extend: bool = Field(True, validation_alias=_names("SESSION_AUTO_EXTEND"))
    session_cleanup_interval: float = Field(
        300, gt=0, le=86_400, validation_alias=_names("SESSION_CLEANUP_INTERVAL")
    )
    max_sessions: int = Field(10_000, ge=0, validation_alias=_names("MAX_SESSIONS"))
    max_sessions_per_user: int = Field(0, ge=0, validation_alias=_names("MAX_SESSIONS_PER_USER"))
    max_stm_size: int = Field(1000, ge=1, validation_alias=_names("MAX_STM_SIZE"))
    max_session_memory_bytes: int = Field(
        10 * 1024 * 1024, ge=1024, validation_alias=_names("MAX_SESSION_MEMORY_BYTES")
    )
    max_processors: int = Field(1000, ge=1, validation_alias=_names("MAX_PROCESSORS"))
    kato_index_memory: int = Field(0, ge=0, validation_alias=_names("KATO_INDEX_MEMORY"))
    max_request_size: int = Field(100 * 1024 * 1024, ge=1024, validation_alias=_names("MAX_REQUEST_SIZE"))
    request_timeout: float = Field(30, gt=0, validation_alias=_names("REQUEST_TIMEOUT"))
    endpoint_batch_size_limit: int = Field(1000, ge=1, validation_alias=_names("ENDPOINT_BATCH_SIZE_LIMIT"))
    endpoint_batch_timeout: float = Field(30, gt=0, validation_alias=_names("ENDPOINT_BATCH_TIMEOUT"))
    graceful_shutdown_timeout: int = Field(30, ge=0, validation_alias=_names("GRACEFUL_SHUTDOWN_TIMEOUT"))
    vector_dimension: int | None = Field(
        None, ge=1, validation_alias=_names("QDRANT_VECTOR_SIZE", "KATO_VECTOR_DIM")
    )
    websocket_max_connections: int = Field(100, ge=1, validation_alias=_names("WEBSOCKET_MAX_CONNECTIONS"))
    websocket_max_message_size: int = Field(
        1 << 20, ge=1024, validation_alias=_names("WEBSOCKET_MAX_MESSAGE_SIZE")
    )
    websocket_ping_interval: float = Field(30, gt=0, validation_alias=_names("WEBSOCKET_PING_INTERVAL"))
    websocket_ping_timeout: float = Field(10, gt=0, validation_alias=_names("WEBSOCKET_PING_TIMEOUT"))

    max_pattern_length: int = Field(0, ge=0, validation_alias=_names("MAX_PATTERN_LENGTH"))
    persistence: int = Field(5, ge=1, le=100, validation_alias=_names("PERSISTENCE"))
    recall_threshold: float = Field(0.1, ge=0, le=1, validation_alias=_names("RECALL_THRESHOLD"))
    stm_mode: str = Field("CLEAR", pattern="^(CLEAR|ROLLING)$", validation_alias=_names("STM_MODE"))
    max_predictions: int = Field(100, ge=1, le=10_000, validation_alias=_names("MAX_PREDICTIONS"))
    sort_symbols: bool = Field(True, validation_alias=_names("SORT_SYMBOLS", "SORT"))
    process_predictions: bool = Field(True, validation_alias=_names("PROCESS_PREDICTIONS"))
    use_token_matching: bool = Field(
        True, validation_alias=_names("USE_TOKEN_MATCHING", "KATO_USE_TOKEN_MATCHING")
    )
    fuzzy_token_threshold: float | None = Field(
        None, ge=0, le=1, validation_alias=_names("FUZZY_TOKEN_THRESHOLD", "KATO_FUZZY_TOKEN_THRESHOLD")
    )
    rank_sort_algo: RankMetric = Field("potential", validation_alias=_names("RANK_SORT_ALGO"))
    affinity_emotive: str | None = Field(None, validation_alias=_names("AFFINITY_EMOTIVE"))
    filter_pipeline: Annotated[tuple[FilterName, ...], NoDecode] = Field(
        (), validation_alias=_names("FILTER_PIPELINE")
    )

    @field_validator("filter_pipeline", mode="before")
    @classmethod
    def _split_pipeline(cls, value: Any) -> Any:
        """Operators write `FILTER_PIPELINE=length,jaccard`."""
        return tuple(filter(None, value.split(","))) if isinstance(value, str) else value

    @field_validator("health_check_interval", mode="before")
    @classmethod
    def _seconds(cls, value: Any) -> Any:
        """Operators write `HEALTH_CHECK_INTERVAL=10s` too."""
        return value.removesuffix("s") if isinstance(value, str) else value

    @field_validator("database_url", "mongo_base_url", "redis_url")
    @classmethod
    def _known_scheme(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        schemes = _SCHEMES[str(info.field_name)]
        if value is not None and not value.get_secret_value().startswith(schemes):
            raise ValueError(f"must begin with {' or '.join(schemes)}")
        return value

    @model_validator(mode="after")
    def _complete(self) -> Settings:
        """A production store needs a server for each kind of data, and an operator must have named it."""
        if self.kato_store == "embedded":
            return self
        address = "database_url" if self.kato_store == "postgres" else "mongo_base_url"
        missing = [name for name in (address, "redis_url") if getattr(self, name) is None]
        if self.kato_vectors and self.qdrant_host is None:
            missing.append("qdrant_host")
        if missing:
            needs = ", ".join(f"{name.upper()} ({_PURPOSES[name]})" for name in missing)
            raise ValueError(f"KATO_STORE={self.kato_store} also needs {needs}")
        return self

    @property
    def base(self) -> str:
        """The id of the instance's own node, shared by the replicas of one deployment."""
        return self.kato_cluster_id or self.processor_id

    def defaults(self) -> SessionConfig:
        """The configuration of a session that sets nothing itself."""
        own = type(self).model_fields
        return SessionConfig(**{k: getattr(self, k) for k in SessionConfig.__struct_fields__ if k in own})


def _spellings(field: str) -> list[str]:
    """The names of a field's variable; the first wins."""
    alias = Settings.model_fields[field].validation_alias
    return [str(name) for name in alias.choices] if isinstance(alias, AliasChoices) else [field]


def _variable(place: Sequence[int | str], given: Collection[str]) -> str:
    """The variable that holds the value at `place`, in the spelling that was used (`given` ones win)."""
    spellings = next((names for names in map(_spellings, Settings.model_fields) if place[0] in names), [])
    used = {*given, *(name.upper() for name in os.environ)}
    first = next((name for name in spellings if name in used), str(place[0]))
    return ".".join([first, *map(str, place[1:])])


SECRET_VARIABLES: Final = frozenset(
    name
    for field, about in Settings.model_fields.items()
    if about.annotation == SecretStr | None
    for name in _spellings(field)
)
"""The variables whose values must be shown to nobody."""


def load(**overrides: Any) -> Settings:
    """Settings from the environment, `overrides` (by field name) winning; raises `SettingsError`."""
    given = {_spellings(field)[0]: value for field, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except PydanticValidationError as error:
        # Not chained: the cause would show values that are secret.
        raise SettingsError("Wrong settings: " + "; ".join(_explained(error, given))) from None


def _explained(error: PydanticValidationError, given: Collection[str]) -> list[str]:
    """What is wrong with each variable, and its value unless that may be secret."""
    lines = []
    for each in error.errors():
        reason = each["msg"].removeprefix("Value error, ")
        if not each["loc"]:
            lines.append(reason)
            continue
        name = _variable(each["loc"], given)
        value = "a secret value" if name.upper() in SECRET_VARIABLES else repr(each["input"])
        lines.append(f"{name}: {reason} (got {value})")
    return lines
