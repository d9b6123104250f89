"""Addresses: the names they give, those of Kaggle and fsspec, and archives side by side."""

import io
import os
import re
import shutil
import zipfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import yaml
from fsspec.implementations.memory import MemoryFile
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr.errors import ParamsError, SourceError
from cxr.params import PublishedSource, RemoteFile, load_params
from cxr.raw import download, origins
from cxr.raw.archives import Tree
from cxr.sources import READERS, Found
from tests.acquire.place import ROOT, zipped
from tests.loopback_server import Fault, Served
from tests.tiny_sources import WRITERS


@settings(max_examples=200, deadline=None)
@given(last=st.text(max_size=30), query=st.sampled_from(["", "?a=/../b"]))
def test_a_name_from_an_address_stays_in_its_folder(last, query):
    file = RemoteFile(url=f"https://example.org/files/{last}{query}", name=None, sha256=None)
    try:
        (remote,) = origins.remotes([file], set(), "sources.nih.origin")
    except (SourceError, ValueError):  # ValueError: no address at all, by urlsplit
        return
    assert Path(remote.name).name == remote.name not in ("", ".", "..")
    assert "\0" not in remote.name


@pytest.mark.parametrize(
    ("origin", "sentence"),
    [
        (
            ["https://a.org/x/master.zip", "https://a.org/y/master.zip"],
            r"several files are named master\.zip; write {url",
        ),
        ("https://a.org/", r"https://a\.org/ gives no usable file name \(''\)"),
        ("https://a.org/..", r"gives no usable file name \('\.\.'\)"),
        ("https://a.org/%2e%2e", r"gives no usable file name"),
        ("https://a.org/a%5Cb", r"gives no usable file name"),
        ("kaggle:chest-xray", r"'kaggle:chest-xray' is no Kaggle set; expected kaggle:<owner>/<name>"),
        ("kaggle:../x", r"is no Kaggle set"),
        ("s3://bucket/cxr", r"s3://bucket/cxr needs a package that is not here: Install s3fs"),
        ("gs://bucket/cxr", r"needs a package that is not here: .*install gcsfs"),
        ("hf://datasets/a/b", r"needs a package that is not here: Install huggingface_hub"),
        ("htp://a.org/x.zip", r"htp://a\.org/x\.zip cannot be listed \(Protocol not known: htp\)"),
        ("memory://absent", r"memory://absent holds no file, or does not exist"),
    ],
)
def test_a_wrong_address_is_one_sentence(place, origin, sentence):
    with pytest.raises(SourceError, match=r"^sources\.nih\.origin: .*" + sentence):
        place.acquire(origin)
    assert not place.raw.parent.exists()


def test_the_origins_in_the_comments_of_params_are_ready_to_use():
    lines = (ROOT / "params.yaml").read_text().partition("sources:")[2].partition("\ndemo:")[0].splitlines()
    comments = "\n".join(line.partition("# ")[2] for line in lines if line.strip().startswith("# "))
    found = {}
    for block in re.findall(r"^ *origin:.*(?:\n +(?:- |\w+:).*)*", comments, flags=re.MULTILINE):
        source = PublishedSource(reader="nih", origin=yaml.safe_load(block)["origin"])
        for remote in origins.remotes(origins.files_of(source), set(), "sources.nih.origin"):
            found[remote.name] = remote.shown
    assert {f"images_{n:03}.tar.gz" for n in range(1, 13)} < set(found)
    assert {"Data_Entry_2017_v2020.csv", "train_val_list.txt", "test_list.txt", "ChestXRay2017.zip"} < set(found)
    assert {"chest-xray-pneumonia.zip", "rsna-pneumonia-detection-challenge.zip", "cohen.zip"} < set(found)
    assert len(set(found.values())) == len(found) == 21
    assert all(address.startswith("https://") for address in found.values())


@pytest.mark.parametrize("origin", [[], ["demo"], [{"url": "https://a.org/x", "name": "../x"}], ""])
def test_params_refuse_an_origin_that_cannot_be_meant(tmp_path, origin):
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["sources"]["nih"]["origin"] = origin
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ParamsError, match=r"sources\.nih"):
        load_params(tmp_path / "params.yaml")


def test_kaggle_gives_the_archive_to_nobody_in_particular(place, server, monkeypatch, tmp_path):
    monkeypatch.setattr(origins, "KAGGLE_API", f"{server.url}/api/v1")
    monkeypatch.setattr(origins, "KAGGLE_LOGIN", tmp_path)
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name, raising=False)
    data = zipped("chest_xray/train/NORMAL/IM-0001-0001.jpeg")
    path = "/api/v1/datasets/download/paultimothymooney/chest-xray-pneumonia"
    store = f"http://localhost:{server.server_port}/store"  # another host, as Kaggle's store is
    server.files = {path: Served(b"", redirect=store), "/store": Served(data, faults=deque([Fault(drop_at=0.5)] * 3))}
    place.acquire("kaggle:paultimothymooney/chest-xray-pneumonia/versions/2")
    assert place.files() == {"chest-xray-pneumonia.zip": data}
    assert server.requests[-2][0].endswith("chest-xray-pneumonia?datasetVersionNumber=2")
    assert {"Range", "If-Range"} <= set(server.requests[-1][1])
    assert not any("Authorization" in headers for _, headers in server.requests)


