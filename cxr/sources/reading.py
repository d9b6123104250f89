"""What readers have in common: the values they yield, and tables read without guessing."""

import codecs
import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import PurePosixPath
from sys import intern
from typing import Any, BinaryIO

from pydicom import Dataset

from cxr.errors import ImageError, SourceError
from cxr.pixels.dicom import is_dicom, read_tags, text_of
from cxr.pixels.stated import NO_FRONTAL_FILM, Stated
from cxr.raw.archives import MAX_FILE_BYTES, Member
from cxr.tasks import Region
from cxr.words import NOT_STATED, SexMeaning, ViewMeaning, age_of, sex_of, shown

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")
GZIP = b"\x1f\x8b"
SEPARATORS = (",", ";", "\t")  # of a table; Excel writes ; where , stands in numbers
FRONTAL = ("PA", "AP")

SPLITS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validate": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
NOT_FRONTAL = "not a frontal view"
VIEW_NOT_STATED = "view position not stated"
UNREAD = " not understood"  # ends each reason of this kind
VIEW_UNREAD, AGE_UNREAD, SEX_UNREAD = f"view position{UNREAD}", f"age{UNREAD}", f"sex{UNREAD}"
OF_A_CELL = (AGE_UNREAD, SEX_UNREAD)  # the image of such a line is used


@dataclass(frozen=True)
class Found:
    """One image with what its source says of it; None where the source does not say.

    `region`: what of the image its mask shows. The mask is the file `mask`, or else the `boxes`, of which there may be
    none.
    """

    path: str
    member: Member = field(compare=False, repr=False)
    patient_id: str
    findings: str
    view_position: str | None = None
    age_years: float | None = None
    sex: str | None = None
    laterality: str | None = None
    published_split: str | None = None
    licence: str | None = None
    boxes: str | None = None
    region: Region | None = None
    mask: Member | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class SetAside:
    """A file or row that gives no record. `reason` is one of few, `detail` is for the person who looks it up."""

    path: str
    reason: str
    detail: str = ""


def is_image(path: str) -> bool:
    pure = PurePosixPath(path)
    return pure.suffix.lower() in IMAGE_SUFFIXES and not pure.name.startswith("._") and "__MACOSX" not in pure.parts


def ends_with(path: str, ending: str) -> bool:
    """Whether `path` is `ending`, or ends in it after a folder: where an origin lands below the source may differ."""
    return path == ending or path.endswith(f"/{ending}")


def not_an_image(path: str) -> SetAside:
    return SetAside(path, "not an image file")


class Row(dict[str, str]):
    """One row of a table: column -> cell, stripped. `fault` says why its cells are left empty."""

    __slots__ = ("fault", "number", "table")

    def __init__(self, columns: list[str], cells: list[str], table: str, number: int, fault: str = "") -> None:
        super().__init__(zip(columns, [""] * len(columns) if fault else cells))  # noqa: B905  # cells may be more
        self.table = table
        self.number = number
        self.fault = fault

    @property
    def where(self) -> str:
        return f"{self.table} row {self.number}"


def read_text(member: Member) -> str:
    """A text in UTF-8, in UTF-16 with a byte order mark, or in Windows-1252. Raises SourceError for what is no text."""
    return _open_text(member).read()


def _open_text(member: Member) -> io.TextIOWrapper:
    try:
        data = member.read()
    except ImageError as error:
        raise SourceError(f"{member.path}: this text cannot be read: {error}") from None
    if data.startswith(GZIP) and member.path.lower().endswith(".gz"):
        data = _unpacked(member.path, data)
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        encoding = "cp1252" if encoding == "utf-8-sig" else encoding
        text = data.decode(encoding, errors="replace")
    if "\0" in text:
        raise SourceError(
            f"{member.path}: NUL characters in a text; is it damaged, or UTF-16 without a byte order mark?"
        )
    # decoded twice, since io.StringIO takes four bytes a character
    return io.TextIOWrapper(io.BytesIO(data), encoding, errors="replace", newline="")


