"""Schemathesis asks the real daemon everything that its document allows, and what it does not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.school_daemon import SchoolDaemon, school

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "ignored_auth",
)
READING = (
    "/v1/events",
    "/v1/events/{event_id}",
    "/v1/export",
    "/v1/audit",
    "/v1/receipts/{event_id}",
    "/v1/me",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SchoolDaemon]:
    with school(tmp_path_factory.mktemp("school")) as running:
        yield running


def test_every_path_is_documented_with_all_that_it_answers(whole: SchoolDaemon) -> None:
    document = whole.daemon.get("/openapi.json").json()
    for path in ("/v1/events", "/v1/events/{event_id}", "/v1/export", "/v1/audit"):
        answers = document["paths"][path]["get"]["responses"]
        assert {"200", "400", "401", "403", "429", "503"} <= set(answers), path
    assert "404" in document["paths"]["/v1/events/{event_id}"]["get"]["responses"]
    parameters = document["paths"]["/v1/events"]["get"]["parameters"]
    named = {parameter["name"]: parameter for parameter in parameters}
    assert {"from", "to", "user_id", "limit", "cursor", "category"} <= set(named)
    assert named["user_id"]["schema"]["type"] == "array"


@pytest.mark.long
@pytest.mark.parametrize("who", ["sam", "root"])
def test_schemathesis_finds_nothing(whole: SchoolDaemon, tmp_path: Path, who: str) -> None:
    pytest.importorskip("schemathesis")
    told_by_daemon = whole.daemon.get("/openapi.json").json()
    told_by_daemon["paths"] = {
        path: {"get": told_by_daemon["paths"][path]["get"]} for path in READING
    }
    document = tmp_path / "openapi.json"
    document.write_text(json.dumps(told_by_daemon))
    told = subprocess.run(
        [
            sys.executable,
            "-m",
            "schemathesis.cli",
            "run",
            str(document),
            "--url",
            whole.daemon.http,
            "--header",
            f"Authorization: Bearer {whole.token(who)}",
            "--checks",
            ",".join(CHECKS),
            "--max-examples",
            "30",
            "--phases",
            "examples,coverage,fuzzing",
            "--seed",
            "20261120",
            "--no-color",
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=tmp_path,
    )
    assert told.returncode == 0, told.stdout[-6000:] + told.stderr[-2000:]
    assert not any("Traceback" in line for line in whole.daemon.lines)
    assert json.loads(whole.daemon.get("/healthz").body)["status"] == "ok"
