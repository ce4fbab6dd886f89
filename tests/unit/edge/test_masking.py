"""The fast masker says the same as wsproto's own, and still has its place there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto import frame_protocol

from mlc_broker.edge import masking

SLOW = frame_protocol.XorMaskerSimple


@pytest.fixture(autouse=True)
def _as_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_protocol, masking.PATCH_POINT, SLOW)


@given(key=st.binary(min_size=4, max_size=4), parts=st.lists(st.binary(max_size=300), max_size=6))
def test_both_maskers_give_equal_bytes_however_a_frame_is_cut(
    key: bytes, parts: list[bytes]
) -> None:
    fast, slow = masking.FastMasker(key), SLOW(key)
    for part in parts:
        assert bytes(fast.process(bytearray(part))) == bytes(slow.process(bytearray(part)))


def test_masking_twice_gives_back_what_was_there() -> None:
    data = bytes(range(256)) * 9
    once = masking.FastMasker(b"\x12\x34\x56\x78").process(bytearray(data))
    assert bytes(masking.FastMasker(b"\x12\x34\x56\x78").process(bytearray(once))) == data


def test_the_place_in_wsproto_is_still_there_and_is_taken() -> None:
    assert isinstance(SLOW, type), "wsproto changed: edge/masking.py has nothing to replace"
    assert masking.use_fast_masker()
    assert getattr(frame_protocol, masking.PATCH_POINT) is masking.FastMasker


def test_taking_the_place_twice_is_the_same_as_once() -> None:
    assert masking.use_fast_masker()
    assert masking.use_fast_masker()


def test_without_the_place_everything_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(frame_protocol, masking.PATCH_POINT)
    assert not masking.use_fast_masker()


def test_a_masker_that_disagrees_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "apply_mask", lambda data, key: bytes(data))
    assert not masking.use_fast_masker()
    assert frame_protocol.XorMaskerSimple is SLOW


def test_a_frame_unmasked_by_wsproto_with_the_fast_masker_is_the_message() -> None:
    masking.use_fast_masker()
    client = frame_protocol.FrameProtocol(client=True, extensions=[])
    server = frame_protocol.FrameProtocol(client=False, extensions=[])
    server.receive_bytes(bytes(client.send_data("grüße " * 500)))
    (message,) = list(server.received_frames())
    assert message.payload == "grüße " * 500
