"""What care shows: receipts with reasons, quarantine of what was forbidden, figures, whole ms."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from tests.daemon import Daemon, wait_until

MILLISECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def lesson(event_id: str, **changes: Any) -> dict[str, Any]:
    return {
        "event_id": event_id,
        "event_type": "game_stage_start",
        "timestamp": datetime.now(UTC).isoformat(),
        "properties": {"game_id": "G-01542", "stage_id": "G-01542-quiz"},
    } | changes


def test_a_receipt_tells_its_sender_which_field_was_wrong(daemon: Daemon) -> None:
    wrong = lesson("evt_wrong_1", event_type="game_stage_complete")
    wrong["properties"] |= {"stage_type": "Ann Smith", "score": 1}
    daemon.publish([wrong], daemon.key("org_1"))
    admin = daemon.token("root", "org_1", "system_admin")
    told = daemon.get("/v1/receipts/evt_wrong_1", admin).json()
    assert (told["outcome"], told["reason"]) == ("rejected", "schema")
    assert "stage_type" in told["detail"]
    assert "Ann" not in told["detail"]


def test_what_was_forbidden_is_kept_in_quarantine_with_times_in_milliseconds(
    daemon: Daemon,
) -> None:
    ack = daemon.publish(
        [lesson("evt_other_1", organization_id="org_2"), lesson("evt_own_0001")],
        daemon.key("org_1"),
    )
    assert (ack["rejected"], ack["stored"]) == (1, 1)
    admin = daemon.token("root", "org_1", "system_admin")
    (cause,) = daemon.get("/v1/quarantine", admin).json()["causes"]
    assert (cause["reason"], cause["count"]) == ("forbidden", 1)
    assert MILLISECONDS.fullmatch(cause["first_at"])
    assert MILLISECONDS.fullmatch(cause["last_at"])


def test_the_figures_count_what_protect_took_out(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    told = lesson("evt_mail_001", context={"contact": "ann@example.org"})
    daemon.publish([told], daemon.key("org_1"))
    pattern = re.compile(r'mlc_protect_removed_values_total\{part="context"\} (\d+)')

    def removed() -> float:
        admin = daemon.token("root", "org_1", "system_admin")
        text = daemon.get("/metrics", admin).body.decode()
        found = pattern.search(text)
        return float(found[1]) if found else 0.0

    wait_until(lambda: removed() >= 1)
