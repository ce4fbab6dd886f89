"""`mlc-broker init DIR`: a working directory in one step."""

from __future__ import annotations

import os
from pathlib import Path

import click

from mlc_broker.cli.common import say
from mlc_broker.cli.reference_config import short_toml
from mlc_broker.config import Config, load
from mlc_broker.config_files import ensure_secret


@click.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
def init(directory: Path) -> None:
    """Make DIR with a working config.toml and fresh secrets.

    What is there already is kept.
    """
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "config.toml"
    made = write_new(file, short_toml())
    config = load(file)
    secrets = ensure_secrets(config)
    for folder in (config.plugins_path, config.types_path):
        folder.mkdir(exist_ok=True)
    config.data_path.mkdir(mode=0o700, parents=True, exist_ok=True)
    say(f"{file}: {'made' if made else 'kept as it was'}")
    for path in secrets:
        say(f"{path}: made; keep a copy in a safe place")
    say(f"next: mlc-broker serve --config {file}")


def ensure_secrets(config: Config) -> list[Path]:
    """Make the secrets that do not exist; return those made."""
    names = (config.auth.secret_file, config.privacy.pseudonym_key_file)
    paths = [config.secret_path(name) for name in names]
    return [path for path in paths if ensure_secret(path)]


def write_new(file: Path, text: str) -> bool:
    """Write a file that did not exist; False where one did."""
    try:
        with file.open("x", encoding="utf-8") as new:
            new.write(text)
            new.flush()
            os.fsync(new.fileno())
    except FileExistsError:
        return False
    return True
