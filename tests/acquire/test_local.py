"""What is local is linked and never touched."""

import shutil

import pytest

from cxr.errors import SourceError
from cxr.params import RemoteFile
from tests.acquire.place import sha256, state_of, zipped
from tests.loopback_server import Served
from tests.tiny_sources import WRITERS


def test_a_directory_is_linked_and_never_touched(tmp_path, place):
    origin = tmp_path / "origin"
    WRITERS["covid"](origin)
    next(origin.rglob("*.png")).chmod(0o440)
    before = state_of(origin)
    place.acquire(str(origin), reader="covid")
    assert place.raw.is_symlink()
    assert len(place.files()) == len([path for path in origin.rglob("*") if path.is_file()])
    place.acquire(str(origin), reader="covid")
    place.acquire("demo")
    assert not place.raw.is_symlink()
    assert "Data_Entry_2017_v2020.csv" in place.files()
    place.acquire(str(origin), reader="covid")
    assert state_of(origin) == before


def test_an_archive_is_linked_beside_downloads(tmp_path, place, server):
    archive = tmp_path / "images.zip"
    archive.write_bytes(zipped())
    server.files["/labels.csv"] = Served(b"a,b\n")
    before = state_of(tmp_path / "images.zip")
    place.acquire([str(archive), f"{server.url}/labels.csv"])
    assert (place.raw / "images.zip").readlink() == archive
    assert list(place.files()) == ["images.zip", "labels.csv"]
    assert "images.zip" not in place.checksums.read_text()
    place.acquire([str(archive), f"{server.url}/labels.csv"])
    place.acquire([RemoteFile(url=str(archive), name="other.zip", sha256=sha256(archive.read_bytes()))])
    assert list(place.files()) == ["other.zip"]
    assert state_of(tmp_path / "images.zip") == before


def test_a_download_takes_no_file_out_of_a_linked_origin(tmp_path, place, server):
    (tmp_path / "origin").mkdir()
    (tmp_path / "origin/a.csv").write_bytes(b"a" * 1000)
    server.files["/a.csv"] = Served(b"a" * 1000)
    before = state_of(tmp_path / "origin")
    place.acquire(str(tmp_path / "origin"))
    place.acquire([RemoteFile(url=f"{server.url}/a.csv", name=None, sha256=sha256(b"a" * 1000))])
    assert state_of(tmp_path / "origin") == before
    assert not place.raw.is_symlink()
    assert list(place.files()) == ["a.csv"]


def test_a_link_to_nothing_stops_no_other_origin(tmp_path, place, server):
    (tmp_path / "origin").mkdir()
    (tmp_path / "origin/a.csv").write_text("a")
    place.acquire(str(tmp_path / "origin"))
    shutil.rmtree(tmp_path / "origin")
    server.files["/b.csv"] = Served(b"b")
    place.acquire(f"{server.url}/b.csv")
    assert list(place.files()) == ["b.csv"]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, r"absent does not exist; give `demo`, an address, or a directory or an archive$"),
        (lambda path: path.mkdir(), r"holds no file"),
        (lambda path: path.write_text("x"), r"is not a directory and not one of \.zip"),
        (lambda path: path.symlink_to("nowhere"), r"does not exist"),
    ],
)
def test_a_wrong_path_is_one_sentence_and_leaves_nothing(tmp_path, place, make, sentence):
    make(tmp_path / "absent")
    with pytest.raises(SourceError, match=r"^sources\.nih\.origin: .*" + sentence):
        place.acquire(str(tmp_path / "absent"))
    assert not place.raw.parent.exists()


def test_an_origin_that_would_be_replaced_is_refused(place):
    place.raw.mkdir(parents=True)
    (place.raw / "x.zip").write_bytes(zipped())
    before = state_of(place.raw)
    for inside in (place.raw, place.raw / "x.zip", place.raw.parent, place.raw.parents[2]):
        with pytest.raises(SourceError, match=r"overlaps with .*, which is replaced; move it elsewhere"):
            place.acquire(str(inside))
    assert state_of(place.raw) == before


def test_a_list_holds_archives_and_no_directories(tmp_path, place):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with pytest.raises(SourceError, match=r"/a is a directory; make it the only origin"):
        place.acquire([str(tmp_path / "a"), str(tmp_path / "b")])
    for name in ("a", "b"):
        (tmp_path / name / "x.zip").write_bytes(zipped())
    with pytest.raises(SourceError, match=r"several files are named x\.zip"):
        place.acquire([str(tmp_path / "a/x.zip"), str(tmp_path / "b/x.zip")])
    with pytest.raises(SourceError, match=r"x\.zip has the sha256 .*, expected 0000"):
        place.acquire([RemoteFile(url=str(tmp_path / "a/x.zip"), name=None, sha256="0" * 64)])
