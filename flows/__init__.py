"""Prefect flows: `retrain` runs the DVC pipeline, `monitor` watches the prediction log; `serve` runs both."""

import os
from pathlib import Path


def repository() -> Path:
    """The repository that the flows work on: this one, or CXR_REPOSITORY."""
    return Path(os.environ.get("CXR_REPOSITORY", Path(__file__).parent.parent)).resolve()
