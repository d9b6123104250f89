"""The project's own metrics, beside BentoML's at /metrics, and its logger."""

import logging
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from prometheus_client import Counter, Histogram

logger = logging.getLogger("bentoml.service")


class Metrics(NamedTuple):
    """What is counted and timed."""

    predictions: "Counter"
    refusals: "Counter"
    seconds: "Histogram"


@cache
def metrics() -> Metrics:
    """The metrics of this process."""
    # BentoML sets Prometheus's multi-process folder after it imports the service; an earlier import would miss it
    from prometheus_client import Counter, Histogram

    return Metrics(
        Counter("chest_xray_predictions", "answers given", ["predicted", "version"]),
        Counter("chest_xray_refusals", "requests refused", ["reason"]),
        Histogram("chest_xray_seconds", "from the first byte of an image to its logged answer"),
    )
