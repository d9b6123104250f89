"""Origins: what is local is linked and never touched; what is not comes whole, whatever the network does."""

import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import yaml
from dvc.cli import main as dvc
from fsspec.implementations.memory import MemoryFile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cxr import download, origins
from cxr.archives import Tree
from cxr.errors import ParamsError, SourceError
from cxr.params import PublishedSource, RemoteFile, load_params
from cxr.sources import READERS, Found
from stages import acquire as stage
from tests.loopback_server import Fault, Loopback, Served, loopback
from tests.tiny_sources import WRITERS

ROOT = Path(__file__).parent.parent
DEMO = load_params().demo


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


class Place:
    """Where `acquire` puts one source."""

    def __init__(self, root: Path) -> None:
        self.raw = root / "data/raw/nih/files"
        self.checksums = root / "data/checksums/nih.sha256"

    def acquire(self, origin: str | list, reader: str = "nih") -> Path:
        source = PublishedSource(reader=reader, origin=origin)
        stage.acquire("nih", source, DEMO.model_copy(update={"nih": 24}), 0, self.raw, self.checksums)
        return self.raw

    def files(self) -> dict[str, bytes]:
        return {str(p.relative_to(self.raw)): p.read_bytes() for p in sorted(self.raw.rglob("*")) if p.is_file()}

    def left(self) -> list[str]:
        """What an unfinished download left."""
        part = self.raw.with_name("files.part")
        return sorted(str(path.relative_to(part)) for path in part.rglob("*") if path.is_file())


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names or ("a.txt",):
            archive.writestr(name, name * 100)
    return buffer.getvalue()


def tar_gz() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo("images/a.png")
        info.size = 50_000
        archive.addfile(info, io.BytesIO(os.urandom(50_000)))
    return buffer.getvalue()


def state_of(folder: Path) -> dict[str, tuple]:
    """Everything of a folder that DVC or a stage could harm."""
    return {
        str(path): (stat.st_mode, stat.st_ino, stat.st_nlink, stat.st_mtime_ns, path.is_file() and path.read_bytes())
        for path in [folder, *folder.rglob("*")]
        for stat in [path.lstat()]
    }


# ---- over HTTP -----------------------------------------------------------------------------------------------------

FAULTS = st.builds(
    Fault,
    status=st.sampled_from([None, None, None, 408, 429, 500, 502, 503]),
    retry_after=st.sampled_from([None, "0", "3", "Sat, 21 Nov 2020 10:00:00 GMT", "soon"]),
    drop_at=st.sampled_from([None, 0.0, 0.3, 0.9]),
    reset=st.booleans(),
    claims=st.sampled_from([0, 0, 1, 5000]),
    ignores_range=st.booleans(),
    changes_to=st.none() | st.binary(max_size=20_000),
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(max_size=20_000),
    faults=st.lists(FAULTS, max_size=download.ATTEMPTS - 1),
    validator=st.sampled_from(["ETag", "ETag", "weak ETag", "Last-Modified", None]),
    ranges=st.booleans(),
    heeds_if_range=st.booleans(),
    framing=st.sampled_from(["length", "length", "chunked"]),
    earlier=st.binary(max_size=5_000),
)
def test_whatever_the_faults_the_bytes_are_the_servers(
    tmp_path_factory, server, data, faults, validator, ranges, heeds_if_range, framing, earlier
):
    place = Place(tmp_path_factory.mktemp("place"))
    served = Served(
        data, ranges=ranges, validator=validator, heeds_if_range=heeds_if_range, framing=framing, faults=deque(faults)
    )
    server.files = {"/labels.csv": served}
    part = place.raw.with_name("files.part")
    part.mkdir(parents=True)
    (part / "labels.csv.part").write_bytes(earlier)  # of a version that was there before
    note = {"of": f"{server.url}/labels.csv", "validator": '"v0"', "size": len(earlier) + 1}
    (part / "labels.csv.part.json").write_text(json.dumps(note))
    place.acquire(f"{server.url}/labels.csv")
    assert place.files() == {"labels.csv": served.data}
    assert not part.exists()
    assert place.checksums.read_text().splitlines()[1:] == [f"{sha256(served.data)}  labels.csv"]


