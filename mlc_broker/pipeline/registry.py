"""Find processors: built in, by entry point, and in the plugins directory; build the chain."""

from __future__ import annotations

import importlib.util
import inspect
import os
import stat
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import msgspec
from msgspec import Struct

from mlc_broker.model.errors import (
    ConfigError,
    PluginLoadError,
    UnknownProcessor,
    UnsafePlugin,
    WrongOrder,
)
from mlc_broker.pipeline.actor import describe
from mlc_broker.pipeline.builtin import BUILTIN
from mlc_broker.pipeline.processor import Processor, Stage

ENTRY_POINTS = "mlc_broker.processors"


class Step(Struct, frozen=True, kw_only=True):
    """One `[[pipeline]]` table, checked: which processor, how it fails, its own settings."""

    use: str
    kind: type[Processor]
    settings: Struct
    on_failure: Literal["hold", "skip"]
    seconds_max: float
    isolation: Literal["inline", "process"] = "inline"
    memory_bytes_max: int = 256 * 1024**2
    source: str = "built in"


class Registry:
    """The processors that a configuration may name."""

    def __init__(self, kinds: Mapping[str, tuple[type[Processor], str]]) -> None:
        self._kinds = dict(kinds)

    @classmethod
    def find(cls, plugins: Path | None = None) -> Registry:
        """Collect the built-in processors, those of installed packages, those in `plugins`."""
        registry = cls({kind.name: (kind, "built in") for kind in BUILTIN})
        for entry in entry_points(group=ENTRY_POINTS):
            try:
                registry.add(entry.load(), f"package {entry.value}")
            except ConfigError:
                raise
            except Exception as error:  # guard: a plugin's own import
                msg = f"entry point {entry.name} = {entry.value} does not load: {describe(error)}"
                raise PluginLoadError(msg) from error
        if plugins is not None and plugins.is_dir():
            for path in sorted(plugins.glob("*.py")):
                if not path.name.startswith(("_", "test_")):
                    for kind in load_file(path):
                        registry.add(kind, str(path))
        return registry

    def add(self, kind: type[Processor], source: str) -> None:
        """Take one processor in; two of one name are a ConfigError that names both places."""
        if kind.name in self._kinds:
            known = self._kinds[kind.name][1]
            msg = f'two processors are named "{kind.name}": {known} and {source}; rename one'
            raise ConfigError(msg)
        self._kinds[kind.name] = (kind, source)

    def names(self) -> list[str]:
        """Return the names that `use` may have."""
        return sorted(self._kinds)

    def source(self, name: str) -> str:
        """Return where the processor comes from."""
        return self._kinds[name][1]

    def steps(self, tables: Sequence[Mapping[str, Any]]) -> list[Step]:
        """Check the `[[pipeline]]` tables: names, settings, order."""
        steps = [self._step(number, table) for number, table in enumerate(tables, 1)]
        _check_order(steps)
        return steps

    def _step(self, number: int, table: Mapping[str, Any]) -> Step:
        own = dict(table)
        use = own.pop("use", None)
        where = f"[[pipeline]] {number}"
        if not isinstance(use, str) or use not in self._kinds:
            msg = f'{where}: there is no processor "{use}"; there are {", ".join(self.names())}'
            raise UnknownProcessor(msg)
        kind, source = self._kinds[use]
        outsider = kind.stage == Stage.EXTEND
        on_failure = own.pop("on_failure", "skip" if outsider else "hold")
        seconds_max = own.pop("seconds_max", 5.0)
        isolation = own.pop("isolation", "inline")
        memory_bytes_max = own.pop("memory_bytes_max", 256 * 1024**2)
        if on_failure not in ("hold", "skip"):
            msg = f'{where} "{use}": on_failure is "hold" or "skip", not {on_failure!r}'
            raise ConfigError(msg)
        if isolation not in ("inline", "process"):
            msg = f'{where} "{use}": isolation is "inline" or "process", not {isolation!r}'
            raise ConfigError(msg)
        if kind.stage == Stage.PROTECT and on_failure != "hold":
            msg = f'{where} "{use}": protect never fails open; on_failure can only be "hold"'
            raise ConfigError(msg)
        return Step(
            use=use,
            kind=kind,
            settings=_settings(where, use, kind, own),
            on_failure=on_failure,
            seconds_max=_seconds(where, use, seconds_max),
            isolation=isolation,
            memory_bytes_max=memory_bytes_max,
            source=source,
        )


def load_file(path: Path) -> list[type[Processor]]:
    """Import one plugin file; return the processors defined in it."""
    _check_safe(path)
    name = f"mlc_broker_plugins.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        msg = f"{path} is not a Python file"
        raise PluginLoadError(msg)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # guard: a plugin's own import
        msg = f"{path} does not load: {describe(error)}"
        raise PluginLoadError(msg) from error
    return list(_processors_in(module))


def _processors_in(module: ModuleType) -> Iterable[type[Processor]]:
    for value in vars(module).values():
        own = inspect.isclass(value) and value.__module__ == module.__name__
        if own and issubclass(value, Processor) and hasattr(value, "name"):
            yield value


def _check_safe(path: Path) -> None:
    """A plugin runs with the service's rights: nobody else may have been able to write it."""
    for place in (path, path.parent):
        found = place.stat()
        if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
            msg = f"{place} can be written by everybody: chmod o-w {place}"
            raise UnsafePlugin(msg)
    if os.geteuid() != 0 and path.stat().st_uid not in (0, os.geteuid()):
        msg = f"{path} belongs to another user: chown it to root or to the service's user"
        raise UnsafePlugin(msg)


def _settings(where: str, use: str, kind: type[Processor], own: Mapping[str, Any]) -> Struct:
    known = ", ".join(field.name for field in msgspec.structs.fields(kind.Settings)) or "none"
    try:
        return msgspec.convert(own, kind.Settings, strict=True)
    except msgspec.ValidationError as error:
        msg = f'{where} "{use}": {error}; its settings are: {known}'
        raise ConfigError(msg) from error


def _seconds(where: str, use: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 60:
        msg = f'{where} "{use}": seconds_max is a number above 0 and at most 60, not {value!r}'
        raise ConfigError(msg)
    return float(value)


def _check_order(steps: Sequence[Step]) -> None:
    for number, (before, after) in enumerate(zip(steps, steps[1:], strict=False), 1):
        if after.kind.stage < before.kind.stage:
            msg = (
                f'[[pipeline]] {number} "{before.use}" ({before.kind.stage.name.lower()}) stands '
                f'before {number + 1} "{after.use}" ({after.kind.stage.name.lower()}); '
                f"move it below."
            )
            raise WrongOrder(msg)
    uses = [step.use for step in steps]
    for needed in ("canonicalize", "validate", "enrich", "protect"):
        if uses.count(needed) != 1:
            msg = f'[[pipeline]] needs "{needed}" exactly once; it stands there {uses.count(needed)} times'
            raise ConfigError(msg)
