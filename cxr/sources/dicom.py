"""A hospital's own DICOM files, labelled by a CSV; view, age, sex and laterality are read from the headers.

Files are known by their content, whatever their names; what is no DICOM, and a DICOMDIR, is set aside. Who made the
labels and how, and whom the images show, is for the owner to say.
Nothing that names a person leaves the source: a patient is the keyed hash (HMAC-SHA-256) of PatientID, a file that of
its path, since folders and files are often named after patients. The key is the secret CXR_PATIENT_SALT in the
environment; without it nobody finds a patient's number by trying all of them. Ages above 89 become 90 (HIPAA Safe
Harbor). A finding is copied only where all its words stand in `words`, so that no report slips through. The shards
themselves can still show names burned into the pixels: see docs/adding-a-source.md.
"""

import hashlib
import hmac
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from operator import itemgetter

from cxr.errors import ImageError, SourceError
from cxr.params import DicomSource
from cxr.pixels.dicom import silence, text_of
from cxr.pixels.stated import RADIOGRAPHY, STATED_TAGS, read_stated
from cxr.raw.archives import Member, Tree
from cxr.sources.reading import (
    Found,
    Row,
    SetAside,
    by_key,
    ends_with,
    frontal_fault,
    not_an_image,
    read_csv,
    with_header,
)

SALT = "CXR_PATIENT_SALT"
SALT_CHARACTERS = 32
LATERALITIES = ("L", "R", "U")
DICOMDIR = "1.2.840.10008.1.3.10"
TAGS = ["SOPInstanceUID", "AccessionNumber", "PatientID", "Rows", "ImageLaterality", "Laterality", *STATED_TAGS]


def read(tree: Tree, params: DicomSource) -> Iterator[Found | SetAside]:
    silence()
    salt = _read_salt()
    table, rows = _read_table(tree, params)
    rows, left_out = by_key(
        rows, itemgetter(params.key_column), (params.key_column, params.findings_column), partial(pseudonym, salt)
    )
    yield from left_out
    seen = set()
    folder = table.rpartition("/")[0]
    for member in _walk(tree):
        if member.path != table:
            place = member.path.removeprefix(f"{folder}/") if folder else member.path
            item, key = _read_file(member, place, rows, salt, params)
            seen.add(key)
            yield item
    for key in rows:
        if key not in seen:
            yield SetAside(pseudonym(salt, key), "row without an image")


def pseudonym(salt: bytes, name: str) -> str:
    """32 hexadecimal digits that stand for `name`; the same for the same name and salt, and no way back."""
    return hmac.new(salt, name.encode(errors="surrogateescape"), hashlib.sha256).hexdigest()[:32]


def _read_salt() -> bytes:
    salt = os.environ.get(SALT, "")
    if len(salt) < SALT_CHARACTERS:
        raise SourceError(
            f"{SALT}: {f'{len(salt)} characters' if salt else 'not set'} in the environment; the reader dicom needs a "
            f"secret of at least {SALT_CHARACTERS}, the same in every run (openssl rand -hex 32 makes one)"
        )
    return salt.encode()


@contextmanager
def _unnamed(sentence: str) -> Iterator[None]:
    """Errors of archives and tables quote names and cells, each of which may be a patient's."""
    try:
        yield
    except SourceError:
        raise SourceError(f"{sentence}; no name or cell is shown here, as it may name a patient") from None


def _walk(tree: Tree) -> Iterator[Member]:
    with _unnamed(f"{tree.root}: an archive cannot be read (unzip -t and tar -tf tell which)"):
        yield from tree.walk()


def _read_table(tree: Tree, params: DicomSource) -> tuple[str, list[Row]]:
    columns = params.key_column, params.findings_column
    tables = []
    for member in _walk(tree):
        if ends_with(member.path, params.table):
            with _unnamed(f"{tree.root}: {params.table} cannot be read as a table with {' and '.join(columns)}"):
                tables.append((member.path, read_csv(member, columns)))
    if len(tables) != 1:
        raise SourceError(f"{tree.root}: {len(tables) or 'no'} files {params.table}; `table` must name exactly one")
    return tables[0]


def _read_file(
    member: Member, place: str, rows: dict[str, Row], salt: bytes, params: DicomSource
) -> tuple[Found | SetAside, str | None]:
    """What one file gives, and the key of the row that speaks of it. `place`: its path from the table's folder on."""
    path = pseudonym(salt, member.path)
    try:
        with _unnamed("a member of an archive cannot be read (unzip -t and tar -tf tell which)"):
            member, header = with_header(member, TAGS)
    except ImageError as error:
        return SetAside(path, "unreadable image", str(error)), None
    if header is None:
        return not_an_image(path), None
    if text_of(header.file_meta, "MediaStorageSOPClassUID") == DICOMDIR or not text_of(header, "Rows"):
        return SetAside(path, "not an image file", "DICOM without pixels"), None
    key = place if params.key == "path" else text_of(header, params.key)
    row = rows.get(key)
    if row is None:
        return SetAside(path, "image without a row"), None
    patient = text_of(header, "PatientID")
    stated = read_stated(header)
    findings = row[params.findings_column]
    laterality = text_of(header, "ImageLaterality") or text_of(header, "Laterality")
    if not patient:
        return SetAside(path, "no patient stated"), key
    if text_of(header, "Modality").upper() not in (*RADIOGRAPHY, ""):
        return SetAside(path, "not an X-ray"), key
    if not findings:
        return SetAside(path, "no finding stated"), key
    if not {word.strip() for word in re.split(r"[|,]", findings)} <= set(params.words):
        return SetAside(path, "finding not in words"), key
    if fault := frontal_fault(path, header, stated):
        return fault, key
    return Found(
        path=path,
        member=replace(member, path=path),
        patient_id=pseudonym(salt, patient),
        findings=findings,
        view_position=stated.view_position,
        age_years=stated.age_years,
        sex=stated.sex,
        laterality=laterality if laterality in LATERALITIES else None,
        licence=params.licence,
    ), key