def interrupt(place: Place, server: Loopback, served: Served) -> None:
    """Leave half of a file, as a run that gave up does."""
    server.files["/a.csv"] = served
    served.faults = deque([Fault(), Fault(drop_at=0.5), *[Fault(status=503)] * download.ATTEMPTS])
    with pytest.raises(SourceError, match=r"answered 503 .*run again later, 0\.0 MB of it are kept"):
        place.acquire(f"{server.url}/a.csv")
    assert place.left() == ["a.csv.part", "a.csv.part.json"]
    assert not place.raw.exists()
    served.faults = deque()
    server.requests.clear()


@pytest.mark.parametrize("heeds_if_range", [True, False])
@pytest.mark.parametrize("validator", ["ETag", "Last-Modified"])
def test_a_file_that_changed_since_an_interruption_starts_over(place, server, validator, heeds_if_range):
    served = Served(os.urandom(40_000), validator=validator, heeds_if_range=heeds_if_range)
    interrupt(place, server, served)
    served.data, served.version = os.urandom(40_000), 2
    place.acquire(f"{server.url}/a.csv")
    assert place.files() == {"a.csv": served.data}
    asked = [headers["If-Range"] for _, headers in server.requests if "Range" in headers]
    assert asked == ['"v1"' if validator == "ETag" else "Sat, 21 Nov 2026 10:00:01 GMT"]


def test_another_size_is_another_file_whatever_its_date(place, server):
    served = Served(os.urandom(40_000), validator="Last-Modified")  # which knows seconds only
    interrupt(place, server, served)
    served.data = os.urandom(50_000)
    place.acquire(f"{server.url}/a.csv")
    assert place.files() == {"a.csv": served.data}


def test_another_address_is_another_file_whatever_its_name(place, server):
    interrupt(place, server, Served(os.urandom(40_000)))
    other = server.files["/other/a.csv"] = Served(os.urandom(40_000))
    place.acquire(f"{server.url}/other/a.csv")
    assert place.files() == {"a.csv": other.data}


def test_another_range_than_asked_is_not_taken(place, server):
    served = Served(os.urandom(40_000))
    interrupt(place, server, served)
    served.faults = deque([Fault(), Fault(shifts=100)])
    place.acquire(f"{server.url}/a.csv")
    assert place.files() == {"a.csv": served.data}


@pytest.mark.parametrize("validator", ["weak ETag", None])
def test_what_nothing_identifies_is_not_continued(place, server, validator):
    """A weak ETag does not promise the same bytes."""
    served = Served(os.urandom(40_000), validator=validator)
    interrupt(place, server, served)
    served.data = os.urandom(40_000)
    place.acquire(f"{server.url}/a.csv")
    assert place.files() == {"a.csv": served.data}
    assert not any("Range" in headers for _, headers in server.requests)


def test_giving_up_says_how_to_go_on_and_keeps_what_came(place, server, waits):
    data = os.urandom(3_000_000)
    faults = [Fault(), Fault(drop_at=0.5), *[Fault(drop_at=0.0, reset=True)] * download.ATTEMPTS]
    served = server.files["/a.csv"] = Served(data, faults=deque(faults))
    sentence = (
        r"^sources\.nih\.origin: http://127.*/a\.csv broke off .* after 6 attempts without a new byte; "
        r"run again later, 1\.5 MB of it are kept$"
    )
    with pytest.raises(SourceError, match=sentence):
        place.acquire(f"{server.url}/a.csv")
    assert waits == [1, 1, 2, 4, 8, 16]
    assert not place.raw.exists()
    served.faults.clear()
    server.requests.clear()
    place.acquire(f"{server.url}/a.csv")
    assert place.files() == {"a.csv": data}
    assert [headers.get("Range") for _, headers in server.requests] == [None, "bytes=1500000-"]


def test_a_line_that_breaks_often_but_moves_on_comes_to_its_end(place, server):
    data = os.urandom(100_000)
    server.files["/a.csv"] = Served(data, faults=deque([Fault(), *[Fault(drop_at=0.1)] * 30]))
    place.acquire(f"{server.url}/a.csv")
    assert place.files() == {"a.csv": data}


@pytest.mark.parametrize(("retry_after", "waited"), [("7", 7), ("soon", 1), ("Sat, 21 Nov 2020 10:00:00 GMT", 0)])
@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_waited_for_as_it_asks(place, server, waits, status, retry_after, waited):
    server.files["/a.csv"] = Served(b"x", faults=deque([Fault(status=status, retry_after=retry_after)]))
    place.acquire(f"{server.url}/a.csv")
    assert waits == [waited]


