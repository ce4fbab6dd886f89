"""User interaction: signing in, finding one's way, opening content, and messages.

Privacy: signing in is `standard`, for it says no more than that an id was there. A changed
password and who writes to whom are `sensitive`. No type is `pii` of itself: none asks for a name
or an address, and a sender who adds one can say `pii`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from mlc_broker.model.principal import INTERACTION
from mlc_broker.model.types.base import (
    Bytes,
    Count,
    Duration,
    EventType,
    FreeText,
    GameVersion,
    Ident,
    Label,
    LongDuration,
    Percent,
    PlayContext,
    Properties,
    StageType,
    Url,
    Version,
    Word,
)

# In pixels; a second screen may lie left of 0.
Coordinate = (
    Annotated[int, Meta(ge=-100_000, le=100_000)] | Annotated[float, Meta(ge=-100_000, le=100_000)]
)


class UserLogin(Properties, frozen=True):
    """Somebody signed in."""

    login_method: Literal["password", "sso", "oauth"] | None = None
    mfa_used: bool | None = None
    session_duration_estimate: Count | None = None  # the sender's unit
    role: Word | None = None
    idp_name: Label | None = None
    protocol: Word | None = None


class UserLogout(Properties, frozen=True):
    """Somebody signed out, or was."""

    session_duration_ms: LongDuration | None = None
    logout_reason: Literal["user_initiated", "timeout", "forced"] | None = None


class SessionTimeout(Properties, frozen=True):
    """A session ended for want of activity."""

    session_duration_ms: LongDuration | None = None
    idle_ms: LongDuration | None = None
    role: Word | None = None


class PasswordReset(Properties, frozen=True):
    """A password was reset, or a reset was asked for."""

    reset_method: Word | None = None
    initiated_by: Ident | None = None
    success: bool | None = None


class PageView(Properties, frozen=True):
    """A page was shown."""

    page_url: Url | None = None
    page_title: FreeText | None = None
    referrer: Url | None = None
    load_time_ms: Duration | None = None
    search_query: FreeText | None = None


class PageExit(Properties, frozen=True):
    """A page was left."""

    page_url: Url | None = None
    time_on_page_ms: LongDuration | None = None
    scroll_depth_percent: Percent | None = None
    exit_url: Url | None = None


class MenuClick(Properties, frozen=True):
    """A menu entry was chosen."""

    menu_id: Label | None = None
    menu_item: Label | None = None
    target_url: Url | None = None
    position: Count | None = None


class BreadcrumbClick(Properties, frozen=True):
    """A breadcrumb was followed."""

    breadcrumb: Label | None = None
    level: Count | None = None
    target_url: Url | None = None


class MouseMove(Properties, frozen=True):
    """The pointer moved."""

    x: Coordinate | None = None
    y: Coordinate | None = None
    page_url: Url | None = None
    element_id: Label | None = None
    distance_px: Count | None = None


class GameLaunch(Properties, frozen=True):
    """A game was opened."""

    game_id: Ident | None = None
    stage_id: Ident | None = None
    stage_type: StageType | None = None
    launch_source: Label | None = None
    play_context: PlayContext | None = None
    step_id: Ident | None = None
    game_version: GameVersion | None = None
    bundle_version: Word | None = None
    load_time_ms: Duration | None = None


class SequenceView(Properties, frozen=True):
    """A learning sequence was looked at."""

    sequence_version: Version | None = None
    group_id: Ident | None = None
    position: Count | None = None


class AssignmentOpen(Properties, frozen=True):
    """An assignment was opened."""

    open_source: Label | None = None
    step_count: Count | None = None
    steps_completed: Count | None = None


class ResourceDownload(Properties, frozen=True):
    """A file was downloaded."""

    resource_id: Ident | None = None
    resource_type: Word | None = None
    resource_name: FreeText | None = None
    file_size_bytes: Bytes | None = None
    format: Word | None = None


class MessageSent(Properties, frozen=True):
    """A message was sent. Its body is never an event's business."""

    message_id: Ident | None = None
    message_type: Word | None = None
    recipient_id: Ident | None = None
    recipient_count: Count | None = None
    recipient_role: Word | None = None
    subject: FreeText | None = None
    length_chars: Count | None = None
    has_attachment: bool | None = None


