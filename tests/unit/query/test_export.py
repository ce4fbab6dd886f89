from __future__ import annotations

import csv
import io
import json
import sqlite3 as any_sqlite
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlc_broker.model.errors import Unsupported
from mlc_broker.query.export.csv import safe
from mlc_broker.query.export.flat import COLUMNS_MAX, Columns, flattened
from mlc_broker.query.export.formats import FORMATS, writer_of
from mlc_broker.query.export.parquet import Parquet
from mlc_broker.query.export.xapi import duration, statement_id, statements

EVENT: dict[str, Any] = {
    "event_id": "evt_00000001",
    "event_type": "game_stage_complete",
    "timestamp": "2026-11-20T09:30:00.000Z",
    "organization_id": "north",
    "user_id": "ada",
    "session_id": "s-1",
    "context": {"teacher_id": "tess", "assignment_id": "a-1", "sequence_id": "q-1"},
    "properties": {
        "game_id": "GAM-0010",
        "stage_type": "quiz",
        "score": 82,
        "max_score": 100,
        "passed": True,
        "duration_ms": 125_000,
        "concept_tags": ["QUAR"],
    },
    "meta": {"stored_at": "2026-11-20T09:30:01.000Z"},
}


def written(form: str, *bodies: bytes, bom: bool = False) -> bytes:
    writer = writer_of(form, bom=bom)()
    try:
        if writer.surveys:
            for body in bodies:
                writer.survey(body)
        parts = [writer.begin(), *(writer.add(body) for body in bodies), *writer.end()]
        return b"".join(parts)
    finally:
        writer.close()


def lines(*events: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def read_csv(body: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(body.decode("utf-8-sig"), newline="")))


def but(**properties: Any) -> dict[str, Any]:
    return EVENT | {"properties": EVENT["properties"] | properties}


def test_csv_columns_are_flat_and_their_union_is_the_header() -> None:
    body = written("csv", lines(EVENT), lines(but(hints=3)))
    first, second = read_csv(body)
    assert first["properties.score"] == second["properties.score"] == "82"
    assert (first["properties.hints"], second["properties.hints"]) == ("", "3")
    assert first["context.teacher_id"] == "tess"
    assert first["properties.concept_tags"] == '["QUAR"]'
    assert first["properties.passed"] == "true"
    assert body.endswith(b"\r\n")


def test_csv_has_a_byte_order_mark_only_when_asked() -> None:
    assert written("csv", lines(EVENT), bom=True).startswith(b"\xef\xbb\xbf")
    assert written("csv", lines(EVENT)).startswith(b'"event_id"')


@given(
    text=st.text() | st.sampled_from(["=1+1", "@SUM(A1)", "\t=1", " =1", "'", "'=1", "-2", "+3"])
)
def test_no_cell_is_a_formula_and_taking_the_mark_away_gives_what_was_sent(text: str) -> None:
    shown = safe(text)
    assert not shown.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\0"))
    assert (shown.removeprefix("'")) == text


@given(text=st.text(st.characters(exclude_categories=["Cs"])), key=st.text(min_size=1, max_size=20))
def test_csv_gives_back_any_text_under_any_key(text: str, key: str) -> None:
    (row,) = read_csv(written("csv", lines(but(**{key: text}))))
    column = safe(f"properties.{key}")
    assert row[column].removeprefix("'") == text.removeprefix("'") or row[column] == safe(text)


def test_numbers_stay_numbers_in_csv_even_negative_ones() -> None:
    (row,) = read_csv(written("csv", lines(but(offset=-5))))
    assert row["properties.offset"] == "-5"


def test_an_empty_export_is_a_whole_file_in_every_format() -> None:
    assert written("jsonl") == b""
    assert json.loads(written("json")) == []
    assert json.loads(written("xapi")) == []
    assert written("csv").count(b"\r\n") == 1
    assert written("sqlite").startswith(b"SQLite format 3\0")


def test_json_is_one_array_however_the_pieces_fall() -> None:
    body = written("json", lines(EVENT, EVENT), b"", lines(EVENT))
    assert json.loads(body) == [EVENT] * 3


