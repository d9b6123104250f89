"""Trees of files and archives in every bad state: nothing leaves, nothing hangs, nothing is lost without a word."""

import gzip
import io
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cxr.errors import ImageError, SourceError
from cxr.raw import archives
from cxr.raw.archives import MAX_FILE_BYTES, Tree
from tests.hostile_files import (
    patched_zip,
    resized_tar,
    special,
    tar_number,
    tar_of,
    tar_with,
    zeros,
    zip64_of,
    zip_of,
    zip_with,
)

OUTSIDE = "its name points outside the archive"
AGAIN = "another file before it has the same path"
bounded = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def walk(root: Path) -> dict[str, bytes | str]:
    """Path -> bytes, or why there are none."""
    found: dict[str, bytes | str] = {}
    for member in Tree(root).walk():
        assert member.path not in found
        member.path.encode()
        try:
            found[member.path] = member.read()
        except ImageError as error:
            found[member.path] = str(error)
        assert not member.fault or (found[member.path] == member.fault and not member.is_loose)
    return found


def one(tmp_path: Path, name: str, data: bytes) -> dict[str, bytes | str]:
    """The walk of a folder that holds one archive."""
    folder = tmp_path / "one"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / name).write_bytes(data)
    return walk(folder)


NAMES = {
    "../up.png": ("../up.png", OUTSIDE),
    "a/../../up.png": ("a/../../up.png", OUTSIDE),
    "/etc/passwd": ("/etc/passwd", OUTSIDE),
    "C:\\films\\a.png": ("C:/films/a.png", OUTSIDE),
    "\\\\host\\share\\a.png": ("//host/share/a.png", OUTSIDE),
    "..\\up.png": ("../up.png", OUTSIDE),
    "films\\a.png": ("films/a.png", b"data"),
    "./films//a.png": ("films/a.png", b"data"),
    "a\nb\x1b[2J.png": ("a\\nb\\x1b[2J.png", b"data"),
    "a\u2028b.png": ("a\\u2028b.png", b"data"),
    "über/日本.png": ("über/日本.png", b"data"),
    "x" * 1001 + ".png": ("x" * 1000, "a name of 1005 characters"),
}


@pytest.mark.parametrize("name", NAMES, ids=ascii)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_what_becomes_of_a_name(tmp_path, name, kind):
    data = zip_of({name: b"data"}) if kind == "zip" else tar_of({name: b"data"})
    assert one(tmp_path, f"a.{kind}", data) == dict([NAMES[name]])
    assert sorted(os.listdir(tmp_path)) == ["one"]


def test_names_of_other_encodings_stay_apart_and_can_be_written(tmp_path):
    names = [b"caf\xe9.png", b"caf\xe8.png", "日本".encode("shift_jis") + b".png", b"caf\\xe9.png"]
    (tmp_path / "tree").mkdir()
    for name in names:
        (tmp_path / "tree" / os.fsdecode(name)).write_bytes(name)
    (tmp_path / "tree/b.tar").write_bytes(tar_of({f"b/{os.fsdecode(name)}": name for name in names}))
    found = walk(tmp_path / "tree")
    assert found["caf\\xe9 (2).png"] == AGAIN  # one name, written as the other's escape
    assert found["b/caf/xe9.png"] == names[3]
    assert sorted(data for data in found.values() if isinstance(data, bytes)) == sorted(names[1:] + names)
    pd.DataFrame({"path": list(found)}).to_parquet(tmp_path / "paths.parquet")
    pd.DataFrame({"path": list(found)}).to_csv(tmp_path / "paths.csv")


def test_a_zip_without_the_mark_of_utf8(tmp_path):
    marked = zip_of({"ü日.png": b"data"})
    unmarked = patched_zip(marked, 8, b"\0\0").replace(b"PK\3\4\x14\0\0\x08", b"PK\3\4\x14\0\0\0")
    assert one(tmp_path, "a.zip", unmarked) == {"ü日.png": b"data"}
    german = marked.replace("ü日".encode(), b"\x81\x84\x94\x8e\x99")
    german = patched_zip(german, 8, b"\0\0").replace(b"PK\3\4\x14\0\0\x08", b"PK\3\4\x14\0\0\0")
    assert one(tmp_path, "a.zip", german) == {"üäöÄÖ.png": b"data"}


