"""What came once is fetched again only if it must be, and is then the same."""

import subprocess
from collections import deque

import pytest

from cxr.errors import SourceError
from cxr.params import RemoteFile
from cxr.raw import download
from tests.acquire.place import sha256, zipped
from tests.loopback_server import Fault, Served


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
        rf"or delete its line in {place.checksums} to accept the new file$"
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
