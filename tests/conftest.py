"""Fixtures that several test modules share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cxr.params import Params
from tests.live_service import LiveService, serve
from tests.release_fixture import build_release
from tests.tiny_repository import Repository, build_repository, tiny_params

# Files that take a minute and more, or wait for servers: begun last, they would leave one of two workers without work.
FIRST = ("test_loop.py", "test_repro.py", "test_distribution.py")


def pytest_itemcollected(item: pytest.Item) -> None:
    if "heavy" in getattr(item, "fixturenames", ()):
        item.add_marker("heavy")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST))


@pytest.fixture(scope="session")
def heavy() -> None:
    """Asked for by each fixture that trains or starts a server, a browser or a pipeline: whoever uses it is `heavy`."""


@pytest.fixture(scope="session")
def tiny_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a real release; read it, never change it."""
    return build_release(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def live(heavy: None, tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """The service with the tiny release, one for each test module."""
    with serve(tmp_path_factory.mktemp("service"), CXR_RELEASE=str(tiny_release)) as service:
        yield service


@pytest.fixture(scope="session")
def params() -> Params:
    """The shipped params at a size for tests."""
    return tiny_params()


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory, params: Params) -> Repository:
    """The stages up to assemble on tiny sources; tests may write its reports, never its data."""
    return build_repository(tmp_path_factory.mktemp("repository"), params)
