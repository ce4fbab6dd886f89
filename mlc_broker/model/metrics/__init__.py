"""The metrics that come with the broker, each a declaration as anybody may write one."""

from mlc_broker.model.metric import Metrics
from mlc_broker.model.metrics.activity import ACTIVITY
from mlc_broker.model.metrics.learning import LEARNING
from mlc_broker.model.metrics.machine import MACHINE

STANDARD = Metrics([*ACTIVITY, *LEARNING, *MACHINE])
