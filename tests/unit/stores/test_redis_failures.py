from __future__ import annotations

import pytest
from redis import exceptions

from kato.errors import DataCorrupted, KatoError, StorageError
from kato.stores.redis.failures import elsewhere, failure, translate


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (TimeoutError(), "did not answer in time"),
        (exceptions.TimeoutError("secret"), "did not answer in time"),
        (ConnectionResetError("secret"), "cannot be reached"),
        (exceptions.ConnectionError("secret"), "cannot be reached"),
        (exceptions.AuthenticationError("secret"), "credentials"),
        (exceptions.BusyLoadingError("secret"), "loading"),
        (exceptions.ReadOnlyError("secret", status_code="READONLY"), "replica"),
        (exceptions.ResponseError("Error running script: secret -READONLY You can't write"), "replica"),
        (exceptions.MasterDownError("1 host:1", status_code="MASTERDOWN"), "lost its master"),
        (exceptions.MovedError("1 secret:1", status_code="MOVED"), "moved"),
        (exceptions.OutOfMemoryError("secret", status_code="OOM"), "out of memory"),
        (exceptions.ResponseError("MISCONF secret"), "cannot write to its disk"),
        (exceptions.ResponseError("NOREPLICAS secret"), "too few replicas"),
        (exceptions.ResponseError("BUSY secret"), "busy"),
        (exceptions.NoPermissionError("secret", status_code="NOPERM"), "permission"),
        (exceptions.ResponseError("ERR secret"), "the operation failed"),
        (exceptions.InvalidResponse("secret"), "the connection was lost"),
    ],
)
def test_every_error_is_told_without_quoting_it(error: Exception, cause: str) -> None:
    told = translate(error)
    assert type(told) is StorageError
    assert cause in told.message
    assert "secret" not in told.message
    assert told.retry_after


def test_damage_and_errors_of_ours() -> None:
    assert isinstance(translate(exceptions.ResponseError("WRONGTYPE Operation against")), DataCorrupted)
    ours: KatoError = failure("because")
    assert translate(ours) is ours


def test_which_errors_mean_that_another_server_is_master() -> None:
    assert elsewhere(exceptions.ReadOnlyError("x", status_code="READONLY"))
    assert elsewhere(exceptions.ResponseError("script: READONLY You can't write"))
    assert elsewhere(exceptions.MovedError("1 host:1", status_code="MOVED"))
    assert not elsewhere(exceptions.ResponseError("ERR x"))
    assert not elsewhere(TimeoutError())
