from __future__ import annotations

import hashlib
import threading

import numpy as np
import pytest

from kato.engine.naming import pattern_name, processor_id, sum_vectors, vector_name


@pytest.mark.parametrize(
    ("events", "name"),
    [
        ([["a"], ["b"], ["c"]], "b98534b32c1d7489d4ce1a48724aa65aeecbdba9"),
        ([["a", "b"], ["c"]], "e9e43f2309079f2843665ab773996d99489306d6"),
        ([["hello", "world"]], "3814b8c03c137909546d6993c0acf351981bccae"),
        ([["it's", "x"], ['say "hi"', "\\n"]], "62813f7e1a3ab42dde72349bdfc38a40458dda3d"),
        (
            [["naïve", "日本"], ["tab\there", "new\nline"], ["\x07", "\u200b", 'it\'s "both"']],
            "ac8972f16d4e287b4cc498d2161e7074bb0d715b",
        ),
    ],
)
def test_pattern_names_of_the_table(events: list[list[str]], name: str) -> None:
    assert pattern_name(events) == name
    assert pattern_name(tuple(map(tuple, events))) == name


def test_pattern_name_of_a_lone_surrogate() -> None:
    assert pattern_name([["\ud800"]]) == hashlib.sha1(b"[['\\ud800']]").hexdigest()


VECTORS: list[tuple[list[float], str]] = [
    ([1, 2, 3], "fe5de4472f7e4d5c9cdd19cadebfa06fe3da8e43"),
    ([0.1, 0.25, -3.5], "1ea1245ceed2b0548df1aeee717e01ad48a82a3e"),
    ([1 / 3, 2 / 3], "56fab9df37efc757e416483f519f4d388e350603"),
    ([1e10, 0.5], "2e1733c2f2ea8cc02e4ee2837269a7f2e01ce14a"),
]


@pytest.mark.parametrize(("vector", "name"), VECTORS)
def test_vector_names_of_the_table(vector: list[float], name: str) -> None:
    assert vector_name(vector) == f"VCTR|{name}"


@pytest.mark.parametrize(
    "options",
    [
        {"precision": 2, "linewidth": 20},
        {"formatter": {"float": str}},
        {"threshold": 2, "edgeitems": 1},
        {"sign": "+", "suppress": True, "floatmode": "fixed"},
        {"legacy": "1.13"},
    ],
)
def test_print_options_do_not_change_vector_names(options: dict[str, object]) -> None:
    with np.printoptions(**options):  # type: ignore[arg-type]
        for vector, name in VECTORS:
            assert vector_name(vector) == f"VCTR|{name}"


def test_vector_names_in_another_thread() -> None:
    names: list[str] = []
    thread = threading.Thread(target=lambda: names.extend(vector_name(vector) for vector, _ in VECTORS))
    thread.start()
    thread.join()
    assert names == [f"VCTR|{name}" for _, name in VECTORS]


def test_vector_text_breaks_and_rounds_as_numpy_prints() -> None:
    vector = [0.1] * 20
    text = "[" + " ".join(["0.1"] * 18) + "\n " + "0.1 0.1]"
    assert vector_name(vector) == "VCTR|" + hashlib.sha1(text.encode()).hexdigest()
    assert vector_name([0.123456789]) == vector_name([0.123456788])


def test_long_vectors_are_named_after_all_their_values() -> None:
    vector = [0.5] * 1001
    other = [0.5] * 500 + [0.5000000001] + [0.5] * 500
    assert vector_name(vector) != vector_name(other)
    assert vector_name(vector) == vector_name(tuple(vector))
    # Up to 1000 elements the recorded names stay.
    assert (
        vector_name([0.5] * 1000) == "VCTR|" + hashlib.sha1(str(np.array([0.5] * 1000)).encode()).hexdigest()
    )


def test_vectors_are_added_element_by_element() -> None:
    assert sum_vectors([[1, 2], [0.5, 0], [1, -2]]) == (2.5, 0.0)
    assert sum_vectors([[7]]) == (7.0,)


def test_vectors_of_unequal_length_are_refused_with_their_positions() -> None:
    with pytest.raises(ValueError, match="first has 2 elements, other lengths at positions 1, 3"):
        sum_vectors([[1, 2], [1], [3, 4], [1, 2, 3]])


@pytest.mark.parametrize(
    ("node", "service", "label"),
    [
        ("alice", "kato", "alice_kato"),
        ("my-node.v1 x", "kato", "my_node_v1_x_kato"),
        ("a/b:c|d", "my-kato", "a_b_c_d_my_kato"),
        ('/\\."$*<>:|?- ', "k", "_" * 13 + "_k"),
        ("n" * 70, "kato", "n" * 46 + "_a3c65bb3_kato"),
        ("n" * 55, "kato", "n" * 55 + "_kato"),
    ],
)
def test_processor_ids(node: str, service: str, label: str) -> None:
    assert processor_id(node, service) == label
    assert len(label) <= 60


def test_processor_id_of_a_very_long_service_name_keeps_the_node_apart() -> None:
    assert processor_id("a" * 70, "s" * 55) != processor_id("b" * 70, "s" * 55)