def _unpacked(path: str, data: bytes) -> bytes:
    """What a gzip file holds. Raises SourceError for a broken one, and for one that holds more than any table."""
    try:
        with gzip.open(io.BytesIO(data)) as file:
            whole = file.read(MAX_FILE_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{path}: not a whole gzip file ({error}); fetch it again") from None
    if len(whole) > MAX_FILE_BYTES:
        raise SourceError(f"{path}: unpacks to more than {MAX_FILE_BYTES:,} bytes; is this a table?")
    return whole


def read_csv(member: Member, needed: Iterable[str]) -> list[Row]:
    """Every row of a CSV, separated by whichever of , ; and tab gives the `needed` columns; see `by_key`.

    Rows are numbered as in a spreadsheet: the header is row 1. Raises SourceError where a needed column is missing, two
    columns have one name, or an open quote hides which rows there are.
    """
    columns, reader = _read_header_row(member.path, _open_text(member), list(needed))
    # NIH's boxes have cells for the named columns alone
    named = max((place for place, name in enumerate(columns, 1) if name), default=0)
    rows = []
    for number in count(2):
        line, fault = reader.line_num, ""
        try:
            cells = [intern(cell.strip()) for cell in next(reader)]  # most cells of a column are few words
        except StopIteration:
            break
        except csv.Error as error:
            if reader.line_num > line + 1 or "unexpected end" in str(error):
                raise SourceError(
                    f"{member.path} row {number}: a quote is opened and not closed ({error}); mend the table"
                ) from None
            cells, fault = [], str(error)
        if not fault and not any(cells):  # an empty line
            continue
        if not fault and (len(cells) < named or any(cells[len(columns) :])):
            fault = f"{len(cells)} cells under {len(columns)} columns"
        rows.append(Row(columns, cells, member.path, number, fault))
    return rows


def _read_header_row(path: str, lines: io.TextIOWrapper, needed: list[str]) -> tuple[list[str], Any]:
    """The columns, and a reader of the rows below them."""
    found: list[str] = []
    for separator in SEPARATORS:
        lines.seek(0)
        reader = csv.reader(lines, delimiter=separator, strict=True)
        try:
            columns = [name.strip() for name in next(reader, [])]
        except csv.Error as error:
            raise SourceError(f"{path}: the header cannot be read ({error}); is this a table?") from None
        twice = sorted(name for name, times in Counter(columns).items() if name and times > 1)
        if set(needed) <= set(columns):
            if twice:
                raise SourceError(f"{path}: two columns are named {', '.join(twice)}; rename one")
            return columns, reader
        found = max(found, columns, key=len)
    missing = [name for name in needed if name not in found]
    shown = ", ".join(filter(None, found))[:500].encode("unicode_escape").decode()
    raise SourceError(f"{path}: no column {', '.join(missing)}; found {shown or 'nothing'}")


def grouped(rows: Iterable[Row], key: Callable[[Row], str]) -> tuple[dict[str, list[Row]], list[SetAside]]:
    """Rows by their key, and the rows that cannot be read or have none."""
    groups: dict[str, list[Row]] = {}
    left_out = []
    for row in rows:
        if row.fault:
            left_out.append(SetAside(row.where, "unreadable row", row.fault))
        elif not key(row):
            left_out.append(SetAside(row.where, "row without a name"))
        else:
            groups.setdefault(key(row), []).append(row)
    return groups, left_out


def by_key(
    rows: Iterable[Row], key: Callable[[Row], str], said: Iterable[str], shown: Callable[[str], str] = str
) -> tuple[dict[str, Row], list[SetAside]]:
    """One row for each key, and the rows that cannot be used. Repeated rows of a key are among the latter.

    If the rows of a key differ in the columns `said`, all of them are set aside: nobody can tell which one is right.
    `shown`: how a key may be named in reports.
    """
    groups, left_out = grouped(rows, key)
    kept = {}
    for name, same in groups.items():
        if len({tuple(row.get(column) for column in said) for row in same}) > 1:
            left_out += [SetAside(shown(name), "rows contradict each other", row.where) for row in same]
        else:
            kept[name] = same[0]
            left_out += [SetAside(shown(name), "row repeated", row.where) for row in same[1:]]
    return kept, left_out


def with_header(member: Member, tags: list[str]) -> tuple[Member, Dataset | None]:
    """The member to read the bytes from, and the named elements of its DICOM header, None where it is no DICOM.

    Of a file of its own only the header is read. An archive gives its bytes once, so the member keeps them.
    Raises ImageError for a broken header.
    """
    if member.is_loose:
        with open(member.file, "rb") as file:
            return member, _read_header(file, tags)
    data = member.read()
    return replace(member, read=lambda: data), _read_header(io.BytesIO(data), tags)


def _read_header(file: BinaryIO, tags: list[str]) -> Dataset | None:
    start = file.read(132)
    file.seek(0)
    return read_tags(file, tags) if is_dicom(start) else None


def age(text: str) -> float | None:
    """Years from a cell; None where none is stated or understood, see `cxr.words`."""
    years = age_of(text)
    return years if isinstance(years, float) else None


def sex(text: str) -> str | None:
    """M, F or O as in DICOM; None where none is stated or understood."""
    meaning = sex_of(text)
    return None if meaning == NOT_STATED else meaning


def cell_faults(
    where: str, age_cell: str, sex_cell: str, sex_words: Mapping[str, SexMeaning] | None = None
) -> Iterator[SetAside]:
    """What is stated of the age and the sex and not understood. The image is used; only the cell is left out."""
    if age_of(age_cell) is None:
        yield SetAside(where, AGE_UNREAD, shown(age_cell))
    if sex_of(sex_cell, sex_words) is None:
        yield SetAside(where, SEX_UNREAD, shown(sex_cell))


def stated_view(meaning: ViewMeaning | None) -> str | None:
    """PA or AP; None where a frontal view does not say which."""
    return meaning if meaning in FRONTAL else None


def view_fault(path: str, meaning: ViewMeaning | None, text: str) -> SetAside | None:
    """Why an image whose table says `text` of its view is left out; None for a frontal view.

    `meaning`: see `cxr.words.view_of`.
    """
    if meaning is None:
        return SetAside(path, VIEW_UNREAD, shown(text))
    if meaning == NOT_STATED:
        return SetAside(path, VIEW_NOT_STATED)
    return SetAside(path, NOT_FRONTAL, f"view {shown(text)}") if meaning == "other" else None


def frontal_fault(path: str, header: Dataset, stated: Stated) -> SetAside | None:
    """What a DICOM header has against a frontal chest film, None for PA and AP. Only known words are quoted."""
    if stated.not_frontal:
        reason = NO_FRONTAL_FILM if stated.view_position in FRONTAL else NOT_FRONTAL
        return SetAside(path, reason, stated.not_frontal)
    if stated.view_position:
        return None
    if not text_of(header, "ViewPosition"):
        return SetAside(path, VIEW_NOT_STATED)
    return SetAside(path, NOT_FRONTAL, "ViewPosition holds none of DICOM's words")
