"""The sections of config.toml: every key with its type, default, limit and meaning.

This is the one place where a key is described: `config.toml`, `docs/config.md` and the errors of
`mlc-broker check` are made from it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct, field

KIB, MIB, GIB = 1024, 1024**2, 1024**3
Default: TypeAlias = Annotated[bool, Meta(description="collected unless the person says no")]


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[section]`."""


class Http(Section, frozen=True, kw_only=True):
    """The HTTP listener: queries, exports, the console, and publishing without WebSocket."""

    listen: Annotated[str, Meta(description="address and port; port 0 asks for a free one")] = (
        "127.0.0.1:7310"
    )
    tls_certificate: Annotated[
        str | None, Meta(description="certificate chain, PEM; with `tls_key` it switches TLS on")
    ] = None
    tls_key: Annotated[str | None, Meta(description="private key, PEM")] = None
    body_bytes_max: Annotated[
        int, Meta(ge=1024, le=GIB, description="a request's body, after inflation")
    ] = 4 * MIB
    head_bytes_max: Annotated[
        int, Meta(ge=1024, le=MIB, description="a request's line and headers")
    ] = 16 * KIB
    head_seconds_max: Annotated[
        float, Meta(gt=0, le=600, description="until a request's head has arrived")
    ] = 10.0
    body_seconds_max: Annotated[
        float, Meta(gt=0, le=3600, description="until a request's body has arrived")
    ] = 30.0
    idle_seconds_max: Annotated[
        float, Meta(gt=0, le=3600, description="a kept-alive connection without a request")
    ] = 60.0
    requests_max: Annotated[
        int, Meta(ge=1, le=100_000, description="requests in hand at once; more are answered 503")
    ] = 1000
    connections_max: Annotated[
        int, Meta(ge=1, le=1_000_000, description="open connections; more are closed at once")
    ] = 2000
    connections_per_address_max: Annotated[
        int, Meta(ge=1, le=1_000_000, description="of one address: a school behind NAT is one")
    ] = 1000
    export_seconds_max: Annotated[
        float, Meta(gt=0, le=86_400, description="one export, from first byte to last")
    ] = 3600.0
    exports_max: Annotated[
        int, Meta(ge=1, le=1000, description="exports at once; more are answered 503")
    ] = 2
    query_seconds_max: Annotated[float, Meta(gt=0, le=600, description="one query or metric")] = (
        10.0
    )
    origins: Annotated[
        tuple[str, ...],
        Meta(description="web pages that may call, as scheme://host:port; empty: any, no cookies"),
    ] = ()


class WebSocket(Section, frozen=True, kw_only=True):
    """The WebSocket listener: publishing and live subscriptions."""

    listen: Annotated[str, Meta(description="address and port; port 0 asks for a free one")] = (
        "127.0.0.1:7311"
    )
    tls_certificate: Annotated[
        str | None, Meta(description="certificate chain, PEM; with `tls_key` it switches TLS on")
    ] = None
    tls_key: Annotated[str | None, Meta(description="private key, PEM")] = None
    handshake_seconds_max: Annotated[
        float, Meta(gt=0, le=600, description="until the WebSocket handshake is done")
    ] = 5.0
    hello_seconds_max: Annotated[
        float, Meta(gt=0, le=600, description="until the client has said `hello`")
    ] = 5.0
    close_seconds_max: Annotated[
        float, Meta(gt=0, le=60, description="the closing handshake; then the socket is cut")
    ] = 2.0
    send_seconds_max: Annotated[
        float, Meta(gt=0, le=600, description="a client that does not read is cut off after this")
    ] = 10.0
    idle_seconds_max: Annotated[
        float, Meta(gt=0, le=86_400, description="without a frame from the client, pongs included")
    ] = 300.0
    message_bytes_max: Annotated[
        int, Meta(ge=1024, le=256 * MIB, description="one message; more closes with 1009")
    ] = MIB
    in_flight_batches_max: Annotated[
        int, Meta(ge=1, le=1024, description="unacknowledged publishes of one connection")
    ] = 16
    connections_max: Annotated[
        int, Meta(ge=1, le=1_000_000, description="open connections; more are closed at once")
    ] = 10_000
    connections_per_address_max: Annotated[
        int, Meta(ge=1, le=1_000_000, description="of one address: a school behind NAT is one")
    ] = 2000
    subscriptions_max: Annotated[
        int, Meta(ge=1, le=1000, description="subscriptions and watches of one connection")
    ] = 16
    subscriber_events_max: Annotated[
        int, Meta(ge=1, le=1_000_000, description="waiting for a slow subscriber; more are missed")
    ] = 1000
    origins: Annotated[
        tuple[str, ...],
        Meta(description="pages that may connect, as scheme://host:port; empty: any"),
    ] = ()


