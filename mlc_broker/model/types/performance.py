"""System performance: timings and health, sampled; errors, never sampled. Kept a year.

Errors are `standard`, for no person is their subject; but their messages and stacks can quote
what somebody typed, so these fields are free text, which `protect` looks through.
"""

from __future__ import annotations

from typing import Literal

from mlc_broker.model.principal import PERFORMANCE
from mlc_broker.model.types.base import (
    Bytes,
    Count,
    Duration,
    EventType,
    FreeText,
    GameVersion,
    Ident,
    Label,
    Millis,
    Number,
    Percent,
    Properties,
    Ratio,
    Sampling,
    Stack,
    StageType,
    Status,
    Url,
    Word,
)


class PageLoadTime(Properties, frozen=True):
    """How long a page took."""

    page_url: Url | None = None
    load_time_ms: Millis | None = None
    dom_ready_ms: Millis | None = None
    first_paint_ms: Millis | None = None
    largest_contentful_paint_ms: Millis | None = None
    cumulative_layout_shift: Number | None = None
    interaction_to_next_paint_ms: Millis | None = None
    time_to_first_byte_ms: Millis | None = None


class ApiResponseTime(Properties, frozen=True):
    """How long an API call took."""

    endpoint: Url | None = None
    method: Word | None = None
    status_code: Status | None = None
    response_time_ms: Millis | None = None
    payload_size_bytes: Bytes | None = None
    request_id: Label | None = None


class AssetLoadTime(Properties, frozen=True):
    """How long an asset took."""

    asset_type: Word | None = None
    asset_url: Url | None = None
    asset_size_bytes: Bytes | None = None
    load_time_ms: Millis | None = None
    cache_hit: bool | None = None
    cdn_region: Word | None = None
    http_status: Status | None = None
    game_id: Ident | None = None


class Failure(Properties, frozen=True):
    """What any error may carry."""

    error_type: Label | None = None
    error_code: Label | None = None
    error_message: FreeText | None = None
    message: FreeText | None = None
    stack_trace: Stack | None = None
    stack: Stack | None = None
    severity: Word | None = None
    recoverable: bool | None = None
    page_url: Url | None = None


class JavascriptError(Failure, frozen=True):
    """A script failed in a browser."""

    file_name: Url | None = None
    line_number: Count | None = None
    column_number: Count | None = None


class ApiError(Failure, frozen=True):
    """An API call failed."""

    endpoint: Url | None = None
    method: Word | None = None
    status_code: Status | None = None
    response_time_ms: Millis | None = None
    retry_count: Count | None = None
    request_id: Label | None = None


class GameError(Failure, frozen=True):
    """A game failed."""

    game_id: Ident | None = None
    stage_id: Ident | None = None
    stage_type: StageType | None = None
    run_id: Ident | None = None
    game_version: GameVersion | None = None
    error_category: Literal["device", "asset", "network", "runtime", "scoring"] | None = None
    recovery_action: Label | None = None
    asset_url: Url | None = None
    file_name: Url | None = None
    line_number: Count | None = None


class NetworkError(Failure, frozen=True):
    """The network failed."""

    endpoint: Url | None = None
    http_status: Status | None = None
    retry_count: Count | None = None
    queued_for_retry: bool | None = None
    connection_type: Word | None = None
    offline_ms: Duration | None = None


class ServiceHealthCheck(Properties, frozen=True):
    """A service was asked how it is."""

    service: Label | None = None
    service_name: Label | None = None
    status: Word | None = None
    response_time_ms: Millis | None = None
    cpu_usage_percent: Percent | None = None
    memory_used_mb: Number | None = None
    uptime_percent: Percent | None = None
    detail: FreeText | None = None


class DatabaseConnection(Properties, frozen=True):
    """The state of a database and its connections."""

    database: Label | None = None
    status: Word | None = None
    connection_time_ms: Millis | None = None
    query_time_ms: Millis | None = None
    pool_size: Count | None = None
    active_connections: Count | None = None
    detail: FreeText | None = None


class CdnStatus(Properties, frozen=True):
    """The state of the content network."""

    provider: Label | None = None
    region: Word | None = None
    status: Word | None = None
    response_time_ms: Millis | None = None
    cache_hit_rate: Percent | None = None
    error_rate: Ratio | None = None


class Debug(Properties, frozen=True):
    """Whatever a developer wants to see, under `data`; collected outside production only."""

    level: Word | None = None
    message: FreeText | None = None
    component: Label | None = None


def _type(
    name: str, group: str, title: str, properties: type[Properties], *aliases: str
) -> EventType:
    # The specification samples the category, and says that errors never are.
    sampling: Sampling = "never" if group == "Errors" else "performance"
    return EventType(
        name=name,
        category=PERFORMANCE,
        group=group,
        title=title,
        properties=properties,
        sampling=sampling,
        aliases=aliases,
    )


TYPES = (
    _type("page_load_time", "Performance", "Page load time", PageLoadTime, "page.load_time"),
    _type(
        "api_response_time",
        "Performance",
        "API response time",
        ApiResponseTime,
        "api.response_time",
        "api_request",
    ),
    _type(
        "asset_load_time",
        "Performance",
        "Asset load time",
        AssetLoadTime,
        "asset.load_time",
        "game_asset_loaded",
    ),
    _type("javascript_error", "Errors", "JavaScript error", JavascriptError, "javascript.error"),
    _type("api_error", "Errors", "API error", ApiError, "api.error"),
    _type(
        "game_error",
        "Errors",
        "Game error",
        GameError,
        "game.error",
        "game_runtime_error",
        "game_stage_error",
    ),
    _type(
        "network_error",
        "Errors",
        "Network error",
        NetworkError,
        "network.error",
        "game_network_error",
    ),
    _type(
        "service_health_check",
        "Health",
        "Service health check",
        ServiceHealthCheck,
        "service.health_check",
    ),
    _type(
        "database_connection",
        "Health",
        "Database connection",
        DatabaseConnection,
        "database.connection",
    ),
    _type("cdn_status", "Health", "CDN status", CdnStatus, "cdn.status"),
    EventType(
        name="debug",
        category=PERFORMANCE,
        group="Debug",
        title="Debug",
        properties=Debug,
        sampling="debug",
        aliases=("game_debug_info",),
        environments=frozenset({"development", "staging"}),
        text=frozenset({"data"}),
    ),
)
