"""A file into the roster: one JSON file of records, or a OneRoster zip. Sync, thread-side."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from mlc_broker.model.errors import BrokerError, Malformed, TooLarge
from mlc_broker.model.person import KINDS
from mlc_broker.store.import_report import ROWS_A_PROGRESS, Findings, ImportReport, Progress
from mlc_broker.store.oneroster import import_oneroster
from mlc_broker.store.roster import Item, Roster

JSON_BYTES_MAX = 256 << 20
ZIP_BEGINS = b"PK"

_DECODER = msgspec.json.Decoder(dict[str, dict[str, msgspec.Raw]])


def import_file(
    path: Path,
    roster: Roster,
    progress: Progress | None = None,
    *,
    organization_id: str | None = None,
    dry_run: bool = False,
) -> ImportReport:
    """Load a OneRoster zip or a JSON file, by what the file begins with.

    `organization_id`: into which organization a zip goes; for JSON, the only one that may be
    written. Raises `Malformed` (neither of the two), `TooLarge`, `StoreError`, `OSError`.
    """
    with path.open("rb") as file:
        begins = file.read(len(ZIP_BEGINS))
        text = b"" if begins == ZIP_BEGINS else begins + file.read(JSON_BYTES_MAX + 1)
    if begins == ZIP_BEGINS:
        return import_oneroster(
            roster, path, organization_id=organization_id, dry_run=dry_run, progress=progress
        )
    return import_json(roster, text, progress=progress, within=organization_id, dry_run=dry_run)


def import_bytes(data: bytes, roster: Roster, organization_id: str | None) -> ImportReport:
    """Load what came over the wire, a OneRoster zip or JSON; as `import_file`."""
    if data.startswith(ZIP_BEGINS):
        return import_oneroster(roster, data, organization_id=organization_id)
    return import_json(roster, data, within=organization_id)


def import_json(
    roster: Roster,
    text: bytes,
    *,
    within: str | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Load `{"organizations": {id: …}, "users": …, "classes": …, "enrollments": …}`.

    Records that cannot be put are reported (their place in the kind as the line) and the rest
    are loaded, in one transaction.
    """
    if len(text) > JSON_BYTES_MAX:
        raise TooLarge(f"The file is larger than {JSON_BYTES_MAX} bytes; split it.")
    try:
        kinds = _DECODER.decode(text.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, UnicodeError) as error:
        raise Malformed(
            f"The file is neither a zip nor a JSON object of {', '.join(KINDS)}: {error}."
        ) from error
    unknown = kinds.keys() - set(KINDS)
    if unknown:
        raise Malformed(f"The file has {min(unknown)!r}; known are {', '.join(KINDS)}.")
    findings = Findings(progress)
    place = _Place()

    def rejected(kind: str, key: str, error: BrokerError) -> None:
        findings.reject(kind, place.number, f"{key[:128]}: {error}")

    counts = roster.put_many(
        _items(kinds, place, findings), within=within, rejected=rejected, dry_run=dry_run
    )
    findings.loaded.update(counts)
    return findings.report(dry_run=dry_run)


class _Place:
    number = 0  # of the record within its kind, from 1


def _items(
    kinds: dict[str, dict[str, msgspec.Raw]], place: _Place, findings: Findings
) -> Iterator[Item]:
    # In the order in which they lean on each other, whatever the order in the file.
    for kind in KINDS:
        records = kinds.get(kind, {})
        for number, (key, raw) in enumerate(records.items(), 1):
            place.number = number
            try:
                yield kind, key, msgspec.json.decode(raw)
            except (msgspec.DecodeError, UnicodeError) as error:
                findings.reject(kind, number, f"{key[:128]}: {error}")
            if number % ROWS_A_PROGRESS == 0:
                findings.tell(kind, number)
        findings.tell(kind, len(records))
