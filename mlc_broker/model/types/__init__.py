"""The standard event types, by category."""

from __future__ import annotations

from mlc_broker.model.types import business, interaction, learning, performance
from mlc_broker.model.types.base import EventType

STANDARD: tuple[EventType, ...] = (
    *interaction.TYPES,
    *learning.TYPES,
    *performance.TYPES,
    *business.TYPES,
)