class MessageRead(Properties, frozen=True):
    """A message was read."""

    message_id: Ident | None = None
    message_type: Word | None = None
    sender_id: Ident | None = None
    time_to_read_ms: LongDuration | None = None


class NotificationReceived(Properties, frozen=True):
    """A notification was shown."""

    notification_id: Ident | None = None
    notification_type: Word | None = None
    channel: Word | None = None
    title: FreeText | None = None
    clicked: bool | None = None


TYPES = (
    EventType(
        name="user_login",
        category=INTERACTION,
        group="Authentication",
        title="Signed in",
        properties=UserLogin,
        aliases=("user.login", "auth.login.success"),
    ),
    EventType(
        name="user_logout",
        category=INTERACTION,
        group="Authentication",
        title="Signed out",
        properties=UserLogout,
        aliases=("user.logout", "session.terminated"),
    ),
    EventType(
        name="session_timeout",
        category=INTERACTION,
        group="Authentication",
        title="Session timed out",
        properties=SessionTimeout,
        aliases=("session.timeout", "session.expired"),
    ),
    EventType(
        name="password_reset",
        category=INTERACTION,
        group="Authentication",
        title="Password reset",
        properties=PasswordReset,
        privacy="sensitive",  # tells of the security of one account
        aliases=("auth.password.reset",),
    ),
    EventType(
        name="page_view",
        category=INTERACTION,
        group="Navigation",
        title="Page viewed",
        properties=PageView,
        sampling="high_volume",
        aliases=("page.view",),
    ),
    EventType(
        name="page_exit",
        category=INTERACTION,
        group="Navigation",
        title="Page left",
        properties=PageExit,
        sampling="high_volume",
        aliases=("page.exit",),
    ),
    EventType(
        name="menu_click",
        category=INTERACTION,
        group="Navigation",
        title="Menu clicked",
        properties=MenuClick,
    ),
    EventType(
        name="breadcrumb_click",
        category=INTERACTION,
        group="Navigation",
        title="Breadcrumb clicked",
        properties=BreadcrumbClick,
    ),
    EventType(
        name="mouse_move",
        category=INTERACTION,
        group="Navigation",
        title="Mouse moved",
        properties=MouseMove,
        sampling="high_volume",
    ),
    EventType(
        name="game_launch",
        category=INTERACTION,
        group="Content Access",
        title="Game launched",
        properties=GameLaunch,
        aliases=("game.launch", "game.launched", "game_stage_launch"),
    ),
    EventType(
        name="sequence_view",
        category=INTERACTION,
        group="Content Access",
        title="Sequence viewed",
        properties=SequenceView,
        aliases=("sequence.view", "sequence.viewed"),
    ),
    EventType(
        name="assignment_open",
        category=INTERACTION,
        group="Content Access",
        title="Assignment opened",
        properties=AssignmentOpen,
        aliases=("assignment.open", "assignment.opened"),
    ),
    EventType(
        name="resource_download",
        category=INTERACTION,
        group="Content Access",
        title="Resource downloaded",
        properties=ResourceDownload,
        aliases=("resource.download", "resource.downloaded"),
    ),
    EventType(
        name="message_sent",
        category=INTERACTION,
        group="Communication",
        title="Message sent",
        properties=MessageSent,
        privacy="sensitive",  # who writes to whom, and about what
        aliases=("message.sent",),
    ),
    EventType(
        name="message_read",
        category=INTERACTION,
        group="Communication",
        title="Message read",
        properties=MessageRead,
        privacy="sensitive",  # who reads whom
        aliases=("message.read",),
    ),
    EventType(
        name="notification_received",
        category=INTERACTION,
        group="Communication",
        title="Notification received",
        properties=NotificationReceived,
        aliases=("notification.received",),
    ),
)