class Storage(Section, frozen=True, kw_only=True):
    """Where events are kept, and how sure `stored` is."""

    path: Annotated[
        str, Meta(min_length=1, description="relative to this file; under systemd the state folder")
    ] = "data"
    durability: Annotated[
        Literal["power-loss", "process-crash"],
        Meta(description="what an acknowledged event survives"),
    ] = "power-loss"
    slots: Annotated[
        int, Meta(ge=1, le=256, description="files a month and retention class are spread over")
    ] = 1
    commit_events_max: Annotated[
        int, Meta(ge=1, le=100_000, description="events of one commit")
    ] = 1000
    commit_seconds_max: Annotated[
        float, Meta(ge=0, le=10, description="how long a commit waits for company")
    ] = 0.005
    hot_bytes_max: Annotated[
        int, Meta(ge=MIB, le=64 * GIB, description="the hot file is sealed at this size")
    ] = 256 * MIB
    hot_seconds_max: Annotated[
        float, Meta(ge=60, le=31 * 86_400, description="… or at this age")
    ] = 86_400.0
    wal_bytes_max: Annotated[
        int, Meta(ge=MIB, le=GIB, description="a write-ahead log is checkpointed at this size")
    ] = 32 * MIB
    dedup_hours: Annotated[
        int,
        Meta(ge=24, le=24 * 90, description="how long a sealed event's id is known; 24 at least"),
    ] = 24
    dedup_bytes_max: Annotated[
        int, Meta(ge=16 * MIB, le=64 * GIB, description="memory of the table of known ids")
    ] = GIB
    free_bytes_min: Annotated[
        int, Meta(ge=0, description="with less free disk, events are answered `retry`")
    ] = 256 * MIB
    ballast_bytes: Annotated[
        int, Meta(ge=0, le=GIB, description="a file given up on a full disk, so that purging works")
    ] = 16 * MIB
    quarantine_bytes_max: Annotated[
        int, Meta(ge=MIB, le=64 * GIB, description="what was rejected or broke a processor")
    ] = 256 * MIB
    open_files_max: Annotated[
        int, Meta(ge=8, le=4096, description="sealed files kept open for reading")
    ] = 64
    counting_process_events_per_second: Annotated[
        int,
        Meta(
            ge=0,
            description="from here on metrics are counted in a second process; 0 is never",
        ),
    ] = 4000


class Auth(Section, frozen=True, kw_only=True):
    """Which credentials count."""

    secret_file: Annotated[
        str, Meta(min_length=1, description="HS256 secret; made at `init` or the first start")
    ] = "jwt.secret"  # noqa: S105 (the name of the file)
    jwks_file: Annotated[
        str, Meta(min_length=1, description="public keys, EdDSA, ES256, RS256; may be missing")
    ] = "jwks.json"
    pepper_file: Annotated[
        str, Meta(min_length=1, description="without it, stored keys are of no use; made like it")
    ] = "keys.pepper"
    issuer: Annotated[str | None, Meta(description="then `iss` of a token must be this")] = None
    token_seconds_max: Annotated[
        int, Meta(ge=60, le=31 * 86_400, description="the longest life of a token")
    ] = 43_200
    leeway_seconds: Annotated[
        int, Meta(ge=0, le=300, description="how far the signer's clock may be off")
    ] = 30


class Events(Section, frozen=True, kw_only=True):
    """What is taken."""

    environment: Annotated[
        Literal["production", "staging", "development"],
        Meta(description="selects sampling rates; `debug` events are dropped in production"),
    ] = "production"
    max_age_days: Annotated[int, Meta(ge=1, le=3650, description="older events are rejected")] = 90
    max_batch: Annotated[int, Meta(ge=1, le=100_000, description="events of one publish")] = 1000
    event_bytes_max: Annotated[
        int, Meta(ge=1024, le=16 * MIB, description="one event, as it was sent")
    ] = 64 * KIB
    future_seconds_max: Annotated[
        int, Meta(ge=0, le=86_400, description="events further ahead of our clock are rejected")
    ] = 300
    clock_skew_seconds_max: Annotated[
        float, Meta(ge=0, le=3600, description="a sender's clock further off is corrected")
    ] = 5.0
    types_path: Annotated[
        str, Meta(description="folder of JSON Schema files with `org.*` types; may be missing")
    ] = "types"


class ConsentDefaults(Section, frozen=True, kw_only=True):
    """Whether a category is collected of a person who was never asked."""

    learning_progress: Default = True
    user_interaction: Default = True
    system_performance: Default = True
    business_intelligence: Default = True


class RetentionRules(Section, frozen=True, kw_only=True):
    """How long events are kept at most: shorter than the law's table, never longer."""

    purpose: Annotated[
        str, Meta(min_length=10, description="why events are kept; `mlc-broker policy` prints it")
    ] = "To show students, teachers and schools how learning goes, and to keep the platform running."
    business_need: Annotated[
        str, Meta(min_length=10, description="why for so long; `mlc-broker policy` prints it")
    ] = "Progress is compared over school careers; faults and misuse are looked into afterwards."
    standard_days: Annotated[int, Meta(ge=1, le=2555, description="learning and using")] = 2555
    sensitive_days: Annotated[int, Meta(ge=1, le=1095, description="level `sensitive`")] = 1095
    pii_days: Annotated[int, Meta(ge=1, le=365, description="level `pii`, anonymized")] = 365
    system_days: Annotated[int, Meta(ge=1, le=365, description="performance and errors")] = 365

    def days(self, retention: str) -> int:
        """Return the period of a retention class."""
        days: int = getattr(self, f"{retention}_days")
        return days


