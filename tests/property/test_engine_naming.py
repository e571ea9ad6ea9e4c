"""Names are equal to what Python prints, written out as a rule of its own."""

from __future__ import annotations

import hashlib
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from kato.engine.naming import pattern_name, vector_name

HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}
SYMBOLS = st.one_of(
    st.text(),
    st.text(alphabet="'\"\\\n\r\t ab\x00\x7f\xa0\xad\u200b\u2028\ue000\U0001f600\U000e0001\ud800"),
)
EVENTS = st.lists(st.lists(SYMBOLS, min_size=1, max_size=4), max_size=4)


def quoted(symbol: str) -> str:
    """The quoting rule of behaviour.md 6.2."""
    quote = '"' if "'" in symbol and '"' not in symbol else "'"
    named = {"\\": "\\\\", quote: "\\" + quote, "\n": "\\n", "\r": "\\r", "\t": "\\t"}

    def one(character: str) -> str:
        if character in named:
            return named[character]
        if character == " " or unicodedata.category(character) not in HIDDEN:
            return character
        code = ord(character)
        if code < 0x100:
            return f"\\x{code:02x}"
        return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

    return quote + "".join(map(one, symbol)) + quote


@given(EVENTS)
def test_pattern_names_follow_the_quoting_rule(events: list[list[str]]) -> None:
    text = "[" + ", ".join("[" + ", ".join(map(quoted, event)) + "]" for event in events) + "]"
    assert text == repr(events)
    assert pattern_name(events) == hashlib.sha1(text.encode()).hexdigest()


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=40))
def test_vector_names_are_symbols_of_content(vector: list[float]) -> None:
    name = vector_name(vector)
    assert name == vector_name(tuple(vector))
    assert len(name) == 45
    assert name.startswith("VCTR|")
