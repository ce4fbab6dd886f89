from pathlib import Path

import numpy as np
import pytest

from mlc_broker.model.errors import ShardCorrupt, ShardUnavailable
from mlc_broker.store.columns import ROW, RowWriter, epoch_ms
from mlc_broker.store.hot import HotFile, file_of
from mlc_broker.store.lines import encode_line
from mlc_broker.store.pack import Pack, pack_of
from tests.fakes_store import TYPES, FailingConnection, event


def pack_for(hot: HotFile, *numbers: int, user: str = "ada") -> Pack:
    writer = RowWriter(hot.dictionary, TYPES.get)
    events = [event(number, user_id=user) for number in numbers]
    rows = b"".join(writer.row(e, epoch_ms(e), writer.facts(e.facts)) for e in events)
    lines = b"".join(encode_line(e, "now") + b"\n" for e in events)
    ids = b"".join(number.to_bytes(16, "little") for number in numbers)
    return pack_of(np.frombuffer(rows, ROW), ids, [(len(events), lines)], recv=1)


def append(hot: HotFile, pack: Pack) -> int:
    return hot.append(pack, hot.dictionary.words[hot.saved_words :], hot.saved_words)


def test_a_sequence_counts_events_and_names_its_file(tmp_path: Path) -> None:
    hot = HotFile.open(tmp_path / "7.db", 7)
    first = append(hot, pack_for(hot, 1, 2))
    second = append(hot, pack_for(hot, 3))
    assert (second - first, file_of(first), file_of(second)) == (2, 7, 7)
    hot.close()
    again = HotFile.open(tmp_path / "7.db", 7)
    assert again.next_sequence == second + 1
    assert again.dictionary.words == hot.dictionary.words
    assert again.index.entries["n"].tolist() == [2, 1]
    again.close()


def test_words_of_a_failed_commit_go_with_the_next_one(tmp_path: Path) -> None:
    hot = HotFile.open(tmp_path / "1.db", 1)
    real = hot._db
    hot._db = FailingConnection(real, ["SQLITE_FULL"])
    with pytest.raises(ShardUnavailable, match="FULL") as failure:
        append(hot, pack_for(hot, 1, user="ben"))
    assert "disk space" in failure.value.hint
    assert not hot.suspect
    append(hot, pack_for(hot, 2, user="eve"))
    hot._db = real
    hot.close()
    again = HotFile.open(tmp_path / "1.db", 1)
    assert {"ben", "eve"} <= set(again.dictionary.words)
    again.close()


def test_a_row_whose_commit_failed_is_taken_out(tmp_path: Path) -> None:
    hot = HotFile.open(tmp_path / "1.db", 1)
    append(hot, pack_for(hot, 1))
    hot._db = FailingConnection(hot._db, ["SQLITE_IOERR_FSYNC"])
    with pytest.raises(ShardUnavailable):
        append(hot, pack_for(hot, 2))
    assert hot.suspect
    hot.reopen()
    hot.close()
    again = HotFile.open(tmp_path / "1.db", 1)
    assert [ids for _, ids in again.take_ids()] == [(1).to_bytes(16, "little")]
    again.close()


def test_a_file_that_lost_a_commit_is_not_believed(tmp_path: Path) -> None:
    hot = HotFile.open(tmp_path / "1.db", 1)
    append(hot, pack_for(hot, 1))
    hot.next_sequence += 5
    with pytest.raises(ShardCorrupt, match="lost commits"):
        hot.reopen()
    hot.close()