@pytest.mark.parametrize("how", ["token", "variables", "file", "token file"])
def test_kaggle_is_told_who_asks_and_nobody_else_is(place, server, monkeypatch, tmp_path, how):
    monkeypatch.setattr(origins, "KAGGLE_API", server.url)
    monkeypatch.setattr(origins, "KAGGLE_LOGIN", tmp_path)
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name, raising=False)
    if how == "token":
        monkeypatch.setenv("KAGGLE_API_TOKEN", "secret")
    elif how == "variables":
        monkeypatch.setenv("KAGGLE_USERNAME", "me")
        monkeypatch.setenv("KAGGLE_KEY", "secret")
    elif how == "file":
        (tmp_path / "kaggle.json").write_text('{"username": "me", "key": "secret"}')
    else:
        (tmp_path / "access_token").write_text("secret\n")
    path = "/competitions/data/download-all/rsna-pneumonia-detection-challenge"
    store = f"http://localhost:{server.server_port}/store"
    server.files = {path: Served(b"", redirect=store), "/store": Served(zipped())}
    server.requests.clear()
    place.acquire("kaggle:competitions/rsna-pneumonia-detection-challenge", reader="rsna")
    expected = "Bearer secret" if "token" in how else "Basic bWU6c2VjcmV0"
    assert {headers["Authorization"] for asked, headers in server.requests if asked == path} == {expected}
    assert not any("Authorization" in headers for asked, headers in server.requests if asked == "/store")


@pytest.fixture
def bucket() -> Iterator[fsspec.AbstractFileSystem]:
    memory = fsspec.filesystem("memory")
    yield memory
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def test_a_folder_that_fsspec_opens_comes_with_its_paths(place, bucket):
    wanted = {"labels.csv": b"a,b\n", "images/1.png": b"1" * 3_000_000, "images/deep/2.png": b"2", ".hidden": b""}
    for name, data in wanted.items():
        bucket.pipe_file(f"/cxr/{name}", data)
    place.acquire("memory://cxr")
    assert place.files() == wanted
    place.acquire("memory://cxr/images/1.png")
    assert list(place.files()) == ["1.png"]


def test_fsspec_resumes_and_notices_a_change(place, bucket, monkeypatch):
    data = os.urandom(5 * download.CHUNK)
    bucket.pipe_file("/cxr/a.csv", data)
    starts, reads = [], iter(["ok", "ok", "reset", "ok", "short"])
    read, seek = MemoryFile.read, MemoryFile.seek

    def flaky(self, *size):
        fault = next(reads, "ok")
        if fault == "reset":
            raise ConnectionError("reset by peer")
        return read(self, *size) if fault == "ok" else b""

    def noted(self, offset, *whence):
        starts.append(offset)
        return seek(self, offset, *whence)

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFile, "read", flaky)
        patch.setattr(MemoryFile, "seek", noted)
        place.acquire("memory://cxr/a.csv")
    assert place.files() == {"a.csv": data}
    assert [start for start in starts if start] == [2 * download.CHUNK, 3 * download.CHUNK]
    with monkeypatch.context() as patch:
        reads = iter(["ok", *["reset"] * 20])
        patch.setattr(MemoryFile, "read", flaky)
        place.checksums.unlink()
        with pytest.raises(SourceError, match=r"memory://cxr/a\.csv broke off \(reset by peer\)"):
            place.acquire("memory://cxr/a.csv")
    bucket.pipe_file("/cxr/a.csv", data[::-1])
    place.acquire("memory://cxr/a.csv")
    assert place.files() == {"a.csv": data[::-1]}


def test_collections_as_git_hub_archives_are_read_side_by_side(place, server, tmp_path):
    collections = [tmp_path / "covid" / name for name in ("covid-chestxray-dataset", "Figure1-COVID-chestxray-dataset")]
    WRITERS["covid"](tmp_path / "covid")
    shutil.copytree(*collections)
    urls = []
    for folder in collections:
        name = f"{folder.name}-master.zip"
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for path in folder.rglob("*.*"):
                archive.write(path, f"{folder.name}-master/{path.relative_to(folder)}")
        server.files[f"/{folder.name}/archive/master.zip"] = Served(
            buffer.getvalue(), framing="chunked", ranges=False, validator="weak ETag"
        )
        urls.append(RemoteFile(url=f"{server.url}/{folder.name}/archive/master.zip", name=name, sha256=None))
    place.acquire(urls, reader="covid")
    fetched, published = images_of(place.raw), images_of(tmp_path / "covid")
    assert {path.split("/")[0] for path in fetched} == {f"{folder.name}-master" for folder in collections}
    assert fetched == {path.replace("/", "-master/", 1): data for path, data in published.items()}


def images_of(folder: Path) -> dict[str, bytes]:
    reading = READERS["covid"](Tree(folder), PublishedSource(reader="covid", origin="demo"))
    return {item.path: item.member.read() for item in reading if isinstance(item, Found)}
