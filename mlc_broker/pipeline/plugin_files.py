"""Load plugin files and packages: what they define, and what is wrong with those that do not load.

Three entry point groups: `mlc_broker.processors`, `mlc_broker.metrics`, `mlc_broker.types`. In a
plugin file, what is defined at its top level is found by its kind.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from mlc_broker.model.catalog import CustomType, EventType
from mlc_broker.model.errors import ConfigError, PluginLoadError, UnsafePlugin
from mlc_broker.pipeline.contract import describe
from mlc_broker.pipeline.processor import Processor
from mlc_broker.pipeline.watchdog import SLICES, Who

PROCESSORS, METRICS, TYPES = (
    "mlc_broker.processors",
    "mlc_broker.metrics",
    "mlc_broker.types",
)
LOAD_SECONDS_MAX = 10.0
FILES_MAX = 1000
T = TypeVar("T")


@dataclass
class Loaded:
    """What was found in a folder of plugin files, and by entry points of one group."""

    modules: dict[str, ModuleType] = field(default_factory=dict)  # by file
    entries: list[tuple[Any, str]] = field(default_factory=list)  # what was named, and by whom
    broken: dict[str, str] = field(default_factory=dict)  # by file or entry point: why


def load_all(plugins: Path | None, group: str = PROCESSORS) -> Loaded:
    """Load every plugin; one that does not load is told in `broken` and costs nobody else."""
    loaded = Loaded()
    for entry in entry_points(group=group):
        where = f"entry point {entry.name} = {entry.value}"
        try:
            loaded.entries.append((entry.load(), f"package {entry.value}"))
        except (Exception, SystemExit) as error:  # noqa: BLE001 (guard: a plugin's own import)
            loaded.broken[where] = f"{where} does not load: {describe(error)}"
    for path in plugin_files(plugins):
        try:
            loaded.modules[str(path)] = load_file(path)
        except PluginLoadError as error:
            loaded.broken[str(path)] = str(error)
    return loaded


def plugin_files(plugins: Path | None) -> list[Path]:
    """Return the plugin files of a folder, sorted; tests and what begins with `_` are none."""
    if plugins is None or not plugins.is_dir():
        return []
    found = sorted(plugins.glob("*.py"))[:FILES_MAX]
    return [p for p in found if not p.name.startswith(("_", "test_", "conftest"))]


def load_file(path: Path) -> ModuleType:
    """Import one plugin file, anew at each call; PluginLoadError names the file and the line."""
    check_safe(path)
    name = f"mlc_broker_plugins.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginLoadError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module
    SLICES.enter(Who(path.stem, LOAD_SECONDS_MAX))
    try:
        # Not by the loader: its cache of compiled files knows an edit by the second only.
        source = path.read_bytes()
        exec(compile(source, str(path), "exec", dont_inherit=True), vars(module))  # noqa: S102
    except (Exception, SystemExit) as error:  # guard: a plugin's own import
        if before is not None:
            sys.modules[name] = before
        else:
            del sys.modules[name]
        place = _line(error, path)
        raise PluginLoadError(f"{path}{place} does not load: {describe(error)}") from error
    finally:
        SLICES.leave()
    return module


def processors_in(module: ModuleType) -> list[type[Processor]]:
    """Return the processors that a module defines itself."""
    return [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and value.__module__ == module.__name__
        and issubclass(value, Processor)
        and "name" in vars(value)
    ]


def find_declared(
    kind: type[T] | tuple[type[T], ...], plugins: Path | None, group: str
) -> list[tuple[T, str]]:
    """Return every `kind` declared in plugins, with where: a top-level value, or a list of them.

    A file that does not load is left out here; `check` and the start tell of it.
    """
    loaded = load_all(plugins, group)
    found = [(value, source) for entry, source in loaded.entries for value in _flat(entry, kind)]
    for source, module in loaded.modules.items():
        seen: set[int] = set()
        for top in vars(module).values():
            for value in _flat(top, kind):
                if id(value) not in seen:
                    seen.add(id(value))
                    found.append((value, source))
    return found


def find_types(plugins: Path | None) -> list[EventType | CustomType]:
    """Return the event types that plugins declare, for `Catalog.with_types`.

    ConfigError where a name does not begin with `org.`: it could collide with a standard one.
    """
    kinds: Any = (EventType, CustomType)
    found = find_declared(kinds, plugins, TYPES)
    for kind, source in found:
        if not kind.name.startswith("org."):
            raise ConfigError(f'{source}: the event type "{kind.name}" is to be named "org.…"')
    return [kind for kind, _ in found]


def find_metrics(plugins: Path | None, kind: type[T]) -> list[tuple[T, str]]:
    """Return the metrics (`kind`: the class of a metric's declaration) that plugins declare."""
    return find_declared(kind, plugins, METRICS)


def version_of(source: str) -> str:
    """Return what changes when the code in this file does, or nothing for a package."""
    try:
        return hashlib.sha256(Path(source).read_bytes()).hexdigest()[:16]
    except OSError:
        return ""


def check_safe(path: Path) -> None:
    """A plugin runs with the service's rights: nobody else may have been able to write it."""
    for place in (path, path.parent):
        try:
            found = place.stat()
        except OSError as error:
            raise PluginLoadError(f"{place} cannot be read: {error.strerror}") from None
        if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
            raise UnsafePlugin(f"{place} can be written by everybody: chmod o-w {place}")
    if os.geteuid() != 0 and path.stat().st_uid not in (0, os.geteuid()):
        raise UnsafePlugin(
            f"{path} belongs to another user: chown it to root or to the service's user"
        )


def _flat(value: Any, kind: Any) -> Iterator[Any]:
    if isinstance(value, kind):
        yield value
    elif isinstance(value, list | tuple):
        yield from (one for one in value if isinstance(one, kind))


def _line(error: BaseException, path: Path) -> str:
    """Return `:line` of the plugin's file where it broke."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f":{error.lineno}"
    line, trace = "", error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = f":{trace.tb_lineno}"
        trace = trace.tb_next
    return line
