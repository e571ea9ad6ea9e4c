from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from kato.cli.reading import Columns, Format, detect, read
from kato.errors import BadRequest

USUAL = Columns()


def _symbols(path: Path, form: Format, columns: Columns = USUAL) -> list[list[list[str]]]:
    return [[list(o.strings) for o in r.sequence] for r in read(path, form, columns)]


def _file(tmp_path: Path, text: str, name: str = "file.txt") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text", "form"),
    [
        ("a.jsonl", "", Format.JSONL),
        ("a.ndjson.gz", "", Format.JSONL),
        ("a.csv", "", Format.CSV),
        ("a.tsv", "", Format.CSV),
        ("a.spmf", "", Format.SPMF),
        ("a.txt", "\n[[]]", Format.JSONL),
        ("a.txt", '{"strings": []}', Format.JSONL),
        ("a.txt", "@ITEM=1=a\n1 -1 -2", Format.SPMF),
        ("a.txt", "case;activity\n", Format.CSV),
    ],
)
def test_formats_are_recognised(tmp_path: Path, name: str, text: str, form: Format) -> None:
    assert detect(_file(tmp_path, text, name)) is form


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "hello\n"])
def test_unknown_formats_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadRequest, match="line 1"):
        detect(_file(tmp_path, text))


def test_json_lines_of_observations_end_at_blank_lines(tmp_path: Path) -> None:
    path = _file(tmp_path, '\ufeff{"strings": ["a"]}\n{"strings": ["b"]}\n\n\n{"strings": ["c"]}\n')
    assert _symbols(path, Format.JSONL) == [[["a"], ["b"]], [["c"]]]


def test_json_lines_of_whole_sequences(tmp_path: Path) -> None:
    path = _file(tmp_path, '[["a"], {"strings": ["b", "c"]}]\n{"strings": ["d"]}\n[["e"]]\n')
    assert _symbols(path, Format.JSONL) == [[["a"], ["b", "c"]], [["d"]], [["e"]]]


def test_json_lines_keep_everything_of_an_observation(tmp_path: Path) -> None:
    text = '[{"strings": ["a"], "vectors": [[1, 2]], "emotives": {"joy": 1}, "metadata": {"k": [1]}}]'
    (found,) = read(_file(tmp_path, text), Format.JSONL)
    (observation,) = found.sequence
    assert observation.vectors == ((1.0, 2.0),)
    assert observation.emotives == {"joy": 1.0}
    assert observation.metadata == {"k": [1]}


def test_sequences_without_events_are_left_out(tmp_path: Path) -> None:
    path = _file(tmp_path, '[]\n{"emotives": {"joy": 1}}\n\n[["a"], ["b"]]\n')
    assert _symbols(path, Format.JSONL) == [[["a"], ["b"]]]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('[["a"]]\n"b"\n', "line 2: expected an observation"),
        ('[["a", 1]]\n', "line 1: .*Expected `str`"),
        ('{"strings": ["a"]}\n{"strings": [1]}\n', "line 2: strings"),
        ('{"strings": ["a"\n', "line 1"),
        ('[["a\\u0000"]]\n', "line 1: .*NUL"),
    ],
)
def test_wrong_json_lines_name_the_line(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason):
        _symbols(_file(tmp_path, text), Format.JSONL)


def test_events_are_grouped_by_case_and_ordered_by_time(tmp_path: Path) -> None:
    text = (
        "case,activity,time\n"
        "2,late,2026-01-02T00:00:00Z\n"
        "1,second,2026-01-01T12:00:00\n"
        "1,first,2026-01-01T11:00:00+00:00\n"
        "\n"
        "1,also second,2026-01-01T13:00:00+01:00\n"
        "2,early,2026-01-01\n"
    )
    assert _symbols(_file(tmp_path, text), Format.CSV) == [
        [["early"], ["late"]],
        [["first"], ["second"], ["also second"]],
    ]


