"""Over HTTP the bytes that come are the server's and whole, whatever the network does."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections import deque

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cxr.errors import SourceError
from cxr.raw import download
from tests.acquire.place import ROOT, Place, sha256, zipped
from tests.loopback_server import Fault, Loopback, Served


def tar_gz() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo("images/a.png")
        info.size = 50_000
        archive.addfile(info, io.BytesIO(os.urandom(50_000)))
    return buffer.getvalue()


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
    with pytest.raises(SourceError, match=r"answered 503 .*run again later; the 0\.0 MB that came are kept"):
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
        r"run again later; the 1\.5 MB that came are kept$"
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
    sentence = r"sources\.nih\.origin: the download needs 10 MB, the disk of .* has 7 MB free; free 3 MB and run again$"
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
