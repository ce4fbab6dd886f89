"""`mlc-broker keys`: make, list and revoke the keys of servers and kiosks."""

from __future__ import annotations

import click

from mlc_broker.cli.common import config_option, json_option, know_organization, print_json, say
from mlc_broker.config import Config
from mlc_broker.model.principal import CATEGORIES
from mlc_broker.runtime.clock import SystemClock


@click.group()
def keys() -> None:
    """Make, list and revoke ingest keys and anonymous keys."""


@keys.command()
@click.option("--org", required=True, help="The organization that the key publishes for.")
@click.option("--name", required=True, help="Where it is used, to find it again.")
@click.option("--anonymous", is_flag=True, help="Events without a user, of --category only.")
@click.option(
    "--category",
    "categories",
    multiple=True,
    type=click.Choice(CATEGORIES),
    help="What an anonymous key may publish; repeatable. Default: all.",
)
@click.option("--roster", is_flag=True, help="It may also write its organization's roster.")
@config_option
def create(
    config: Config,
    org: str,
    name: str,
    anonymous: bool,
    categories: tuple[str, ...],
    roster: bool,
) -> None:
    """Make a key and print it, once: only its hash is kept."""
    from mlc_broker.edge.keys import create_key, load_pepper

    if categories and not anonymous:
        raise click.UsageError("--category goes with --anonymous")
    if roster and anonymous:
        raise click.UsageError("--roster does not go with --anonymous")
    config.data_path.mkdir(mode=0o700, parents=True, exist_ok=True)
    know_organization(config, org)
    key = create_key(
        config.keys_path,
        load_pepper(config.secret_path(config.auth.pepper_file)),
        organization_id=org,
        name=name,
        now=SystemClock().now(),
        anonymous=anonymous,
        categories=frozenset(categories or CATEGORIES) if anonymous else frozenset(),
        may_write_roster=roster,
    )
    click.echo(key)
    say("It works now, and is not shown again.")


@keys.command("list")
@json_option
@config_option
def list_(config: Config, as_json: bool) -> None:
    """List all keys, without their secrets."""
    from mlc_broker.edge.keys import list_keys

    records = list_keys(config.keys_path) if config.keys_path.exists() else []
    if as_json:
        print_json(records)
        return
    for record in records:
        state = f"revoked {record.revoked_at}" if record.revoked_at else "good"
        click.echo(
            f"{record.id}  {record.kind:<9}  {record.organization_id}  {record.name}  "
            f"{record.created_at}  {state}"
        )
    if not records:
        say("There are no keys yet: `mlc-broker keys create --org ORG --name NAME` makes one.")


@keys.command()
@click.argument("key_id", metavar="ID")
@config_option
def revoke(config: Config, key_id: str) -> None:
    """Revoke the key ID; connections that use it end within 1 s."""
    from mlc_broker.edge.keys import revoke_key

    if not config.keys_path.exists():
        raise click.UsageError(f"there is no key {key_id}; there are no keys yet")
    revoke_key(config.keys_path, key_id, SystemClock().now())
    say(f"{key_id}: revoked")
