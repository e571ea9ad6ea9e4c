"""Symbol affinity: the summed emotives of the patterns that hold a symbol.

Sums are kept exactly (as integers, in units of the smallest double), so that they depend neither on the order of
learning nor on what was deleted in between: a restarted process computes the same bits.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from kato.model import Emotives

_UNIT_BITS = 1074
_UNIT = 1 << _UNIT_BITS
_LARGEST = sys.float_info.max


def _units(value: float) -> int:
    # A pattern's own running sum may have grown beyond all doubles.
    numerator, denominator = max(-_LARGEST, min(_LARGEST, value)).as_integer_ratio()
    return numerator << (_UNIT_BITS - (denominator.bit_length() - 1))


def _value(units: int) -> float:
    try:
        return units / _UNIT
    except OverflowError:
        return _LARGEST if units > 0 else -_LARGEST


class Affinities:
    """Exact running sums per symbol and emotive.

    >>> table = Affinities()
    >>> table.add(["a", "b"], {"joy": 0.1})
    >>> table.add(["a"], {"joy": 0.2})
    >>> table.remove(["b"], {"joy": 0.1})
    >>> table.of("a")["joy"] > 0.3, table.of("b")
    (True, {})
    """

    def __init__(self) -> None:
        self._sums: dict[str, dict[str, tuple[int, int]]] = {}

    def add(self, symbols: Iterable[str], emotives: Emotives) -> None:
        """Count a pattern's sums for each of its distinct symbols."""
        self._change(symbols, emotives, 1)

    def remove(self, symbols: Iterable[str], emotives: Emotives) -> None:
        """Take back what `add` counted."""
        self._change(symbols, emotives, -1)

    def _change(self, symbols: Iterable[str], emotives: Emotives, sign: int) -> None:
        units = {name: sign * _units(value) for name, value in emotives.items()}
        for symbol in symbols:
            sums = self._sums.setdefault(symbol, {})
            for name, value in units.items():
                total, patterns = sums.get(name, (0, 0))
                if patterns + sign:
                    sums[name] = (total + value, patterns + sign)
                else:
                    del sums[name]
            if not sums:
                del self._sums[symbol]

    def of(self, symbol: str) -> Emotives:
        """The affinity of one symbol, emotives in ascending order; empty when it has none."""
        return {name: _value(total) for name, (total, _) in sorted(self._sums.get(symbol, {}).items())}

    def all(self) -> dict[str, Emotives]:
        """The affinity of every symbol that has one, ascending."""
        return {symbol: self.of(symbol) for symbol in sorted(self._sums)}
