"""The files that config.toml names: where they are, and secrets made with the right rights."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from mlc_broker.model.errors import ConfigError

_SECRET_BYTES = 32
_SECRET_BYTES_MAX = 64 * 1024
_OWNER_ONLY = 0o600


def state_folder(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return systemd's state folder, the first of them, when it runs us."""
    value = environ.get("STATE_DIRECTORY", "").split(":")[0]
    return Path(value) if value else None


def place_of(name: str, folder: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the secret file `name` is, or where it would be made.

    systemd's credentials come first (`LoadCredential=`), then the folder of config.toml, then the
    state folder, since the first may be read-only.
    """
    credentials = environ.get("CREDENTIALS_DIRECTORY", "")
    if credentials and (given := Path(credentials) / Path(name).name).exists():
        return given
    beside, state = folder / name, state_folder(environ)
    if state is None or beside.exists() or os.access(folder, os.W_OK):
        return beside
    return state / Path(name).name


def ensure_secret(path: Path) -> bool:
    """Make a secret at `path` if there is none, readable by its owner alone; True when made.

    64 hexadecimal digits without a line end. Two starts at once agree on one of them.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    except FileExistsError:
        return False
    except OSError as error:
        raise ConfigError(
            f"{path}: this secret cannot be made: {error.strerror}; make it by hand, 32 bytes or "
            "more, or let the daemon write to the folder"
        ) from None
    with os.fdopen(handle, "wb") as file:
        file.write(secrets.token_hex(_SECRET_BYTES).encode())
        file.flush()
        os.fsync(file.fileno())
    return True


def read_secret(path: Path) -> bytes:
    """Return the secret in `path` without its line end; ConfigError when it is missing or weak."""
    try:
        content = path.read_bytes()[:_SECRET_BYTES_MAX].strip()
    except OSError as error:
        raise ConfigError(f"{path}: this secret cannot be read: {error.strerror}") from None
    if len(content) < _SECRET_BYTES:
        raise ConfigError(
            f"{path}: this secret has {len(content)} bytes, too few to be safe: 32 at least; "
            "remove the file and `mlc-broker init` or the next start makes a good one"
        )
    return content