class Privacy(Section, frozen=True, kw_only=True):
    """How people, children above all, are protected."""

    unknown_age: Annotated[
        Literal["child", "adult"], Meta(description="how a person of unknown age is treated")
    ] = "child"
    pseudonym_key_file: Annotated[
        str, Meta(min_length=1, description="key of pseudonyms; made at `init`; never lose it")
    ] = "pseudonym.key"
    erasure_grace_days: Annotated[
        int, Meta(ge=0, le=90, description="an erasure can be cancelled until then")
    ] = 30
    minimum_group: Annotated[
        int,
        Meta(ge=1, le=1000, description="people of a row across organizations; fewer: left out"),
    ] = 10
    consent: Annotated[ConsentDefaults, Meta(description="defaults by category")] = field(
        default_factory=ConsentDefaults
    )
    retention: Annotated[
        RetentionRules, Meta(description="periods, and what the written policy says")
    ] = field(default_factory=RetentionRules)


class Limits(Section, frozen=True, kw_only=True):
    """How much one sender may send. Beyond it: `rate_limited`."""

    events_per_second_per_key: Annotated[
        int, Meta(ge=1, description="of one ingest or anonymous key")
    ] = 100_000
    events_per_second_per_user: Annotated[int, Meta(ge=1, description="of one user token")] = 2000
    events_per_second_per_organization: Annotated[
        int, Meta(ge=1, description="of all of an organization's credentials together")
    ] = 200_000
    burst_seconds: Annotated[
        float, Meta(gt=0, le=3600, description="of that rate may come at once, e.g. after a break")
    ] = 10.0
    queue_events_max: Annotated[
        int, Meta(ge=1, le=10_000_000, description="in hand at once; more are answered `retry`")
    ] = 100_000
    answer_seconds_max: Annotated[
        float, Meta(gt=0, le=600, description="a batch not stored by then is answered `retry`")
    ] = 10.0
    stop_seconds_max: Annotated[
        float, Meta(gt=0, le=10, description="from SIGTERM to the end, all acknowledged")
    ] = 8.0


class Plugins(Section, frozen=True, kw_only=True):
    """Where your own processors, types, metrics and sinks are found."""

    path: Annotated[str, Meta(min_length=1, description="folder of *.py files; may be missing")] = (
        "plugins"
    )


class Step(Section, frozen=True, kw_only=True):
    """One `[[pipeline]]` entry: a processor, in the order of the file."""

    use: Annotated[str, Meta(min_length=1, max_length=64, description="the processor's name")]
    on_failure: Annotated[
        Literal["hold", "skip"] | None,
        Meta(description="while it is broken: hold batches or pass by; unset: as its stage asks"),
    ] = None
    seconds_max: Annotated[
        float, Meta(gt=0, le=60, description="for one batch; then it counts as broken")
    ] = 5.0
    isolation: Annotated[
        Literal["inline", "process"], Meta(description="in the daemon, or in a process of its own")
    ] = "inline"
    memory_bytes_max: Annotated[
        int, Meta(ge=32 * MIB, le=64 * GIB, description="of its process, with isolation")
    ] = 256 * MIB
    settings: Annotated[
        dict[str, Any], Meta(description="its own keys: written beside these, not as a table")
    ] = field(default_factory=dict)


class Sink(Section, frozen=True, kw_only=True):
    """One `[[sinks]]` entry: where committed events are also sent. Nothing leaves unless named."""

    use: Annotated[str, Meta(min_length=1, max_length=64, description="the sink's name")]
    name: Annotated[str | None, Meta(description="to tell two of a kind apart")] = None
    categories: Annotated[tuple[str, ...], Meta(description="of events that may leave")] = ()
    levels: Annotated[
        tuple[Literal["standard", "sensitive", "pii"], ...],
        Meta(description="privacy levels that may leave"),
    ] = ("standard",)
    batch_events_max: Annotated[int, Meta(ge=1, le=100_000, description="of one delivery")] = 100
    batch_seconds_max: Annotated[
        float, Meta(gt=0, le=3600, description="how long a delivery waits for company")
    ] = 30.0
    settings: Annotated[
        dict[str, Any], Meta(description="its own keys: written beside these, not as a table")
    ] = field(default_factory=dict)


class Trial(Section, frozen=True, kw_only=True):
    """One `[[tests]]` entry: what `mlc-broker test` sends through your chain, and what it expects."""

    name: Annotated[str, Meta(min_length=1, description="a sentence that should hold")]
    send: Annotated[dict[str, Any], Meta(description="an event; missing fields are filled in")]
    expect: Annotated[dict[str, Any], Meta(description="`outcome`, `reason`, `properties.score` …")]


DEFAULT_STEPS = ("canonicalize", "validate", "enrich", "protect", "sample", "route")
