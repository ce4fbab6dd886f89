"""config.toml → Config. An error names the file, the line, the key, and what would be right.

`load` reads the whole file and reports everything that is wrong with it at once. Nothing is kept
between calls: a reload is a second `load`.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
from msgspec import NODEFAULT, Struct

from mlc_broker.config_describe import expectation, shown
from mlc_broker.config_files import place_of, state_folder
from mlc_broker.config_lines import KeyPath, lines_of
from mlc_broker.config_sections import (
    DEFAULT_STEPS,
    Auth,
    Events,
    Http,
    Limits,
    Plugins,
    Privacy,
    Section,
    Sink,
    Step,
    Storage,
    Trial,
    WebSocket,
)
from mlc_broker.model.errors import ConfigError

TABLES: dict[str, type[Section]] = {
    "http": Http,
    "websocket": WebSocket,
    "storage": Storage,
    "auth": Auth,
    "events": Events,
    "privacy": Privacy,
    "limits": Limits,
    "plugins": Plugins,
}
LISTS: dict[str, type[Section]] = {"pipeline": Step, "sinks": Sink, "tests": Trial}
_OPEN = (Step, Sink)  # these hand on the keys that they do not know: a processor's own
_FILE_BYTES_MAX = 1024**2

Found: TypeAlias = tuple[KeyPath, str]


class Config(Struct, frozen=True, kw_only=True):
    """The whole file, checked. Build one in Python where a test needs it."""

    file: Path
    http: Http = Http()
    websocket: WebSocket = WebSocket()
    storage: Storage = Storage()
    auth: Auth = Auth()
    events: Events = Events()
    privacy: Privacy = Privacy()
    limits: Limits = Limits()
    plugins: Plugins = Plugins()
    pipeline: tuple[Step, ...] = tuple(Step(use=name) for name in DEFAULT_STEPS)
    sinks: tuple[Sink, ...] = ()
    tests: tuple[Trial, ...] = ()

    @property
    def folder(self) -> Path:
        """Where the file stands: relative names in it start here."""
        return self.file.parent

    @property
    def data_path(self) -> Path:
        """The data directory."""
        return self.folder / self.storage.path

    @property
    def keys_path(self) -> Path:
        """The file of ingest and anonymous keys."""
        return self.data_path / "keys.db"

    @property
    def plugins_path(self) -> Path:
        """The folder of plugin files."""
        return self.folder / self.plugins.path

    @property
    def types_path(self) -> Path:
        """The folder of custom event types."""
        return self.folder / self.events.types_path

    def secret_path(self, name: str, environ: Mapping[str, str] = os.environ) -> Path:
        """Where the secret file `name` is: with systemd's credentials, else beside the file."""
        return place_of(name, self.folder, environ)


def load(path: str | Path, environ: Mapping[str, str] = os.environ) -> Config:
    """Read and check the file; ConfigError tells everything that is wrong, a line each."""
    file = Path(path)
    text = _read(file)
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_not_toml(file, text, str(error))) from None
    found: list[Found] = []
    parts = _read_tables(content, found)
    if not found:
        found.extend(_contradictions(Config(file=file, **parts)))
    if found:
        raise ConfigError(_report(file, text, found))
    config = Config(file=file, **parts)
    state = state_folder(environ)
    if state is not None and "path" not in content.get("storage", {}):
        storage = msgspec.structs.replace(config.storage, path=str(state))
        config = msgspec.structs.replace(config, storage=storage)
    return config


def address(listen: str) -> tuple[str, int]:
    """Return host and port of `127.0.0.1:7310`, `[::1]:7310`; ValueError says what is wrong."""
    host, colon, port = listen.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit():
        message = 'expected an address and a port, as in "127.0.0.1:7310"'
        raise ValueError(message)
    if int(port) > 65535:
        message = "a port is a number from 0 to 65535"
        raise ValueError(message)
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        message = 'an IPv6 address stands in brackets, as in "[::1]:7310"'
        raise ValueError(message)
    return host.strip("[]"), int(port)


