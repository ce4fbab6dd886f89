"""`mlc-broker plugins`: write one, test it, see how they do, reload, try a new version."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from mlc_broker.cli import telephone
from mlc_broker.cli.common import FAILED, OK, config_option, json_option, print_json, say
from mlc_broker.config import Config
from mlc_broker.model.errors import ConfigError


@click.group()
def plugins() -> None:
    """Write, test, list, reload and try plugins; plugins/README.md is their author's guide."""


@plugins.command("list")
@json_option
@config_option
def list_(config: Config, as_json: bool) -> None:
    """Show every processor of the chain: its state, and what it costs an event."""
    from mlc_broker import wiring
    from mlc_broker.pipeline.plugins import not_in_use, static_rows
    from mlc_broker.pipeline.registry import Registry

    registry = Registry.find(config.plugins_path)
    if telephone.runs(config):
        rows: list[dict[str, Any]] = telephone.ask(config, "plugins.list")
        idle = not_in_use(registry, wiring.steps_of(config)) if not registry.broken else []
    else:
        say("no daemon runs: this is what one would start with")
        steps = wiring.steps_of(config)
        rows = [msgspec.to_builtins(row) for row in static_rows(config.data_path, steps)]
        idle = not_in_use(registry, steps)
    if as_json:
        print_json({"processors": rows, "not_in_use": dict(idle), "broken": registry.broken})
        return
    _table(rows)
    for name, source in idle:
        click.echo(f"not in use: {name} ({source})")
    for why in registry.broken.values():
        click.echo(f"broken: {why}")


@plugins.command()
@click.argument("name")
@config_option
def new(config: Config, name: str) -> None:
    """Write a working plugin NAME and its test into the plugins folder."""
    from mlc_broker.cli.plugin_template import write
    from mlc_broker.pipeline.registry import Registry

    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,63}", name):
        raise click.UsageError(f"a plugin's name is a word of a-z 0-9 _ -, not {name!r}")
    if name in Registry.find(config.plugins_path).names():
        raise click.UsageError(f'there is a processor named "{name}" already')
    folder = config.plugins_path
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in write(name, folder.name).items():
        if (folder / file).exists():
            raise click.UsageError(f"{folder / file} is there already")
        (folder / file).write_text(text, "utf-8")
        click.echo(str(folder / file))
    say(f'then: `mlc-broker plugins test {name}`, and behind "protect" in {config.file}:')
    say(f'[[pipeline]]\nuse = "{name}"')


@plugins.command()
@click.argument("names", nargs=-1)
@config_option
def test(config: Config, names: tuple[str, ...]) -> int:
    """Try plugins with everything that may happen to one, then run their own tests by pytest."""
    from mlc_broker.pipeline.registry import Registry

    registry = Registry.find(config.plugins_path)
    found = [name for name in registry.names() if registry.source(name) != "built in"]
    missing = sorted(set(names) - set(found))
    if missing:
        raise ConfigError(_missing(missing, found, registry.broken))
    failed = 0
    for name in names or found:
        failed += _check(config, registry, name)
    for why in registry.broken.values() if not names else ():
        click.echo(f"broken: {why}")
        failed += 1
    wanted = [registry.source(name) for name in names or found]
    return FAILED if _own_tests(config.plugins_path, wanted) or failed else OK


@plugins.command()
@config_option
def reload(config: Config) -> None:
    """Bring new code and settings into force between batches; no connection is dropped.

    What is broken is told, and the old stays in force.
    """
    _table(telephone.ask(config, "plugins.reload"))


@plugins.command()
@click.argument("name")
@config_option
def enable(config: Config, name: str) -> None:
    """Let a plugin start again that hung the daemon."""
    from mlc_broker.pipeline.plugins import enable as forget

    if telephone.runs(config):
        _table(telephone.ask(config, "plugins.enable", name=name))
    elif forget(config.data_path, name):
        say(f"{name} starts with the daemon again")
    else:
        say(f"{name} was not disabled")


