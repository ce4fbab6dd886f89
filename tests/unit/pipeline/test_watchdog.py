"""What never lets go is named, counted, and the second time disabled."""

from __future__ import annotations

import threading
from io import StringIO
from pathlib import Path

import pytest

from mlc_broker.pipeline import watchdog
from mlc_broker.pipeline.hangs import HangBook
from mlc_broker.pipeline.watchdog import Slices, Watchdog, Who


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "_TICK_SECONDS", 0.005)
    monkeypatch.setattr(watchdog, "MARGIN_SECONDS", 0.02)


def test_a_slice_that_does_not_end_ends_the_process_with_a_name(
    tmp_path: Path, quick: None
) -> None:
    book, slices, ended = HangBook(tmp_path), Slices(), threading.Event()
    statuses: list[int] = []

    def end(status: int) -> None:
        statuses.append(status)
        ended.set()

    with (tmp_path / "said").open("w+") as said:
        dog = Watchdog(book, slices=slices, end=end, out=said)
        dog.start()
        slices.enter(Who("stuck", 0.02))
        assert ended.wait(5)
        dog.stop()
        said.seek(0)
        text = said.read()
    assert statuses == [70]
    assert "plugin hangs: stuck did not let go" in text
    assert "most recent call first" in text
    assert book.read()["stuck"].count == 1
    assert not (tmp_path / "plugins-running").exists()


def test_many_short_slices_are_no_hang(tmp_path: Path, quick: None) -> None:
    slices, ended = Slices(), threading.Event()
    dog = Watchdog(HangBook(tmp_path), slices=slices, end=lambda _: ended.set(), out=StringIO())
    dog.start()
    for _ in range(60):
        slices.enter(Who("busy", 0.02))
        assert not ended.wait(0.002)
        slices.leave()
    dog.stop()
    assert not ended.is_set()


def test_the_second_hang_disables_until_it_is_enabled_or_its_code_changes(tmp_path: Path) -> None:
    book = HangBook(tmp_path)
    book.versions["stuck"] = "a"
    book.count("stuck", "did not let go")
    assert book.why_disabled("stuck") == ""
    book.count("stuck", "did not let go")
    assert "plugins enable stuck" in HangBook(tmp_path).why_disabled("stuck")
    book.versions["stuck"] = "b"
    assert book.why_disabled("stuck") == ""
    book.versions["stuck"] = "a"
    assert book.forget("stuck")
    assert not book.forget("stuck")
    assert book.why_disabled("stuck") == ""


def test_a_hang_that_nobody_could_write_down_is_counted_at_the_next_start(tmp_path: Path) -> None:
    book, slices = HangBook(tmp_path), Slices()
    dump, slices.slot = book.open_dump()
    slices.enter(Who("stuck", 1.0))
    dump.write("the stacks")
    dump.close()
    assert slices.slot is not None
    slices.slot.close()
    again = HangBook(tmp_path)
    assert again.collect() == "the stacks"
    assert again.read()["stuck"].count == 1
    assert again.collect() == ""


def test_a_book_that_cannot_be_read_is_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "plugins-hung.json").write_text("{half")
    assert HangBook(tmp_path).read() == {}