def test_links_and_devices_in_archives_are_named_and_never_followed(tmp_path):
    target = tmp_path / "secret.png"
    target.write_bytes(b"secret")
    kinds = {
        "sym.png": special("sym.png", tarfile.SYMTYPE, str(target)),
        "hard.png": special("hard.png", tarfile.LNKTYPE, str(target)),
        "pipe.png": special("pipe.png", tarfile.FIFOTYPE),
        "disk.png": special("disk.png", tarfile.BLKTYPE),
        "tty.png": special("tty.png", tarfile.CHRTYPE),
    }
    found = one(tmp_path, "a.tar", tar_with([(info, b"") for info in kinds.values()]))
    link, device = "a link; only what is stored as a file is read", "a device, pipe or socket, not a file"
    assert list(found.values()) == [link, link, device, device, device]
    info = zipfile.ZipInfo("sym.png")
    info.external_attr = 0o120777 << 16
    assert one(tmp_path, "a.zip", zip_with(info, str(target).encode())) == {"sym.png": link}


def test_a_folder_written_through_its_own_link_is_not_reached(tmp_path):
    """A link, then a file below it: extractors that follow the link write outside."""
    members = [(special("a", tarfile.SYMTYPE, "/tmp"), b""), (tarfile.TarInfo("a/x.png"), b"data")]  # noqa: S108
    assert one(tmp_path, "a.tar", tar_with(members))["a/x.png"] == b"data"


def test_pipes_sockets_loops_and_broken_links_in_a_folder(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "b", outside):
        folder.mkdir(parents=True)
    (root / "b/real.png").write_bytes(b"real")
    (outside / "far.png").write_bytes(b"far")
    os.mkfifo(root / "pipe.png")
    (root / "broken.png").symlink_to(tmp_path / "absent")
    (root / "b/loop").symlink_to(root)
    (root / "b/other loop").symlink_to(root / "b")
    (root / "far").symlink_to(outside)
    (root / "far.png").symlink_to(outside / "far.png")
    (root / "self").symlink_to(root / "self")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(root)  # a socket's path must be short
        listener.bind("socket.png")
        os.chdir(here)
        (tmp_path / "data").symlink_to(root)
        found = walk(tmp_path / "data")
    assert {path: data for path, data in found.items() if isinstance(data, bytes)} == {
        "b/real.png": b"real", "far/far.png": b"far", "far.png": b"far",
    }  # fmt: skip
    assert set(found) == {
        "b/real.png", "b/loop", "b/other loop", "broken.png", "far/far.png", "far.png", "pipe.png", "self",
        "socket.png",
    }  # fmt: skip


def test_folders_that_link_to_one_another_are_entered_once(tmp_path):
    """Each of 30 folders links twice to the next: a billion paths."""
    for n in range(30):
        (tmp_path / f"{n}").mkdir()
        (tmp_path / f"{n}/x.png").write_bytes(b"")
        for link in "ab":
            (tmp_path / f"{n}/{link}").symlink_to(tmp_path / f"{(n + 1) % 30}")
    assert sum(isinstance(data, bytes) for data in walk(tmp_path).values()) == 30


def test_a_pipe_in_place_of_an_archive_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.zip")
    with pytest.raises(SourceError, match=r"a.zip: not a whole archive \(a device, pipe or socket"):
        walk(tmp_path)


