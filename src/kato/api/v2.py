"""The v2 vocabulary: `/v2/sessions`, owners are called `user_id`, an observation is answered "ok"."""

from __future__ import annotations

from kato.api import patterns, sessions
from kato.api.routing import Route
from kato.validation import SessionRequest

VOCABULARY = sessions.Vocabulary(
    prefix="/v2/sessions", tag="v2 sessions", observed="ok", creation=SessionRequest
)


def routes() -> list[Route]:
    """Sessions and patterns."""
    return [*sessions.routes(VOCABULARY), *patterns.routes()]
