"""Find processors: built in, by entry point, and in the plugins directory; build the chain."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from mlc_broker.model.errors import ConfigError, UnknownProcessor, WrongOrder
from mlc_broker.pipeline.builtin import BUILTIN
from mlc_broker.pipeline.contract import describe
from mlc_broker.pipeline.plugin_files import load_all, processors_in
from mlc_broker.pipeline.processor import Processor, Stage

BUILT_IN = "built in"
MEMORY_BYTES_MAX = 256 * 1024**2
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")


class Step(Struct, frozen=True, kw_only=True):
    """One `[[pipeline]]` table, checked: which processor, how it fails, its own settings."""

    use: str
    kind: type[Processor]
    settings: Struct
    on_failure: Literal["hold", "skip"]
    seconds_max: float
    isolation: Literal["inline", "process"] = "inline"
    memory_bytes_max: int = MEMORY_BYTES_MAX
    source: str = BUILT_IN


class Registry:
    """The processors that a configuration may name, and why others cannot be had."""

    def __init__(
        self,
        kinds: Mapping[str, tuple[type[Processor], str]],
        broken: Mapping[str, str] | None = None,
    ) -> None:
        self._kinds = dict(kinds)
        self.broken = dict(broken or {})

    @classmethod
    def find(cls, plugins: Path | None = None) -> Registry:
        """Collect the built-in processors, those of installed packages, those in `plugins`.

        A plugin that does not load matters only to a configuration that names it.
        """
        loaded = load_all(plugins)
        registry = cls({kind.name: (kind, BUILT_IN) for kind in BUILTIN}, loaded.broken)
        for kind, source in loaded.entries:
            registry.add(kind, source)
        for source, module in loaded.modules.items():
            for kind in processors_in(module):
                registry.add(kind, source)
        return registry

    def add(self, kind: Any, source: str) -> None:
        """Take one processor in; two of one name are a ConfigError that names both places."""
        wrong = _what_is_wrong(kind)
        if wrong:
            self.broken[source] = f"{source}: {wrong}"
            return
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

    def kind(self, name: str) -> type[Processor]:
        """Return the processor's class; KeyError when there is none."""
        return self._kinds[name][0]

    def steps(self, tables: Sequence[Mapping[str, Any]]) -> list[Step]:
        """Check the `[[pipeline]]` tables: names, settings, order."""
        steps = [self._step(number, table) for number, table in enumerate(tables, 1)]
        _check_order(steps)
        return steps

    def _unknown(self, where: str, use: object) -> str:
        """A name that nobody has: perhaps its file does not load."""
        for source, why in self.broken.items():
            if Path(source).stem == use or f"entry point {use} " in source:
                return f'{where} "{use}": {why}'
        lines = [f'{where}: there is no processor "{use}"; there are {", ".join(self.names())}']
        return "; ".join([*lines, *self.broken.values()])

    def _step(self, number: int, table: Mapping[str, Any]) -> Step:
        own = dict(table)
        use = own.pop("use", None)
        where = f"[[pipeline]] {number}"
        if not isinstance(use, str) or use not in self._kinds:
            raise UnknownProcessor(self._unknown(where, use))
        kind, source = self._kinds[use]
        outsider = kind.stage == Stage.EXTEND
        on_failure = own.pop("on_failure", "skip" if outsider else "hold")
        isolation = own.pop("isolation", "inline")
        if on_failure not in ("hold", "skip"):
            msg = f'{where} "{use}": on_failure is "hold" or "skip", not {on_failure!r}'
            raise ConfigError(msg)
        if isolation not in ("inline", "process"):
            msg = f'{where} "{use}": isolation is "inline" or "process", not {isolation!r}'
            raise ConfigError(msg)
        if isolation == "process" and not outsider:
            msg = f'{where} "{use}": isolation = "process" is for plugins; take it out'
            raise ConfigError(msg)
        if kind.stage == Stage.PROTECT and on_failure != "hold":
            msg = f'{where} "{use}": protect never fails open; on_failure can only be "hold"'
            raise ConfigError(msg)
        seconds_max = own.pop("seconds_max", 5.0)
        memory_bytes_max = own.pop("memory_bytes_max", MEMORY_BYTES_MAX)
        return Step(
            use=use,
            kind=kind,
            settings=_settings(where, use, kind, own),
            on_failure=on_failure,
            seconds_max=_seconds(where, use, seconds_max),
            isolation=isolation,
            memory_bytes_max=_memory(where, use, memory_bytes_max),
            source=source,
        )


def _what_is_wrong(kind: Any) -> str:
    """Return why this cannot be a plugin, or nothing."""
    if not (inspect.isclass(kind) and issubclass(kind, Processor)):
        return f"{kind!r} is not a subclass of mlc_broker.Processor"
    name = getattr(kind, "name", None)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return f"{kind.__name__}.name is a word of a-z 0-9 _ -, at most 64 long, not {name!r}"
    if kind.stage != Stage.EXTEND:
        return f"{kind.__name__}.stage is Stage.EXTEND: a plugin stands behind protect"
    settings: Any = kind.Settings
    if not (inspect.isclass(settings) and issubclass(settings, Struct)):
        return f"{kind.__name__}.Settings is a msgspec.Struct, not {settings!r}"
    return ""


def _settings(where: str, use: str, kind: type[Processor], own: Mapping[str, Any]) -> Struct:
    fields = {field.name: field for field in msgspec.structs.fields(kind.Settings)}
    unknown = sorted(own.keys() - fields.keys())
    known = ", ".join(fields) or "none"
    if unknown:
        close = difflib.get_close_matches(unknown[0], fields, n=1)
        tip = f'; did you mean "{close[0]}"?' if close else ";"
        msg = f'{where} "{use}" has no setting "{unknown[0]}"{tip} its settings are: {known}'
        raise ConfigError(msg)
    try:
        return msgspec.convert(dict(own), kind.Settings, strict=True)
    except msgspec.ValidationError as error:
        msg = f'{where} "{use}": {error}; its settings are: {known}'
        raise ConfigError(msg) from error
    except Exception as error:  # guard: a plugin's own __post_init__
        msg = f'{where} "{use}": its settings are refused: {describe(error)}'
        raise ConfigError(msg) from error


def _seconds(where: str, use: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 60:
        msg = f'{where} "{use}": seconds_max is a number above 0 and at most 60, not {value!r}'
        raise ConfigError(msg)
    return float(value)


def _memory(where: str, use: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 32 * 1024**2:
        msg = f'{where} "{use}": memory_bytes_max is a number of 33_554_432 and more, not {value!r}'
        raise ConfigError(msg)
    return value


def _check_order(steps: Sequence[Step]) -> None:
    for number, (before, after) in enumerate(pairwise(steps), 1):
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
