"""The vocabulary of a plugin's author; nothing else. What is named here is loaded when asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlc_broker.model.catalog import Catalog, EventType
    from mlc_broker.model.event import Event, Facts
    from mlc_broker.model.metric import Condition, Metric, Term
    from mlc_broker.model.person import Organization, User
    from mlc_broker.model.types.base import Properties
    from mlc_broker.model.verdict import Drop, Reject, Verdict
    from mlc_broker.pipeline.processor import NoSettings, Processor, Stage, Tools

_WHERE = {
    "Catalog": "model.catalog",
    "Condition": "model.metric",
    "Drop": "model.verdict",
    "Event": "model.event",
    "EventType": "model.catalog",
    "Facts": "model.event",
    "Metric": "model.metric",
    "NoSettings": "pipeline.processor",
    "Organization": "model.person",
    "Processor": "pipeline.processor",
    "Properties": "model.types.base",
    "Reject": "model.verdict",
    "Stage": "pipeline.processor",
    "Term": "model.metric",
    "Tools": "pipeline.processor",
    "User": "model.person",
    "Verdict": "model.verdict",
}

__all__ = [
    "Catalog",
    "Condition",
    "Drop",
    "Event",
    "EventType",
    "Facts",
    "Metric",
    "NoSettings",
    "Organization",
    "Processor",
    "Properties",
    "Reject",
    "Stage",
    "Term",
    "Tools",
    "User",
    "Verdict",
]


def __getattr__(name: str) -> Any:
    """Load what is asked for: a command that needs no plugin stays quick."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
