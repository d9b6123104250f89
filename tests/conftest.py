"""Fixtures that several test modules share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live_service import LiveService, serve
from tests.release_fixture import build_release


@pytest.fixture(scope="session")
def tiny_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a real release; read it, never change it."""
    return build_release(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def live(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """The service with the tiny release, one for each test module."""
    with serve(tmp_path_factory.mktemp("service"), CXR_RELEASE=str(tiny_release)) as service:
        yield service
