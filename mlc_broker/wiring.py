"""How the rooms are joined: from a Config to parts that fit. Only the roof knows every room."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import trio

from mlc_broker._version import __version__
from mlc_broker.config import Config
from mlc_broker.config_files import ensure_secret, read_secret
from mlc_broker.edge.codec import WireLimits
from mlc_broker.edge.credentials import (
    Credentials,
    TokenRules,
    VerificationKey,
    load_jwks,
    secret_key,
)
from mlc_broker.edge.guest import HttpLimits
from mlc_broker.edge.keys import KeyBook
from mlc_broker.edge.limits import Limiter, Rates
from mlc_broker.edge.websocket import WebSocketLimits
from mlc_broker.model.catalog import Catalog
from mlc_broker.model.custom import load_custom_types
from mlc_broker.model.errors import ConfigError
from mlc_broker.model.retention import DAYS_MAX
from mlc_broker.pipeline.plugin_files import find_types
from mlc_broker.pipeline.registry import Registry, Step
from mlc_broker.runtime.clock import Clock
from mlc_broker.store.consents import RULES, ConsentRule
from mlc_broker.store.quarantine import Quarantine, QuarantineFile
from mlc_broker.store.roster import Roster
from mlc_broker.store.store import Limits as StoreLimits


def catalog_of(config: Config) -> Catalog:
    """Return the standard types and the organization's own; ConfigError names the file."""
    try:
        types = [*load_custom_types(config.types_path), *find_types(config.plugins_path)]
        return Catalog.standard().with_types(types)
    except ValueError as error:
        raise ConfigError(f"{config.types_path}: {error}") from error


def secret_of(config: Config, name: str) -> bytes:
    """Return a secret file's content, made at the first start."""
    path = config.secret_path(name)
    ensure_secret(path)
    return read_secret(path)


def steps_of(config: Config) -> list[Step]:
    """Check the chain that the configuration asks for."""
    tables = []
    inherited = _inherited(config)
    for step in config.pipeline:
        table: dict[str, Any] = {"use": step.use, **inherited.get(step.use, {}), **step.settings}
        table |= {"seconds_max": step.seconds_max, "isolation": step.isolation}
        table["memory_bytes_max"] = step.memory_bytes_max
        if step.on_failure is not None:
            table["on_failure"] = step.on_failure
        tables.append(table)
    return Registry.find(config.plugins_path).steps(tables)


def check_sinks(config: Config) -> None:
    """Refuse `[[sinks]]`: nothing leaves the house yet, and a key must not seem to work."""
    for number, sink in enumerate(config.sinks, 1):
        raise ConfigError(
            f'[[sinks]] {number}: there is no sink "{sink.use}"; this version has none. Exports '
            "and `GET /v1/live` bring events elsewhere; remove the table"
        )


def _inherited(config: Config) -> dict[str, dict[str, Any]]:
    """Return what built-in processors take from other sections than their own."""
    events, privacy = config.events, config.privacy
    return {
        "validate": {
            "max_age_days": events.max_age_days,
            "future_seconds_max": events.future_seconds_max,
            "clock_skew_seconds_max": events.clock_skew_seconds_max,
        },
        "enrich": {"days": {name: privacy.retention.days(name) for name in DAYS_MAX}},
        "protect": {
            "unknown_age": privacy.unknown_age,
            "pseudonym_key": secret_of(config, privacy.pseudonym_key_file)[:64],
        },
        "sample": {"environment": events.environment},
    }


def verification_keys(config: Config) -> list[VerificationKey]:
    """Return the keys that tokens may be signed with: the secret, and those of the JWKS file."""
    keys = [secret_key(secret_of(config, config.auth.secret_file))]
    jwks = config.secret_path(config.auth.jwks_file)
    if jwks.exists():
        keys += load_jwks(jwks)
    return keys


def credentials_of(config: Config, keys: KeyBook, roster: Roster, clock: Clock) -> Credentials:
    """Return the verifier of what clients show."""

    def known(organization_id: str) -> bool:
        if roster.organization(organization_id) is None:
            roster.refresh_if_changed()  # `mlc-broker keys create --org` may have just made it
        return roster.organization(organization_id) is not None

    rules = TokenRules(
        issuer=config.auth.issuer,
        token_seconds_max=config.auth.token_seconds_max,
        leeway_seconds=config.auth.leeway_seconds,
    )
    return Credentials(
        keys, verification_keys(config), rules=rules, clock=clock, organization_known=known
    )


def roster_of(config: Config, clock: Clock) -> Roster:
    """Return the roster, still closed."""
    return Roster(data_file(config, "roster.db"), clock=clock, consent_rules=consent_rules(config))


