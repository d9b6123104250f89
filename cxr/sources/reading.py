"""What readers have in common: the values they yield, and tables read without guessing."""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from cxr.archives import Member
from cxr.errors import SourceError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm")


@dataclass(frozen=True)
class Found:
    """One image with what its source says of it; None where the source does not say."""

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


@dataclass(frozen=True)
class SetAside:
    """A file or row that gives no record. `reason` is one of few, `detail` is for the person who looks it up."""

    path: str
    reason: str
    detail: str = ""


def is_image(path: str) -> bool:
    pure = PurePosixPath(path)
    return pure.suffix.lower() in IMAGE_SUFFIXES and not pure.name.startswith("._") and "__MACOSX" not in pure.parts


def not_an_image(path: str) -> SetAside:
    return SetAside(path, "not an image file")


def read_csv(member: Member, needed: Iterable[str]) -> list[dict[str, str]]:
    """Rows of a CSV in UTF-8 (with or without BOM) or Windows-1252, cells stripped.

    Raises SourceError where a needed column is missing.
    """
    data = member.read()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")
    reader = csv.DictReader(io.StringIO(text, newline=""))
    columns = reader.fieldnames or []
    missing = [name for name in needed if name not in columns]
    if missing:
        raise SourceError(f"{member.path}: no column {', '.join(missing)}; found {', '.join(columns) or 'nothing'}")
    return [{key: (value or "").strip() for key, value in row.items() if isinstance(key, str)} for row in reader]


def age(text: str) -> float | None:
    """Years from a cell such as `57`, `057Y` or `50+`; None where it is no age of a person."""
    digits = text.rstrip("Yy+ ")
    try:
        years = float(digits)
    except ValueError:
        return None
    return years if 0 <= years <= 120 else None


def sex(text: str) -> str | None:
    return text.upper() if text.upper() in ("M", "F", "O") else None
