"""`mlc-broker token`: a user token for trying out. In earnest, the LMS signs them."""

from __future__ import annotations

import click

from mlc_broker.cli.common import config_option, know_organization
from mlc_broker.config import Config
from mlc_broker.config_files import ensure_secret, read_secret
from mlc_broker.model.principal import Role
from mlc_broker.runtime.clock import SystemClock


@click.command()
@click.option("--sub", required=True, help="The user's id.")
@click.option("--org", required=True, help="The user's organization.")
@click.option("--role", required=True, type=click.Choice([role.value for role in Role]))
@click.option("--seconds", default=3600, show_default=True, type=click.IntRange(min=1))
@config_option
def token(config: Config, sub: str, org: str, role: str, seconds: int) -> None:
    """Print a user token, signed with `[auth] secret_file`."""
    from mlc_broker.edge.credentials import make_token

    if seconds > config.auth.token_seconds_max:
        raise click.UsageError(
            f"--seconds: [auth] token_seconds_max allows {config.auth.token_seconds_max}"
        )
    path = config.secret_path(config.auth.secret_file)
    ensure_secret(path)
    know_organization(config, org)
    click.echo(
        make_token(
            read_secret(path),
            sub=sub,
            org=org,
            role=role,
            now=SystemClock().now(),
            seconds=seconds,
            issuer=config.auth.issuer,
        )
    )
