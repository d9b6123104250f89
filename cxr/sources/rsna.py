"""RSNA Pneumonia Detection Challenge 2018 (Shih et al. 2019), as on Kaggle (stage 2).

26,684 labelled frontal radiographs as DICOM (JPEG, 1024 x 1024), chosen from NIH ChestX-ray14; `stage_2_test_images`
have no published labels. Read and boxed by 18 radiologists, part of the images by three: Lung Opacity (boxed), Normal,
or No Lung Opacity / Not Normal. RSNA's terms of use: any purpose, with attribution.
Known faults: `patientId` names the image, not the patient, so a patient's images look like several patients; where
RSNA's own pneumonia-challenge-dataset-mappings_2018.json lies beside the tables, NIH's patient number is taken from it.
Rows of the class table are repeated for each box; a few ages are impossible; every image is in ChestX-ray14 too.
Cite: Shih G et al., Radiol Artif Intell 1 (2019) e180041; Wang X et al., CVPR 2017, 3462-3471.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from pathlib import PurePosixPath

from cxr.errors import ImageError, SourceError
from cxr.params import PublishedSource
from cxr.pixels.dicom import silence
from cxr.pixels.stated import STATED_TAGS, read_stated
from cxr.raw.archives import Member, Tree
from cxr.sources.reading import (
    Found,
    Row,
    SetAside,
    frontal_fault,
    grouped,
    is_image,
    not_an_image,
    read_csv,
    read_text,
    with_header,
)

LABELS = "stage_2_train_labels.csv"
CLASSES = "stage_2_detailed_class_info.csv"
MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"
LABEL_COLUMNS = ("patientId", "x", "y", "width", "height", "Target")
CLASS_COLUMNS = ("patientId", "class")


@dataclass(frozen=True)
class Tables:
    """By patientId, which is an image: its rows in the two tables, and its patient. `left_out`: rows of no use."""

    classes: dict[str, list[Row]]
    labels: dict[str, list[Row]]
    patients: dict[str, str]
    left_out: list[SetAside]


def read(tree: Tree, params: PublishedSource) -> Iterator[Found | SetAside]:
    silence()
    tables = _read_tables(tree)
    yield from tables.left_out
    named = tables.classes | tables.labels
    seen = set()
    for member in tree.walk():
        path = PurePosixPath(member.path)
        if path.name in (LABELS, CLASSES, MAPPING):
            continue
        if not is_image(member.path):
            yield not_an_image(member.path)
        elif path.stem not in named:
            unlabelled = "stage_2_test_images" in path.parts
            yield SetAside(member.path, "no published label" if unlabelled else "image without a row")
        else:
            seen.add(path.stem)
            yield _read_image(member, path.stem, tables)
    for name in named:
        if name not in seen:
            yield SetAside(name, "row without an image")


def _read_image(member: Member, name: str, tables: Tables) -> Found | SetAside:
    if name not in tables.classes:
        return SetAside(member.path, "no class stated", f"no row in {CLASSES}")
    try:
        boxes = [_box(row) for row in tables.labels.get(name, []) if row["Target"] != "0"]
    except ValueError:
        return SetAside(member.path, "boxes that cannot be read", f"x, y, width, height in {LABELS} are no numbers")
    try:
        member, header = with_header(member, STATED_TAGS)
    except ImageError as error:
        return SetAside(member.path, "unreadable image", str(error))
    if header is None:
        return SetAside(member.path, "unreadable image", "not a DICOM file")
    stated = read_stated(header)
    return frontal_fault(member.path, header, stated) or Found(
        path=member.path,
        member=member,
        patient_id=tables.patients.get(name, name),
        findings="|".join(dict.fromkeys(row["class"] for row in tables.classes[name])),
        view_position=stated.view_position,
        age_years=stated.age_years,
        sex=stated.sex,
        licence="RSNA terms of use, attribution",
        boxes=json.dumps(boxes) if boxes else None,
        region="opacities",  # of all images: where there is no box, radiologists looked for opacities and saw none
    )


def _read_tables(tree: Tree) -> Tables:
    rows: dict[str, list[Row]] = {}
    patients: dict[str, str] = {}
    for member in tree.walk():
        name = PurePosixPath(member.path).name
        if name == CLASSES:
            rows[name] = read_csv(member, CLASS_COLUMNS)
        elif name == LABELS:
            rows[name] = read_csv(member, LABEL_COLUMNS)
        elif name == MAPPING:
            patients = _read_mapping(member)
    missing = [name for name in (LABELS, CLASSES) if name not in rows]
    if missing:
        raise SourceError(f"{tree.root}: no {' or '.join(missing)}; Kaggle publishes both beside the images")
    classes, unclassed = grouped(rows[CLASSES], itemgetter("patientId"))
    labels, unlabelled = grouped(rows[LABELS], itemgetter("patientId"))
    return Tables(classes, labels, patients, unclassed + unlabelled)


def _box(row: Row) -> list[float]:
    """x, y, width, height in pixels, without the `.0` that the table adds to whole numbers."""
    sides = [float(row[side]) for side in ("x", "y", "width", "height")]
    return [int(side) if side.is_integer() else side for side in sides]


def _read_mapping(member: Member) -> dict[str, str]:
    """NIH's patient number of each image; it stands in NIH's file name, `00012345_000.png`."""
    try:
        pairs = [(entry["subset_img_id"], entry["img_id"]) for entry in json.loads(read_text(member))]
        return {name: f"nih-{int(image.partition('_')[0])}" for name, image in pairs}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise SourceError(f"{member.path}: not RSNA's list of subset_img_id and img_id; fetch it again") from None
