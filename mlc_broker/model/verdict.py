"""A processor's word on one event: the event itself, perhaps changed, or Drop, or Reject."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from mlc_broker.model.event import Event


class Drop(Struct, frozen=True):
    """On purpose: sampled out, no consent. The sender need do nothing."""

    reason: str


class Reject(Struct, frozen=True):
    """The sender's mistake: sending it again will not help."""

    reason: str
    detail: str = ""


Verdict: TypeAlias = Event | Drop | Reject
