"""`mlc-broker policy`: the written retention policy that COPPA asks for, from what is in force."""

from __future__ import annotations

import click

from mlc_broker.cli.common import config_option
from mlc_broker.config import Config
from mlc_broker.model.person import Organization
from mlc_broker.model.retention import DAYS_MAX
from mlc_broker.runtime.clock import SystemClock
from mlc_broker.store.holds import Hold

_WHAT = {
    "standard": "learning progress, and what people do in the platform",
    "sensitive": "messages, payments, security of accounts (who, when; never the text)",
    "pii": "events that senders marked as personal: anonymized before they are written",
    "system": "performance and errors of the platform",
}


@click.command()
@config_option
def policy(config: Config) -> None:
    """Print the policy: what is kept, why, for how long, and how it is deleted."""
    from mlc_broker.store.holds import holds_in
    from mlc_broker.store.roster import Roster

    click.echo(_general(config))
    for hold in holds_in(config.data_path):
        click.echo(_held(hold))
    path = config.data_path / "roster.db"
    if not path.exists():
        return
    roster = Roster(path, clock=SystemClock())
    roster.open()
    try:
        for organization_id in roster.organization_ids():
            organization = roster.organization(organization_id)
            if organization is not None and organization.retention_days:
                click.echo(_own(organization_id, organization))
    finally:
        roster.close()


def _general(config: Config) -> str:
    retention = config.privacy.retention
    consent = config.privacy.consent
    rows = "\n".join(
        f"| {name} | {_WHAT[name]} | {min(days, retention.days(name))} |"
        for name, days in DAYS_MAX.items()
    )
    unknown = "as a child under 13" if config.privacy.unknown_age == "child" else "as an adult"
    collected = ", ".join(
        f"{name.replace('_', ' ')} {'yes' if getattr(consent, name) else 'no'}"
        for name in type(consent).__struct_fields__
    )
    return f"""# Retention policy

Purpose: {retention.purpose}

Business need: {retention.business_need}

| class | what | kept at most, days |
|---|---|---|
{rows}

- Nothing is kept without an end. A sender or an organization can shorten a period, never lengthen it.
- Deletion: every night at 02:00 UTC, secure: files unlinked, or pages overwritten.
- A person is erased on request after {config.privacy.erasure_grace_days} days in which it can be \
cancelled, or at once; a signed record without a name remains.
- Children under 13 without a parent's or the school's consent: personal events are not collected;
  from all others everything that identifies is removed before anything is written.
  A person of unknown age is treated {unknown}.
- Collected of people who were never asked: {collected}.
- Third parties: {_third_parties(config)}"""


def _third_parties(config: Config) -> str:
    if not config.sinks:
        return "none."
    return "; ".join(
        f"{sink.name or sink.use} ({', '.join(sink.categories) or 'no categories'};"
        f" levels {', '.join(sink.levels)})"
        for sink in config.sinks
    )


def _held(hold: Hold) -> str:
    whom = f"{hold.user_id} of {hold.organization_id}" if hold.user_id else hold.organization_id
    return (
        f"- Legal hold on {whom} since {hold.at:%Y-%m-%d}, by {hold.set_by}: {hold.reason}."
        " Nothing of it is purged or erased before the hold ends."
    )


def _own(organization_id: str, organization: Organization) -> str:
    shorter = ", ".join(
        f"{name} {min(days, DAYS_MAX[name])} days"
        for name, days in sorted(organization.retention_days.items())
    )
    return f"- {organization_id}: {shorter}"