def test_one_path_twice_keeps_the_first_and_names_the_others(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/x.png").write_bytes(b"1")
    (tmp_path / "z.tar").write_bytes(tar_of({"images/x.png": b"2", "images/x (2).png": b"3", "./images/x.png": b"4"}))
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("y.png", b"5")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("y.png", b"6")
    assert walk(tmp_path) == {
        "images/x.png": b"1", "images/x (2).png": AGAIN, "images/x (2) (2).png": AGAIN, "images/x (3).png": AGAIN,
        "y.png": b"5", "y (2).png": AGAIN,
    }  # fmt: skip


def test_an_archive_within_an_archive_is_a_file(tmp_path):
    inner = zip_of({"x.png": b"data"})
    assert one(tmp_path, "a.tar.gz", tar_of({"inner.zip": inner})) == {"inner.zip": inner}
    assert one(tmp_path, "a.zip", zip_of({"inner.zip": inner})) == {"inner.zip": inner}


@pytest.mark.parametrize(
    ("name", "data", "paths"),
    [
        ("a.tar.gz", zip_of({"x.png": b"data"}), 1),
        ("a.tar", tar_of({"x.png": b"data"}), 1),
        ("a.tar.gz", tar_of({"x.png": b"data"}, "w"), 1),
        ("a.tar", tar_of({}, "w"), 0),
        ("a.zip", zip_of({}), 0),
        ("a.zip", zip_of({"folder/": b""}), 0),
        ("a.zip", zip64_of("x.png", b"data"), 1),
        ("a.zip", zip_of({"a.png": b"data"}).replace(b"a.png", b"\0.png"), 1),  # its name ends where it begins
    ],
    ids=["zip", "gzipped tar", "tar", "empty tar", "empty zip", "folder", "zip64", "no name"],
)
def test_what_an_archive_is_tells_its_content(tmp_path, name, data, paths):
    assert list(one(tmp_path, name, data).values()) == [b"data"] * paths


def cut_in_the_middle(data: bytes) -> bytes:
    half = len(data) // 2
    return gzip.compress(data[:half], mtime=0) + gzip.compress(data[half:], mtime=0)


def test_a_gzip_of_several_parts_is_read_to_its_end(tmp_path):
    films = {f"{n}.png": np.random.default_rng(n).bytes(700) for n in range(9)}
    assert one(tmp_path, "a.tgz", cut_in_the_middle(tar_of(films, "w"))) == films


def test_sparse_files_are_read(tmp_path):
    if shutil.which("tar") is None:
        pytest.skip("no tar")
    with open(tmp_path / "x.png", "wb") as file:
        file.seek(300_000)
        file.write(b"data")
    for layout in ("gnu", "posix"):
        command = ["tar", "-C", tmp_path, f"--format={layout}", "-Scf", tmp_path / "x.tar", "x.png"]
        subprocess.run(command, check=True)
        data = (tmp_path / "x.tar").read_bytes()
        assert len(data) < 100_000
        assert one(tmp_path, "x.tar", data) == {"x.png": bytes(300_000) + b"data"}


def test_a_member_that_cannot_be_read_costs_only_itself(tmp_path):
    good = zip_of({"x.png": b"data" * 100, "y.png": b"other" * 100})
    place = good.find(b"x.png") + len("x.png") + 2
    damaged = good[:place] + bytes([good[place] ^ 255]) + good[place + 1 :]
    found = one(tmp_path, "a.zip", damaged)
    assert found["y.png"] == b"other" * 100
    assert "damaged in its zip archive" in str(found["x.png"])
    for place, value, fault in (
        (8, b"\1\0", "encrypted; pack it without a password"),
        (10, b"\x0c\0", "packed by method 12 of zip; only stored and deflated files are read"),
        (24, (MAX_FILE_BYTES + 1).to_bytes(4, "little"), "more than"),
    ):
        assert all(fault in str(why) for why in one(tmp_path, "a.zip", patched_zip(good, place, value)).values())


def test_a_zip_that_lies_about_sizes_is_found_out(tmp_path):
    data = zip_of({"x.png": bytes(50_000_000)})
    assert "damaged" in str(one(tmp_path, "a.zip", patched_zip(data, 24, (1000).to_bytes(4, "little")))["x.png"])
    more = patched_zip(data, 24, (60_000_000).to_bytes(4, "little"))
    assert one(tmp_path, "a.zip", more) == {"x.png": bytes(50_000_000)}  # as its check sum says


STOPPED = {
    "page.zip": (b"<!doctype html><title>Sign in</title>", "a web page, maybe one that asks for a login"),
    "page.tar.gz": (b"\n <html>", "a web page"),
    "empty.zip": (b"", "not a zip file"),
    "empty.tar": (b"", "empty header"),
    "empty.tar.gz": (b"", "empty header"),
    "noise.tar": (bytes(range(256)) * 40, "where a member or the end should be"),
    "behind.tar.gz": (tar_of({"x.png": b"data"}) + b"garbage", "Not a gzipped file"),
    "joined.tar": (tar_of({"x.png": b"data"}, "w") + tar_of({"y.png": b"data"}, "w"), "more follows after its end"),
    "joined.tar.gz": (tar_of({"x.png": b"data"}) * 2, "more follows after its end"),
    "endless.tar": (tar_of({"x.png": b"data"}, "w")[:1024], "where a member or the end should be"),
    "huge.tar": (resized_tar(tar_of({"x.png": b"data"}, "w"), 1 << 32), "unexpected end of data"),
    "exabytes.tar": (resized_tar(tar_of({"x.png": b"data"}, "w"), 1 << 62), "unexpected end of data"),
    "exabytes.tar.gz": (
        gzip.compress(resized_tar(tar_of({"x.png": b"data"}, "w"), 1 << 62), mtime=0), "unexpected end of data",
    ),
    "negative.tar": (resized_tar(tar_of({"x.png": b"data"}, "w"), -1024), "claims -1024 bytes"),
    "bomb.tar.gz": (tar_of({"x.png": bytes(100_000_000)}), "inflates to more than 200 times its size"),
    "bomb.zip": (zip_of({f"{n}.png": bytes(40_000_000) for n in range(2)}), "inflates to 80000000 bytes"),
    "names.tar.gz": (
        tar_with([(special("x", tarfile.GNUTYPE_LONGNAME), bytes(1_000_000))]), "a header of type b'L' claims 1000000",
    ),
    "pax.tar": (
        tar_with([(special("x", tarfile.XHDTYPE), b"a" * 70_000)], "w"), "a header of type b'x' claims 70000 bytes",
    ),
}  # fmt: skip


def sparse_tar(pieces: list[tuple[int, int]], size: int, more: bool = False) -> bytes:
    """A file in up to four pieces (place, length) of old GNU tar; `more` announces a further table of them."""
    header = bytearray(tar_of({"x.png": b"data"}, "w"))
    header[156:157] = b"S"
    for n, (place, length) in enumerate(pieces):
        header[386 + 24 * n : 410 + 24 * n] = tar_number(place) + tar_number(length)
    header[482], header[483:495] = more, b"%011o\0" % size
    return resized_tar(bytes(header), 4)


def test_sparse_files_that_lie_are_refused(tmp_path, monkeypatch):
    assert one(tmp_path, "x.tar", sparse_tar([(6, 4)], 10)) == {"x.png": bytes(6) + b"data"}
    with pytest.raises(SourceError, match=r"x.tar: not a whole archive \(index out of range"):
        one(tmp_path, "x.tar", sparse_tar([(0, 4)], 4, more=True)[:512])
    last = tar_of({"a.png": b"data"}, "w")[:1024] + sparse_tar([(0, 4)], 4, more=True)[:512] + b"9" * 24 + bytes(9704)
    with pytest.raises(SourceError, match="invalid header where a member or the end should be"):
        one(tmp_path, "x.tar", last)
    monkeypatch.setattr("cxr.raw.archives.MAX_SPARSE_WORK", 1_000_000)
    slow = sparse_tar([(n * 100_000, 1) for n in range(4)], 300_001)
    beyond = sparse_tar([(-(1 << 61), 1 << 60), (0, 4)], 4)
    for data in (slow, beyond):
        assert "too many or damaged; pack it whole (tar without -S)" in str(one(tmp_path, "x.tar", data)["x.png"])


@pytest.mark.parametrize("name", STOPPED)
def test_an_archive_that_cannot_be_trusted_stops_with_its_name(tmp_path, name):
    data, sentence = STOPPED[name]
    with pytest.raises(SourceError, match=rf"{name}: .*{sentence}.*fetch it"):
        one(tmp_path, name, data)


def test_overlapping_members_are_refused(tmp_path):
    """The bomb without a lie in its sizes: many members share the same packed bytes (Fifield 2019)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a.png", bytes(10_000))
        (info,) = archive.filelist
        for n in range(5):
            copy = zipfile.ZipInfo(f"{n}.png")
            copy.file_size = copy.compress_size = info.file_size
            copy.CRC, copy.header_offset = info.CRC, info.header_offset
            archive.filelist.append(copy)
        archive._didModify = True  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(SourceError, match="its members claim 60000 packed bytes"):
        one(tmp_path, "a.zip", buffer.getvalue())


def test_a_bomb_of_many_members_is_refused(tmp_path, monkeypatch):
    films = {f"{n}.png": b"" for n in range(101)}
    monkeypatch.setattr("cxr.raw.archives.MAX_MEMBERS", 100)
    for name, data in (("a.zip", zip_of(films)), ("a.tar.gz", tar_of(films))):
        with pytest.raises(SourceError, match="more than 100 members"):
            one(tmp_path, name, data)
    monkeypatch.setattr("cxr.raw.archives.MAX_DIRECTORY_BYTES", 5000)
    with pytest.raises(SourceError, match=r"its directory claims \d+ bytes"):
        one(tmp_path, "a.zip", zip_of(films))


def test_the_members_of_a_tar_do_not_stay_in_memory(tmp_path):
    (tmp_path / "a.tar").write_bytes(tar_of({f"{n}": b"" for n in range(8000)}, "w"))
    tracemalloc.start()
    for _, fault, _ in archives._walk_tar(tmp_path / "a.tar"):
        assert not fault
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * archives.CHUNK


BOMB_CHILD = """
import resource, sys
from pathlib import Path
from cxr.raw.archives import Tree
from cxr.errors import CxrError
have = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (have + 300_000_000,) * 2)
for folder in sys.argv[1:]:
    try:
        print(folder, [len(member.read()) for member in Tree(Path(folder)).walk()])
    except CxrError as error:
        print(type(error).__name__)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def test_bombs_take_little_memory(tmp_path):
    """Each would inflate to 512 MB; the child that walks them may not take so much."""
    packed = zeros(512)
    raw_deflate = packed[2:-4]
    stored = zip_with(zipfile.ZipInfo("x.png"), raw_deflate)
    deflated = patched_zip(stored, 10, b"\x08\0").replace(b"PK\3\4\x14\0\0\0\0\0", b"PK\3\4\x14\0\0\0\x08\0")
    bombs = {
        "claimed.zip": patched_zip(deflated, 24, (512 << 20).to_bytes(4, "little")),
        "hidden.zip": patched_zip(deflated, 24, (50_000_000).to_bytes(4, "little")),
        "sparse.tar": sparse_tar([(0, 4)], 1 << 32),
    }
    for name, kind in (("file", tarfile.REGTYPE), ("long name", tarfile.GNUTYPE_LONGNAME), ("pax", tarfile.XHDTYPE)):
        header = resized_tar(tar_with([(special("x.png", kind), b"data")], "w"), 200 << 20)[:512]
        bombs[f"{name}.tar.gz"] = gzip.compress(header, mtime=0) + gzip_of(raw_deflate)
    for name, data in bombs.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_bytes(data)
    command = [sys.executable, "-c", BOMB_CHILD, *(tmp_path / name for name in bombs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    *answers, peak_kb = done.stdout.split("\n")[:-1]
    assert answers == ["ImageError"] * 3 + ["SourceError"] * 3, done
    assert int(peak_kb) < 200_000


def gzip_of(raw_deflate: bytes) -> bytes:
    """A gzip part; its check sum is wrong, but nobody gets there."""
    return b"\x1f\x8b\x08\0\0\0\0\0\0\3" + raw_deflate + bytes(8)


def test_a_listed_archive_is_opened_for_what_is_read_alone(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(tar_of({"x.png": b"x", "../up.png": b"u", "y.png": b"y"}))
    (tmp_path / "b.tar").write_bytes(tar_of({"y.png": b"other", "z.png": b"z"}))
    (tmp_path / "c.zip").write_bytes(zip_of({"w.png": b"w"}))
    first = Tree(tmp_path)
    assert len(list(first.walk())) == 6
    assert first.walked == {"a.tar.gz": [("x.png", ""), ("../up.png", OUTSIDE), ("y.png", "")]}
    again = {member.path: member for member in Tree(tmp_path, first.walked).walk()}
    assert [(member.path, member.fault) for member in again.values()] == [(m.path, m.fault) for m in first.walk()]
    assert again["y.png"].read() == b"y"
    with pytest.raises(ImageError, match="points outside"):
        again["../up.png"].read()
    (tmp_path / "a.tar.gz").write_bytes(tar_of({"y.png": b"y"}))
    with pytest.raises(SourceError, match="no longer in it"):
        again["x.png"].read()


FILMS = {f"films/{n}.png": np.random.default_rng(n).bytes(900 + n) for n in range(6)}
ARCHIVES = {"a.zip": zip_of(FILMS), "a.tar": tar_of(FILMS, "w"), "a.tar.gz": tar_of(FILMS)}


@pytest.mark.parametrize("name", ARCHIVES)
@bounded
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_cut_archive_is_never_taken_for_whole(tmp_path_factory, name, share):
    data = ARCHIVES[name]
    end = len(data) if name != "a.tar" else data.rfind(FILMS["films/5.png"]) + 1536  # up to one block of zeros
    with pytest.raises(SourceError, match=r"not a whole archive|refused"):
        one(tmp_path_factory.mktemp("cut"), name, data[: int(end * share)])


@pytest.mark.parametrize("name", ARCHIVES)
@bounded
@given(changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6))
def test_changed_bytes_give_the_films_or_a_reason(tmp_path_factory, name, changes):
    """Under the check sums of zip and gzip no film is changed; tar has sums for its headers alone."""
    data = bytearray(ARCHIVES[name])
    for share, byte in changes:
        data[int(share * len(data))] = byte
    try:
        found = one(tmp_path_factory.mktemp("changed"), name, bytes(data))
    except SourceError:
        return
    assert len(found) == len(FILMS)
    if name != "a.tar":
        assert {data for data in found.values() if isinstance(data, bytes)} <= set(FILMS.values())