def test_sqlite_opens_with_any_tool(tmp_path: Path) -> None:
    path = tmp_path / "out.sqlite"
    odd = but(**{"Score": 1, 'a"b': 2, "more": 3, "big": 2**70})
    path.write_bytes(written("sqlite", lines(EVENT, odd)))
    connection = any_sqlite.connect(path)
    try:
        query = 'SELECT count(*), sum("properties.score"), max("properties.big") FROM events'
        assert connection.execute(query).fetchone() == (2, 164, str(2**70))
        names = [row[1] for row in connection.execute("PRAGMA table_info(events)")]
        assert "event_id" in names
        assert 'properties.a"b' in names
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    finally:
        connection.close()


def test_parquet_has_typed_columns(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "out.parquet"
    path.write_bytes(
        written("parquet", lines(EVENT), lines(but(score=82.5, mixed=1), but(mixed="x")))
    )
    table = parquet.read_table(path)
    assert table["properties.score"].to_pylist() == [82.0, 82.5, 82.0]
    assert table["properties.mixed"].to_pylist() == [None, "1", "x"]
    assert str(table.schema.field("properties.passed").type) == "bool"


def test_parquet_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(Unsupported, match=r"pip install 'mlc-broker\[parquet\]'"):
        Parquet()


def test_more_columns_than_a_table_may_have_go_into_one_of_json() -> None:
    wide = but(**{f"key{n}": n for n in range(COLUMNS_MAX + 50)})
    (row,) = read_csv(written("csv", lines(wide)))
    assert len(row) <= COLUMNS_MAX + 10
    rest = json.loads(row["more"])
    assert rest
    assert set(rest) & set(row) == set()
    assert len(set(rest) | set(row)) > COLUMNS_MAX + 50


def test_flat_names_join_by_dots_and_nothing_empty_is_a_column() -> None:
    row = flattened({"a": {"b": {"c": 1}, "d": {}}, "e": None, "f": [1]})
    assert row == {"a.b.c": 1, "f": "[1]"}
    columns = Columns()
    columns.learn(lines(EVENT))
    assert next(iter(columns.kinds)) == "event_id"


def test_a_quiz_is_a_completed_statement_that_is_the_same_each_time() -> None:
    (told,) = statements(EVENT)
    assert told["id"] == statement_id(EVENT) == next(iter(statements(EVENT)))["id"]
    assert told["verb"]["id"] == "http://adlnet.gov/expapi/verbs/completed"
    assert told["actor"]["account"] == {
        "homePage": "https://musiclearningcommunity.com",
        "name": "ada",
    }
    assert told["object"]["id"] == "https://musiclearningcommunity.com/games/GAM-0010/quiz"
    assert told["result"]["score"] == {"raw": 82, "min": 0, "max": 100, "scaled": 0.82}
    assert told["result"]["duration"] == "PT2M5S"
    assert told["result"]["success"] is True
    assert told["context"]["instructor"]["account"]["name"] == "tess"
    other = statement_id(EVENT | {"organization_id": "south"})
    assert other != told["id"]


def test_a_failed_quiz_is_completed_and_failed() -> None:
    verbs = [told["verb"]["display"]["en-US"] for told in statements(but(passed=False))]
    assert verbs == ["completed", "failed"]
    assert len({told["id"] for told in statements(but(passed=False))}) == 2


def test_an_open_score_of_a_challenge_has_no_maximum() -> None:
    (told,) = statements(but(stage_type="challenge", score=4800))
    assert told["result"]["score"] == {"raw": 4800, "min": 0}
    assert told["verb"]["display"]["en-US"] == "challenged"


@pytest.mark.parametrize("kind", ["page_view", "seat_added", "page_load"])
def test_what_is_no_learning_is_no_statement(kind: str) -> None:
    assert list(statements(EVENT | {"event_type": kind})) == []


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "PT0S"),
        (125_000, "PT2M5S"),
        (1_500, "PT1.5S"),
        (3_600_000, "PT1H"),
        (60_001, "PT1M0.001S"),
    ],
)
def test_durations_are_iso_8601(ms: int, text: str) -> None:
    assert duration(ms) == text


def test_every_format_of_the_protocol_is_there() -> None:
    assert set(FORMATS) == {"jsonl", "csv", "json", "parquet", "sqlite", "xapi"}
