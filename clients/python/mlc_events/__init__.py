"""Reports events to mlc-broker from servers and kiosks, and loses none."""

from mlc_events.client import Client, Limits, Receipt
from mlc_events.queue import Queue

__all__ = ["Client", "Limits", "Queue", "Receipt"]
