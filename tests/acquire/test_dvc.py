"""With DVC an origin is noticed and neither copied nor touched; a download is kept once."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from dvc.cli import main as dvc

from tests.acquire.place import ROOT, state_of, zipped
from tests.loopback_server import Served

pytestmark = pytest.mark.heavy  # each test runs DVC


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    """This repository's acquire before a stage that counts what it is given; the origin on another disk."""
    folder = tmp_path / "repository"
    folder.mkdir()
    for name in ("stages", "cxr"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    acquire = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["acquire"]
    count = {
        "cmd": "find -L data/raw/nih/files -type f | wc -l > counted",
        "deps": ["data/raw/nih/files"],
        "outs": [{"counted": {"cache": False}}],
    }
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"acquire": acquire, "count": count}}))
    (folder / "data").mkdir()
    shutil.copy(ROOT / "data/.gitignore", folder / "data")
    (folder / ".gitignore").write_text("__pycache__\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    subprocess.run(["git", "init", "-q"], check=True)
    assert dvc(["init", "-q"]) == 0
    return folder


def set_origin(origin: str) -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["sources"] = {"nih": {"reader": "nih", "origin": origin}}
    values["demo"]["nih"] = 24
    values["assemble"]["official_test"] = []
    Path("params.yaml").write_text(yaml.safe_dump(values))


def commit() -> None:
    subprocess.run(["git", "add", "-A"], check=True)
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *identity, "commit", "-qm", "now"], check=True)


def size_on_disk(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_symlink() and path.is_file())


@pytest.fixture
def elsewhere(tmp_path) -> Iterator[Path]:
    """A folder on another file system, where this machine has one."""
    memory = Path("/dev/shm")  # noqa: S108  # a file system, not a place for temporary files
    base = memory if memory.is_dir() and os.access(memory, os.W_OK) else tmp_path
    folder = base / f"cxr-origin-{os.getpid()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def test_dvc_notices_the_origin_and_neither_copies_nor_touches_it(repository, elsewhere):
    origin = elsewhere / "nih"
    (origin / "images").mkdir(parents=True)
    for n in range(4):
        (origin / f"images/{n}.png").write_bytes(os.urandom(2_000_000))
    (origin / "images/0.png").chmod(0o440)
    os.link(origin / "images/1.png", origin / "images/hard.png")
    set_origin(str(origin))
    before = size_on_disk(repository)
    assert dvc(["repro", "-q"]) == 0
    assert Path("counted").read_text() == "5\n"
    assert size_on_disk(repository) - before < 500_000  # of 8 MB, in the cache and the workspace together

    for change, count in [
        (lambda: (origin / "images/new.png").write_bytes(b"new"), 6),
        (lambda: (origin / "images/new.png").write_bytes(b"other"), 6),
        (lambda: (origin / "images/new.png").unlink(), 5),
    ]:
        change()
        recorded = Path("dvc.lock").read_text()
        assert dvc(["repro", "-q"]) == 0
        assert Path("dvc.lock").read_text() != recorded
        assert Path("counted").read_text() == f"{count}\n"

    commit()
    harmless = state_of(origin)
    for command in (
        ["repro", "-q", "--force"], ["checkout", "--force"], ["commit", "-f"], ["gc", "-w", "-f"],
        ["unprotect", "data/raw/nih"], ["exp", "run", "-q", "--temp"], ["remove", "acquire@nih", "--outs"],
    ):  # fmt: skip
        # the stage of a `foreach` stays in dvc.yaml, so `remove` fails after it removed the outs
        assert dvc(command) == (command[0] == "remove"), command
        assert state_of(origin) == harmless, command
    assert not Path("data/raw/nih").exists()


def test_dvc_survives_an_origin_that_went_away(repository, elsewhere):
    for name in ("gone", "other"):
        (elsewhere / name).mkdir()
        (elsewhere / name / f"{name}.csv").write_text(name)
    set_origin(str(elsewhere / "gone"))
    assert dvc(["repro", "-q"]) == 0
    shutil.rmtree(elsewhere / "gone")
    set_origin(str(elsewhere / "other"))
    assert dvc(["repro", "-q"]) == 0
    assert [path.name for path in Path("data/raw/nih/files").iterdir()] == ["other.csv"]


def test_dvc_keeps_downloads_once(repository, server, waits):
    archive = zipped(*(f"images/{n}.png" for n in range(20)))
    server.files = {"/a.zip": Served(archive), "/b.csv": Served(os.urandom(3_000_000))}
    values = [f"{server.url}/a.zip", f"{server.url}/b.csv"]
    set_origin("demo")
    text = yaml.safe_load(Path("params.yaml").read_text())
    text["sources"]["nih"]["origin"] = values
    Path("params.yaml").write_text(yaml.safe_dump(text))
    before = size_on_disk(repository)
    assert dvc(["repro", "-q"]) == 0
    assert size_on_disk(repository) - before < 3_500_000
    assert len(Path("data/checksums/nih.sha256").read_text().splitlines()) == 3
    commit()
    assert subprocess.run(["git", "ls-files", "data"], capture_output=True, text=True).stdout.split() == [
        "data/.gitignore",
        "data/checksums/nih.sha256",
    ]
    server.requests.clear()
    assert dvc(["repro", "-q", "--force"]) == 0
    assert server.requests == []
