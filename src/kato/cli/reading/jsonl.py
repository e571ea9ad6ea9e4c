"""JSON Lines: an observation per line, sequences separated by blank lines; or a whole sequence per line."""

from __future__ import annotations

from collections.abc import Iterator

from kato import validation
from kato.cli.reading.lines import Lines, Sequence, problem
from kato.errors import ValidationError
from kato.model import Observation
from kato.validation import ObservationRequest, Symbol

_one = validation.decoder(ObservationRequest)
_whole = validation.decoder(tuple[ObservationRequest | tuple[Symbol, ...], ...])


def sequences(lines: Lines) -> Iterator[Sequence]:
    """The sequences of a file; both forms may be mixed."""
    running: list[Observation] = []
    for number, text in lines:
        stripped = text.strip()
        try:
            if stripped.startswith("{"):
                running.append(validation.observation(_one(stripped.encode())))
                continue
            if running:
                yield from _with_events(running)
                running = []
            if stripped:
                yield from _with_events(sequence(stripped))
        except ValidationError as error:
            raise problem(lines.path, number, error.message) from None
    yield from _with_events(running)


def sequence(text: str) -> Sequence:
    """One line that holds a whole sequence: an array of observations, or of arrays of symbols.

    >>> sequence('[["a", "b"], {"strings": ["c"]}]')[1].strings
    ('c',)
    """
    if not text.startswith("["):
        raise ValidationError(
            'expected an observation like {"strings": ["a"]} or an array like [["a"], ["b"]]'
        )
    requests = (
        item if isinstance(item, ObservationRequest) else ObservationRequest(strings=item)
        for item in _whole(text.encode())
    )
    return tuple(validation.observation(item, f"[{place}].") for place, item in enumerate(requests))


def _with_events(observations: list[Observation] | Sequence) -> Iterator[Sequence]:
    if any(observation.strings or observation.vectors for observation in observations):
        yield tuple(observations)
