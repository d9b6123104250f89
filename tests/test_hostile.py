"""Damaged tables and sources: each row and file is used, set aside with a reason, or the run stops with a sentence."""

import os
import zipfile
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cxr.dataset.manifest import RECORD_COLUMNS, read_table
from cxr.errors import ImageError, SourceError
from cxr.params import Params
from cxr.raw.archives import Member, Tree
from cxr.sources import READERS, Found
from cxr.sources.reading import Row, read_csv, read_text
from tests.hostile_files import black_png, chunk, progressive_jpeg, tar_of, zeros, zip_of
from tests.test_sources import ROW_REASONS, SALT, params, write_hospital, write_rsna
from tests.tiny_repository import Repository
from tests.tiny_sources import WRITERS, encode, picture

HEADER = "name,finding,note\n"


def rows_of(data: bytes, needed: tuple[str, ...] = ("name", "finding")) -> list[Row]:
    return read_csv(Member("t.csv", Path("t.csv"), lambda: data), needed)


@pytest.mark.parametrize(
    "data",
    [
        "name,finding\nä.png,Müller\n".encode(),
        "name,finding\nä.png,Müller\n".encode("utf-8-sig"),
        "name,finding\nä.png,Müller\n".encode("utf-16"),
        b"\xfe\xff" + "name,finding\nä.png,Müller\n".encode("utf-16-be"),
        "name,finding\nä.png,Müller\n".encode("cp1252"),
        "name;finding\nä.png;Müller\n".encode(),
        "name\tfinding\r\nä.png\tMüller\r\n".encode(),
        ' "name" , finding ,,\r"ä.png" , Müller ,,\r'.replace(" ", "").encode(),
        "name,finding\n\n,\nä.png,Müller\n   \n,,,\n".encode(),
        "note,name;x,finding\n,ä.png,Müller\n".replace("name;x", "name").encode(),
    ],
)
def test_a_table_in_any_usual_writing_reads_the_same(data):
    (row,) = rows_of(data)
    assert (row["name"], row["finding"], row.fault) == ("ä.png", "Müller", "")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "t.csv: no column name, finding; found nothing"),
        (b"\n\n", "found nothing"),
        (b"name,label\n", "no column finding; found name, label"),
        (b"name|finding\na|b\n", r"no column name, finding; found name\|finding"),
        (b"name,finding,name\n", "two columns are named name; rename one"),
        (b"PK\3\4\0\0name", "NUL characters in a text"),
        ("name,finding\n".encode("utf-16-le"), "UTF-16 without a byte order mark"),
        (b'name,finding\na,b\nc,"d\ne,f\n', "t.csv row 3: a quote is opened and not closed"),
        (b'name,finding\na,b\nc,"d\ne,f\ng,"h"\n', "t.csv row 3: a quote is opened and not closed"),
        (b'"name,finding\na,b\n', "the header cannot be read"),
        (b"\x1b[2Jname\n", r"found \\x1b\[2Jname"),
    ],
)
def test_a_table_that_cannot_be_read_stops_with_its_name(data, sentence):
    with pytest.raises(SourceError, match=sentence):
        rows_of(data)


def test_rows_that_do_not_fit_are_named_and_not_used():
    text = HEADER + 'a,b\nc,d,e,f\ng,"h"i,j\nk,l,m,\n' + f"n,{'o' * 1_000_000},p\n" + "q,r,s\n"
    rows = rows_of(text.encode())
    assert [(row.number, row.fault) for row in rows] == [
        (2, "2 cells under 3 columns"),
        (3, "4 cells under 3 columns"),
        (4, "',' expected after '\"'"),
        (5, ""),
        (6, "field larger than field limit (131072)"),
        (7, ""),
    ]
    assert [row["name"] for row in rows] == ["", "", "", "k", "", "q"]
    assert rows[0].where == "t.csv row 2"


def test_a_member_that_cannot_be_read_is_no_empty_table():
    def refuse() -> bytes:
        raise ImageError("encrypted")

    with pytest.raises(SourceError, match=r"t\.csv: this text cannot be read: encrypted"):
        read_text(Member("t.csv", Path("t.csv"), refuse))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(text=st.text("ab,;\t\"'\n\r\0é \ufeff", max_size=60), encoding=st.sampled_from(["utf-8", "utf-16", "cp1252"]))
def test_any_text_gives_rows_or_a_sentence(text, encoding):
    data = ("name,finding\n" + text).encode(encoding, errors="replace")
    try:
        rows = rows_of(data)
    except SourceError:
        return
    assert all(set(row) - {""} == {"name", "finding"} for row in rows)
    assert all(not any(row.values()) for row in rows if row.fault)
    assert [row.number for row in rows] == sorted({row.number for row in rows})


LAYOUTS = WRITERS | {"rsna": write_rsna, "dicom": write_hospital}
TABLES = (".csv", ".txt", ".json")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """The files of one source of each layout."""
    found = {}
    for name, writer in LAYOUTS.items():
        folder = tmp_path_factory.mktemp(name)
        writer(folder)
        found[name] = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return found