def _read(file: Path) -> str:
    try:
        if file.stat().st_size > _FILE_BYTES_MAX:
            raise ConfigError(f"{file}: is over {_FILE_BYTES_MAX} bytes; this is not a config file")
        return file.read_text("utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"{file}: there is no such file; `mlc-broker init DIR` makes one, "
            "`--config FILE` names another"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None


def _not_toml(file: Path, text: str, message: str) -> str:
    """Turn `Expected … (at line 3, column 5)` into `file:3: …`."""
    what, _, where = message.partition(" (at ")
    digits = where.removeprefix("line ").split(",")[0]
    line = int(digits) if digits.isdigit() else len(text.splitlines())
    return f"{file}:{line}: this is not TOML: {what}"


def _read_tables(content: dict[str, Any], found: list[Found]) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    for name, value in content.items():
        if name in TABLES:
            parts[name] = _section(TABLES[name], value, (name,), found)
        elif name in LISTS:
            parts[name] = tuple(_entries(LISTS[name], value, name, found))
        else:
            known = sorted(TABLES.keys() | LISTS.keys())
            kind = "section" if isinstance(value, dict | list) else "key"
            found.append(((name,), f'there is no {kind} "{name}"{_nearest(name, known)}'))
    return parts


def _entries(kind: type[Section], value: Any, name: str, found: list[Found]) -> Iterator[Section]:
    if not isinstance(value, list):
        found.append(((name,), f"[[{name}]] is a list of tables: write two brackets"))
        return
    for index, entry in enumerate(value):
        section = _section(kind, entry, (name, index), found)
        if section is not None:
            yield section


def _section(kind: type[Section], value: Any, path: KeyPath, found: list[Found]) -> Section | None:
    """Convert one table key by key, so that every wrong key is told, not the first alone."""
    if not isinstance(value, dict):
        found.append((path, f"{_title(path)} is a section: write its keys below a [header]"))
        return None
    before = len(found)
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    if kind in _OPEN:
        del fields["settings"]
    given: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for key, entry in value.items():
        if key in fields:
            given[key] = _value(fields[key].type, entry, (*path, key), found)
        elif kind in _OPEN:
            own[key] = entry
        else:
            tip = _nearest(key, sorted(fields))
            found.append(((*path, key), f'{_title(path)} has no key "{key}"{tip}'))
    for key, field in fields.items():
        needed = field.default is NODEFAULT and field.default_factory is NODEFAULT
        if needed and key not in value:
            found.append((path, f"{_title(path)} needs `{key}`: {expectation(field.type)}"))
    if len(found) > before:
        return None
    return kind(**given, **({"settings": own} if kind in _OPEN else {}))


def _value(kind: Any, value: Any, path: KeyPath, found: list[Found]) -> Any:
    origin = getattr(kind, "__origin__", kind)
    if isinstance(origin, type) and issubclass(origin, Section):
        return _section(origin, value, path, found)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        wanted, title = expectation(kind), _title(path[:-1])
        found.append((path, f"{title} {path[-1]}: expected {wanted}, got {shown(value)}"))
        return None


def _contradictions(config: Config) -> Iterator[Found]:
    """Yield what is right alone and wrong together."""
    addresses = []
    for name, door in (("http", config.http), ("websocket", config.websocket)):
        try:
            addresses.append(address(door.listen))
        except ValueError as error:
            yield (name, "listen"), f"[{name}] listen: {error}, got {shown(door.listen)}"
        if (door.tls_certificate is None) != (door.tls_key is None):
            key = "tls_key" if door.tls_certificate is None else "tls_certificate"
            yield (name, key), f"[{name}] {key}: certificate and key go together; name both"
    if len(addresses) == 2 and addresses[0] == addresses[1] and addresses[0][1]:
        yield ("websocket", "listen"), "[websocket] listen: is [http]'s too; choose another port"
    yield from _wrong_chain(config.pipeline)


def _wrong_chain(steps: tuple[Step, ...]) -> Iterator[Found]:
    """Law 5: without `protect`, or around it, nothing may pass. The pipeline checks the order."""
    if all(step.use != "protect" for step in steps):
        yield (
            ("pipeline", 0),
            '[[pipeline]] has no `use = "protect"`: nothing is stored without it; add it',
        )
    for index, step in enumerate(steps):
        if step.use == "protect" and step.on_failure == "skip":
            yield (
                ("pipeline", index, "on_failure"),
                '[[pipeline]] "protect" on_failure: it can only "hold"; nothing passes it by',
            )


def _title(path: KeyPath) -> str:
    match path:
        case (str(name), int(index), *rest):
            inner = "".join(f" {part}" for part in rest)
            return f"[[{name}]] {index + 1}{inner}"
        case _:
            return "[" + ".".join(str(part) for part in path) + "]"


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    tip = f'; did you mean "{close[0]}"?' if close else "."
    return f"{tip} There is {', '.join(known)}"


def _report(file: Path, text: str, found: list[Found]) -> str:
    lines = lines_of(text)
    numbered = sorted((_line(lines, path), message) for path, message in found)
    return "\n".join(f"{file}:{line}: {message}" for line, message in numbered)


def _line(lines: Mapping[KeyPath, int], path: KeyPath) -> int:
    """Where the key stands, or the nearest thing around it."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 1
