from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import pytest

from tests.docs.runner import ROOT, Session, blocks, commands, matches, places, set_up
from tests.support.server import serving

DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
RUNNABLE = [document for document in DOCUMENTS if any(blocks(document))]
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_WORK = re.compile(r"\b(TODO|FIXME|XXX|TBD|lorem ipsum|coming soon)\b", re.IGNORECASE)


def _name(document: Path) -> str:
    return str(document.relative_to(ROOT))


@pytest.mark.parametrize("document", RUNNABLE, ids=_name)
def test_every_block_does_what_the_document_says(document: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "server-data") as server, places(document) as found:
        work = tmp_path / "work"
        work.mkdir()
        with closing(Session(work, server.url, found)) as session:
            for block in blocks(document):
                session.run(block)


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_links_lead_somewhere(document: Path) -> None:
    for link in _LINK.findall(document.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.is_file(), f"{link} in {_name(document)}"
        headings = {_anchor(heading) for heading in _HEADING.findall(target.read_text(encoding="utf-8"))}
        assert not anchor or anchor in headings, f"{link} in {_name(document)}"


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_documents_are_finished(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert text.endswith("\n")
    assert not _WORK.search(text)
    assert str(ROOT) not in text


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    ahead = [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        links = _LINK.findall(page.read_text(encoding="utf-8"))
        ahead += [
            (page.parent / link.split("#")[0]).resolve() for link in links if not link.startswith("https://")
        ]
    assert set(DOCUMENTS) <= reached


def test_dots_stand_for_anything() -> None:
    assert matches("a\n...\nd", "a\nb\nc\nd")
    assert matches("a...c", "abbc")
    assert matches("...", "")
    assert not matches("a", "a\nb")
    assert not matches("a...c", "ab\nc")


def test_a_console_block_is_commands_and_what_they_print() -> None:
    assert list(commands("$ a\nx\ny\n$ b\n")) == [("a", "x\ny\n"), ("b", None)]


def test_make_targets_must_exist() -> None:
    assert set_up("make test  # all tests")
    assert not set_up("curl -s localhost:8000/health")
    with pytest.raises(AssertionError):
        set_up("make coffee")
