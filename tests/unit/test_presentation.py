"""Tables for people: what they show, how much of it, and that nothing of a client's gets out of its cell."""

from __future__ import annotations

import copy
import doctest
import html.parser
import pickle
from typing import Any

import kato.presentation
from kato.presentation import ROWS_SHOWN, STM, Predictions, symbol_text

EVIL = '<script>alert("x")</script>'


class Checker(html.parser.HTMLParser):
    """Collects the tags and checks that each is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def checked(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert not checker.open
    assert checker.tags <= {"table", "caption", "tr", "th", "td", "span", "code"}
    return checker


def prediction(**parts: Any) -> dict[str, Any]:
    return {
        "name": "1dde44bdda5efd7a60c47cf06ed7ecc85d6d10e8",
        "potential": 2.0,
        "similarity": 0.5,
        "evidence": 0.25,
        "frequency": 3,
        "matches": ["hit"],
        "past": [["before"]],
        "present": [["hit", "absent"]],
        "missing": [["absent"]],
        "extras": [["surplus"], []],
        "future": [["after"], ["end"]],
        **parts,
    }


def test_doctests() -> None:
    failed, tried = doctest.testmod(kato.presentation)
    assert tried
    assert not failed


def test_stm_shows_the_latest_events() -> None:
    stm = STM([[str(number)] for number in range(25)])
    lines = repr(stm).splitlines()
    assert lines[0] == "STM of 25 events"
    assert lines[1] == "  … 15 earlier"
    assert lines[2] == "  15  15"
    assert lines[-1] == "  24  24"
    assert len(lines) == 2 + ROWS_SHOWN
    page = checked(stm._repr_html_())
    assert "15 earlier" in page.text
    assert repr(STM()) == "STM of 0 events"
    assert repr(STM([[]])) == "STM of 1 event\n  0  (nothing)"
    checked(STM()._repr_html_())


def test_predictions_show_the_best_and_how_many_more() -> None:
    found = Predictions([prediction(potential=float(30 - number)) for number in range(25)])
    lines = repr(found).splitlines()
    assert lines[0] == "Predictions (25)"
    assert lines[-1] == "  … 15 more"
    assert lines[2].split() == [
        "1",
        "1dde44bd",
        "30.0000",
        "0.5000",
        "0.2500",
        "3",
        "hit",
        "after",
        "|",
        "end",
    ]
    assert "15 more" in checked(found._repr_html_()).text


def test_stale_predictions_say_so() -> None:
    stale = Predictions([prediction()], stale=True)
    assert repr(stale).startswith("Predictions (1, stale)\n")
    assert "Predictions (1, stale)" in checked(stale._repr_html_()).text
    assert pickle.loads(pickle.dumps(stale)).stale
    assert not Predictions([prediction()]).stale


def test_html_shows_evidence_and_bars() -> None:
    future = {"future": [["after"]], "aggregate_potential": 1.5, "supporting_patterns": 2}
    page = Predictions([prediction(), prediction(potential=1.0)], [future])._repr_html_()
    text = checked(page).text
    for shown in (
        "1dde44bd",
        "×3",
        "before",
        "hit",
        "absent",
        "surplus",
        "after",
        "Futures",
        "2.0000",
        "1.5000",
    ):
        assert shown in text
    assert "width:100%" in page
    assert "width:50%" in page
    assert "width:25%" in page


def test_predictions_are_a_list_and_more() -> None:
    rows = [prediction()]
    found = Predictions(rows, [{"future": []}])
    assert found == rows
    assert found.best == rows[0]
    assert Predictions().best is None
    assert repr(Predictions()) == "Predictions (0)"
    assert Predictions().future_potentials == []
    checked(Predictions()._repr_html_())
    for twin in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert twin == found
        assert twin.future_potentials == [{"future": []}]


def test_markup_is_escaped_everywhere() -> None:
    row = prediction(
        name=EVIL,
        frequency=EVIL,
        matches=[EVIL],
        past=[[EVIL]],
        missing=[EVIL],
        extras=[[EVIL]],
        future=[[EVIL]],
    )
    future = {"future": [[EVIL]], "aggregate_potential": 1, "supporting_patterns": EVIL}
    for page in (Predictions([row], [future])._repr_html_(), STM([[EVIL], [EVIL]])._repr_html_()):
        assert "<script" not in page
        assert "&lt;script&gt;" in page
        checked(page)


def test_foreign_figures_do_no_harm() -> None:
    row = prediction(potential=None, similarity=-1, evidence=7.5)
    page = Predictions([row])._repr_html_()
    assert page.count("width:0%") == 2
    assert "width:100%" in page
    repr(Predictions([row]))
    repr(Predictions([{}]))
    checked(Predictions([{}])._repr_html_())
    assert "flat" in repr(Predictions([prediction(future=["flat"])]))


def test_symbols_are_printable() -> None:
    assert symbol_text("plain") == "plain"
    assert symbol_text("") == "''"
    assert symbol_text("a b") == "'a b'"
    assert symbol_text("\x1b[31m") == "'\\x1b[31m'"
    assert symbol_text("\n") == "'\\n'"
    assert symbol_text("😀") == "😀"
    assert len(symbol_text("x" * 1024)) == 60
    assert symbol_text("x" * 1024).endswith("…")