@st.composite
def damage(draw: st.DrawFn, files: dict[str, bytes]) -> dict[str, bytes]:
    """The files with some changed: bytes turned, a piece cut out or doubled, the end cut off, another's content."""
    changed = dict(files)
    tables = [path for path in files if path.endswith((*TABLES, ".zip", ".gz"))]
    for path in draw(st.lists(st.sampled_from(tables * 5 + list(files)), min_size=1, max_size=3)):
        data = changed[path]
        start, end = sorted(int(len(data) * draw(st.floats(0, 1))) for _ in range(2))
        end = min(end, start + draw(st.sampled_from([1, 3, 40, 10_000])))
        turned = bytes(byte ^ 1 << draw(st.integers(0, 7)) for byte in data[start : min(end, start + 9)])
        added = draw(st.sampled_from([b"\0", b'"', b"\n", b",", b";", b"\xff\xfe", b"\xe9"]))
        other = changed[draw(st.sampled_from(sorted(files)))]
        changed[path] = draw(
            st.sampled_from(
                [
                    data[:start] + turned + data[start + len(turned) :],
                    data[:start] + data[end:],
                    data[:end] + data[start:],
                    data[:start],
                    data[:start] + added + data[start:],
                    other,
                ]
            )
        )
    return changed


@pytest.mark.parametrize("name", LAYOUTS)
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_damaged_source_is_accounted_for_or_refused(name, data, sources, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("CXR_PATIENT_SALT", SALT)
    root = tmp_path_factory.mktemp("damaged")
    for path, content in data.draw(damage(sources[name])).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    account_for(name, root)


def test_one_damaged_dicom_header_does_not_stop_a_source(tmp_path, monkeypatch):
    monkeypatch.setenv("CXR_PATIENT_SALT", SALT)
    write_hospital(tmp_path)
    film = tmp_path / "CANARY^ONE/1"
    film.write_bytes(film.read_bytes().replace(b"\2\0\2\0UI", b"\2\0\2\0PL"))  # no such value representation
    assert len(list(READERS["dicom"](Tree(tmp_path), params("dicom")))) > 10
    account_for("dicom", tmp_path)


def account_for(name: str, root: Path) -> None:
    """Every file is one item, tables maybe none; no path stands for two images."""
    try:
        items = list(READERS[name](Tree(root), params(name)))
    except SourceError:
        return
    images = [item.path for item in items if isinstance(item, Found)]
    assert len(images) == len(set(images))
    of_files = Counter(item.path for item in items if isinstance(item, Found) or item.reason not in ROW_REASONS)
    walked = [member.path for member in Tree(root).walk()]
    files = [path for path in walked if not path.endswith(TABLES)]
    if name == "dicom":  # its paths are hashes
        assert len(files) <= of_files.total() <= len(walked)
    else:
        assert all(of_files.pop(path) == 1 for path in files)
        assert set(of_files) <= set(walked)
        assert of_files.total() == len(of_files)


def write_hostile(raw: Path) -> None:
    """Kermany's layout with all that is wrong at once, and three good films."""
    place = raw / "chest_xray/train/NORMAL"
    place.mkdir(parents=True)
    film = encode(picture(1, 0.5), ".jpg")
    files = {
        "IM-0001-0001.jpeg": film,
        "IM-0002-0001.jpeg": encode(picture(2, 0.5), ".png"),
        "IM-0003-0001.jpeg": film[:-200],
        "IM-0004-0001.jpeg": b"",
        "IM-0005-0001.png": black_png(1, 1),
        "IM-0006-0001.png": black_png(30_000, 30_000, pixels=b""),
        "IM-0007-0001.png": black_png(64, 64, pixels=zeros(2100)),
        "IM-0008-0001.png": black_png(64, 64, *[chunk(b"zTXt", b"a\0\0" + zeros(1))] * 2500),
        "IM-0009-0001.jpeg": progressive_jpeg(400, 500),
        "IM-0010-0001.png": b"GIF89a",
        "IM-0011-0001.png": b"<html>Sign in</html>",
        "IM-0012-0001.png": zip_of({"x.png": film}),
        os.fsdecode(b"IM-0013-0001-\xe9.jpeg"): film + b"13",
        "IM-0014-0001\n.jpeg": b"",
        "notes.txt": b"hello",
    }
    for name, data in files.items():
        (place / name).write_bytes(data)
    os.mkfifo(place / "IM-0015-0001.png")
    (place / "IM-0016-0001.png").symlink_to("/absent")
    (place / "IM-0017-0001.png").symlink_to("/dev/zero")
    (place / "again").symlink_to(raw)
    with open(place / "IM-0018-0001.png", "wb") as file:
        file.truncate(300_000_000)
    (raw / "a.tar.gz").write_bytes(
        tar_of({"train/NORMAL/IM-0019-0001.jpeg": film + b"19", "../train/NORMAL/IM-0020-0001.jpeg": film})
    )
    names = {f"chest_xray/train/NORMAL/IM-00{n}-0001.jpeg": film for n in ("01", "21", "22")}
    data = bytearray(zip_of(names | {"train/NORMAL/IM-0023-0001.jpeg": b"data" * 100}, zipfile.ZIP_STORED))
    data[data.find(b"data") + 1] = 0
    (raw / "b.zip").write_bytes(data)


def test_ingest_accounts_for_everything_in_a_hostile_source(params: Params, tmp_path: Path, capfd):
    repository = Repository(tmp_path)
    raw = tmp_path / "data/raw/kermany"
    write_hostile(raw)
    repository.ingest("kermany", params)
    records = read_table(repository.images / "kermany/records.parquet", RECORD_COLUMNS)
    rejected = pd.read_csv(repository.images / "kermany/rejected.csv", keep_default_na=False)
    used = set(records["image_id"].str.removeprefix("kermany/"))
    walked = [member.path for member in Tree(raw).walk()]
    assert used | set(rejected["path"]) == set(walked)
    assert len(used) + len(rejected) == len(walked) == len(set(walked))
    names = {path.rpartition("/")[2][:7] for path in used}
    assert names == {"IM-0001", "IM-0002", "IM-0013", "IM-0019", "IM-0021", "IM-0022"}
    assert (rejected["reason"] != "").all()
