"""All plugins of a running house: actors for them, the watchdog, their health, what commands ask."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import structlog
import trio
from msgspec import Struct

from mlc_broker.model.errors import ConfigError
from mlc_broker.pipeline.actor import Actor
from mlc_broker.pipeline.cell import abandoned
from mlc_broker.pipeline.contract import Contract, describe
from mlc_broker.pipeline.hangs import HangBook
from mlc_broker.pipeline.isolation import Caged, caged
from mlc_broker.pipeline.plugin_files import version_of
from mlc_broker.pipeline.processor import Processor, Stage, Tools
from mlc_broker.pipeline.registry import Registry, Step
from mlc_broker.pipeline.shadow import Report, Shadow
from mlc_broker.pipeline.watchdog import Watchdog
from mlc_broker.runtime.supervisor import Backoff

log = structlog.get_logger("plugins")
SHADOW_SECONDS_MAX = 86_400.0


class Row(Struct, frozen=True):
    """One processor, as `plugins list` shows it."""

    name: str
    stage: str
    state: str
    source: str
    isolation: str
    on_failure: str
    events: int
    microseconds_per_event: float
    failures: int
    restarts: int
    skipped: int
    emitted: int
    detail: str


class Plugins:
    """Made once a process, with the data directory; `stop` it at the end."""

    def __init__(self, directory: Path, *, types_path: Path | None = None) -> None:
        self._book = HangBook(directory)
        self._types_path = types_path
        self._watchdog = Watchdog(self._book)
        stacks = self._book.collect()
        if stacks:
            log.error("a plugin hung and held the interpreter's lock", stacks=stacks[-8000:])
        guard_system_tasks()

    def actors(
        self,
        steps: Sequence[Step],
        tools: Tools,
        random: Random,
        *,
        answer_seconds_max: float = 10.0,
    ) -> list[Actor]:
        """Return an actor for each step; a plugin that hung us twice is disabled."""
        actors = []
        for step in steps:
            outsider = step.kind.stage == Stage.EXTEND
            # A sender gives up after answer_seconds_max: a plugin that hangs must be found before.
            seconds_max = min(step.seconds_max, answer_seconds_max / 2)
            actor = Actor(
                self._maker(step, seconds_max, tools),
                name=step.use,
                stage=step.kind.stage,
                on_failure=step.on_failure,
                seconds_max=seconds_max,
                backoff=Backoff(random),
                catalog=tools.catalog if outsider else None,
                isolation=step.isolation,
                source=step.source,
            )
            if outsider:
                self._book.versions[step.use] = version_of(step.source)
                self._disable_if_it_hung(actor)
            actors.append(actor)
        if any(a.stage == Stage.EXTEND and a.isolation == "inline" for a in actors):
            self._watchdog.start()
        return actors

    def stop(self) -> None:
        """The house ends well."""
        self._watchdog.stop()

    @property
    def left_behind(self) -> int:
        """How many calls of plugins will never end: the process must be ended, not waited for."""
        return abandoned()

    def handlers(
        self,
        actors: Callable[[], Sequence[Actor]],
        tools: Callable[[], Tools],
        steps: Callable[[], Sequence[Step]],
        reload: Callable[[], Awaitable[str]],
    ) -> dict[str, Callable[[dict[str, Any]], Any]]:
        """Return the verbs for `Control`.

        `steps` reads the configuration anew; `reload` carries it out, and returns what is wrong.
        """

        async def listing(_: dict[str, Any]) -> list[Row]:
            return [row_of(actor) for actor in actors()]

        async def reloading(_: dict[str, Any]) -> list[Row]:
            wrong = await reload()
            if wrong:
                raise ConfigError(f"{wrong}; what was in force stays in force")
            return [row_of(actor) for actor in actors()]

        async def enable(args: dict[str, Any]) -> list[Row]:
            self._book.forget(str(args["name"]))
            return await reloading({})

        def shadow(args: dict[str, Any]) -> AsyncIterator[Report]:
            return self._shadow(args, actors(), tools(), steps)

        return {
            "plugins.list": listing,
            "plugins.reload": reloading,
            "plugins.enable": enable,
            "plugins.shadow": shadow,
        }

    async def _shadow(
        self,
        args: dict[str, Any],
        actors: Sequence[Actor],
        tools: Tools,
        steps: Callable[[], Sequence[Step]],
    ) -> AsyncIterator[Report]:
        name, file = str(args["name"]), str(args.get("file") or "")
        seconds = min(float(args.get("seconds", 60.0)), SHADOW_SECONDS_MAX)
        step = next((one for one in steps() if one.use == name), None)
        if step is None and not file:
            raise ConfigError(f'[[pipeline]] has no use = "{name}"; add it, or give a file')
        if step is not None and step.kind.stage != Stage.EXTEND:
            raise ConfigError(f'"{name}" is built in: it has no other version')
        source = file or (step.source if step else "")
        new = caged(
            name=name,
            source=source,
            module="" if source.endswith(".py") or step is None else step.kind.__module__,
            settings=step.settings if step else {},
            seconds_max=step.seconds_max if step else 5.0,
            memory_bytes_max=step.memory_bytes_max if step else 256 * 1024**2,
            tools=tools,
            types_path=self._types_path,
        )
        actor = next((one for one in actors if one.name == name), None)
        behind = actor is None
        if actor is None:
            actor = [one for one in actors if one.stage <= Stage.EXTEND][-1]
        contract = Contract(name, outsider=True, catalog=tools.catalog)
        shadow = Shadow(name, new, actor, contract, behind=behind)
        async for report in shadow.run(seconds, float(args.get("report_seconds", 5.0))):
            yield report

    def _maker(self, step: Step, seconds_max: float, tools: Tools) -> Callable[[], Processor]:
        if step.isolation == "inline":
            return partial(step.kind, step.settings, tools)
        return partial(self._caged, step, seconds_max, tools)

    def _caged(self, step: Step, seconds_max: float, tools: Tools) -> Caged:
        return caged(
            name=step.use,
            source=step.source,
            module=step.kind.__module__,
            settings=step.settings,
            seconds_max=seconds_max,
            memory_bytes_max=step.memory_bytes_max,
            tools=tools,
            types_path=self._types_path,
        )

    def _disable_if_it_hung(self, actor: Actor) -> None:
        why = self._book.why_disabled(actor.name)
        if why:
            log.error("a plugin starts disabled", plugin=actor.name, why=why)
            actor.disable(why)


def static_rows(directory: Path, steps: Sequence[Step]) -> list[Row]:
    """Return the rows of `plugins list` when no daemon runs."""
    book = HangBook(directory)
    rows = []
    for step in steps:
        book.versions[step.use] = version_of(step.source)
        why = book.why_disabled(step.use)
        state = "disabled" if why else "not running"
        settings = (step.isolation, step.on_failure)
        stage = step.kind.stage.name.lower()
        rows.append(Row(step.use, stage, state, step.source, *settings, 0, 0.0, 0, 0, 0, 0, why))
    return rows


def enable(directory: Path, name: str) -> bool:
    """Let a plugin start again that hung; True when there was something to forget."""
    return HangBook(directory).forget(name)


def not_in_use(registry: Registry, steps: Sequence[Step]) -> list[tuple[str, str]]:
    """Return the plugins that were found and are not named in the chain, with their files."""
    used = {step.use for step in steps}
    names = [name for name in registry.names() if name not in used]
    return [(name, registry.source(name)) for name in names]


def row_of(actor: Actor) -> Row:
    """Return how a processor is doing."""
    health = actor.health
    cost = health.seconds / health.events * 1e6 if health.events else 0.0
    return Row(
        actor.name,
        actor.stage.name.lower(),
        health.state,
        actor.source,
        actor.isolation,
        actor.on_failure,
        health.events,
        round(cost, 2),
        health.failures,
        health.restarts,
        health.skipped,
        health.emitted,
        health.detail,
    )


def troubles(actors: Sequence[Actor]) -> list[str]:
    """Return a line for each processor that is not well, for `/healthz` and `STATUS=`."""
    return [
        f"{actor.name} is {actor.health.state}: {actor.health.detail}"
        for actor in actors
        if actor.health.state != "ready"
    ]


def guard_system_tasks() -> None:
    """A system task that crashes ends trio, and us: whoever spawns one from now on is guarded."""
    spawn = trio.lowlevel.spawn_system_task
    if getattr(spawn, "guarded", False):
        return

    def guarded(async_fn: Callable[..., Any], *args: Any, **options: Any) -> trio.lowlevel.Task:
        own = getattr(async_fn, "__module__", "") == "mlc_broker.pipeline.cell"
        return spawn(async_fn if own else partial(_survive, async_fn), *args, **options)

    guarded.guarded = True  # type: ignore[attr-defined]
    trio.lowlevel.spawn_system_task = guarded  # type: ignore[assignment]


async def _survive(async_fn: Callable[..., Awaitable[Any]], *args: Any) -> None:
    try:
        await async_fn(*args)
    except trio.Cancelled:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 (guard: a plugin's own task)
        name = getattr(async_fn, "__qualname__", repr(async_fn))
        log.error("a system task broke", task=name, error=describe(error))  # noqa: TRY400
        print(f"a system task broke: {name}", file=sys.stderr)  # noqa: T201