def test_a_wait_that_is_too_long_is_left_to_a_person(place, server, waits):
    server.files["/a.csv"] = Served(b"x", faults=deque([Fault(status=429, retry_after="86400")]))
    with pytest.raises(SourceError, match=r"answered 429 Too Many Requests and asks to wait 86400 s.*run again later"):
        place.acquire(f"{server.url}/a.csv")
    assert waits == []


PAGE = {"Content-Type": "text/html; charset=utf-8"}


@pytest.mark.parametrize(
    ("path", "served", "sentence"),
    [
        ("/absent.zip", None, r"answered 404 Not Found; is the address still right\?$"),
        ("/a.zip", Served(b"", faults=deque([Fault(status=403)])), r"answered 403 Forbidden.*want a login"),
        ("/a.zip", Served(b"<html>Sign in", headers=PAGE), r"a\.zip is a web page, not a\.zip; does it want a login"),
        ("/a.csv", Served(b"<html>Sign in", headers=PAGE), r"a\.csv is a web page, not a\.csv"),
        ("/a.zip", Served(b"<html>Sign in"), r"a\.zip is no whole archive .*begins b'<html>Sign in'.*want a login"),
        ("/a.tar.gz", Served(b'{"error": 1}'), r"a\.tar\.gz is no whole archive"),
        ("/a.tar", Served(b""), r"a\.tar is no whole archive"),
        ("/a.tar.gz", Served(tar_gz()[:-9000]), r"a\.tar\.gz is no whole archive"),
        ("/a.csv", Served(b"x", headers={"Content-Encoding": "br"}), r"a\.csv is sent only in the coding 'br'"),
        ("/a.csv", Served(b"x", framing="close"), r"states no length.*give its digest"),
        ("/a.csv", Served(b"x", redirect="file:///etc/passwd"), r"cannot be fetched .*file:///etc/passwd"),
        ("/a.csv", Served(b"x", redirect="/a.csv"), r"cannot be fetched .*redirects"),
    ],
)
def test_what_will_not_pass_is_one_sentence_at_once(place, server, waits, path, served, sentence):
    server.files = {path: served} if served else {}
    with pytest.raises(SourceError, match=r"^sources\.nih\.origin: (?s:.*)" + sentence):
        place.acquire(f"{server.url}{path}")
    assert waits == []
    assert not place.raw.exists()
    assert place.left() == []


def test_too_short_a_length_is_found_before_it_is_recorded(place, server):
    """HTTP ends a body at its stated length, whatever comes behind; the archive tells."""
    data = zipped("images/a.png", "images/b.png")
    server.files["/a.zip"] = Served(data, faults=deque([Fault(claims=-40), Fault(claims=-40)]))
    with pytest.raises(SourceError, match="is no whole archive"):
        place.acquire(f"{server.url}/a.zip")
    assert place.left() == []
    place.acquire(f"{server.url}/a.zip")
    assert place.files() == {"a.zip": data}


def test_more_bytes_than_stated_are_refused(tmp_path):
    def open_at(start: int, validator: str | None) -> download.Reply:
        return download.Reply(0, 3, "v1", True, iter([b"12", b"345"]), lambda: None)

    remote = download.Remote("a.csv", "s3://bucket/a.csv", None, open_at)
    with pytest.raises(SourceError, match=r"s3://bucket/a\.csv stated 3 bytes and sent 5; ask its publisher"):
        download.fetch(remote, tmp_path, "sources.nih.origin")
    assert list(tmp_path.iterdir()) == []


def test_a_length_that_never_comes_ends_in_a_sentence(place, server):
    faults = [Fault(claims=1000)] * (3 * download.ATTEMPTS)
    server.files["/a.csv"] = Served(b"x" * 5000, faults=deque(faults))
    with pytest.raises(SourceError, match=r"broke off .*run again later"):
        place.acquire(f"{server.url}/a.csv")
    assert not place.raw.exists()


def test_no_server_is_a_sentence_with_the_cause(place):
    with pytest.raises(SourceError, match=r"http://127\.0\.0\.1:9/a\.csv cannot be reached \(.*Connection refused\)"):
        place.acquire("http://user:secret@127.0.0.1:9/a.csv?key=secret")