def quarantine_of(config: Config, clock: Clock, known_type: Callable[[str], bool]) -> Quarantine:
    """Return the quarantine, open."""
    file = QuarantineFile(
        data_file(config, "quarantine.db"),
        secret_of(config, "quarantine.key")[:32],
        build=__version__,
        bytes_max=config.storage.quarantine_bytes_max,
    )
    return Quarantine(file, clock=clock, known_type=known_type)


def consent_rules(config: Config) -> Mapping[str, ConsentRule]:
    """Return how each category is collected of people who were never asked."""
    given = msgspec.structs.asdict(config.privacy.consent)
    return {
        category: msgspec.structs.replace(rule, collect=given[category])
        for category, rule in RULES.items()
    }


def store_limits(config: Config) -> StoreLimits:
    """Return the store's limits."""
    storage = config.storage
    return StoreLimits(
        commit_events_max=storage.commit_events_max,
        commit_seconds_max=storage.commit_seconds_max,
        hot_bytes_max=storage.hot_bytes_max,
        hot_hours_max=storage.hot_seconds_max / 3600,
        window_hours=float(storage.dedup_hours),
        wal_bytes_max=storage.wal_bytes_max,
        free_bytes_min=storage.free_bytes_min,
        ballast_bytes=storage.ballast_bytes,
        ids_bytes_max=storage.dedup_bytes_max,
        slots=storage.slots,
    )


def wire_limits(config: Config) -> WireLimits:
    """Return what one message, body or event may be."""
    return WireLimits(
        message_bytes_max=config.websocket.message_bytes_max,
        body_bytes_max=config.http.body_bytes_max,
        batch_events_max=config.events.max_batch,
        event_bytes_max=config.events.event_bytes_max,
        in_flight_max=config.websocket.in_flight_batches_max,
    )


def websocket_limits(config: Config) -> WebSocketLimits:
    """Return what one guest of the WebSocket door may take."""
    own = config.websocket
    return WebSocketLimits(
        message_bytes_max=own.message_bytes_max,
        handshake_seconds_max=own.handshake_seconds_max,
        send_seconds_max=own.send_seconds_max,
        close_seconds_max=own.close_seconds_max,
        connections_max=own.connections_max,
        connections_per_address_max=own.connections_per_address_max,
        stop_seconds_max=min(6.0, config.limits.stop_seconds_max * 0.75),
    )


def http_limits(config: Config) -> HttpLimits:
    """Return what one guest of the HTTP door may take."""
    own = config.http
    return HttpLimits(
        head_bytes_max=own.head_bytes_max,
        head_seconds_max=own.head_seconds_max,
        body_bytes_max=own.body_bytes_max,
        body_seconds_max=own.body_seconds_max,
        idle_seconds_max=own.idle_seconds_max,
        write_seconds_max=config.websocket.send_seconds_max,  # who does not read, by either door
        connections_max=own.connections_max,
        connections_per_address_max=own.connections_per_address_max,
        stop_seconds_max=min(6.0, config.limits.stop_seconds_max * 0.75),
    )


def limiter_of(config: Config) -> Limiter:
    """Return the token buckets."""
    limits = config.limits
    rates = Rates(
        key_events_per_second_max=limits.events_per_second_per_key,
        user_events_per_second_max=limits.events_per_second_per_user,
        organization_events_per_second_max=limits.events_per_second_per_organization,
        burst_seconds=limits.burst_seconds,
    )
    return Limiter(rates, trio.current_time)


def data_file(config: Config, name: str) -> Path:
    """Return a file of the data directory."""
    return config.data_path / name


def server_name() -> str:
    """Return how the daemon names itself to clients."""
    return f"mlc-broker/{__version__}"


def category_of(catalog: Catalog | Callable[[], Catalog]) -> Callable[[str], str | None]:
    """Return what tells the category of an event type by any of its names.

    Given a function, the catalog in force at that time is asked: a reload may bring new types.
    """

    def category(event_type: str) -> str | None:
        kind = (catalog if isinstance(catalog, Catalog) else catalog()).resolve(event_type)
        return None if kind is None else kind.category

    return category


class Schemas:
    """The catalog in force as the edge shows it; the documents are made once a catalog."""

    def __init__(self, catalog: Callable[[], Catalog]) -> None:
        self._now = catalog
        self._catalog = catalog()
        self._schemas = self._catalog.schemas()

    def schemas(self) -> Mapping[str, dict[str, Any]]:
        """Return the schema of every registered type."""
        if self._now() is not self._catalog:
            self._catalog = self._now()
            self._schemas = self._catalog.schemas()
        return self._schemas

    def schema(self, event_type: str) -> dict[str, Any] | None:
        """Return the schema of one type, by any of its names."""
        schemas = self.schemas()
        kind = self._catalog.resolve(event_type)
        return None if kind is None else schemas[kind.name]
