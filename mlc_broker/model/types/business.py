"""Business intelligence: subscriptions, usage, support.

Privacy: what somebody paid, and what somebody asked of support, is `sensitive`. Support is not
`pii` of itself: the ticket's words are free text, which `protect` looks through, and the three
years of `sensitive` cover a dispute.
"""

from __future__ import annotations

from typing import Literal

from mlc_broker.model.event import Privacy
from mlc_broker.model.principal import BUSINESS
from mlc_broker.model.types.base import (
    Count,
    Date,
    EventType,
    FreeText,
    Ident,
    Label,
    LongDuration,
    Money,
    Number,
    Percent,
    Properties,
    Word,
    Words,
    check_date,
)


class SubscriptionEvent(Properties, frozen=True):
    """What any event of a subscription may carry."""

    subscription_id: Ident | None = None
    plan: Word | None = None  # prelude, solo, ensemble
    billing_cycle: Word | None = None
    seats: Count | None = None
    status: Word | None = None
    start_date: Date | None = None
    end_date: Date | None = None
    renewal_date: Date | None = None

    def __post_init__(self) -> None:
        check_date(self.start_date, "start_date")
        check_date(self.end_date, "end_date")
        check_date(self.renewal_date, "renewal_date")


class SubscriptionCreated(SubscriptionEvent, frozen=True):
    """A subscription began."""

    trial: bool | None = None
    amount_cents: Money | None = None
    currency: Word | None = None
    promo_code: Word | None = None


class SubscriptionUpdated(SubscriptionEvent, frozen=True):
    """A subscription changed."""

    previous_plan: Word | None = None
    previous_seats: Count | None = None
    change_type: Word | None = None
    reason: FreeText | None = None


class PaymentProcessed(Properties, frozen=True):
    """A payment was made, or failed. No card or account number belongs here."""

    payment_id: Ident | None = None
    subscription_id: Ident | None = None
    invoice_id: Ident | None = None
    amount: Number | None = None  # in units of the currency
    amount_cents: Money | None = None
    currency: Word | None = None
    payment_method: Word | None = None
    status: Word | None = None
    success: bool | None = None
    failure_reason: FreeText | None = None


class SeatUtilization(Properties, frozen=True):
    """How many seats are in use."""

    subscription_id: Ident | None = None
    total_seats: Count | None = None
    used_seats: Count | None = None
    active_seats: Count | None = None
    utilization_percent: Percent | None = None
    utilization_rate: Percent | None = None
    period: Word | None = None


class FeatureAdoption(Properties, frozen=True):
    """How far a feature is used."""

    feature: Label | None = None
    feature_name: Label | None = None
    action: Word | None = None
    first_use: bool | None = None
    usage_count: Count | None = None
    adoption_percent: Percent | None = None
    variant: Word | None = None


class RetentionMetrics(Properties, frozen=True):
    """How many people stay."""

    cohort: Word | None = None
    period: Word | None = None
    retention_rate: Percent | None = None
    churn_rate: Percent | None = None
    active_users: Count | None = None
    total_users: Count | None = None
    day: Count | None = None


class SupportTicket(Properties, frozen=True):
    """What any event of a support ticket may carry."""

    ticket_id: Ident | None = None
    ticket_category: Word | None = None
    category: Word | None = None
    priority: Word | None = None
    channel: Word | None = None
    subject: FreeText | None = None
    description: FreeText | None = None
    tags: Words | None = None


class SupportTicketCreated(SupportTicket, frozen=True):
    """Somebody asked for help."""

    source_page: Label | None = None


class SupportTicketResolved(SupportTicket, frozen=True):
    """Somebody was helped."""

    resolution: FreeText | None = None
    resolution_type: Word | None = None
    resolution_time_ms: LongDuration | None = None
    satisfaction: Literal[1, 2, 3, 4, 5] | None = None
    reopened: bool | None = None


def _type(
    name: str,
    group: str,
    title: str,
    properties: type[Properties],
    *aliases: str,
    privacy: Privacy = "standard",
) -> EventType:
    return EventType(
        name=name,
        category=BUSINESS,
        group=group,
        title=title,
        properties=properties,
        privacy=privacy,
        aliases=aliases,
    )


TYPES = (
    _type(
        "subscription_created",
        "Subscription",
        "Subscription created",
        SubscriptionCreated,
        "subscription.created",
    ),
    _type(
        "subscription_updated",
        "Subscription",
        "Subscription updated",
        SubscriptionUpdated,
        "subscription.updated",
    ),
    _type(
        "payment_processed",
        "Subscription",
        "Payment processed",
        PaymentProcessed,
        "payment.processed",
        privacy="sensitive",
    ),
    _type("seat_utilization", "Usage", "Seat utilization", SeatUtilization, "seat.utilization"),
    _type("feature_adoption", "Usage", "Feature adoption", FeatureAdoption, "feature.adoption"),
    _type("retention_metrics", "Usage", "Retention metrics", RetentionMetrics, "retention.metrics"),
    _type(
        "support_ticket_created",
        "Support",
        "Support ticket created",
        SupportTicketCreated,
        "support.ticket.created",
        privacy="sensitive",
    ),
    _type(
        "support_ticket_resolved",
        "Support",
        "Support ticket resolved",
        SupportTicketResolved,
        "support.ticket.resolved",
        privacy="sensitive",
    ),
)
