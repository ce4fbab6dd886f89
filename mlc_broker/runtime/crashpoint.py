"""Named places where a test may end the process: `MLC_CRASH_AT=name:n` dies at the n-th passing."""

from __future__ import annotations

import os

_NAME, _, _COUNT = os.environ.get("MLC_CRASH_AT", "").partition(":")
_left = int(_COUNT) if _COUNT.isdigit() else 1


def crash_point(name: str) -> None:
    """Die here, as `kill -9` would, if the environment says so; else do nothing."""
    global _left  # noqa: PLW0603 - a countdown of the process, set by its environment
    if name != _NAME:
        return
    _left -= 1
    if _left <= 0:
        os._exit(137)