def test_messages_and_notes_hold_no_secret(place, server):
    server.files["/a.csv"] = Served(b"x" * 100, faults=deque([Fault(), *[Fault(drop_at=0.5)] * 20]))
    with pytest.raises(SourceError) as error:
        place.acquire(f"{server.url.replace('//', '//me:secret@')}/a.csv?X-Amz-Signature=secret")
    assert "secret" not in str(error.value)
    assert "secret" not in (place.raw.with_name("files.part") / "a.csv.part.json").read_text()


def test_the_disk_is_asked_before_the_first_byte(place, server, monkeypatch):
    server.files = {f"/{name}.csv": Served(b"x" * 5_000_000) for name in "ab"}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 7_000_000))
    sentence = r"sources\.nih\.origin: 10 MB are to come, 7 MB are free on the disk of .*; free 3 MB and run again$"
    with pytest.raises(SourceError, match=sentence):
        place.acquire([f"{server.url}/a.csv", f"{server.url}/b.csv"])
    assert place.left() == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 10_000_000))
    place.acquire([f"{server.url}/a.csv", f"{server.url}/b.csv"])


FULL_DISK = """
import sys
from pathlib import Path
from cxr.errors import plain_errors
from cxr.params import PublishedSource, load_params
from stages.acquire import acquire

disk, url = Path(sys.argv[1]), sys.argv[2]
with plain_errors():
    acquire("nih", PublishedSource(reader="nih", origin=url), load_params().demo, 0, disk / "files", disk / "sums")
"""


