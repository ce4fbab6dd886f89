"""Unmask WebSocket frames in C: wsproto does it in Python and has no switch for another way."""

from __future__ import annotations

from typing import Protocol

from wsproto import frame_protocol

try:
    from websockets.speedups import apply_mask
except ImportError:  # no wheel fits this machine: big integers, a hundred times slower
    from websockets.utils import apply_mask

PATCH_POINT = "XorMaskerSimple"


class Masker(Protocol):
    """What wsproto asks of a masker: one object a frame, called once for each part of it."""

    def process(self, data: bytearray) -> bytes | bytearray:
        """Return `data` masked; the next call goes on where this one ended."""


class FastMasker:
    """Masks the parts of one frame with the C code of `websockets`."""

    __slots__ = ("_key",)

    def __init__(self, masking_key: bytes | bytearray) -> None:
        self._key = bytes(masking_key)

    def process(self, data: bytearray) -> bytes | bytearray:
        """Return `data` masked; the next call goes on where this one ended."""
        if not data:
            return data
        # bytes, not bytearray: wsproto copies the result into bytes, which costs nothing then.
        masked = apply_mask(data, self._key)
        turn = len(data) % 4
        self._key = self._key[turn:] + self._key[:turn]
        return masked


def use_fast_masker() -> bool:
    """Put the fast masker into wsproto, once, at start-up; say whether it is in use.

    Where the patch point is missing, or the two disagree on a sample, everything stays as
    it was: slower, and right.
    """
    slow = getattr(frame_protocol, PATCH_POINT, None)
    if slow is FastMasker:
        return True
    if slow is None or not _agree(slow):
        return False
    setattr(frame_protocol, PATCH_POINT, FastMasker)
    return True


def _agree(slow: type[Masker]) -> bool:
    key = b"\x01\x80\xfe\x55"
    one, other = slow(key), FastMasker(key)  # type: ignore[call-arg]
    sample = bytearray(range(251))
    return all(
        bytes(one.process(bytearray(part))) == bytes(other.process(bytearray(part)))
        for part in (sample, b"", sample[:5], sample)
    )