@plugins.command()
@click.argument("name")
@click.option("--file", "file", default="", metavar="FILE", help="The new version.")
@click.option("--seconds", default=60.0, show_default=True, help="How long to compare.")
@json_option
@config_option
def shadow(config: Config, name: str, file: str, seconds: float, as_json: bool) -> None:
    """Run a new version of NAME beside the one in force, on live traffic, without effect.

    Without --file, it is the file on disk with the settings on disk.
    """
    path = str(Path(file).absolute()) if file else ""
    report: dict[str, Any] = {}
    for report in telephone.follow(config, "plugins.shadow", name=name, file=path, seconds=seconds):
        if not as_json:
            say(_figures(report))
    if as_json:
        print_json(report)
        return
    for example in report.get("examples", []):
        words = f"now: {example['now']}; then: {example['then']}"
        click.echo(f"{example['event_id']} {example['event_type']}  {words}")
    for error in report.get("errors", []):
        click.echo(f"failed: {error}")
    click.echo(_figures(report))


def _figures(report: dict[str, Any]) -> str:
    names = ("events", "same", "changed", "dropped", "rejected", "failed", "missed")
    counted = ", ".join(f"{report[name]} {name}" for name in names)
    now, then = report["microseconds_per_event_now"], report["microseconds_per_event"]
    return f"{counted}; {then} µs an event, now {now}"


def _table(rows: list[dict[str, Any]]) -> None:
    head = ("processor", "state", "events", "µs/event", "failures", "restarts", "skipped", "runs")
    lines = [head]
    for row in rows:
        cost = f"{row['microseconds_per_event']:.1f}" if row["events"] else "-"
        numbers = [str(row[name]) for name in ("failures", "restarts", "skipped")]
        lines.append(
            (row["name"], row["state"], str(row["events"]), cost, *numbers, row["isolation"])
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        click.echo("  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)))
    for row in rows:
        if row["detail"]:
            click.echo(f"{row['name']}: {row['detail']}")


def _check(config: Config, registry: Any, name: str) -> int:
    """Run the contract kit; return 1 when it fails."""
    import trio

    from mlc_broker.testing import check_processor

    settings = next((step.settings for step in config.pipeline if step.use == name), {})
    try:
        trio.run(_checked(check_processor, registry.kind(name), settings))
    except Exception as error:  # noqa: BLE001 (guard: a processor's step)
        words = str(error) or repr(error)
        click.echo(f"{name}: breaks the contract: {type(error).__name__}: {words[:500]}")
        return 1
    click.echo(f"{name}: keeps its contract")
    return 0


def _checked(check: Any, kind: Any, settings: dict[str, Any]) -> Any:
    async def main() -> None:
        await check(kind, **settings)

    return main


def _own_tests(folder: Path, sources: list[str]) -> bool:
    """Run the tests beside the plugins; True when one fails."""
    beside = [Path(source).with_name(f"test_{Path(source).name}") for source in sources]
    files = [str(path) for path in beside if path.is_file() and path.parent == folder]
    if not files:
        say("there are no test_*.py beside these plugins")
        return False
    if importlib.util.find_spec("pytest") is None:
        say("their own tests need pytest: pip install 'mlc-broker[dev]'")
        return False
    command = [sys.executable, "-m", "pytest", "-q", "--rootdir", str(folder), "-p", "no:anyio"]
    command += ["-p", "no:cacheprovider", "--import-mode=importlib", "--tb=short"]
    if importlib.util.find_spec("pytest_trio") is not None:
        command += ["-o", "trio_mode=true"]
    # They say `from plugins.mark import Mark`: the folder above must be on the path.
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(folder.parent.absolute()), *sys.path])
    }
    done = subprocess.run([*command, *files], check=False, env=environment)  # noqa: S603 (our own)
    return done.returncode != 0


def _missing(missing: list[str], found: list[str], broken: dict[str, str]) -> str:
    known = ", ".join(found) or "none"
    lines = [f"there is no plugin {', '.join(missing)}; there are: {known}", *broken.values()]
    return "\n".join(lines)
