"""The tiny source with masks, and what ingest makes of it."""

from pathlib import Path

import pytest

from tests.localise.masked_stages import run
from tests.masked_source import write_masked


@pytest.fixture(scope="session")
def raw(tmp_path_factory) -> Path:
    """Read it, never change it; so too what ingest makes of it."""
    return write_masked(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="session")
def ingested(heavy, raw, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("images") / "covid"
    run(raw, out)
    return out
