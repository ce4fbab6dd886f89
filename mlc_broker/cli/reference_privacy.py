"""`docs/privacy.md`, made from the tables in force: `python -m mlc_broker.cli.reference_privacy`."""

from __future__ import annotations

from pathlib import Path

from mlc_broker.model.retention import DAYS_MAX
from mlc_broker.pipeline.builtin import personal
from mlc_broker.store.consents import RULES
from mlc_broker.store.quarantine import QUARANTINED_DAYS, REJECTED_DAYS
from mlc_broker.store.receipts import KEPT_DAYS as RECEIPT_DAYS

FILE = Path(__file__).parents[2] / "docs" / "privacy.md"


def page() -> str:
    """Return the page."""
    return f"{_INTRODUCTION}\n{_identifiers()}\n{_RULES}\n{_retention()}\n{_CONSENT}\n{_consent()}\n{_REST}"


def _identifiers() -> str:
    plain = [f"| {kind} | everybody | {_keys(keys)} |" for kind, keys in personal.DENIED.items()]
    strict = [
        f"| {kind} | strict | {_keys(keys)} |" for kind, keys in personal.DENIED_STRICT.items()
    ]
    anywhere = ", ".join(f"`*{part}*`" for part in personal.DENIED_STRICT_PARTS)
    ends = ", ".join(f"`*{part}`" for part in personal.DENIED_ENDS)
    return "\n".join(
        (
            "| what | of whom | keys |",
            "|---|---|---|",
            *plain,
            f"| any of these at a key's end | everybody | {ends} |",
            *strict,
            f"| names | strict | {anywhere} |",
            "",
            f"Kept of a device in a strict event: {_keys(sorted(personal.DEVICE_KEPT))}.",
            "",
            (
                f"Kept of a context: {_keys(sorted(personal.CONTEXT_KEPT))}; in a personal event not"
                f" {_keys(sorted(personal.CONTEXT_LINKS))} either."
            ),
            "",
        )
    )


def _retention() -> str:
    rows = [f"| {name} | {days} |" for name, days in DAYS_MAX.items()]
    return "\n".join(
        (
            "| class of events | days at most |",
            "|---|---|",
            *rows,
            f"| rejected events, sealed | {REJECTED_DAYS} |",
            f"| events that broke a processor, sealed | {QUARANTINED_DAYS} |",
            f"| receipts of events that were not stored, without names | {RECEIPT_DAYS} |",
            "",
        )
    )


def _consent() -> str:
    rows = [
        f"| {name} | {'the person' if rule.follows_consent else 'the school'} |"
        f" {'yes' if rule.collect else 'no'} | {'yes' if rule.disclose else 'no'} |"
        for name, rule in RULES.items()
    ]
    head = ("| category | who decides on collecting | collected unasked | disclosed unasked |",)
    return "\n".join((*head, "|---|---|---|---|", *rows, ""))


def _keys(keys: object) -> str:
    return ", ".join(f"`{key}`" for key in keys)  # type: ignore[attr-defined]


_INTRODUCTION = """<!-- made by `make docs` from the code: change it there -->
# Privacy

What the broker takes out of events before anything is written, how long it keeps the rest, who
decides, and how a person is forgotten. What is not law here is the school's to decide.

## What identifies a person

`protect` stands before everything that writes: the store, the quarantine (which is sealed besides),
plugins, sinks, logs. When it is broken, batches wait and are answered `retry`; nothing passes.

Two strengths. *Strict* are events of children under 13 without a parent's or the school's consent,
of people whose age nobody knows (unless `[privacy] unknown_age = "adult"`), and events of the level
`pii`. Keys are compared without case, `_` and `-`; a key that the event type's schema declares is
never taken for one of these.
"""

_RULES = """In any text, at any depth, of everybody: e-mail addresses, telephone numbers, numbers of
states and cards, `data:` addresses and base64 of more than 1 KiB are replaced by `[removed]`.

Of strict events besides:

- declared free texts (`message`, `stack`, `search_query`, `subject` …) become `[removed]`;
- keys that no schema declares keep numbers, yes and no, and single words, but no texts;
- web addresses lose their query and fragment;
- `pii` of such a child is not stored at all (`dropped`, `coppa`).

A personal event of anybody else is anonymous before it is written: the person's id becomes
`anon_` and a keyed hash, wherever it stands; the session, classes and teachers are taken out.

An event of a server about itself (system performance or business, no person, no session) is not a
person's and keeps its texts.

## How long it is kept

From an event's own time. An organization (`retention_days` in the roster), the configuration
(`[privacy.retention]`) or the sender can shorten it. `mlc-broker policy` prints what is in force,
`mlc-broker purge --dry-run` what has expired. Expired events are invisible at once and leave the
files every night at 02:00 UTC, to the last byte: a file of which all has expired is unlinked, of
others the pages are overwritten (`secure_delete`). After a clock that jumped nothing is purged
until `mlc-broker purge --confirm`.
"""

_CONSENT = """## Who decides

`PUT /v1/consents/{user_id}` takes the words, keeps the history, and holds for the next event.
`pii` and identifying fields depend on age and `parental_consent` in the roster, not on these.
"""

_REST = """## Legal holds

`mlc-broker hold add --org … [--user …] --reason …` keeps what a court or a complaint needs: of a
person, or of a whole organization. What is held is neither purged nor taken out by merging, from
events, quarantine and metrics alike; an erasure waits and says so in its `detail`. Readers see no
more of it than before: what has expired is invisible all the same. `hold list` and
`mlc-broker policy` show it, `hold remove` ends it. A hold does not reach a quarantine that
overflows its `quarantine_bytes_max`, receipts, nor what the roster's own pages change.

## To whom it goes

`mlc-broker disclosures` names every sink of the configuration with its categories and levels, or
says `none`.

## Forgetting a person

`DELETE /v1/users/{user_id}` or `mlc-broker erase`: after `[privacy] erasure_grace_days`, or
`immediately`. The person is invisible from the first moment; then hot files are sealed without
them, sealed files rewritten, roster, consents, quarantine and metrics cleaned. `erased.jsonl` keeps
one signed line with a keyed hash instead of a name: by it a resend is dropped (`erased`), and
`mlc-broker restore` erases again whoever stands on a newer list than the backup's. Who is put into
the roster again is somebody new.

What stays: the access log (who read whose data must stay provable), and ids that other people's
events hold, such as the recipient of a message.

## What is held about me

`GET /v1/me/data`: events by type and level, when the last expires, the roster's record, consents
with their history, and who has read it. `GET /v1/export` gives all of it.
"""

if __name__ == "__main__":
    FILE.write_text(page())
