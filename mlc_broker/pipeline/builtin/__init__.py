"""The processors that every chain has, by the same interface as anybody's."""

from __future__ import annotations

from mlc_broker.pipeline.builtin.canonicalize import Canonicalize
from mlc_broker.pipeline.builtin.enrich import Enrich
from mlc_broker.pipeline.builtin.protect import Protect
from mlc_broker.pipeline.builtin.route import Route
from mlc_broker.pipeline.builtin.sample import Sample
from mlc_broker.pipeline.builtin.validate import Validate

BUILTIN = (Canonicalize, Validate, Enrich, Protect, Sample, Route)
