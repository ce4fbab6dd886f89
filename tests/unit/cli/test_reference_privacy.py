"""docs/privacy.md says what the code does."""

from __future__ import annotations

from mlc_broker.cli import reference_privacy


def test_the_page_on_privacy_is_current() -> None:
    written = reference_privacy.FILE.read_text("utf-8")
    assert written == reference_privacy.page(), "`make docs` writes it anew"
