"""A server, a place for what comes from it, and no waiting."""

from collections.abc import Iterator

import pytest

from cxr.raw import download
from tests.acquire.place import Place
from tests.loopback_server import Loopback, loopback


@pytest.fixture(scope="module")
def server() -> Iterator[Loopback]:
    with loopback() as server:
        yield server


@pytest.fixture(scope="module", autouse=True)
def waits() -> Iterator[list[float]]:
    """Seconds that the downloader would have waited."""
    waited: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download, "sleep", waited.append)
        yield waited


@pytest.fixture(autouse=True)
def nothing_waited(waits):
    waits.clear()


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path)
