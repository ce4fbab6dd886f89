from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlc_broker.simulate.web import LINE_BYTES_MAX, Answer, Refused, lines


async def pieces(parts: Sequence[bytes]) -> AsyncGenerator[bytes, None]:
    for part in parts:
        yield part


@given(st.lists(st.text("ab", min_size=1), max_size=6), st.integers(1, 7))
async def test_lines_are_the_same_however_the_body_was_cut(words: list[str], size: int) -> None:
    body = "\n".join(words).encode()
    cut = [body[i : i + size] for i in range(0, len(body), size)]
    assert [line.decode() async for line in lines(pieces(cut))] == words


async def test_a_line_without_an_end_is_refused_before_it_fills_the_memory() -> None:
    endless = pieces([b"x" * 1_000_000] * (LINE_BYTES_MAX // 1_000_000 + 2))
    async with aclosing(endless):
        with pytest.raises(Refused, match="longer than"):
            async for _ in lines(endless):
                pass
        assert await anext(endless)  # it did not read on to the end


def test_an_answer_that_is_not_json_is_refused_not_raised_raw() -> None:
    with pytest.raises(Refused, match="not JSON"):
        Answer(200, {}, b"<html>").json()


def test_retry_after_is_limited_and_a_date_in_it_means_a_second() -> None:
    assert Answer(503, {"retry-after": "7"}, b"").retry_after_seconds == 7
    assert Answer(503, {"retry-after": "86400"}, b"").retry_after_seconds == 30
    assert Answer(503, {"retry-after": "Wed, 21 Oct"}, b"").retry_after_seconds == 1
