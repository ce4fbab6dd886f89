"""One entry is one line, whatever somebody sent."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from mlc_broker.runtime import log


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = before
    root.setLevel(level)


@given(st.text(), st.dictionaries(st.text(min_size=1).map("k{}".format), st.text(), max_size=3))
def test_any_text_is_one_line_of_json(event: str, values: dict[str, str]) -> None:
    out = io.StringIO()
    log.set_up(out, environ={})
    structlog.get_logger().warning(event, **values)
    assert len(out.getvalue().splitlines()) == 1
    assert json.loads(out.getvalue())["level"] == "warning"


def test_an_exception_is_told_in_words_with_its_place() -> None:
    out = io.StringIO()
    log.set_up(out, environ={})
    try:
        raise ValueError("bad\x1b[31m")
    except ValueError as error:
        structlog.get_logger().error("lost", exc_info=error)
    entry = json.loads(out.getvalue())
    assert entry["error"] == "ValueError: bad\\x1b[31m"
    assert entry["at"].startswith("test_log.py:")
    assert "Traceback" not in out.getvalue()


def test_under_systemd_a_line_begins_with_its_level() -> None:
    out = io.StringIO()
    log.set_up(out, environ={"JOURNAL_STREAM": "8:1"})
    structlog.get_logger().error("x")
    assert out.getvalue().startswith("<3>{")


def test_a_terminal_gets_words() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    log.set_up(out, environ={})
    structlog.get_logger().info("stored", events=3)
    assert out.getvalue().endswith("info     stored  events=3\n")


def test_what_libraries_log_takes_the_same_way() -> None:
    out = io.StringIO()
    log.set_up(out, environ={})
    logging.getLogger("hypercorn").warning("odd\nline %d", 3)
    entry = json.loads(out.getvalue())
    assert entry["event"] == "odd\\x0aline 3"
    assert entry["library"] == "hypercorn"