def test_numbers_are_times_too_and_without_a_time_the_file_counts(tmp_path: Path) -> None:
    numbers = _file(tmp_path, "case;activity;timestamp\n1;b;10\n1;a;9.5\n", "numbers.csv")
    assert _symbols(numbers, Format.CSV) == [[["a"], ["b"]]]
    none = _file(tmp_path, "Case ID\tconcept:name\n1\tb\n1\ta\n", "none.csv")
    assert _symbols(none, Format.CSV) == [[["b"], ["a"]]]


def test_chosen_columns_and_several_activities(tmp_path: Path) -> None:
    text = 'no,"what, exactly",who,when\n7,open,ann,2\n7,"close, finally",,3\n8,,,1\n7,begin,bob,1\n'
    columns = Columns("no", ("what, exactly", "who"), "when", keep=True)
    (found,) = read(_file(tmp_path, text), Format.CSV, columns)
    assert [list(o.strings) for o in found.sequence] == [
        ["begin", "bob"],
        ["open", "ann"],
        ["close, finally"],
    ]
    assert [o.metadata for o in found.sequence] == [{"case": "7"}, {}, {}]


@pytest.mark.parametrize(
    ("text", "columns", "reason"),
    [
        ("", Columns(), "line 1: the file is empty"),
        ("a,b\n", Columns(), "no case column; the columns are a, b; choose one with --case-column"),
        ("case,b\n", Columns(), "no activity column"),
        ("case,b\n", Columns(activity=("c",)), "no column 'c'"),
        ("case,activity\n", Columns(time="when"), "no column 'when'"),
        ("case,activity\n1\n", Columns(), "line 2: 1 cells, the header has 2"),
        ("case,activity\n,a\n", Columns(), "line 2: the column 'case' is empty"),
        ("case,activity,time\n1,a,soon\n", Columns(), "line 2: 'soon' is not an ISO 8601 time or a number"),
        ("case,activity,time\n1,a,1\n1,a,x\n", Columns(), "line 3: 'x' is not a number like the first time"),
        ("case,activity\n1," + "x" * 1025 + "\n", Columns(), "line 2: an activity has 1025 characters"),
        ('case,activity\n1,"a"b\n', Columns(), "line 2: not valid CSV"),
        ("case,activity\n1,a\x00\n", Columns(), "line 2"),
    ],
)
def test_wrong_event_logs_name_the_line(tmp_path: Path, text: str, columns: Columns, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason):
        _symbols(_file(tmp_path, text), Format.CSV, columns)


def test_spmf_sequences(tmp_path: Path) -> None:
    text = "# comment\n@ITEM=1=apple\n\n<1> 1 2 -1 <2> 3 -1 -2\n4 -1\n-1 -2\n"
    assert _symbols(_file(tmp_path, text), Format.SPMF) == [[["apple", "2"], ["3"]], [["4"]]]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 2 3\n", "line 1: expected items like"),
        ("1 -1 a -1 -2\n", "line 1: expected items like"),
        ("1 -1 -2 3\n", "line 1: there is something after -2"),
        (" ".join(["1"] * 1001) + " -1 -2\n", "line 1: an event has 1001 items"),
        ("@ITEM=1=" + "x" * 1025 + "\n1 -1 -2\n", "line 2: an item has 1025 characters"),
    ],
)
def test_wrong_spmf_names_the_line(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason):
        _symbols(_file(tmp_path, text), Format.SPMF)


def test_compressed_files_are_read_and_damage_is_told(tmp_path: Path) -> None:
    path = tmp_path / "log.spmf.gz"
    packed = gzip.compress(b"1 -1 2 -1 -2\n" * 2000)
    path.write_bytes(packed)
    shares = [found.share for found in read(path, Format.SPMF)]
    assert len(shares) == 2000
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(BadRequest, match="compressed file is damaged"):
        list(read(path, Format.SPMF))


def test_text_must_be_utf8(tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes("case,activity\n1,zurück\n".encode("latin-1"))
    with pytest.raises(BadRequest, match="line 2: not valid UTF-8 at byte 6"):
        list(read(path, Format.CSV))
