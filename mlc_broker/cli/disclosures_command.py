"""`mlc-broker disclosures`: to whom the configuration lets events go, and which."""

from __future__ import annotations

import click

from mlc_broker.cli.common import config_option, json_option, print_json
from mlc_broker.config import Config


@click.command()
@json_option
@config_option
def disclosures(config: Config, as_json: bool) -> None:
    """Name the third parties and sinks that get events: categories, levels; or say none."""
    parties = [
        {
            "name": sink.name or sink.use,
            "kind": sink.use,
            "categories": list(sink.categories),
            "levels": list(sink.levels),
        }
        for sink in config.sinks
    ]
    if as_json:
        print_json(parties)
        return
    for party in parties:
        categories = ", ".join(party["categories"]) or "no categories"
        levels = ", ".join(party["levels"]) or "no levels"
        click.echo(f"{party['name']} ({party['kind']}): {categories}; levels {levels}")
    if not parties:
        click.echo("none: the configuration names no sink; events stay in this house")