def test_a_disk_that_fills_up_keeps_what_came(tmp_path, server):
    server.files["/a.csv"] = Served(b"x" * 500_000, framing="chunked")  # its size is not known before
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=128k tmpfs {disk}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("this system lets no ordinary process mount a small disk")
    command = f'{mount} && {sys.executable} -c "$0" {disk} {server.url}/a.csv; status=$?; ls {disk}/*; exit $status'
    done = subprocess.run(["unshare", "-rm", "sh", "-c", command, FULL_DISK], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert "no space is left on the disk for" in done.stderr
    assert "free some and run again, what came is kept" in done.stderr
    assert "a.csv.part\n" in done.stdout


KILLED = """
import sys
from pathlib import Path
from cxr.params import PublishedSource, load_params
from stages.acquire import acquire

raw, url = Path(sys.argv[1]), sys.argv[2]
acquire("nih", PublishedSource(reader="nih", origin=url), load_params().demo, 0, raw, raw.parent / "sums")
"""


def test_a_killed_run_resumes(place, server):
    data = os.urandom(400_000)
    served = server.files["/a.csv"] = Served(data, bytes_per_s=200_000)
    command = [sys.executable, "-c", KILLED, str(place.raw), f"{server.url}/a.csv"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    part = place.raw.with_name("files.part") / "a.csv.part"
    until = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size > 50_000) and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = part.stat().st_size
    assert 50_000 < kept < len(data)
    served.bytes_per_s = None
    server.requests.clear()
    place.acquire(f"{server.url}/a.csv")
    assert place.files() == {"a.csv": data}
    assert server.requests[-1][1]["Range"] == f"bytes={kept}-"


# ---- checksums -----------------------------------------------------------------------------------------------------


def test_a_second_run_asks_nothing_of_the_network(place, server):
    server.files = {"/a.zip": Served(zipped("a")), "/b.csv": Served(b"b" * 1000)}
    place.acquire([f"{server.url}/a.zip", f"{server.url}/b.csv"])
    inodes = {path.name: path.stat().st_ino for path in place.raw.iterdir()}
    server.requests.clear()
    server.files.clear()
    place.acquire([f"{server.url}/a.zip", f"{server.url}/b.csv"])
    assert server.requests == []
    assert {path.name: path.stat().st_ino for path in place.raw.iterdir()} == inodes


def test_a_file_added_to_an_origin_costs_only_itself(place, server):
    server.files = {"/a.csv": Served(b"a" * 1000), "/b.csv": Served(b"b" * 1000)}
    place.acquire(f"{server.url}/a.csv")
    server.requests.clear()
    place.acquire([f"{server.url}/a.csv", f"{server.url}/b.csv"])
    assert {path for path, _ in server.requests} == {"/b.csv"}
    place.acquire(f"{server.url}/b.csv")
    assert list(place.files()) == ["b.csv"]


def test_what_came_first_is_enforced_until_a_person_lets_go(place, server):
    old, new = b"a" * 1000, b"b" * 1000
    served = server.files["/a.csv"] = Served(old)
    place.acquire(f"{server.url}/a.csv")
    done = subprocess.run(
        ["sha256sum", "-c", "--strict", str(place.checksums)], cwd=place.raw, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    served.data, served.version = new, 2
    (place.raw / "a.csv").unlink()
    sentence = (
        rf"^sources\.nih\.origin: a\.csv has the sha256 {sha256(new)}, expected {sha256(old)}: .*; run again, "
        rf"or delete its line in {place.checksums} to accept what now comes$"
    )
    for _ in range(2):
        with pytest.raises(SourceError, match=sentence):
            place.acquire(f"{server.url}/a.csv")
        assert place.left() == []
    place.checksums.write_text("".join(place.checksums.read_text().splitlines(keepends=True)[:1]))
    place.acquire(f"{server.url}/a.csv")
    assert place.files() == {"a.csv": new}
    assert sha256(new) in place.checksums.read_text()


def test_what_another_origin_left_unfinished_goes(place, server):
    server.files = {"/a.csv": Served(b"a" * 1000), "/b.csv": Served(b"b" * 1000, faults=deque([Fault()]))}
    server.files["/b.csv"].faults.extend([Fault(status=500)] * download.ATTEMPTS)
    with pytest.raises(SourceError, match="answered 500"):
        place.acquire([f"{server.url}/a.csv", f"{server.url}/b.csv"])
    assert "a.csv" in place.left()
    server.files["/c.csv"] = Served(b"c" * 1000)
    place.acquire(f"{server.url}/c.csv")
    assert list(place.files()) == ["c.csv"]
    assert place.left() == []


def test_a_damaged_file_is_fetched_again(place, server):
    server.files["/a.csv"] = Served(b"a" * 1000)
    place.acquire(f"{server.url}/a.csv")
    (place.raw / "a.csv").write_bytes(b"A" * 1000)
    place.acquire(f"{server.url}/a.csv")
    assert place.files() == {"a.csv": b"a" * 1000}


def test_a_given_digest_is_held(place, server):
    server.files["/a.csv"] = Served(b"a" * 1000, framing="close")
    right = RemoteFile(url=f"{server.url}/a.csv", name="labels.csv", sha256=sha256(b"a" * 1000))
    place.acquire([right])
    assert place.files() == {"labels.csv": b"a" * 1000}
    wrong = right.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(SourceError, match=r"labels\.csv has the sha256 .*delete sha256 in params\.yaml to accept"):
        place.acquire([wrong])


def test_a_broken_line_of_checksums_is_named(place):
    place.checksums.parent.mkdir(parents=True)
    place.checksums.write_text("# fine\nno digest  a.csv\n")
    with pytest.raises(SourceError, match=r"nih\.sha256 line 2: 'no digest  a\.csv' is no line of sha256sum"):
        place.acquire("demo")


def test_the_demo_records_no_digest_and_forgets_none(place, server):
    server.files["/a.csv"] = Served(b"a")
    place.acquire(f"{server.url}/a.csv")
    recorded = place.checksums.read_text()
    place.acquire("demo")
    assert place.checksums.read_text() == recorded
    assert not (place.raw / "a.csv").exists()
    assert "Data_Entry_2017_v2020.csv" in place.files()


# ---- addresses -----------------------------------------------------------------------------------------------------


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
        for remote in origins.remotes(source.files, set(), "sources.nih.origin"):
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


# ---- what is local -------------------------------------------------------------------------------------------------


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
        (lambda path: path.write_text("x"), r"is no directory and none of \.zip"),
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
    with pytest.raises(SourceError, match=r"/a is a directory; it must be the only origin"):
        place.acquire([str(tmp_path / "a"), str(tmp_path / "b")])
    for name in ("a", "b"):
        (tmp_path / name / "x.zip").write_bytes(zipped())
    with pytest.raises(SourceError, match=r"several files are named x\.zip"):
        place.acquire([str(tmp_path / "a/x.zip"), str(tmp_path / "b/x.zip")])
    with pytest.raises(SourceError, match=r"x\.zip has the sha256 .*, expected 0000"):
        place.acquire([RemoteFile(url=str(tmp_path / "a/x.zip"), name=None, sha256="0" * 64)])


# ---- with DVC ------------------------------------------------------------------------------------------------------


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
