"""Every error KATO raises on purpose: its code, its HTTP status, and whether trying again helps.

The envelope that clients see is built from these attributes alone; see `kato.api.errors`.
"""

from __future__ import annotations

from typing import Any, ClassVar


class KatoError(Exception):
    """Base of all KATO errors.

    `details` is machine-readable and safe to show; `retry_after` is in seconds.
    """

    code: ClassVar[str] = "INTERNAL_ERROR"
    status: ClassVar[int] = 500
    retry_helps: ClassVar[bool] = False

    def __init__(self, message: str, *, retry_after: float | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = details
        self.retry_after = retry_after


class ValidationError(KatoError):
    """The request does not have the required shape; `details.validation_errors` lists field, message, type."""

    code = "VALIDATION_ERROR"
    status = 422

    def __init__(self, message: str, *, field: str = "", kind: str = "value_error", **details: Any) -> None:
        details.setdefault("validation_errors", [{"field": field, "message": message, "type": kind}])
        super().__init__(message if not field else f"{field}: {message}", **details)


class BadRequest(KatoError):
    """The request is well-formed but makes no sense."""

    code = "BAD_REQUEST"
    status = 400


class EmptySTM(BadRequest):
    """A learn was asked for while nothing has been observed."""

    code = "EMPTY_STM"


class VectorDimensionError(BadRequest):
    """A vector has another number of elements than the one it must agree with."""

    code = "VECTOR_DIMENSION_ERROR"


class UnknownGene(BadRequest):
    """No gene of that name can be set."""

    code = "UNKNOWN_GENE"


class ConfigurationInvalid(BadRequest):
    """A configuration value is out of range; `details.validation_errors` maps each field to the reason."""

    code = "CONFIGURATION_INVALID"


class NotFound(KatoError):
    """The thing asked for does not exist."""

    code = "NOT_FOUND"
    status = 404


class SessionNotFound(NotFound):
    """No session has that id."""

    code = "SESSION_NOT_FOUND"


class SessionExpired(NotFound):
    """The session existed and its time is over."""

    code = "SESSION_EXPIRED"


class PatternNotFound(NotFound):
    """The node holds no pattern of that name."""

    code = "PATTERN_NOT_FOUND"


class GeneNotFound(NotFound):
    """No gene of that name can be read."""

    code = "GENE_NOT_FOUND"


class MetricNotFound(NotFound):
    """No metric of that name has data."""

    code = "METRIC_NOT_FOUND"


class RequestTooLarge(KatoError):
    """The body is larger than MAX_REQUEST_SIZE."""

    code = "REQUEST_TOO_LARGE"
    status = 413


class ConcurrencyError(KatoError):
    """Others kept changing the same record; nothing was changed by this request."""

    code = "CONCURRENCY_ERROR"
    status = 409
    retry_helps = True


class SessionLimitExceeded(KatoError):
    """A limit on the number of sessions is reached."""

    code = "SESSION_LIMIT_EXCEEDED"
    status = 429
    retry_helps = True


class ResourceExhausted(KatoError):
    """The session would grow beyond its memory limit; its state is unchanged."""

    code = "RESOURCE_EXHAUSTED"
    status = 507


class StorageError(KatoError):
    """A store could not acknowledge the write or the read; nothing was acknowledged to the client."""

    code = "STORAGE_ERROR"
    status = 503
    retry_helps = True


class CircuitBreakerOpen(StorageError):
    """A server has failed so often that it is not asked at the moment; nothing was done."""

    code = "CIRCUIT_BREAKER_OPEN"


class OutcomeUnknown(StorageError):
    """A change may have been stored, and others have gone on from there: repeating it might do it twice."""

    retry_helps = False


class DataCorrupted(StorageError):
    """A data file is damaged; `kato check` says where."""

    code = "DATA_CONSISTENCY_ERROR"
    status = 500
    retry_helps = False


class ConfigurationError(KatoError):
    """KATO cannot run as it is set up; somebody has to change that."""

    code = "CONFIGURATION_ERROR"


class DataDirectoryError(ConfigurationError):
    """The data directory is in use by another process, of another format version, or not writable."""


class ServiceUnavailable(KatoError):
    """KATO is starting, stopping, or a node is still being opened."""

    code = "SERVICE_UNAVAILABLE"
    status = 503
    retry_helps = True


class RequestTimeout(KatoError):
    """The request took longer than allowed."""

    code = "TIMEOUT_ERROR"
    status = 504
    retry_helps = True
