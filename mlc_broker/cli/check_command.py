"""`mlc-broker check`: everything that would stop a start, without starting."""

from __future__ import annotations

import click

from mlc_broker.cli.common import config_option, say
from mlc_broker.config import Config
from mlc_broker.model.errors import ConfigError


@click.command()
@config_option
def check(config: Config) -> None:
    """Check the configuration: keys, values, the chain of processors, plugins, types.

    Exit status 78 when the daemon would not start with it.
    """
    from mlc_broker.counting import declared
    from mlc_broker.wiring import catalog_of, check_sinks, steps_of, verification_keys

    try:
        steps = steps_of(config)
        types = catalog_of(config).types
        metrics = list(declared(config))
        verification_keys(config)
        check_sinks(config)
    except ConfigError as error:
        raise type(error)(f"{config.file}: {error}") from None
    for name in ("http", "websocket"):
        door = getattr(config, name)
        for key in ("tls_certificate", "tls_key"):
            value = getattr(door, key)
            if value is not None and not config.secret_path(value).is_file():
                raise ConfigError(
                    f"{config.file}: [{name}] {key}: there is no file {config.secret_path(value)}"
                )
    say(f"{config.file}: good; the chain is {' → '.join(step.use for step in steps)}")
    say(
        f"{len(types)} event types and {len(metrics)} metrics are known; "
        f"plugins come from {config.plugins_path}"
    )
